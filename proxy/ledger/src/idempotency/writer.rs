//! The thread that writes. It takes whatever waits, commits it at once and then tells who asked.
//!
//! A commit costs a sync, the more requests wait the more share it. What cannot be written is refused where it is a
//! claim, and tried again where it is a result: its request was sent already.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sluice_policy::idempotency::{Answer, End, KeyId, Owner, Verdict};
use tokio::sync::oneshot;

use super::relay;
use super::table::Tables;
use super::{CLAIM_WITHIN, CLAIMS_MAX, HELD_MAX, KeysError, Wanted};
use crate::{Ledger, LedgerError};

/// LIMIT: what one commit holds.
pub(super) const BATCH_MAX: usize = 512;
/// Between two looks for records that are over.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Until what could not be written is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// LIMIT: bytes of answers that wait for a disk that refuses; past it their status is kept.
const UNWRITTEN_BYTES: usize = 16 << 20;

/// LIMIT: what the thread has not looked at: claims, the ends of requests that hold a key, and a few orders. So
/// there is always room for an end, and nobody waits to say it.
const QUEUE_MAX: usize = CLAIMS_MAX + HELD_MAX + 64;

/// Whoever waits for the verdict on a claim.
pub(super) struct Told {
    verdict: oneshot::Sender<Result<Verdict, KeysError>>,
    _waits: Option<Counted>,
}

impl Told {
    /// Somebody who is not counted here: a predecessor counts its own.
    pub(super) const fn new(verdict: oneshot::Sender<Result<Verdict, KeysError>>) -> Self {
        Self { verdict, _waits: None }
    }

    /// Tells; the verdict comes back where nobody waits any more.
    pub(super) fn send(self, verdict: Result<Verdict, KeysError>) -> Result<(), Result<Verdict, KeysError>> {
        self.verdict.send(verdict)
    }
}

/// What the thread is told.
pub(super) enum Op {
    /// Decide about a request.
    Claim(Wanted, Owner, Told),
    /// A request ended.
    Finish(KeyId, Owner, End),
    /// Write what came before, then hold what comes; answer when that is done.
    Yield(oneshot::Sender<()>),
    /// Write again.
    Resume,
    /// Send what was held and what comes to the successor.
    Relay,
}

/// The keys in a ledger.
#[derive(Debug)]
pub(super) struct LocalKeys {
    ops: SyncSender<Box<Op>>,
    /// Claims that the thread has not looked at.
    waiting: Arc<AtomicUsize>,
    /// Requests that hold a key, or ask for one, and how many may.
    held: Arc<AtomicUsize>,
    held_max: usize,
    records: Arc<AtomicU64>,
    alive: Alive,
    run: u64,
    socket: PathBuf,
}

/// The processes whose requests are under way: this one, and those that handed over to it.
pub(super) type Alive = Arc<Mutex<BTreeSet<u64>>>;

impl LocalKeys {
    pub(super) fn start(ledger: Arc<Ledger>, run: u64, now_ms: fn() -> u64) -> std::io::Result<Self> {
        let (ops, received) = sync_channel(QUEUE_MAX);
        let alive: Alive = Arc::new(Mutex::new(BTreeSet::from([run])));
        let socket = ledger.path().with_file_name("keys.sock");
        let records = Arc::<AtomicU64>::default();
        let writer = Writer {
            ledger,
            now_ms,
            alive: Arc::clone(&alive),
            records: Arc::clone(&records),
            socket: socket.clone(),
            mode: Mode::Writes,
            unwritten: Vec::new(),
            held: Vec::new(),
        };
        std::thread::Builder::new().name("sluice-keys".to_owned()).spawn(move || writer.run(&received))?;
        let (waiting, held, held_max) = (Arc::default(), Arc::default(), HELD_MAX);
        Ok(Self { ops, waiting, held, held_max, records, alive, run, socket })
    }

    pub(super) fn records(&self) -> u64 {
        self.records.load(Ordering::Relaxed)
    }

    pub(super) async fn claim(&self, wanted: Wanted, owner: Owner) -> Result<Verdict, KeysError> {
        let waits = Counted::begin(&self.waiting, CLAIMS_MAX).ok_or(KeysError::Busy)?;
        // Given back also where the request gives up while it waits.
        let holds = Counted::begin(&self.held, self.held_max).ok_or(KeysError::Busy)?;
        let (told, verdict) = oneshot::channel();
        self.tell(Op::Claim(wanted, owner, Told { verdict: told, _waits: Some(waits) }));
        let verdict = match tokio::time::timeout(CLAIM_WITHIN, verdict).await {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(_)) => Err(KeysError::Ledger("its thread has ended".to_owned())),
            Err(_) => Err(KeysError::Late),
        };
        if matches!(verdict, Ok(Verdict::Claim)) {
            // From here on it is the claim's end that gives it back.
            std::mem::forget(holds);
        }
        verdict
    }

    pub(super) fn finish(&self, id: KeyId, owner: Owner, end: End) {
        self.tell(Op::Finish(id, owner, end));
        self.held.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn yield_up(&self) -> Vec<u64> {
        let (told, written) = oneshot::channel();
        self.tell(Op::Yield(told));
        // The thread ends only with this process; then there is nobody to wait for.
        drop(written.blocking_recv());
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(self.run).chain(alive.iter().copied().filter(|run| *run != self.run)).collect()
    }

    pub(super) fn resume(&self) {
        self.tell(Op::Resume);
    }

    pub(super) fn relay(&self) {
        self.tell(Op::Relay);
    }

    pub(super) fn adopt(&self, runs: &[u64]) -> std::io::Result<()> {
        if runs.is_empty() {
            return Ok(());
        }
        relay::listen(&self.socket, runs, Arc::clone(&self.alive), self.ops.clone())
    }

    /// The same with another bound.
    #[cfg(test)]
    pub(super) fn bounded(self, held_max: usize) -> Self {
        Self { held_max, ..self }
    }

    /// Ends the connection to the successor, as the death of this process would.
    #[cfg(test)]
    pub(super) fn sever(&self) {
        self.tell(Op::Resume);
    }

    /// The thread lives as long as somebody may tell it something, and its queue has room for all who may.
    fn tell(&self, op: Op) {
        drop(self.ops.try_send(Box::new(op)));
    }
}

/// One of so many at once.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    /// `None` where there are `most` already.
    fn begin(all: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let counted = Self(Arc::clone(all));
        (all.fetch_add(1, Ordering::Relaxed) < most).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where what is told goes.
enum Mode {
    /// Into the ledger.
    Writes,
    /// Nowhere yet: it is not known who serves.
    Holds,
    /// To the successor; `None` once that is lost.
    Relays(Option<UnixStream>),
}

struct Writer {
    ledger: Arc<Ledger>,
    now_ms: fn() -> u64,
    alive: Alive,
    records: Arc<AtomicU64>,
    socket: PathBuf,
    mode: Mode,
    /// Results for which the disk had no room.
    unwritten: Vec<Op>,
    /// Told while nobody serves.
    held: Vec<Op>,
}

impl Writer {
    fn run(mut self, ops: &Receiver<Box<Op>>) {
        loop {
            let wait = if self.unwritten.is_empty() { SWEEP_EVERY } else { AGAIN };
            let mut batch = std::mem::take(&mut self.unwritten);
            match ops.recv_timeout(wait) {
                Ok(op) => batch.push(*op),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while batch.len() < BATCH_MAX
                && !batch.last().is_some_and(is_order)
                && let Ok(op) = ops.try_recv()
            {
                batch.push(*op);
            }
            let order = batch.pop_if(|op| is_order(op));
            self.take(batch);
            match order {
                Some(Op::Yield(told)) => {
                    self.mode = Mode::Holds;
                    // Whoever asked may have given up.
                    told.send(()).ok();
                }
                Some(Op::Resume) => self.turn(Mode::Writes),
                Some(Op::Relay) => self.turn(Mode::Relays(relay::connect(&self.socket))),
                _ => {}
            }
        }
    }

    /// Goes on in another way with what was held.
    fn turn(&mut self, mode: Mode) {
        self.mode = mode;
        let mut held = std::mem::take(&mut self.held);
        while !held.is_empty() {
            let rest = held.split_off(held.len().min(BATCH_MAX));
            self.take(std::mem::replace(&mut held, rest));
        }
    }

    fn take(&mut self, batch: Vec<Op>) {
        match &mut self.mode {
            Mode::Writes => self.write(batch),
            Mode::Holds => self.held.extend(batch),
            Mode::Relays(stream) => {
                if let Err(unheard) = relay::pass(stream, batch) {
                    unheard.into_iter().for_each(give_back);
                }
            }
        }
    }

    fn write(&mut self, batch: Vec<Op>) {
        if !self.ledger.is_open() && batch.is_empty() {
            return;
        }
        let now_ms = (self.now_ms)();
        let alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut verdicts = Vec::new();
        let written = self.ledger.store.write(|transaction| {
            let mut tables = Tables::open(transaction)?;
            let lives = |run| alive.contains(&run);
            for op in &batch {
                match op {
                    Op::Claim(wanted, owner, _) => {
                        verdicts.push(tables.claim(wanted, *owner, now_ms, lives)?);
                    }
                    Op::Finish(id, owner, end) => tables.finish(id, *owner, end.clone())?,
                    Op::Yield(_) | Op::Resume | Op::Relay => {}
                }
            }
            tables.sweep(now_ms, lives)?;
            let (changed, records) = tables.close()?;
            // Looking alone costs no sync.
            Ok(if changed { Ok(records) } else { Err(records) })
        });
        match written {
            Ok(Ok(records) | Err(records)) => {
                self.records.store(records, Ordering::Relaxed);
                self.tell(batch, verdicts);
            }
            Err(error) => self.refuse(batch, &error),
        }
    }

    /// Answers claims that are recorded; one that nobody waits for any more is given back.
    fn tell(&mut self, batch: Vec<Op>, verdicts: Vec<Result<Verdict, KeysError>>) {
        let claims = batch.into_iter().filter_map(|op| match op {
            Op::Claim(wanted, owner, told) => Some((wanted.id, owner, told)),
            _ => None,
        });
        for ((id, owner, told), verdict) in claims.zip(verdicts) {
            if let Err(Ok(Verdict::Claim)) = told.send(verdict) {
                self.unwritten.push(Op::Finish(id, owner, End::NotSent));
            }
        }
    }

    /// The ledger cannot be written: claims are refused, results wait.
    fn refuse(&mut self, batch: Vec<Op>, error: &LedgerError) {
        let mut bytes = 0;
        for op in batch {
            match op {
                Op::Claim(_, _, told) => drop(told.send(Err(KeysError::Ledger(chain(error))))),
                Op::Finish(id, owner, end) => {
                    let end = match end {
                        End::Answered(answer) if bytes + answer.bytes() > UNWRITTEN_BYTES => {
                            End::Answered(Answer::Status(answer.status()))
                        }
                        end => end,
                    };
                    bytes += if let End::Answered(answer) = &end { answer.bytes() } else { 0 };
                    self.unwritten.push(Op::Finish(id, owner, end));
                }
                Op::Yield(_) | Op::Resume | Op::Relay => {}
            }
        }
    }
}

/// Nobody can keep it: a claim is refused, a result is lost and its key stays in flight, then unknown.
fn give_back(op: Op) {
    if let Op::Claim(_, _, told) = op {
        drop(told.send(Err(KeysError::HandedOver)));
    }
}

const fn is_order(op: &Op) -> bool {
    matches!(op, Op::Yield(_) | Op::Resume | Op::Relay)
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
