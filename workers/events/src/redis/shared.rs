//! What the threads of the engine share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use uuid::Uuid;

use super::link::{ANSWER_WITHIN, Link, Target, Trouble};
use super::script::{Attached, Keys, Scripts};
use super::tail::{Tail, Want};
use super::{OpenError, Options};
use crate::engine::Durability;
use crate::log::{MessageId, Record, Stamp, Stats};

/// LIMIT: connections for readers that wait to be used again.
const IDLE_LINKS_MAX: usize = 8;
/// Between two tries to reach Redis.
pub(super) const AGAIN: Duration = Duration::from_millis(200);

/// How the engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Redis takes events.
    Up,
    /// Redis is not reached, and why.
    Away(String),
    /// Redis must not hold events, and why.
    Refused(String),
}

/// The newest event that this process knows to be stored, and the data set it is in.
#[derive(Clone, Debug, Default)]
struct Known {
    epoch: Option<String>,
    seq: u64,
    id: MessageId,
}

/// The shared state.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(super) options: Options,
    pub(super) keys: Keys,
    target: Target,
    /// `None` until the first try has ended.
    state: Mutex<Option<State>>,
    changed: Condvar,
    known: Mutex<Known>,
    head: AtomicU64,
    replaced: watch::Sender<u64>,
    tail: Mutex<Tail>,
    /// There are newer events.
    moved: Condvar,
    /// The follower has something to read.
    due: Condvar,
    stats: RwLock<Stats>,
    durability: RwLock<Durability>,
    full: AtomicBool,
    /// When the oldest call that the writer has no answer to was begun.
    calling: Mutex<Option<Instant>>,
    idle: Mutex<Vec<(Link, Scripts)>>,
    closing: AtomicBool,
}

impl Shared {
    pub(super) fn new(options: Options) -> Result<Self, OpenError> {
        let keys = Keys::new(&options.stream);
        let target = Target::new(&options.url, &options.stream).map_err(OpenError::Address)?;
        Ok(Self {
            options,
            keys,
            target,
            state: Mutex::new(None),
            changed: Condvar::new(),
            known: Mutex::default(),
            head: AtomicU64::new(0),
            replaced: watch::Sender::new(0),
            tail: Mutex::default(),
            moved: Condvar::new(),
            due: Condvar::new(),
            stats: RwLock::new(Stats { first_seq: 1, ..Stats::default() }),
            durability: RwLock::new(Durability::Memory),
            full: AtomicBool::new(false),
            calling: Mutex::default(),
            idle: Mutex::default(),
            closing: AtomicBool::new(false),
        })
    }

    /// How the engine is; before the first try it is away, and while an answer comes in drops that take longer than
    /// the whole of it may.
    pub(crate) fn state(&self) -> State {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match state {
            Some(State::Up) if self.is_stalled() => State::Away("an answer takes too long".to_owned()),
            Some(state) => state,
            None => State::Away("it was not tried yet".to_owned()),
        }
    }

    /// Notes when the oldest call that is not answered was begun.
    pub(super) fn set_calling(&self, begun: Option<Instant>) {
        *self.calling.lock().unwrap_or_else(PoisonError::into_inner) = begun;
    }

    fn is_stalled(&self) -> bool {
        let calling = *self.calling.lock().unwrap_or_else(PoisonError::into_inner);
        calling.is_some_and(|begun| begun.elapsed() > ANSWER_WITHIN)
    }

    /// The state after the first try, but at the latest after a time.
    pub(super) fn first_state(&self, limit: Duration) -> State {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout_while(state, limit, |state| state.is_none()));
        self.state()
    }

    pub(super) fn set_state(&self, new: State) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let old = state.replace(new.clone());
        drop(state);
        if old.as_ref() == Some(&new) {
            return;
        }
        match (&new, old) {
            (State::Up, _) => tracing::info!(component = "redis", "Redis takes events"),
            // The reason may change while it stays away: told once.
            (State::Away(_), Some(State::Away(_))) => {}
            (State::Away(why), _) => tracing::warn!(component = "redis", why, "Redis is not reached"),
            (State::Refused(why), _) => {
                tracing::error!(component = "redis", why, "Redis cannot hold the events");
            }
        }
        self.changed.notify_all();
    }

    /// Connects, makes the scripts known, and compares what is stored with what is known here.
    pub(super) fn enter(&self) -> Result<(Link, Scripts), Trouble> {
        let mut link = Link::open(&self.target)?;
        let scripts = Scripts::load(&mut link)?;
        Ok((link, scripts))
    }

    /// Compares what is stored with what is known here, and takes over what it finds.
    pub(super) fn attach(&self, link: &mut Link, scripts: &Scripts) -> Result<Attached, Trouble> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let epoch = Uuid::new_v4().simple().to_string();
        let Options { group, partitions, .. } = &self.options;
        let found = scripts.attach(link, &self.keys, &epoch, (known.seq, known.id), group, *partitions)?;
        self.take_over(&found);
        Ok(found)
    }

    fn take_over(&self, found: &Attached) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let first = known.epoch.is_none();
        let replaced = known.epoch.as_ref().is_some_and(|epoch| *epoch != found.epoch);
        known.epoch = Some(found.epoch.clone());
        if found.seq > known.seq {
            (known.seq, known.id) = (found.seq, found.id);
        }
        let seq = known.seq;
        drop(known);
        self.head.fetch_max(seq, Ordering::AcqRel);
        if first {
            self.tail().begin(seq, found.id);
        }
        if replaced || found.lost {
            self.replaced.send_modify(|upto| *upto = seq);
            tracing::error!(component = "redis", seq, "stored events were replaced: a new epoch begins");
        }
    }

    /// The epoch that this process works in.
    pub(super) fn epoch(&self) -> String {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).epoch.clone().unwrap_or_default()
    }

    /// Notes that an event is stored.
    pub(super) fn learn(&self, stamp: Stamp) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if stamp.seq > known.seq {
            (known.seq, known.id) = (stamp.seq, stamp.id);
        }
        drop(known);
        self.head.fetch_max(stamp.seq, Ordering::AcqRel);
    }

    /// Seq of the newest event known to be stored.
    pub(super) fn head(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    pub(crate) fn replaced(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// Takes up what this worker stored with one call, in the order of the calls.
    pub(super) fn wrote(&self, records: Vec<Record>) {
        let Some(last) = records.last().map(|record| record.stamp) else { return };
        let mut tail = self.tail();
        // Under the lock: who sees the new head finds the events.
        self.learn(last);
        let before = tail.seq();
        tail.wrote(records, Instant::now());
        let has_moved = tail.seq() != before;
        drop(tail);
        let told = if has_moved { &self.moved } else { &self.due };
        told.notify_all();
    }

    /// Takes up what the follower read.
    pub(super) fn read(&self, want: Want, records: Vec<Record>, upto: Option<MessageId>, is_all: bool) {
        let mut tail = self.tail();
        if let Some(last) = records.last() {
            self.learn(last.stamp);
        }
        tail.read(want, records, upto, is_all);
        drop(tail);
        self.moved.notify_all();
    }

    /// What the follower is to read; waits until it should. `None` when the engine closes.
    pub(super) fn next_read(&self) -> Option<Want> {
        let mut tail = self.tail();
        while !self.is_closing() {
            let (want, left) = tail.want(Instant::now())?;
            if left.is_zero() {
                return Some(want);
            }
            tail = self.due.wait_timeout(tail, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        None
    }

    /// Whether seqs would be missing behind these, which are all that stands before what this worker stored.
    pub(super) fn lacks(&self, records: &[Record]) -> bool {
        self.tail().lacks(records)
    }

    /// Events from `seq` on out of memory, at most `most`; empty when the next one is not there.
    pub(super) fn tail_from(&self, seq: u64, most: usize) -> Vec<Record> {
        self.tail().from(seq, most)
    }

    /// How far the stream is known, and where who follows begins.
    pub(super) fn tail_seqs(&self) -> (u64, u64) {
        let tail = self.tail();
        (tail.seq(), tail.begins_at())
    }

    /// Blocks until an event after `seq` is known; `false` when the time is up.
    pub(super) fn wait_beyond(&self, seq: u64, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        let mut tail = self.tail();
        while tail.seq() <= seq {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            tail = self.moved.wait_timeout(tail, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is stored, as it was looked at last, with the newest event known now.
    pub(super) fn stats(&self) -> Stats {
        let mut stats = self.stats.read().unwrap_or_else(PoisonError::into_inner).clone();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.seq > stats.last_seq {
            stats.length += known.seq - stats.last_seq;
            (stats.last_seq, stats.last_id) = (known.seq, Some(known.id));
            stats.first_id = stats.first_id.or(stats.last_id);
        }
        stats
    }

    pub(super) fn set_stats(&self, stats: Stats) {
        *self.stats.write().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    /// Seq of the oldest event kept, as it was looked at last.
    pub(super) fn first_seq(&self) -> u64 {
        self.stats.read().unwrap_or_else(PoisonError::into_inner).first_seq
    }

    pub(crate) fn durability(&self) -> Durability {
        *self.durability.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_durability(&self, durability: Durability) {
        *self.durability.write().unwrap_or_else(PoisonError::into_inner) = durability;
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(super) fn set_full(&self, full: bool) {
        if self.full.swap(full, Ordering::Relaxed) != full && full {
            tracing::error!(component = "redis", "Redis may take no more memory");
        }
    }

    /// Does something on a connection for readers.
    pub(super) fn with_link<T>(
        &self,
        work: impl Fn(&mut Link, &Scripts) -> Result<T, Trouble>,
    ) -> Result<T, Trouble> {
        if let State::Away(why) | State::Refused(why) = self.state() {
            return Err(Trouble::Away(why));
        }
        // A connection that was idle may have broken meanwhile: the second try has a new one.
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some((mut link, scripts)) = idle {
            match work(&mut link, &scripts) {
                Err(trouble) if trouble.breaks_link() || trouble.is("NOSCRIPT") => {}
                done => {
                    self.keep((link, scripts));
                    return done;
                }
            }
        }
        let (mut link, scripts) = self.enter()?;
        let done = work(&mut link, &scripts);
        if !done.as_ref().is_err_and(Trouble::breaks_link) {
            self.keep((link, scripts));
        }
        done
    }

    fn keep(&self, link: (Link, Scripts)) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_LINKS_MAX {
            idle.push(link);
        }
    }

    /// Lets go of connections that lead to a server which may be the wrong one now.
    pub(super) fn forget_links(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Waits a moment before another try; shorter at the end.
    pub(super) fn pause(&self, time: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_timeout_while(state, time, |_| !self.is_closing()));
    }

    /// Waits until Redis takes events, but not longer than a time.
    pub(super) fn await_up(&self, limit: Duration) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |state: &mut Option<State>| *state != Some(State::Up) && !self.is_closing();
        drop(self.changed.wait_timeout_while(state, limit, waits));
    }

    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.moved.notify_all();
        self.due.notify_all();
        self.changed.notify_all();
    }
}
