//! One role, kept running: started, watched, started again, replaced, ended.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use sluice_wire::role::Role;
use sluice_wire::start::{Ready, Said};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::backoff::Backoff;
use super::handover::{Refused, hand_over, has_successors, replace};
use super::image::Image;
use super::process::{Life, Parts, Recipe};
use super::report::Report;
use super::sockets::{self, Socket};
use super::{BACK_WITHIN, chance};

/// Time kept between the end of a retirement and being killed.
const RETIRE_MARGIN: Duration = Duration::from_secs(1);

/// What happens to a role.
#[derive(Debug)]
pub(crate) enum Happening {
    Ready(Ready),
    Died { role: Role, was_ready: bool, again_in: Duration, failures: u32, status: String },
    Ended,
}

/// What a role is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Run,
    Reload(u32),
    End { by: Instant },
}

/// What is done to a role besides.
pub(crate) enum Command {
    /// Another process in its place.
    Renew(Renewal),
    /// Let go of it: the supervisor replaces itself.
    Freeze(oneshot::Sender<Frozen>),
}

/// Another process in place of the one that plays the role.
pub(crate) struct Renewal {
    /// The program to run; `None`: the one that runs.
    pub(crate) program: Option<PathBuf>,
    /// The addresses to listen on; `None`: the same.
    pub(crate) doors: Option<Vec<(&'static str, SocketAddr)>>,
    /// How long the old process may take to finish what is open, where it has a successor.
    pub(crate) retire_within: Duration,
    /// Who is told.
    pub(crate) report: Report,
    /// The report back, and the outcome.
    pub(crate) done: oneshot::Sender<(Report, Result<(), String>)>,
}

/// A role without its keeper.
pub(crate) struct Frozen {
    pub(crate) recipe: Recipe,
    /// The process, and whether it was ready.
    pub(crate) life: Option<(Parts, bool)>,
    pub(crate) backoff: Backoff,
    pub(crate) retirees: Vec<(Parts, Instant)>,
}

/// A process that finishes what is open while its successor serves.
struct Retiree {
    life: Life,
    by: Instant,
}

/// Keeps one role running until it is told to end.
pub(crate) struct Keeper {
    recipe: Recipe,
    life: Option<Life>,
    ready: bool,
    backoff: Backoff,
    retirees: Vec<Retiree>,
    wish: watch::Receiver<Wish>,
    /// The last reload that was passed on.
    reloaded: u32,
    commands: mpsc::Receiver<Command>,
    said: mpsc::Sender<Happening>,
}

/// What follows one life.
enum After {
    Died(String),
    Ended,
    Frozen(oneshot::Sender<Frozen>),
}

impl Keeper {
    /// Of a role that does not run yet.
    pub(crate) fn new(
        recipe: Recipe,
        wish: watch::Receiver<Wish>,
        commands: mpsc::Receiver<Command>,
        said: mpsc::Sender<Happening>,
    ) -> Self {
        let (life, backoff, retirees) = (None, Backoff::default(), Vec::new());
        Self { recipe, life, ready: false, backoff, retirees, wish, reloaded: 0, commands, said }
    }

    /// Of a role that another keeper let go of.
    pub(crate) fn thaw(
        frozen: Frozen,
        wish: watch::Receiver<Wish>,
        commands: mpsc::Receiver<Command>,
        said: mpsc::Sender<Happening>,
    ) -> anyhow::Result<Self> {
        let mut keeper = Self::new(frozen.recipe, wish, commands, said);
        keeper.backoff = frozen.backoff;
        if let Some((parts, ready)) = frozen.life {
            keeper.life = Some(Life::adopt(parts)?);
            keeper.ready = ready;
        }
        for (parts, by) in frozen.retirees {
            keeper.retirees.push(Retiree { life: Life::adopt(parts)?, by });
        }
        Ok(keeper)
    }

    /// Does it.
    pub(crate) async fn keep(mut self) {
        loop {
            let after = match self.live().await {
                After::Died(status) => self.pause(status).await,
                after => Some(after),
            };
            match after {
                None | Some(After::Died(_)) => {}
                Some(After::Ended) => break,
                Some(After::Frozen(reply)) => {
                    // Nobody who asked for it stops waiting.
                    drop(reply.send(self.freeze()));
                    return;
                }
            }
        }
        for retiree in &mut self.retirees {
            let by = self.wish.borrow().deadline();
            retiree.life.end(by).await;
        }
        let _main_ended = self.said.send(Happening::Ended).await;
    }

    /// One life and its successors, to the end of the last one.
    async fn live(&mut self) -> After {
        if matches!(*self.wish.borrow_and_update(), Wish::End { .. }) {
            return After::Ended;
        }
        let mut life = if let Some(life) = self.life.take() {
            life
        } else {
            self.ready = false;
            match Life::begin(&self.recipe, &self.recipe.image.program(), false).await {
                Ok(life) => life,
                Err(error) => return After::Died(format!("{error:#}")),
            }
        };
        loop {
            tokio::select! {
                biased;
                event = life.next() => match event {
                    Ok(Said::Ready(ready)) => self.note_ready(ready).await,
                    Ok(_) => {}
                    Err(status) => return After::Died(status),
                },
                changed = self.wish.changed() => {
                    let now = *self.wish.borrow_and_update();
                    match now {
                        Wish::End { by } => { self.end(&mut life, by).await; return After::Ended; }
                        Wish::Reload(number) => self.reload(&life, number),
                        Wish::Run if changed.is_err() => {
                            self.end(&mut life, Instant::now()).await;
                            return After::Ended;
                        }
                        Wish::Run => {}
                    }
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Freeze(reply) => { self.life = Some(life); return After::Frozen(reply); }
                    Command::Renew(renewal) => if !self.renew(&mut life, renewal).await {
                        return After::Ended;
                    },
                },
                () = look_after(&mut self.retirees), if !self.retirees.is_empty() => {}
            }
        }
    }

    fn reload(&mut self, life: &Life, number: u32) {
        // One that is not ready yet reads the new file anyway, and would die of the signal.
        if self.ready && number != self.reloaded {
            life.signal(Signal::HUP);
        }
        self.reloaded = number;
    }

    async fn note_ready(&mut self, ready: Ready) {
        self.ready = true;
        self.backoff.ready();
        let _main_ended = self.said.send(Happening::Ready(ready)).await;
    }

    async fn end(&mut self, life: &mut Life, by: Instant) {
        // Nothing is started in its place: once it accepts no more, connecting is refused, not left waiting.
        self.recipe.sockets.clear();
        self.retirees.iter_mut().for_each(|retiree| retiree.life.ask_to_end());
        let mut by = by;
        loop {
            tokio::select! {
                () = life.end(by) => return,
                Ok(()) = self.wish.changed() => {
                    let wish = *self.wish.borrow_and_update();
                    by = by.min(wish.deadline());
                }
            }
        }
    }

    /// Reports a death and waits until the next start; what is told meanwhile comes first.
    async fn pause(&mut self, status: String) -> Option<After> {
        let (role, was_ready) = (self.recipe.role, self.ready);
        let again_in = self.backoff.died(was_ready, chance());
        let failures = self.backoff.failures();
        let died = Happening::Died { role, was_ready, again_in, failures, status };
        let _main_ended = self.said.send(died).await;
        let again = Instant::now() + again_in;
        loop {
            tokio::select! {
                () = sleep_until(again) => return None,
                changed = self.wish.changed() => {
                    if changed.is_err() || matches!(*self.wish.borrow_and_update(), Wish::End { .. }) {
                        return Some(After::Ended);
                    }
                }
                Some(command) = self.commands.recv() => match command {
                    Command::Freeze(reply) => return Some(After::Frozen(reply)),
                    Command::Renew(Renewal { program, doors, report, done, .. }) => {
                        // Nothing runs that could be handed over: what is new is what starts next.
                        let taken = self.take_doors(doors).and_then(|_| self.take_program(program));
                        drop(done.send((report, taken.map_err(|error| format!("{error:#}")))));
                        return None;
                    }
                },
                () = look_after(&mut self.retirees), if !self.retirees.is_empty() => {}
            }
        }
    }

    fn take_program(&mut self, program: Option<PathBuf>) -> anyhow::Result<()> {
        if let Some(path) = program {
            let file = std::fs::File::open(&path)?;
            self.recipe.image = Image::held(&path, file.into());
        }
        Ok(())
    }

    /// Opens the sockets of new addresses; returns the old ones, in case.
    fn take_doors(
        &mut self,
        doors: Option<Vec<(&'static str, SocketAddr)>>,
    ) -> anyhow::Result<Option<Vec<Socket>>> {
        let Some(doors) = doors else { return Ok(None) };
        let moved = sockets::moved(&self.recipe.sockets, &doors)?;
        self.recipe.handoff.listeners = moved.iter().map(|socket| socket.name.clone()).collect();
        Ok(Some(std::mem::replace(&mut self.recipe.sockets, moved)))
    }

    /// Another process in place of `life`; false when told to end meanwhile, which is done then.
    async fn renew(&mut self, life: &mut Life, renewal: Renewal) -> bool {
        let Renewal { program, doors, retire_within, report, done } = renewal;
        let before = match self.take_doors(doors) {
            Ok(before) => before,
            Err(error) => {
                drop(done.send((report, Err(format!("{error:#}")))));
                return true;
            }
        };
        let path = program.clone().unwrap_or_else(|| self.recipe.image.program());
        let role = self.recipe.role;
        let exchanged = async {
            if has_successors(role) && self.ready {
                let done = hand_over(life, &self.recipe, &path, retire_within, &report).await;
                done.map_err(|refused| (refused, None))
            } else {
                replace(life, &self.recipe, &path, BACK_WITHIN, &report).await
            }
        };
        let exchanged = tokio::select! {
            exchanged = exchanged => exchanged,
            by = told_to_end(&mut self.wish) => {
                self.end(life, by).await;
                return false;
            }
        };
        let outcome = match exchanged {
            Ok((new, ready)) => {
                let mut old = std::mem::replace(life, new);
                if old.status().is_none() {
                    let by = Instant::now() + retire_within + RETIRE_MARGIN;
                    self.retirees.push(Retiree { life: old, by });
                }
                if let Some(Ok(image)) = program.map(|path| Image::of(&path, life.pid())) {
                    self.recipe.image = image;
                }
                self.note_ready(ready).await;
                Ok(())
            }
            Err((refused, restored)) => {
                if let Some(sockets) = before {
                    self.recipe.handoff.listeners =
                        sockets.iter().map(|socket| socket.name.clone()).collect();
                    self.recipe.sockets = sockets;
                }
                self.undo(life, &refused, restored);
                Err(format!("{role}: {refused}"))
            }
        };
        // One that came during the exchange may have been too late for either process.
        let wish = *self.wish.borrow();
        if let Wish::Reload(number) = wish {
            self.reload(life, number);
        }
        drop(done.send((report, outcome)));
        true
    }

    /// What ran before runs on: the very process, or a new one of the old binary.
    fn undo(&mut self, life: &mut Life, refused: &Refused, restored: Option<Life>) {
        tracing::warn!(
            component = "supervisor",
            role = self.recipe.role.as_str(),
            error = refused as &dyn std::error::Error,
            "not replaced"
        );
        if let Some(restored) = restored {
            *life = restored;
            self.ready = false;
        }
    }

    fn freeze(self) -> Frozen {
        let ready = self.ready;
        let retirees = self.retirees.into_iter();
        Frozen {
            recipe: self.recipe,
            life: self.life.and_then(Life::part).map(|parts| (parts, ready)),
            backoff: self.backoff,
            retirees: retirees.filter_map(|retiree| Some((retiree.life.part()?, retiree.by))).collect(),
        }
    }
}

impl Wish {
    /// When to be gone; now where nobody said.
    fn deadline(self) -> Instant {
        match self {
            Self::End { by } => by,
            Self::Run | Self::Reload(_) => Instant::now(),
        }
    }
}

async fn told_to_end(wish: &mut watch::Receiver<Wish>) -> Instant {
    loop {
        let gone = wish.changed().await.is_err();
        let now = *wish.borrow_and_update();
        if let Wish::End { by } = now {
            return by;
        }
        if gone {
            return Instant::now();
        }
    }
}

/// Waits until something changes among the retirees, kills who is over its time, forgets who is gone.
async fn look_after(retirees: &mut Vec<Retiree>) {
    let Some(next) = retirees.iter().map(|retiree| retiree.by).min() else { return };
    // Every child's change wakes every waiter, so one of them is enough.
    let changed = async {
        match retirees.first_mut() {
            Some(first) => first.life.a_child_changed().await,
            None => std::future::pending().await,
        }
    };
    let _changed_or_late = timeout(next.saturating_duration_since(Instant::now()), changed).await;
    let now = Instant::now();
    for retiree in retirees.iter_mut().filter(|retiree| retiree.by <= now) {
        tracing::warn!(component = "supervisor", pid = retiree.life.pid(), "a retired process took too long");
        retiree.life.signal(Signal::KILL);
        retiree.by = now + RETIRE_MARGIN;
    }
    retirees.retain_mut(|retiree| retiree.life.status().is_none());
}
