//! The supervisor's loop: signals, questions, what happens to roles.

use std::collections::BTreeMap;
use std::task::{Context, Waker};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Signal as KernelSignal, getpid, kill_process};
use sluice_schema::{Config, Mode, diff};
use sluice_wire::role::Role;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::banner::Banner;
use super::child::{Command, Frozen, Happening, Keeper, Wish};
use super::control::{self, Ask, Request};
use super::crew::Crew;
use super::hold::Hold;
use super::plan::Plan;
use super::reexec;
use super::renewal::{self, Job, Turns, turns_of};
use super::report::Report;
use super::sockets::tcp_of;
use super::{BACK_WITHIN, FRONT};
use crate::args::Up;
use crate::exit::{self, Code, Failure};
use crate::load;

/// How long `everything answers` may take before it is said who is late. A sealed vault waits for
/// an operator, and a long log takes its time: nobody is ended for it.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// For a retired process to finish what is open, where no configuration says it.
const RETIRE_WITHIN: Duration = Duration::from_secs(30);
/// For a keeper to let go of its role, and for what it does just then.
const FROZEN_WITHIN: Duration = Duration::from_secs(15);
/// For what was logged to be written before the process becomes another one.
const LOG_WRITTEN: Duration = Duration::from_millis(20);
/// Commands that wait for one keeper.
const COMMANDS_MAX: usize = 4;
/// LIMIT: reloads that wait for an upgrade.
const RELOADS_PUT_OFF_MAX: usize = 8;

/// The signals that a supervisor listens to.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    reload: Signal,
    upgrade: Signal,
}

impl Signals {
    /// From now on they do not end the process.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind, name| signal(kind).with_context(|| format!("cannot listen for {name}"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt(), "ctrl-C")?,
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            reload: listen(SignalKind::hangup(), "SIGHUP")?,
            upgrade: listen(SignalKind::user_defined2(), "SIGUSR2")?,
        })
    }

    /// Sends those that came and were not looked at once more: held, they wait for the program that this
    /// process is about to become.
    fn pass_on(&mut self) {
        let Self { interrupt, terminate, reload, upgrade } = self;
        let mut cx = Context::from_waker(Waker::noop());
        let came = [
            (interrupt, KernelSignal::INT),
            (terminate, KernelSignal::TERM),
            (reload, KernelSignal::HUP),
            (upgrade, KernelSignal::USR2),
        ];
        for (listener, signal) in came {
            if listener.poll_recv(&mut cx).is_ready() {
                let _cannot_fail = kill_process(getpid(), signal);
            }
        }
    }
}

/// Runs until it is told to end.
pub(crate) async fn run(
    plan: Plan,
    mut signals: Signals,
    args: &Up,
    started: std::time::Instant,
) -> Result<Code, Failure> {
    let (said, mut hear) = mpsc::channel(64);
    let (jobs, mut next_job) = mpsc::channel(4);
    let (ask, mut requests) = mpsc::channel(4);
    let asked = tokio::spawn(control::listen(plan.door.try_clone().context("cannot be asked")?, ask));
    let mut supervisor = Supervisor::new(plan, args, said, jobs);
    supervisor.start()?;
    if let Some(report) = supervisor.plan.unfinished.take() {
        report.say("the supervisor runs the new binary");
        supervisor.renew_all(report);
    }
    let late = sleep(READY_WITHIN);
    tokio::pin!(late);
    let code = loop {
        tokio::select! {
            Some(happening) = hear.recv() => supervisor.crew.note(happening),
            _ = signals.interrupt.recv() => break exit::INTERRUPTED,
            _ = signals.terminate.recv() => break exit::OK,
            _ = signals.reload.recv() => supervisor.reload(Report::to_log()),
            _ = signals.upgrade.recv() => {
                supervisor.take(Request { ask: Ask::Upgrade { role: None }, report: Report::to_log() });
            }
            Some(request) = requests.recv() => supervisor.take(request),
            Some(job) = next_job.recv() => supervisor.follow_up(job, &mut signals).await?,
            () = &mut late, if !supervisor.crew.announced && !late.is_elapsed() => {
                supervisor.crew.tell_who_is_late();
            }
            () = sleep(Duration::from_millis(20)), if supervisor.crew.is_complete() => {
                supervisor.announce(started).await;
            }
        }
    };
    asked.abort();
    supervisor.end(hear, &mut signals).await;
    Ok(code)
}

struct Supervisor<'a> {
    plan: Plan,
    args: &'a Up,
    crew: Crew,
    wishes: BTreeMap<Role, watch::Sender<Wish>>,
    /// The time each role is given to end.
    within: BTreeMap<Role, Duration>,
    keepers: BTreeMap<Role, mpsc::Sender<Command>>,
    roles: JoinSet<()>,
    said: mpsc::Sender<Happening>,
    jobs: mpsc::Sender<Job>,
    reloads: u32,
    /// An upgrade is under way.
    busy: bool,
    /// Reloads that wait for it to be over.
    later: Vec<Report>,
}

impl<'a> Supervisor<'a> {
    fn new(plan: Plan, args: &'a Up, said: mpsc::Sender<Happening>, jobs: mpsc::Sender<Job>) -> Self {
        let expected = plan.roles.iter().map(|frozen| frozen.recipe.role).collect();
        let crew = Crew { ready: plan.ready.clone(), expected, announced: plan.announced };
        let within = |frozen: &Frozen| {
            (frozen.recipe.role, Duration::from_millis(frozen.recipe.handoff.end_within_ms))
        };
        Self {
            within: plan.roles.iter().map(within).collect(),
            plan,
            args,
            crew,
            wishes: BTreeMap::new(),
            keepers: BTreeMap::new(),
            roles: JoinSet::new(),
            said,
            jobs,
            reloads: 0,
            busy: false,
            later: Vec::new(),
        }
    }

    /// A keeper for every role of the plan.
    fn start(&mut self) -> anyhow::Result<()> {
        for frozen in std::mem::take(&mut self.plan.roles) {
            let role = frozen.recipe.role;
            let (wish, wished) = watch::channel(Wish::Run);
            let (command, commands) = mpsc::channel(COMMANDS_MAX);
            let keeper = match frozen {
                Frozen { recipe, life: None, retirees, .. } if retirees.is_empty() => {
                    Keeper::new(recipe, wished, commands, self.said.clone())
                }
                frozen => Keeper::thaw(frozen, wished, commands, self.said.clone())?,
            };
            self.wishes.insert(role, wish);
            self.keepers.insert(role, command);
            self.roles.spawn(keeper.keep());
        }
        Ok(())
    }

    fn take(&mut self, request: Request) {
        let Request { ask, report } = request;
        match ask {
            Ask::Reload => self.reload(report),
            Ask::Upgrade { .. } if self.busy => {
                report.close(Err("another upgrade is under way".to_owned()));
            }
            Ask::Upgrade { role: None } => {
                self.busy = true;
                tokio::spawn(renewal::everything(self.plan.program.clone(), report, self.jobs.clone()));
            }
            Ask::Upgrade { role: Some(role) } if self.keepers.contains_key(&role) => {
                let turns = turns_of(&self.keepers, |known| known == role, |_| None);
                self.renew(turns, true, Some(self.plan.program.clone()), report);
            }
            Ask::Upgrade { role: Some(role) } => {
                report.close(Err(format!("{role} does not run here")));
            }
        }
    }

    /// Every role, by the binary that this supervisor runs since a moment.
    fn renew_all(&mut self, report: Report) {
        // The configuration was read anew with the program: addresses that changed since are taken now or never.
        let config = self.plan.config.as_ref();
        let turns = turns_of(&self.keepers, |_| true, |role| config.map(|config| tcp_of(role, config)));
        self.renew(turns, false, Some(self.plan.program.clone()), report);
    }

    fn renew(
        &mut self,
        turns: Vec<renewal::Turn>,
        check: bool,
        program: Option<std::path::PathBuf>,
        report: Report,
    ) {
        self.busy = true;
        let retire_within = self.plan.config.as_ref().map_or(RETIRE_WITHIN, |config| config.drain.deadline);
        let turns = Turns { each: turns, program, retire_within };
        tokio::spawn(renewal::roles(turns, check, report, self.jobs.clone()));
    }

    async fn follow_up(&mut self, job: Job, signals: &mut Signals) -> anyhow::Result<()> {
        self.busy = false;
        match job {
            Job::Over => {
                for report in std::mem::take(&mut self.later) {
                    self.reload(report);
                }
                Ok(())
            }
            Job::Become { report, holds } => {
                let hold = holds.then(Hold::take);
                self.leave_reloads(hold.is_some());
                // Dropped at the end: what came meanwhile is this program's again where it did not go.
                self.become_successor(report, hold.as_ref().map(|_| signals)).await
            }
        }
    }

    /// Lets every role run on and becomes the new program; takes everything back where that fails.
    /// `held`: signals that come from now on wait in the kernel for the new program.
    async fn become_successor(&mut self, report: Report, held: Option<&mut Signals>) -> anyhow::Result<()> {
        report.say("the supervisor becomes the new binary; every role runs on");
        let keepers = std::mem::take(&mut self.keepers);
        for (role, keeper) in keepers {
            let (reply, frozen) = oneshot::channel();
            let asked = keeper.send(Command::Freeze(reply)).await;
            match timeout(FROZEN_WITHIN, frozen).await {
                Ok(Ok(frozen)) if asked.is_ok() => self.plan.roles.push(frozen),
                _ => anyhow::bail!("the keeper of {role} is gone"),
            }
        }
        while self.roles.join_next().await.is_some() {}
        self.plan.ready.clone_from(&self.crew.ready);
        self.plan.announced = self.crew.announced;
        sleep(LOG_WRITTEN).await;
        if let Some(signals) = held {
            signals.pass_on();
        }
        let (report, error) = reexec::become_successor(&self.plan, report);
        report.close(Err(format!("{error:#}")));
        self.start()
    }

    /// Validates once; a good configuration is told to every role, and what a role takes only at its start
    /// starts it anew. A bad one changes nothing.
    fn reload(&mut self, report: Report) {
        let config = match self.load() {
            Ok(config) => config,
            Err(why) => return report.close(Err(format!("configuration refused: {why}"))),
        };
        let restart = self.plan.config.as_ref().map(|old| diff(old, &config).restarts()).unwrap_or_default();
        if !restart.is_empty() && self.busy {
            return self.put_off(report);
        }
        self.reloads = self.reloads.wrapping_add(1);
        for wish in self.wishes.values() {
            wish.send_replace(Wish::Reload(self.reloads));
        }
        let turns =
            turns_of(&self.keepers, |role| restart.contains(&role), |role| Some(tcp_of(role, &config)));
        self.plan.config = Some(config);
        if turns.is_empty() {
            return report.close(Ok("reloaded".to_owned()));
        }
        self.renew(turns, false, None, report);
    }

    /// What starts roles anew waits while others are renewed: a signal must not be lost to that.
    fn put_off(&mut self, report: Report) {
        if self.later.len() == RELOADS_PUT_OFF_MAX {
            return report.close(Err("an upgrade is under way; reload again when it is done".to_owned()));
        }
        report.say("an upgrade is under way, the reload follows it");
        self.later.push(report);
    }

    /// Hands the reloads that wait to the program that this process is about to become.
    fn leave_reloads(&mut self, is_held: bool) {
        if is_held && !self.later.is_empty() {
            let _cannot_fail = kill_process(getpid(), KernelSignal::HUP);
        }
        for report in self.later.drain(..) {
            report.close(if is_held {
                Ok("the new binary reloads".to_owned())
            } else {
                Err("the supervisor becomes a new binary; reload again when it runs".to_owned())
            });
        }
    }

    fn load(&self) -> Result<Config, String> {
        let common = &self.args.common;
        let now_unix_s = Some(load::now_unix_s());
        let mode = Mode { dev: common.dev, secrets_required: false, now_unix_s, ..Mode::default() };
        let loaded = load::read(&common.conf, &load::environment(), mode);
        let mut config = loaded.map_err(|report| report.render(false))?.config;
        config.port_offset(self.plan.offset).map_err(|error| error.to_string())?;
        Ok(config)
    }

    async fn announce(&mut self, started: std::time::Instant) {
        let (data_dir, dev) = (&self.plan.data_dir, self.args.common.dev);
        if let Some(banner) = self.crew.banner(data_dir, dev, started).await {
            let config = self.plan.config.as_ref();
            let redis = config.and_then(Config::event_redis).map(|url| url.to_string());
            print(&banner.stored_in(redis), self.args);
            self.crew.announced = true;
        }
    }

    /// Ends the roles that face clients, then the others. Who asks once more waits for no client.
    async fn end(mut self, mut hear: mpsc::Receiver<Happening>, signals: &mut Signals) {
        let now = Instant::now();
        let within = |role: &Role| self.within.get(role).copied().unwrap_or(BACK_WITHIN);
        let mut front = 0;
        for (role, wish) in self.wishes.iter().filter(|(role, _)| FRONT.contains(role)) {
            front += 1;
            wish.send_replace(Wish::End { by: now + within(role) });
        }
        drop(self.said);
        while front > 0 {
            let happening = tokio::select! {
                happening = hear.recv() => happening,
                _ = signals.interrupt.recv() => break,
                _ = signals.terminate.recv() => break,
            };
            match happening {
                Some(Happening::Ended) => front -= 1,
                Some(_) => {}
                None => break,
            }
        }
        let by = Instant::now() + BACK_WITHIN;
        for (role, wish) in &self.wishes {
            let hurried = front > 0 && FRONT.contains(role);
            wish.send_replace(Wish::End { by: if hurried { Instant::now() } else { by } });
        }
        drop(hear);
        while self.roles.join_next().await.is_some() {}
    }
}

fn print(banner: &Banner, args: &Up) {
    let text = if args.json { banner.to_json() + "\n" } else { banner.to_text() };
    // Roles run whether or not their banner can be written.
    let _nobody_reads = crate::say::result(&text);
}
