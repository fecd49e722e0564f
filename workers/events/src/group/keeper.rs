//! The thread that owns every group: takes the calls that wait, decides them, writes down what happened in one
//! commit, answers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::engine::{ReadError, Reader};
use crate::log::{Clock as _, MessageId, SystemClock};

use super::command::{Answer, Ask, Command, How, Lease, Notice, Put, Settle, Settled, Start};
use super::error::GroupError;
use super::fact::Fact;
use super::journal::{Entry, Journal, Live, Read};
use super::settings::Settings;
use super::shelf::Shelf;
use super::state::State;
use super::watch::Watch;
use super::{Limits, OpenError, report};

/// Calls decided in one commit.
const TURN_COMMANDS_MAX: usize = 512;
/// LIMIT: bytes of facts and dead letters in one commit.
const TURN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// LIMIT: bytes of the events handed out in one commit.
const TURN_EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes moved for the cleaning of the journal in one turn.
const MOVE_BYTES: u64 = 1024 * 1024;
/// The thread looks around at least so often.
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// Between two turns of who waits for what other workers may do.
const SHARED_PAUSE: Duration = Duration::from_millis(100);
/// Events looked at in vain before the place is written down on its own.
const PLACE_STEP: u64 = 50_000;
/// A consumer that holds nothing is forgotten after this, in milliseconds, when room is needed.
const CONSUMER_IDLE_MS: u64 = 600_000;
/// Dead letters younger than this are told of again at a start, in milliseconds: the worker may have ended before
/// it told of them. What was told is known by its event id.
const RETELL_MS: u64 = 300_000;

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

/// What one commit will write, and who is answered after it.
#[derive(Default)]
pub(super) struct Batch {
    entries: Vec<Entry>,
    bytes: usize,
    replies: Vec<Reply>,
    pub(super) notices: Vec<Notice>,
}

enum Reply {
    Lease { group: Box<str>, consumer: Box<str>, lease: Lease, answer: Answer<Lease> },
    Other(Box<dyn FnOnce(Result<(), GroupError>) + Send>),
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

impl Batch {
    /// Takes an entry in.
    pub(super) fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push(entry);
    }

    /// Whether the commit is large enough.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= TURN_BYTES_MAX
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

    /// Notes what happened to a group; the state knows already.
    pub(super) fn note(&mut self, group: &str, fact: Fact) {
        if let (Fact::Taken { upto, .. }, Some(group)) = (&fact, self.groups.get_mut(group)) {
            group.written_place = *upto;
        }
        let now_ms = self.now_ms();
        for entry in Entry::facts(group, fact, now_ms) {
            self.batch.push(entry);
        }
    }

    /// Answers after the commit.
    pub(super) fn reply<T: Send + 'static>(&mut self, answer: Answer<T>, result: Result<T, GroupError>) {
        match result {
            Ok(value) => {
                let reply = move |stored: Result<(), GroupError>| drop(answer.send(stored.map(|()| value)));
                self.batch.replies.push(Reply::Other(Box::new(reply)));
            }
            // Nobody listening is no fault.
            Err(error) => drop(answer.send(Err(error))),
        }
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

    fn put(&mut self, name: &str, settings: Settings, start: Start) -> Result<Put, GroupError> {
        if let Some(group) = self.groups.get_mut(name) {
            if *group.state.settings() != settings {
                let fact = Fact::Changed { settings };
                group.state.apply(&fact, 0);
                self.note(name, fact);
            }
            return Ok(Put { created: false, report: self.report(name)? });
        }
        if self.groups.len() >= self.limits.groups {
            return Err(GroupError::Limit(format!("there are {} groups already", self.limits.groups)));
        }
        let place = match start {
            Start::Earliest => self.source.first_seq(),
            Start::Now => self.source.durable_seq() + 1,
            Start::After(id) => self.source.seq_after(id)?,
            Start::Time(ms) => self.source.seq_at(MessageId { ms, n: 0 })?,
        };
        let at_ms = self.now_ms();
        let state = State::new(settings.clone(), place, at_ms);
        self.groups.insert(name.into(), Group::new(state));
        self.note(name, Fact::Created { settings, place, at_ms });
        Ok(Put { created: true, report: self.report(name)? })
    }

    fn delete(&mut self, name: &str) -> Result<(), GroupError> {
        let group = self.groups.remove(name).ok_or(GroupError::Unknown)?;
        self.note(name, Fact::Deleted);
        self.journal.forget(group.origin);
        for at in self.shelf.drop_group(name) {
            self.journal.forget(at);
        }
        for ask in group.waiters {
            drop(ask.answer.send(Err(GroupError::Unknown)));
        }
        Ok(())
    }

    /// Puts a wish for messages into its group's line; it is served in this turn.
    fn queue(&mut self, name: &str, ask: Ask) {
        let waiters: usize = self.groups.values().map(|group| group.waiters.len()).sum();
        let (waiters_max, consumers_max) = (self.limits.waiters, self.limits.consumers);
        let now_ms = self.now_ms();
        let refused = match self.groups.get_mut(name) {
            None => GroupError::Unknown,
            Some(group) if !group.state.settings().filter.is_within(&ask.readable) => GroupError::NotReadable,
            Some(_) if waiters >= waiters_max => GroupError::Busy("too many consumers wait for messages"),
            Some(group) => {
                let state = &mut group.state;
                if state.consumers().len() >= consumers_max {
                    state.forget_before(now_ms.saturating_sub(CONSUMER_IDLE_MS));
                }
                if state.consumers().len() < consumers_max || state.consumers().contains_key(&*ask.consumer) {
                    state.see(&ask.consumer, now_ms);
                    group.waiters.push_back(ask);
                    return;
                }
                GroupError::Limit(format!("the group has {consumers_max} consumers already"))
            }
        };
        drop(ask.answer.send(Err(refused)));
    }

    fn settle(&mut self, name: &str, settle: Settle) -> Result<Settled, GroupError> {
        let now_ms = self.now_ms();
        let group = self.groups.get_mut(name).ok_or(GroupError::Unknown)?;
        let state = &mut group.state;
        if !state.settings().filter.is_within(&settle.readable) {
            return Err(GroupError::NotReadable);
        }
        if state.consumers().contains_key(&*settle.consumer) {
            state.see(&settle.consumer, now_ms);
        }
        let Settle { consumer, ids, how, .. } = settle;
        let mut done =
            Settled { until_ms: now_ms.saturating_add(state.settings().ack_wait_ms), ..Settled::default() };
        let (found, facts): (_, Vec<Fact>) = match &how {
            How::Ack => {
                let (found, fact) = state.ack(&consumer, &ids, now_ms);
                (found, fact.into_iter().collect())
            }
            How::Nack { delay_ms, reason } => {
                let found = state.nack(&consumer, &ids, *delay_ms, reason.as_deref(), now_ms);
                let max = state.settings().max_deliver;
                let spent = |id| state.message(id).is_some_and(|message| message.attempts >= max);
                done.dead = found.0.known.iter().filter(|id| spent(**id)).count();
                found
            }
            How::Extend => {
                let (found, fact) = state.extend(&consumer, &ids, now_ms);
                (found, fact.into_iter().collect())
            }
        };
        if how == How::Ack {
            self.done(name, &found.known);
        }
        for fact in facts {
            self.note(name, fact);
        }
        done.known = found.known.len();
        done.unknown = found.unknown;
        Ok(done)
    }

    /// Messages are done: the letters of redriven ones are not needed any longer.
    pub(super) fn done(&mut self, name: &str, ids: &[MessageId]) {
        for id in ids {
            if let Some(at) = self.shelf.done(name, *id) {
                self.journal.forget(at);
            }
        }
    }

    fn list(&mut self, after: Option<&str>, limit: usize) -> Vec<report::Report> {
        let names = self.groups.keys().filter(|name| after.is_none_or(|after| &***name > after));
        let names: Vec<Box<str>> = names.take(limit).cloned().collect();
        names.iter().filter_map(|name| self.report(name).ok()).collect()
    }

    /// Does what is due in one group and serves who waits there; whether there is more to do at once.
    pub(super) fn tend(&mut self, name: &str) -> bool {
        let now_ms = self.now_ms();
        let Some(group) = self.groups.get_mut(name) else { return false };
        let place = group.state.place();
        let end = self.source.durable_seq() + 1;
        if place > end && place > self.source.first_seq() {
            // Nothing of the group's is in there: it begins at the beginning.
            let fact = group.state.rewind(self.source.first_seq());
            tracing::warn!(
                component = "groups",
                group = name,
                place,
                end,
                "the stream ends before the group's place"
            );
            self.note(name, fact);
        }
        let Some(group) = self.groups.get_mut(name) else { return false };
        if let Some(fact) = group.state.expire(now_ms) {
            self.note(name, fact);
        }
        let mut more = self.bury(name);
        let Some(group) = self.groups.get_mut(name) else { return more };
        let mut waiters = std::mem::take(&mut group.waiters);
        let mut left = VecDeque::with_capacity(waiters.len());
        while let Some(ask) = waiters.pop_front() {
            if self.event_room == 0 || self.batch.is_full() {
                more = true;
                left.push_back(ask);
                left.append(&mut waiters);
                break;
            }
            // Who went away takes nothing.
            if !ask.answer.is_closed() {
                more |= self.serve(name, ask, &mut left);
            }
        }
        if let Some(group) = self.groups.get_mut(name) {
            left.append(&mut group.waiters);
            group.waiters = left;
            let place = group.state.place();
            if place > group.written_place + PLACE_STEP {
                self.note(name, Fact::Taken { upto: place, fresh: Vec::new() });
            }
        }
        more
    }

    /// Gives a consumer what there is, or lets it wait; whether there is more to look at at once.
    fn serve(&mut self, name: &str, ask: Ask, left: &mut VecDeque<Ask>) -> bool {
        let (lease, ended) = match self.lease(name, &ask) {
            Ok(found) => found,
            Err(error) => {
                drop(ask.answer.send(Err(error)));
                return false;
            }
        };
        let is_empty = lease.messages.is_empty() && lease.gap.is_none();
        if is_empty && Instant::now() < ask.until {
            left.push_back(ask);
            return !ended;
        }
        let pending = self.groups.get(name).map_or(0, |group| group.state.pending());
        if is_empty && pending >= self.limits.pending {
            let busy =
                GroupError::Busy("more messages of this group are unacknowledged than a group may have");
            drop(ask.answer.send(Err(busy)));
            return false;
        }
        let bytes: usize = lease.messages.iter().map(|message| message.event.len()).sum();
        self.event_room = self.event_room.saturating_sub(bytes);
        let Ask { consumer, answer, .. } = ask;
        self.batch.replies.push(Reply::Lease { group: name.into(), consumer, lease, answer });
        false
    }

    /// Writes down what happened and answers; whether that gave something to do.
    pub(super) fn flush(&mut self) -> bool {
        let batch = std::mem::take(&mut self.batch);
        let stored = if !batch.entries.is_empty() {
            self.store(batch.entries)
        } else if self.stale {
            Err(GroupError::Failed)
        } else {
            Ok(())
        };
        if stored.is_ok() {
            self.tell(batch.notices);
        }
        let mut released = false;
        for reply in batch.replies {
            match reply {
                Reply::Other(send) => send(stored.clone()),
                Reply::Lease { group, consumer, lease, answer } => {
                    let ids: Vec<MessageId> = lease.messages.iter().map(|message| message.id).collect();
                    if answer.send(stored.clone().map(|()| lease)).is_err() && stored.is_ok() {
                        released |= self.release(&group, &consumer, &ids);
                    }
                }
            }
        }
        released
    }

    fn store(&mut self, entries: Vec<Entry>) -> Result<(), GroupError> {
        if self.stale {
            return Err(GroupError::Failed);
        }
        match self.journal.append(entries) {
            Ok(stored) => {
                for (live, seq) in stored {
                    self.placed(&live, seq);
                }
                Ok(())
            }
            Err(error) => {
                tracing::warn!(component = "groups", error = %error, "what happened to the groups is not stored");
                if self.journal.is_shared() {
                    self.stale = true;
                    return Err(error);
                }
                // What was decided did not happen.
                if let Err(cause) = self.load() {
                    tracing::error!(component = "groups", error = %cause, "the groups cannot be read back");
                    self.broken = Some(GroupError::Failed);
                }
                if matches!(error, GroupError::Failed | GroupError::Closed) {
                    self.broken = Some(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Notes where something that counts stands now.
    fn placed(&mut self, live: &Live, seq: u64) {
        let before = match live {
            Live::Group(name) => match self.groups.get_mut(name) {
                Some(group) => Some(std::mem::replace(&mut group.origin, seq)),
                None => Some(seq),
            },
            Live::Letter(name, id) if self.shelf.kept(name, *id).is_some() => {
                self.shelf.placed(name, *id, seq)
            }
            Live::Letter(..) => Some(seq),
        };
        if let Some(before) = before {
            self.journal.forget(before);
        }
    }

    /// Takes back what did not reach its consumer.
    fn release(&mut self, name: &str, consumer: &str, ids: &[MessageId]) -> bool {
        let now_ms = self.now_ms();
        let Some(group) = self.groups.get_mut(name) else { return false };
        let Some(fact) = group.state.release(consumer, ids, now_ms) else { return false };
        self.note(name, fact);
        true
    }

    /// Makes the journal shorter when there is much in it that does not count; whether it is to be done again.
    fn clean(&mut self) -> bool {
        if self.broken.is_some() || self.stale {
            return false;
        }
        let moves = self.journal.to_move(MOVE_BYTES);
        if moves.is_empty() {
            return false;
        }
        for (at, live) in moves {
            match live {
                Live::Group(name) => {
                    let Some(group) = self.groups.get(&name) else { continue };
                    for fact in group.state.snapshot() {
                        self.note(&name, fact);
                    }
                }
                Live::Letter(name, id) => {
                    if let Some(entry) = self.moved(&name, id, at) {
                        self.batch.push(entry);
                    }
                }
            }
        }
        if self.batch.entries.is_empty() {
            return false;
        }
        let entries = std::mem::take(&mut self.batch.entries);
        self.batch.bytes = 0;
        if self.store(entries).is_err() {
            return false;
        }
        self.journal.trim();
        true
    }

    /// Tells of dead letters, as far as there is room.
    fn tell(&self, notices: Vec<Notice>) {
        for notice in notices {
            if let Err(error) = self.notices.try_send(notice) {
                tracing::warn!(component = "groups", error = %error, "a dead letter is not told to the stream");
            }
        }
    }

    /// Tells of the youngest dead letters again.
    fn retell(&mut self) {
        let since_ms = self.now_ms().saturating_sub(RETELL_MS);
        let young = self.shelf.iter().filter(|(_, _, kept)| kept.at_ms >= since_ms && !kept.out);
        let young: Vec<u64> = young.map(|(_, _, kept)| kept.at).collect();
        let notices = young.into_iter().filter_map(|at| self.notice_at(at)).collect();
        self.tell(notices);
    }

    /// Reads everything back from the journal; the newest time in it, in milliseconds since 1970. Who waits goes on
    /// waiting.
    fn load(&mut self) -> Result<u64, ReadError> {
        let mut waiting: BTreeMap<Box<str>, VecDeque<Ask>> =
            std::mem::take(&mut self.groups).into_iter().map(|(name, group)| (name, group.waiters)).collect();
        self.shelf = Shelf::default();
        let newest_ms = self.read_journal(true);
        for (name, group) in &mut self.groups {
            if let Some(waiters) = waiting.remove(name) {
                group.waiters = waiters;
            }
        }
        let why = || if newest_ms.is_ok() { GroupError::Unknown } else { GroupError::Failed };
        for ask in waiting.into_values().flatten() {
            drop(ask.answer.send(Err(why())));
        }
        newest_ms
    }

    /// Reads what others wrote since; the newest time in it.
    fn catch_up(&mut self) -> Result<u64, ReadError> {
        self.read_journal(false)
    }

    fn read_journal(&mut self, whole: bool) -> Result<u64, ReadError> {
        let (mut groups, mut shelf) = (std::mem::take(&mut self.groups), std::mem::take(&mut self.shelf));
        let (mut gone, mut newest_ms) = (Vec::new(), 0);
        let each = |read: Read, seq, bytes, at_ms| match read {
            Read::Letter { head } => {
                newest_ms = newest_ms.max(head.at_ms);
                let id = MessageId { ms: head.id.0, n: head.id.1 };
                if let Some(group) = groups.get_mut(&head.group).filter(|_| !head.moved) {
                    group.state.bury(id);
                }
                gone.extend(shelf.restore(&head, seq, bytes));
            }
            Read::Fact { group, fact } => {
                newest_ms = newest_ms.max(at_ms);
                read_back(&mut groups, &mut shelf, &mut gone, group, fact, seq, at_ms);
            }
        };
        let done = if whole { self.journal.replay(each) } else { self.journal.catch_up(each) };
        for seq in gone {
            self.journal.forget(seq);
        }
        for group in groups.values_mut() {
            group.written_place = group.state.place();
        }
        (self.groups, self.shelf) = (groups, shelf);
        done.map(|()| newest_ms)
    }
}

/// Applies a fact of the journal; where stood what does not count any longer goes into `gone`.
fn read_back(
    groups: &mut BTreeMap<Box<str>, Group>,
    shelf: &mut Shelf,
    gone: &mut Vec<u64>,
    name: Box<str>,
    fact: Fact,
    seq: u64,
    at_ms: u64,
) {
    let state = match fact {
        Fact::Created { settings, place, at_ms } => State::new(settings, place, at_ms),
        Fact::Snapshot(snapshot) => State::restored(*snapshot),
        Fact::Deleted => {
            if let Some(group) = groups.remove(&name) {
                gone.push(group.origin);
                for ask in group.waiters {
                    drop(ask.answer.send(Err(GroupError::Unknown)));
                }
            }
            gone.extend(shelf.drop_group(&name));
            return;
        }
        fact => {
            match &fact {
                Fact::Purged => gone.extend(shelf.purge(&name)),
                Fact::Redriven { letters } => {
                    for letter in letters {
                        shelf.lend(&name, letter.fresh.id);
                    }
                }
                Fact::Acked { ids } | Fact::Lost { ids } => {
                    gone.extend(ids.iter().filter_map(|id| shelf.done(&name, *id)));
                }
                _ => {}
            }
            if let Some(group) = groups.get_mut(&name) {
                group.state.apply(&fact, at_ms);
            }
            return;
        }
    };
    let mut group = Group { origin: seq, ..Group::new(state) };
    if let Some(before) = groups.remove(&name) {
        gone.push(before.origin);
        group.waiters = before.waiters;
    }
    groups.insert(name, group);
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
