//! The thread that owns every group: takes the calls that wait, decides them, writes down what happened in one
//! commit, answers.

mod calls;
mod commit;
mod recall;
mod serve;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::engine::Reader;
use crate::log::{Clock as _, SystemClock};

use self::commit::{Batch, Reply};
use super::command::{Ask, Command, Notice};
use super::error::GroupError;
use super::journal::Journal;
use super::shelf::Shelf;
use super::state::State;
use super::watch::Watch;
use super::{Limits, OpenError};

/// Calls decided in one commit.
const TURN_COMMANDS_MAX: usize = 512;
/// LIMIT: bytes of the events handed out in one commit.
const TURN_EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The thread looks around at least so often.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Between two turns of who waits for what other workers may do.
const SHARED_PAUSE: Duration = Duration::from_millis(100);

/// Owns the groups.
pub(super) struct Keeper {
    pub(super) source: Reader,
    pub(super) journal: Journal,
    pub(super) limits: Limits,
    pub(super) groups: BTreeMap<Box<str>, Group>,
    pub(super) shelf: Shelf,
    pub(super) batch: Batch,
    notices: mpsc::Sender<Notice>,
    watch: Arc<Watch>,
    watching: bool,
    clock: Clock,
    /// What is known of the groups may be wrong: it is read again before anything is decided.
    stale: bool,
    /// Why nothing is taken any longer.
    broken: Option<GroupError>,
    /// Messages that may still be taken up in this turn.
    pub(super) room: usize,
    /// Bytes of events that may still be handed out in this turn.
    event_room: usize,
}

/// One group.
pub(super) struct Group {
    pub(super) state: State,
    waiters: VecDeque<Ask>,
    /// Seq of its creation or last snapshot in the journal; 0 until it is written.
    origin: u64,
    /// Place that the journal knows.
    written_place: u64,
    /// The place and the time of the event there, in milliseconds since 1970.
    pub(super) ahead: Option<(u64, u64)>,
}

/// Time that never goes back, also over restarts.
struct Clock {
    base_ms: u64,
    since: Instant,
}

impl Clock {
    fn now_ms(&self) -> u64 {
        self.base_ms + self.since.elapsed().as_millis() as u64
    }
}

impl Group {
    fn new(state: State) -> Self {
        Self { written_place: state.place(), state, waiters: VecDeque::new(), origin: 0, ahead: None }
    }
}

impl Keeper {
    /// Reads back what is kept.
    pub(super) fn open(
        source: Reader,
        journal: Journal,
        limits: Limits,
        notices: mpsc::Sender<Notice>,
        watch: Arc<Watch>,
    ) -> Result<Self, OpenError> {
        let mut keeper = Self {
            source,
            journal,
            limits,
            groups: BTreeMap::new(),
            shelf: Shelf::default(),
            batch: Batch::default(),
            notices,
            watch,
            watching: false,
            clock: Clock { base_ms: 0, since: Instant::now() },
            stale: false,
            broken: None,
            room: 0,
            event_room: 0,
        };
        if keeper.journal.is_shared() {
            // Redis may be away: it is read when the first turn is taken.
            keeper.stale = true;
            return Ok(keeper);
        }
        let newest_ms = keeper.load().map_err(|error| OpenError::Read(Box::new(error)))?;
        keeper.clock = Clock { base_ms: SystemClock.now_ms().max(newest_ms), since: Instant::now() };
        keeper.retell();
        tracing::info!(component = "groups", groups = keeper.groups.len(), "consumer groups opened");
        Ok(keeper)
    }

    /// Works until nobody can ask any more.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let mut more = true;
        loop {
            let pause = if more { Duration::ZERO } else { self.pause() };
            let mut waiting = Vec::new();
            match commands.recv_timeout(pause) {
                Ok(command) => {
                    waiting.push(command);
                    waiting.extend(std::iter::from_fn(|| commands.try_recv().ok()).take(TURN_COMMANDS_MAX));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.flush();
                    return;
                }
            }
            more = self.work(waiting);
        }
    }

    /// Takes calls, and does what is due; whether there is more to do at once.
    fn work(&mut self, commands: Vec<Command>) -> bool {
        if self.journal.is_shared() && commands.is_empty() && !self.has_work() {
            return false;
        }
        if let Err(error) = self.enter() {
            self.put_off(commands, &error);
            return false;
        }
        for command in commands {
            self.take(command);
        }
        let more = self.turn();
        if self.journal.is_shared() {
            // Nothing is decided in this turn and written in another one.
            while !self.stale && !self.batch.entries.is_empty() {
                self.flush();
            }
            self.journal.leave();
        }
        more && !self.stale
    }

    fn has_work(&self) -> bool {
        let now_ms = self.now_ms();
        let is_due = |group: &Group| group.state.next_due_ms().is_some_and(|ms| ms <= now_ms);
        self.groups.values().any(|group| !group.waiters.is_empty() || is_due(group))
    }

    /// Takes the turn where the journal is shared, and reads what others wrote since.
    fn enter(&mut self) -> Result<(), GroupError> {
        let Some(entered) = self.journal.enter()? else { return Ok(()) };
        let first = self.clock.base_ms == 0;
        let newest_ms = if self.stale || entered.lost { self.load() } else { self.catch_up() };
        let newest_ms = newest_ms.inspect_err(|_| {
            self.stale = true;
            self.journal.leave();
        })?;
        self.stale = false;
        self.clock = Clock { base_ms: entered.now_ms.max(newest_ms), since: Instant::now() };
        if first {
            self.retell();
        }
        Ok(())
    }

    /// Refuses calls that cannot be decided now. Who waits for messages goes on waiting until its time is up.
    fn put_off(&mut self, commands: Vec<Command>, error: &GroupError) {
        for command in commands {
            if matches!(command, Command::Nudge) {
                self.watching = false;
            }
            refuse(command, error.clone());
        }
        let now = Instant::now();
        for group in self.groups.values_mut() {
            for ask in std::mem::take(&mut group.waiters) {
                if ask.until > now {
                    group.waiters.push_back(ask);
                } else {
                    drop(ask.answer.send(Err(error.clone())));
                }
            }
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// Decides one call.
    pub(super) fn take(&mut self, command: Command) {
        if let Some(error) = self.broken.clone() {
            refuse(command, error);
            return;
        }
        match command {
            Command::Put { group, settings, start, answer } => {
                let result = self.put(&group, settings, start);
                self.reply(answer, result);
            }
            Command::Delete { group, answer } => {
                let result = self.delete(&group);
                self.reply(answer, result);
            }
            Command::Lease { group, ask } => self.queue(&group, ask),
            Command::Settle { group, settle, answer } => {
                let result = self.settle(&group, settle);
                self.reply(answer, result);
            }
            Command::List { after, limit, answer } => {
                let result = self.list(after.as_deref(), limit);
                self.reply(answer, Ok(result));
            }
            Command::Report { group, answer } => {
                let result = self.report(&group);
                self.reply(answer, result);
            }
            Command::Letters { group, page, answer } => {
                self.flush();
                let result = self.letters(&group, &page);
                self.reply(answer, result);
            }
            Command::Redrive { group, redrive, answer } => {
                self.flush();
                let result = self.redrive(&group, &redrive);
                self.reply(answer, result);
            }
            Command::Replay { group, records, answer } => {
                let result = self.replay(&group, &records);
                self.reply(answer, result);
            }
            Command::Purge { group, answer } => {
                let result = self.purge(&group);
                self.reply(answer, result);
            }
            Command::Nudge => self.watching = false,
        }
        if self.batch.is_full() {
            self.flush();
        }
    }

    /// Ends what is over, serves who waits, and writes down what happened; whether there is more to do at once.
    pub(super) fn turn(&mut self) -> bool {
        let held: usize = self.groups.values().map(|group| group.state.held()).sum();
        self.room = self.limits.held.saturating_sub(held);
        self.event_room = TURN_EVENT_BYTES_MAX;
        let seen = self.source.durable_seq();
        let now_ms = self.now_ms();
        let due: Vec<Box<str>> = self
            .groups
            .iter()
            .filter(|(_, group)| {
                !group.waiters.is_empty() || group.state.next_due_ms().is_some_and(|ms| ms <= now_ms)
            })
            .map(|(name, _)| name.clone())
            .collect();
        let mut more = false;
        for name in due {
            more |= self.tend(&name);
        }
        more |= self.flush();
        more |= self.clean();
        self.look_out(seen, more);
        more
    }

    fn pause(&self) -> Duration {
        let now_ms = self.now_ms();
        let due = self.groups.values().filter_map(|group| group.state.next_due_ms()).min();
        let due = due.map_or(PAUSE_MAX, |ms| Duration::from_millis(ms.saturating_sub(now_ms)));
        let now = Instant::now();
        let until = self.groups.values().flat_map(|group| group.waiters.iter().map(|ask| ask.until)).min();
        let until = until.map_or(PAUSE_MAX, |until| until.saturating_duration_since(now));
        let pause = due.min(until).min(PAUSE_MAX);
        // A turn that could not be taken is not asked for without a pause.
        if self.journal.is_shared() && self.has_work() { pause.max(SHARED_PAUSE) } else { pause }
    }

    /// Asks to be told of events after what this turn could see, when somebody waits for them.
    fn look_out(&mut self, seen: u64, more: bool) {
        if !self.watching && !more && self.groups.values().any(|group| !group.waiters.is_empty()) {
            self.watching = true;
            self.watch.beyond(seen);
        }
    }
}

/// Refuses a call, whatever it is.
fn refuse(command: Command, error: GroupError) {
    // Nobody listening is no fault.
    match command {
        Command::Put { answer, .. } => drop(answer.send(Err(error))),
        Command::Delete { answer, .. } => drop(answer.send(Err(error))),
        Command::Lease { ask, .. } => drop(ask.answer.send(Err(error))),
        Command::Settle { answer, .. } => drop(answer.send(Err(error))),
        Command::List { answer, .. } => drop(answer.send(Err(error))),
        Command::Report { answer, .. } => drop(answer.send(Err(error))),
        Command::Letters { answer, .. } => drop(answer.send(Err(error))),
        Command::Redrive { answer, .. } => drop(answer.send(Err(error))),
        Command::Replay { answer, .. } => drop(answer.send(Err(error))),
        Command::Purge { answer, .. } => drop(answer.send(Err(error))),
        Command::Nudge => {}
    }
}
