//! The spool: what Redis does not take is kept in a log of this worker, and stored in order once it does.
//!
//! From the first event that goes into the spool until the last one has left it, every event of this worker goes
//! through it: so they keep their order. What Redis may or may not have stored is spooled under the same event id,
//! and stored once.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ring::digest::{Context as Sha, SHA256};
use serde_json::json;
use sluice_wire::role::Role;
use tokio::sync::RwLock;
use uuid::Uuid;

use super::{AppendError, Condition, Durability, Receipt, through};
use crate::log::{
    self, AtRest, Draft, Fatal, Filter, Ground, Labels, Log, OpenError, Options, Outcome, ReadError,
    Retention,
};
use crate::redis::{Redis, State, Trouble};

/// LIMIT: bytes of events that wait.
const BYTES_MAX: u64 = 1 << 30;
/// Size of a segment: what Redis has is given back by the segment.
const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;
/// Events handed to Redis at once.
const BATCH_EVENTS: usize = 256;
/// Bytes handed to Redis at once.
const BATCH_BYTES: usize = 256 * 1024;
/// How often the thread looks around.
const TICK: Duration = Duration::from_millis(100);
/// Before another try after Redis refused.
const PAUSE: Duration = Duration::from_secs(1);
/// The type of an event that tells of one which cannot be stored.
const DEAD_LETTER: &str = "dead_letter";

/// The spool. Clones share it; its thread ends with the last one, and what is left waits for the next start.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Core {
    log: Log,
    /// The file that says how far Redis has everything.
    place: PathBuf,
    /// New events may go into it; else what is left of an earlier start is stored and that is all.
    takes: bool,
    bytes_max: u64,
    /// Whether events go into the spool. Held while one does.
    spooling: RwLock<bool>,
    /// Seq up to which Redis has everything.
    drained: AtomicU64,
    /// Bytes of what Redis has not.
    bytes: AtomicU64,
    /// What waits cannot be read.
    broken: AtomicBool,
    closing: Mutex<bool>,
    changed: Condvar,
}

/// What an earlier configuration left in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftBehind {
    pub(crate) events: u64,
    /// Why nobody knows how many.
    pub(crate) fault: Option<String>,
}

impl LeftBehind {
    /// What an operator is told.
    pub(crate) fn told(&self) -> String {
        match &self.fault {
            None => format!(
                "{} acknowledged events wait for a Redis, and none is configured; with it they are stored there",
                self.events
            ),
            Some(fault) => format!("what waits for a Redis that is not configured cannot be read: {fault}"),
        }
    }
}

/// Why what waits was not stored.
#[derive(Debug, thiserror::Error)]
enum DrainError {
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error("what waits for Redis cannot be read")]
    Read(#[from] ReadError),
    #[error("how far Redis has everything cannot be written down")]
    Place(#[from] std::io::Error),
}

impl Spool {
    /// Opens the spool; `None` where none is asked for and none is left. Blocks.
    pub(crate) fn open(
        redis: Redis,
        dir: &Path,
        options: Options,
        ground: Ground,
        takes: bool,
    ) -> Result<Option<Self>, OpenError> {
        if !takes && !dir.is_dir() {
            return Ok(None);
        }
        let core = Core::open(dir, options, ground, takes, BYTES_MAX)?;
        let waiting = core.waiting();
        if waiting > 0 {
            tracing::info!(
                component = "spool",
                events = waiting,
                "events of an earlier start wait for Redis"
            );
        }
        let core = Arc::new(core);
        let own = Arc::clone(&core);
        let thread = std::thread::Builder::new().name("events-spool".into()).spawn(move || own.run(&redis));
        let thread = thread.map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
        Ok(Some(Self { inner: Arc::new(Inner { core, thread: Some(thread) }) }))
    }

    /// Events that wait for a Redis where none is configured any longer; `None` where none do. They are left alone: the
    /// stream they were acknowledged for is not this one. Blocks.
    pub(crate) fn left_behind(dir: &Path, options: Options, ground: Ground) -> Option<LeftBehind> {
        if !dir.is_dir() {
            return None;
        }
        let left = match Core::open(dir, options, ground, false, BYTES_MAX) {
            Ok(core) => LeftBehind { events: core.waiting(), fault: None },
            Err(error) => LeftBehind { events: 0, fault: Some(error.to_string()) },
        };
        (left.events > 0 || left.fault.is_some()).then_some(left)
    }

    /// Stores events in Redis, or in the spool.
    pub(super) async fn append(
        &self,
        redis: &Redis,
        drafts: Vec<Draft>,
        atomic: bool,
    ) -> Result<Receipt, AppendError> {
        let core = &self.inner.core;
        let takes = core.takes;
        let spooling = core.spooling.read().await;
        if *spooling && takes {
            return core.store(drafts, atomic).await;
        }
        drop(spooling);
        let again = takes.then(|| drafts.clone());
        let trouble = match (through(redis, drafts, atomic).await, &again) {
            (Err(AppendError::Away(trouble)), Some(_)) if waits(&trouble) => trouble,
            (answered, _) => return answered,
        };
        let mut spooling = core.spooling.write().await;
        if !std::mem::replace(&mut *spooling, true) {
            tracing::warn!(component = "spool", why = %trouble, "events wait here until Redis takes them");
        }
        // Nothing comes between: the first event here is the first one that is stored.
        let _spooling = spooling.downgrade();
        core.store(again.unwrap_or_default(), atomic).await
    }

    /// Events that wait for Redis.
    pub(super) fn waiting(&self) -> u64 {
        self.inner.core.waiting()
    }

    /// How the store is, where the server is so.
    pub(super) fn condition(&self, server: Condition) -> Condition {
        let core = &self.inner.core;
        let events = core.waiting();
        if core.log.fatal().is_some() {
            return Condition::Failed;
        }
        if core.broken.load(Ordering::Relaxed) {
            let why = "what waits for Redis cannot be read".to_owned();
            return Condition::Spooling { why, events };
        }
        match server {
            Condition::Away(why) if core.takes && core.has_room() => Condition::Spooling { why, events },
            Condition::Full if core.takes && core.has_room() => {
                Condition::Spooling { why: "it may take no more memory".to_owned(), events }
            }
            Condition::Well if events > 0 => {
                Condition::Spooling { why: "they are being stored".to_owned(), events }
            }
            server => server,
        }
    }

    /// Waits until the spool's log fails for good; forever while it does not.
    pub(super) async fn failed(&self) -> Fatal {
        self.inner.core.log.failed().await
    }
}

/// Whether events wait in the spool after such trouble. A call that Redis answered with an error of another kind
/// would be answered so again.
fn waits(trouble: &Trouble) -> bool {
    trouble.is_not_done() || matches!(trouble, Trouble::Lost(_))
}

impl Core {
    fn open(
        dir: &Path,
        options: Options,
        ground: Ground,
        takes: bool,
        bytes_max: u64,
    ) -> Result<Self, OpenError> {
        let options = Options {
            retention: Retention::default(),
            segment_bytes: options.segment_bytes.min(SEGMENT_BYTES),
            // Their numbers come with their places in the stream.
            partitions: None,
            ..options
        };
        // It is read once and gone.
        let at_rest = AtRest { archive: None, compress: false, ..ground.at_rest.clone() };
        let log = Log::open(dir, &options, Ground { at_rest, ..ground })?;
        let place = dir.with_extension("place");
        let reader = log.reader();
        // A place that is not there, or beyond what is there, costs a repetition, which the event ids make harmless.
        let noted = std::fs::read_to_string(&place).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let drained = noted.unwrap_or(0).clamp(reader.first_seq() - 1, reader.durable_seq());
        let left = reader.durable_seq() > drained;
        if noted.is_some_and(|noted| noted != drained) {
            // What is written now must not be taken for what the file was written for.
            write_place(&place, drained).map_err(|source| OpenError::Io { path: place.clone(), source })?;
        }
        Ok(Self {
            place,
            takes,
            bytes_max,
            spooling: RwLock::new(left),
            drained: AtomicU64::new(drained),
            bytes: AtomicU64::new(if left { reader.stats().bytes } else { 0 }),
            broken: AtomicBool::new(false),
            closing: Mutex::new(false),
            changed: Condvar::new(),
            log,
        })
    }

    fn waiting(&self) -> u64 {
        self.log.reader().durable_seq().saturating_sub(self.drained.load(Ordering::Acquire))
    }

    fn has_room(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) < self.bytes_max
    }

    async fn store(&self, drafts: Vec<Draft>, atomic: bool) -> Result<Receipt, AppendError> {
        if atomic && drafts.len() > 1 {
            // Whether one of them is in conflict with what is stored is for Redis to say, and comes too late.
            return Err(Trouble::Away("an atomic batch does not wait".to_owned()).into());
        }
        let bytes: u64 = drafts.iter().map(|draft| draft.stored_bytes() as u64).sum();
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > self.bytes_max {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            return Err(Trouble::Away("as many events wait as may".to_owned()).into());
        }
        match self.log.append(drafts, false).await {
            Ok(log::Receipt { outcomes, .. }) => Ok(Receipt { outcomes, durability: Durability::Spooled }),
            Err(error) => {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                Err(error.into())
            }
        }
    }

    /// Stores what waits whenever Redis takes it, until the spool is closed.
    fn run(&self, redis: &Redis) {
        let mut pause = TICK;
        while !self.closes_within(pause) {
            pause = TICK;
            if redis.state() != State::Up {
                continue;
            }
            if self.waiting() > 0 {
                // A caller that left before its answer may have left an event behind.
                if !self.is_spooling() {
                    *self.spooling.blocking_write() = true;
                }
                if let Err(error) = self.drain(redis) {
                    self.broken.store(matches!(error, DrainError::Read(_)), Ordering::Relaxed);
                    tracing::warn!(
                        component = "spool",
                        error = &error as &dyn std::error::Error,
                        "events go on waiting"
                    );
                    pause = PAUSE;
                }
            } else {
                self.end();
            }
        }
    }

    fn is_spooling(&self) -> bool {
        *self.spooling.blocking_read()
    }

    /// From here on events go to Redis again, if none waits.
    fn end(&self) {
        if !self.is_spooling() {
            return;
        }
        let mut spooling = self.spooling.blocking_write();
        if self.waiting() == 0 {
            *spooling = false;
            self.bytes.store(0, Ordering::Relaxed);
            tracing::info!(component = "spool", "Redis has everything that waited");
        }
    }

    fn drain(&self, redis: &Redis) -> Result<(), DrainError> {
        let from = self.drained.load(Ordering::Acquire) + 1;
        let mut scan = self.log.reader().forward(from, Filter::default());
        loop {
            let (mut drafts, mut bytes, mut last) = (Vec::new(), 0, 0);
            while drafts.len() < BATCH_EVENTS && bytes < BATCH_BYTES {
                let Some(record) = scan.next()? else { break };
                let labels = Labels { kind: record.kind(), symbol: record.symbol(), source: record.source() };
                last = record.stamp.seq;
                let draft =
                    Draft::new(labels, record.time_us, record.event_id, record.fingerprint, record.json())
                        .expect("it came out of a record");
                bytes += draft.stored_bytes();
                drafts.push(draft);
            }
            if drafts.is_empty() || *self.closing.lock().unwrap_or_else(PoisonError::into_inner) {
                return Ok(());
            }
            hand_over(redis, &drafts)?;
            self.note(last)?;
            let before = self.bytes.load(Ordering::Relaxed);
            self.bytes.fetch_sub(before.min(bytes as u64), Ordering::Relaxed);
        }
    }

    /// Redis has everything up to a seq.
    fn note(&self, seq: u64) -> std::io::Result<()> {
        write_place(&self.place, seq)?;
        self.drained.store(seq, Ordering::Release);
        self.broken.store(false, Ordering::Relaxed);
        self.log.trim_before(seq + 1);
        Ok(())
    }

    /// Waits a moment; whether the spool is to close.
    fn closes_within(&self, time: Duration) -> bool {
        let closing = self.closing.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.changed.wait_timeout_while(closing, time, |closing| !*closing);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn write_place(path: &Path, seq: u64) -> std::io::Result<()> {
    let unfinished = path.with_extension("place.tmp");
    std::fs::write(&unfinished, format!("{seq}\n"))?;
    std::fs::rename(&unfinished, path)
}

/// Stores events in Redis and waits for the answer. One whose id another event has there is told as a dead letter:
/// it was acknowledged, so it does not vanish.
fn hand_over(redis: &Redis, drafts: &[Draft]) -> Result<(), AppendError> {
    let receipt = ask(redis, drafts.to_vec())?;
    let clashes = drafts.iter().zip(&receipt.outcomes);
    let clashes = clashes.filter(|(_, outcome)| matches!(outcome, Outcome::Conflict(_)));
    let letters: Vec<Draft> = clashes.filter_map(|(draft, _)| letter(draft)).collect();
    if letters.is_empty() {
        return Ok(());
    }
    tracing::warn!(
        component = "spool",
        events = letters.len(),
        "other events have the ids of events that waited"
    );
    ask(redis, letters).map(|_| ())
}

fn ask(redis: &Redis, drafts: Vec<Draft>) -> Result<Receipt, AppendError> {
    redis.submit(drafts, false)?.blocking_recv().unwrap_or(Err(AppendError::Closed))
}

/// The `dead_letter` event that tells of an event. Its id is made of the event, so that telling twice stores one.
fn letter(draft: &Draft) -> Option<Draft> {
    let mut sha = Sha::new(&SHA256);
    sha.update(b"sluice spooled conflict");
    sha.update(&draft.event_id.to_le_bytes());
    sha.update(&draft.fingerprint.to_le_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&sha.finish().as_ref()[..16]);
    let id = uuid::Builder::from_custom_bytes(bytes).into_uuid();
    let Labels { kind, symbol, source } = draft.labels();
    let about = json!({
        "cause": "event_id_conflict",
        "event_type": kind,
        "event_id": Uuid::from_u128(draft.event_id).to_string(),
        "symbol": symbol,
        "source": source,
        "attempts": 1,
    });
    let about = about.to_string();
    let about = about.strip_suffix('}').unwrap_or(&about);
    let (now, role) = (jiff::Timestamp::now(), Role::Events.as_str());
    let compose = |event: &str| {
        // Metadata is the last member of what is stored.
        let text = format!(
            r#"{{"event_type":"{DEAD_LETTER}","event_id":"{id}","timestamp":"{now}","source":"{role}","data":{about},"event":{event}}},"metadata":{{"role":"{role}"}}}}"#
        );
        let labels = Labels { kind: DEAD_LETTER, symbol, source: role };
        Draft::new(labels, now.as_microsecond(), id.as_u128(), draft.fingerprint, text.as_bytes()).ok()
    };
    // An event that is too large to be wrapped is told of without its content.
    let event = std::str::from_utf8(draft.json()).ok();
    event.and_then(compose).or_else(|| compose("null"))
}

impl Drop for Inner {
    fn drop(&mut self) {
        *self.core.closing.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.core.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the hook.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(n: u64) -> Draft {
        let labels = Labels { kind: "risk_alert", symbol: "BTC", source: "me" };
        let json = format!(r#"{{"event_type":"risk_alert","data":{{"n":{n}}},"metadata":{{}}}}"#);
        Draft::new(labels, 5, u128::from(n), n, json.as_bytes()).unwrap()
    }

    fn core(dir: &Path, bytes_max: u64) -> Core {
        let options = Options {
            fsync: log::Fsync::Always,
            retention: Retention::default(),
            dedup_window_ms: 1_000,
            segment_bytes: 1 << 20,
            partitions: None,
        };
        Core::open(&dir.join("s.spool.log"), options, Ground::default(), true, bytes_max).unwrap()
    }

    #[tokio::test]
    async fn it_is_bounded_and_takes_no_atomic_batch() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = draft(0).stored_bytes() as u64;
        let core = core(dir.path(), 2 * bytes);
        let away = |answer| matches!(answer, Err(AppendError::Away(Trouble::Away(_))));
        assert!(away(core.store(vec![draft(0), draft(1)], true).await));
        assert_eq!((core.waiting(), core.has_room()), (0, true));
        for n in 0..2 {
            let receipt = core.store(vec![draft(n)], true).await.unwrap();
            assert_eq!(receipt.durability, Durability::Spooled);
        }
        assert!(away(core.store(vec![draft(2)], false).await));
        assert_eq!((core.waiting(), core.has_room()), (2, false));
        core.note(2).unwrap();
        assert_eq!(core.waiting(), 0);
    }

    #[tokio::test]
    async fn a_place_that_is_not_that_of_the_log_hides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("s.spool.place"), "500\n").unwrap();
        let first = core(dir.path(), 1 << 20);
        for n in 0..3 {
            first.store(vec![draft(n)], false).await.unwrap();
        }
        first.note(1).unwrap();
        drop(first);
        let again = core(dir.path(), 1 << 20);
        assert_eq!((again.waiting(), *again.spooling.read().await), (2, true));
        drop(again);
        std::fs::write(dir.path().join("s.spool.place"), "nonsense").unwrap();
        assert_eq!(core(dir.path(), 1 << 20).waiting(), 3);
    }

    #[test]
    fn a_dead_letter_holds_the_event_and_is_the_same_each_time() {
        let [first, again] = [letter(&draft(7)).unwrap(), letter(&draft(7)).unwrap()];
        assert_eq!((first.event_id, first.fingerprint), (again.event_id, again.fingerprint));
        assert_ne!(first.event_id, letter(&draft(8)).unwrap().event_id);
        let told: serde_json::Value = serde_json::from_slice(first.json()).unwrap();
        assert_eq!(
            (&told["data"]["event"]["data"]["n"], &told["metadata"]["role"]),
            (&json!(7), &json!("events"))
        );
        assert_eq!(
            (&told["data"]["cause"], &told["event_type"]),
            (&json!("event_id_conflict"), &json!("dead_letter"))
        );
        let large = format!(r#"{{"data":"{}","metadata":{{}}}}"#, "x".repeat(327_400));
        let large = Draft::new(first.labels(), 5, 9, 9, large.as_bytes()).unwrap();
        let told: serde_json::Value = serde_json::from_slice(letter(&large).unwrap().json()).unwrap();
        assert_eq!(told["data"]["event"], json!(null));
    }
}
