//! `sluice-bench run`: starts everything, checks, measures, judges, writes the report.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

use crate::RunArgs;
use crate::check::{ask, equal_answer};
use crate::compare::Baseline;
use crate::forms::computes_rightly;
use crate::growth::Growth;
use crate::machine::{Machine, Neighbours};
use crate::process::{Guarded, allowed_cores, pin_thread, pin_thread_to};
use crate::program::{FETCH_LIMIT, Identity, Programs};
use crate::report::{Described, Figures, Report, SCHEMA, passed, ratios};
use crate::scenario::{Placing, Scenario, ScenarioError};
use crate::stored::{filled, holds_what_it_acknowledges};
use crate::subject::{Cores, Direct, PATH, Running, Site, StartError, Subject, spare_origin};
use crate::sweep::Climb;
use crate::threshold::judge;
use crate::tokens::Tokens;
use crate::transport::Papers;
use crate::vault::answers_rightly;
use crate::work::Work;
use crate::{choice, kernels, measure, origin, page, table};

/// Beyond the measured time: starting, checking and stopping every subject.
const OVERHEAD_MAX: Duration = Duration::from_secs(120);

/// How a command ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Passed,
    /// A check or threshold was missed.
    Missed,
    Interrupted,
}

/// Subjects that answer, and what the report says of all of them.
pub(crate) struct Fleet {
    pub running: Vec<(String, Running)>,
    pub described: Vec<Described>,
}

/// Signals that end a run early.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// What subjects are started with; its directory goes with it.
struct Stage {
    home: tempfile::TempDir,
    cores: Option<Cores>,
    tokens: Tokens,
    programs: Programs,
    papers: Option<Papers>,
}

/// Runs scenarios one after the other, as long as nobody breaks them off.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<Ended> {
    let names: Vec<_> = args.scenarios.iter().flat_map(|name| Scenario::named(name)).collect();
    if let ([_, _, ..], Some(_)) = (names.as_slice(), &args.compare) {
        return Err(ScenarioError::Range("--compare takes one scenario, not several".into()).into());
    }
    // A mistake shows before the first of them is measured.
    for name in names.iter().filter(|name| **name != kernels::NAME) {
        choice::made(name, args)?;
    }
    let (mut worst, mut broken) = (Ended::Passed, None);
    for name in names {
        match if name == kernels::NAME { kernels::run(args) } else { one(name, args) } {
            Ok(Ended::Interrupted) => return Ok(Ended::Interrupted),
            Ok(Ended::Missed) => worst = Ended::Missed,
            Ok(Ended::Passed) => {}
            // The others are measured all the same.
            Err(error) => {
                let error = error.context(name.to_owned());
                if let Some(earlier) = broken.replace(error) {
                    writeln!(std::io::stderr(), "sluice-bench: {earlier:#}")?;
                }
            }
        }
    }
    broken.map_or(Ok(worst), Err)
}

/// Runs a scenario to its end, a signal or its time limit; every child is gone afterwards.
fn one(name: &str, args: &RunArgs) -> anyhow::Result<Ended> {
    let (scenario, subjects) = choice::made(name, args)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    runtime.block_on(tasks.run_until(async {
        let signals = Signals::watch()?;
        let limit = time_limit(&scenario, args.fetch);
        let ended = tokio::time::timeout(limit, whole(args, scenario, &subjects, signals)).await;
        ended.with_context(|| format!("not done within {} s", limit.as_secs()))?
    }))
}

impl Signals {
    pub(crate) fn watch() -> std::io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Ready when somebody breaks the run off.
    pub(crate) async fn came(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// LIMIT: each run may need its drain besides its window; of each package, two tools may need their time.
pub(crate) fn time_limit(scenario: &Scenario, fetch: bool) -> Duration {
    let subjects = u32::from(scenario.work.is_forward()) + scenario.subjects.len() as u32;
    let climbs = scenario.sweep.map_or(0, |sweep| sweep.tries_max());
    let steps = scenario.growth.as_ref().map_or(0, |growth| growth.steps.len() as u32);
    let filling = scenario.growth.as_ref().map_or(Duration::ZERO, Growth::preparing);
    let runs = subjects * (scenario.paces().len() as u32 + climbs + steps) * scenario.repeats;
    let fetching = if fetch { 6 * FETCH_LIMIT } else { Duration::ZERO };
    let preparing = scenario.work.preparing() * subjects;
    OVERHEAD_MAX
        + filling
        + fetching
        + preparing
        + (scenario.warmup() + scenario.window() + Duration::from_secs(3)) * runs
}

async fn whole(
    args: &RunArgs,
    scenario: Scenario,
    subjects: &[Box<dyn Subject>],
    mut signals: Signals,
) -> anyhow::Result<Ended> {
    let mut opening = Opening::now(args.compare.as_deref(), &scenario)?;
    (opening.cores, opening.pinning_note) = match scenario.cores {
        Placing::Apart => split_cores(&allowed_cores()?),
        Placing::Shared => (None, Some(share_cores(&allowed_cores()?)?)),
    };
    let stage = Stage::set(args, opening.cores, &scenario)?;
    let fleet = tokio::select! {
        fleet = stage.start(&scenario, subjects) => fleet?,
        () = signals.came() => return Ok(Ended::Interrupted),
    };
    measured(opening, scenario, fleet, signals, &args.out).await
}

/// What is known before anything is measured.
pub(crate) struct Opening {
    began: Duration,
    began_at: Instant,
    machine: Machine,
    cores: Option<Cores>,
    pinning_note: Option<String>,
    baseline: Option<(PathBuf, Baseline)>,
}

impl Opening {
    /// Reads what is to be compared with, too: a mistake shows at once, and the report may overwrite it.
    pub(crate) fn now(compare: Option<&Path>, scenario: &Scenario) -> anyhow::Result<Self> {
        let baseline = match compare {
            Some(path) => Some((path.to_owned(), Baseline::load(path, scenario)?)),
            None => None,
        };
        Ok(Self {
            began: SystemTime::now().duration_since(UNIX_EPOCH)?,
            began_at: Instant::now(),
            machine: Machine::describe(allowed_cores()?.len()),
            cores: None,
            pinning_note: None,
            baseline,
        })
    }

    /// Says why nothing is pinned.
    pub(crate) fn unpinned(&mut self, why: &str) {
        self.pinning_note = Some(why.to_owned());
    }
}

/// Measures, judges and reports subjects that answer; they are stopped afterwards.
pub(crate) async fn measured(
    opening: Opening,
    scenario: Scenario,
    mut fleet: Fleet,
    mut signals: Signals,
    out: &Path,
) -> anyhow::Result<Ended> {
    let Opening { began, began_at, machine, cores, pinning_note, baseline } = opening;
    let neighbours = Neighbours::watch();
    let mut cells = measure::empty(&scenario, &fleet.running);
    let climbing = fleet.running.iter().filter(|_| scenario.sweep.is_some());
    let mut climbs: Vec<Climb> = climbing.map(|(name, _)| Climb::new(name)).collect();
    let mut ladders =
        scenario.growth.as_ref().map_or_else(Vec::new, |growth| growth.ladders(&scenario, &fleet.running));
    let measuring = async {
        measure::rounds(&scenario, &mut fleet.running, &mut cells).await?;
        measure::sweeps(&scenario, &mut fleet.running, &mut climbs).await?;
        measure::growths(&scenario, &mut fleet.running, &mut ladders).await
    };
    let interrupted = tokio::select! {
        done = measuring => done.map(|()| false)?,
        () = signals.came() => true,
    };
    let neighbours_cores = neighbours.and_then(|watch| watch.cores_used());
    let described = fleet.stop();
    // Of a run that is broken off, what was measured until then.
    cells.retain(|cell| !cell.runs.is_empty());
    let verdicts = judge(&scenario, &cells, &climbs, &ladders);
    let figures: Vec<_> = cells.iter().map(Figures::of).collect();
    let sweeps: Vec<_> = climbs.iter().map(Climb::told).collect();
    let told = |growth: &Growth| ladders.iter().map(|ladder| ladder.told(growth.of)).collect();
    let growths: Vec<_> = scenario.growth.as_ref().map_or_else(Vec::new, told);
    let comparison = baseline.map(|(path, older)| older.compare(&path, &figures, &sweeps, &growths));
    let report = Report {
        schema: SCHEMA,
        began_unix_s: began.as_secs(),
        took_s: began_at.elapsed().as_secs_f64(),
        interrupted,
        machine,
        cores,
        pinning_note,
        neighbours_cores,
        subjects: described,
        ratios: ratios(&cells),
        passed: !interrupted && passed(&verdicts, comparison.as_ref()),
        cells: figures,
        sweeps,
        growths,
        verdicts,
        comparison,
        scenario,
    };
    publish(out, &report)?;
    Ok(match (interrupted, report.passed) {
        (true, _) => Ended::Interrupted,
        (false, true) => Ended::Passed,
        (false, false) => Ended::Missed,
    })
}

impl Stage {
    fn set(args: &RunArgs, cores: Option<Cores>, scenario: &Scenario) -> anyhow::Result<Self> {
        let home = tempfile::Builder::new().prefix("sluice-bench-").tempdir();
        let home = home.context("make a working directory")?;
        Ok(Self {
            papers: Papers::make(home.path(), scenario.transport)?,
            home,
            cores,
            tokens: Tokens::make(scenario.tokens - 1)?,
            programs: Programs::new(&args.cache, args.fetch)?,
        })
    }

    fn site(
        &self,
        name: &str,
        scenario: &Scenario,
        origin: SocketAddr,
        spare: Option<SocketAddr>,
    ) -> anyhow::Result<Site<'_>> {
        let dir = self.home.path().join(name);
        std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        let (cores, tokens, programs) = (self.cores, &self.tokens, &self.programs);
        let (transport, papers) = (scenario.transport, self.papers.as_ref());
        let body_bytes = scenario.body_bytes;
        Ok(Site { origin, spare, body_bytes, dir, cores, tokens, programs, transport, papers })
    }

    /// Starts the origin where there is one, then every subject, and checks the answer of each.
    async fn start(&self, scenario: &Scenario, subjects: &[Box<dyn Subject>]) -> anyhow::Result<Fleet> {
        if !scenario.work.is_forward() {
            let mut fleet = Fleet { running: Vec::new(), described: Vec::new() };
            for subject in subjects {
                let site = self.site(subject.name(), scenario, ([127, 0, 0, 1], 9).into(), None)?;
                fleet.start(subject.as_ref(), &site, scenario, &[]).await?;
            }
            return Ok(fleet);
        }
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let site = self.site("origin", scenario, nowhere, None)?;
        let origin = Direct.start(&site).await.context("start the origin")?;
        let expected = origin::body(scenario.body_bytes as usize);
        let mut request = origin.request(scenario.request, PATH, None);
        let direct = ask(&origin.place()?, request.fresh()).context("ask the origin")?;
        anyhow::ensure!(direct.body == expected, "the origin's own answer is wrong");
        let spare = match scenario.origins {
            2 => Some(spare_origin(&self.site("spare", scenario, nowhere, None)?).await?),
            _ => None,
        };
        let address = origin.address;
        let mut fleet = Fleet::with_direct(origin);
        for subject in subjects {
            let other = spare.as_ref().map(|spare| spare.address);
            let site = self.site(subject.name(), scenario, address, other)?;
            fleet.start(subject.as_ref(), &site, scenario, &expected).await?;
        }
        fleet.running.iter_mut().for_each(|(_, running)| running.spare.clone_from(&spare));
        Ok(fleet)
    }
}

/// Proxy on the first allowed core, load on the second; this thread goes to the load core.
fn split_cores(allowed: &[usize]) -> (Option<Cores>, Option<String>) {
    let [proxy, load, ..] = *allowed else {
        return (None, Some(format!("{} core allowed, two are needed", allowed.len())));
    };
    match pin_thread(None, load) {
        Ok(()) => (Some(Cores { proxy, load }), None),
        Err(error) => (None, Some(format!("{error:#}"))),
    }
}

/// Subjects and load on every allowed core, whatever a scenario before this one pinned; what the report says of it.
fn share_cores(allowed: &[usize]) -> anyhow::Result<String> {
    pin_thread_to(None, allowed)?;
    Ok(format!("the scenario shares {} cores with the generator", allowed.len()))
}

impl Fleet {
    fn with_direct(origin: Running) -> Self {
        let described = describe(&Direct, Ok(&origin.identity));
        Self { running: vec![(Direct.name().into(), origin)], described: vec![described] }
    }

    /// Starts one subject and holds it to the expected answer; a missing program is noted.
    async fn start(
        &mut self,
        subject: &dyn Subject,
        site: &Site<'_>,
        scenario: &Scenario,
        expected: &[u8],
    ) -> anyhow::Result<()> {
        let name = subject.name();
        match subject.start(site).await {
            Ok(running) => {
                let checked = match scenario.work {
                    Work::Forward => equal_answer(subject, &running, scenario.request, expected),
                    Work::Publish { .. } | Work::Fanout { .. } => {
                        holds_what_it_acknowledges(&running, scenario).await
                    }
                    Work::Vault { .. } | Work::Revoke | Work::Unseal { .. } => {
                        answers_rightly(&running, scenario).await
                    }
                    Work::Replay { events } | Work::Restart { events } => {
                        filled(&running, scenario, events).await
                    }
                    Work::Calculate { bars } => computes_rightly(&running, bars),
                    // Each trial looks at what is routed before and after.
                    Work::Reload => Ok(()),
                };
                checked.with_context(|| format!("{name}: unequal answer"))?;
                self.described.push(describe(subject, Ok(&running.identity)));
                self.running.push((name.into(), running));
            }
            Err(StartError::Missing(reason)) => self.described.push(describe(subject, Err(reason))),
            Err(StartError::Failed(error)) => bail!("start {name}: {error:#}"),
        }
        Ok(())
    }

    fn stop(self) -> Vec<Described> {
        let children = self.running.iter().filter_map(|(_, running)| running.child.as_ref());
        children.for_each(Guarded::ask_to_stop);
        self.described
    }
}

fn describe(subject: &dyn Subject, found: Result<&Identity, String>) -> Described {
    let identity = found.as_ref().ok();
    Described {
        name: subject.name().into(),
        policies: subject.policies().into(),
        version: identity.map(|identity| identity.version.clone()),
        sha256: identity.map(|identity| identity.sha256.clone()),
        source: identity.map(|identity| identity.source.clone()),
        not_available: found.err(),
    }
}

/// Writes NAME.json, NAME.md and NAME.html into `out` and the tables to standard output.
fn publish(out: &Path, report: &Report) -> anyhow::Result<()> {
    std::fs::create_dir_all(out).with_context(|| format!("create {}", out.display()))?;
    let (tables, page) = (table::render(report), page::render(report));
    let name = &report.scenario.name;
    let json = serde_json::to_string_pretty(report)? + "\n";
    for (kind, text) in [("json", &json), ("md", &tables), ("html", &page)] {
        let path = out.join(format!("{name}.{kind}"));
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    std::io::stdout().write_all(tables.as_bytes()).context("write to standard output")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_is_said_not_hidden() {
        let (cores, note) = split_cores(&[3]);
        assert!(cores.is_none() && note.unwrap().contains("1 core"));
    }

    #[test]
    fn time_limit_covers_every_run() {
        let scenario = Scenario::load("edge", true, None).unwrap();
        let without = time_limit(&scenario, false);
        assert!(without > OVERHEAD_MAX && without < Duration::from_secs(600));
        assert!(time_limit(&scenario, true) > without + FETCH_LIMIT);
    }
}
