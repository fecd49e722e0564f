//! Threads that compute, apart from the threads that talk.
//!
//! Bounded queues in front: when one is full the answer is 429 at once, which a client can act on, instead of a wait that
//! it cannot see. Small requests go first, since nobody should wait for another's million bars; after [`SMALL_IN_A_ROW`]
//! of them a large one has its turn, and after [`OTHERS_IN_A_ROW`] jobs a slice of a search. Each thread stays on a
//! processor of its own and keeps its buffers: a fresh page of memory costs more than an indicator over it. A job whose
//! client has gone is not begun, and one that runs is told, so that it can end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use prometheus::{IntCounter, IntGauge};
use sluice_calc::{Cpu, Workspace};
use tokio::sync::oneshot;

use crate::affinity;
use crate::answers::Answers;
use crate::bounds::{OTHERS_IN_A_ROW, QUEUES_MAX, SMALL_IN_A_ROW};

/// What a thread reuses from job to job.
pub(crate) struct Scratch {
    free: Vec<Vec<f64>>,
    work: Workspace,
    answers: Arc<Answers>,
    /// Whether nobody waits for the running job any longer.
    left: Left,
}

impl Scratch {
    /// Buffers kept at most.
    const KEPT_MAX: usize = 64;
    /// Largest buffer kept, values: one unusual request must not hold memory for ever.
    const KEPT_LEN_MAX: usize = 1 << 21;

    pub(crate) fn new(cpu: Cpu, answers: Arc<Answers>) -> Self {
        Self { free: Vec::new(), work: Workspace::new(cpu), answers, left: Left::default() }
    }

    /// What kernels work in.
    pub(crate) const fn workspace(&mut self) -> &mut Workspace {
        &mut self.work
    }

    /// Where answers are written.
    pub(crate) fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    /// Whether the client has gone: what is computed is for nobody.
    pub(crate) fn is_left(&self) -> bool {
        self.left.is_so()
    }

    /// A buffer of a length; its values are whatever was in it before.
    pub(crate) fn take(&mut self, len: usize) -> Vec<f64> {
        let mut buffer = self.free.pop().unwrap_or_default();
        buffer.resize(len, 0.0);
        buffer
    }

    /// Gives a buffer back.
    pub(crate) fn give(&mut self, buffer: Vec<f64>) {
        if self.free.len() < Self::KEPT_MAX && buffer.capacity() <= Self::KEPT_LEN_MAX {
            self.free.push(buffer);
        }
    }
}

/// Which queue a job waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Requests over few bars.
    Small,
    /// Requests over many bars.
    Large,
    /// Slices of a search, which nobody waits for by the second.
    Search,
}

/// How often lanes were passed over.
#[derive(Debug, Default)]
struct Turns {
    small: usize,
    others: usize,
}

impl Turns {
    /// The lane whose turn it is among those in which a job waits.
    fn pick(&mut self, waits: [bool; 3]) -> Option<Lane> {
        let [small, large, search] = waits;
        let lane = if search && (self.others >= OTHERS_IN_A_ROW || !(small || large)) {
            Lane::Search
        } else if large && (self.small >= SMALL_IN_A_ROW || !small) {
            Lane::Large
        } else if small {
            Lane::Small
        } else {
            return None;
        };
        self.others = if lane == Lane::Search || !search { 0 } else { self.others + 1 };
        self.small = if lane == Lane::Small && large { self.small + 1 } else { 0 };
        Some(lane)
    }
}

/// Set when the client of a job leaves.
#[derive(Clone, Default)]
struct Left(Arc<AtomicBool>);

impl Left {
    fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Tells a job, when it is dropped before the answer, that nobody waits.
struct Waiting<'a> {
    left: Left,
    cancelled: &'a IntCounter,
    is_answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.left.0.store(true, Ordering::Relaxed);
            self.cancelled.inc();
        }
    }
}

struct Job {
    run: Box<dyn FnOnce(&mut Scratch) + Send>,
    left: Left,
}

#[derive(Default)]
struct Queues {
    lanes: [VecDeque<Job>; 3],
    turns: Turns,
    is_closed: bool,
}

struct Shared {
    queues: Mutex<Queues>,
    come: Condvar,
    waiting: IntGauge,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next job; `None` when the pool is no more.
    fn next(&self) -> Option<Job> {
        let mut queues = self.lock();
        loop {
            let waits = [0, 1, 2].map(|lane: usize| !queues.lanes[lane].is_empty());
            if let Some(lane) = queues.turns.pick(waits) {
                self.waiting.dec();
                return queues.lanes[lane as usize].pop_front();
            }
            if queues.is_closed {
                return None;
            }
            queues = self.come.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The threads and their queues.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    cancelled: IntCounter,
    threads: usize,
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Pool {
    /// Starts `threads` threads.
    pub(crate) fn start(
        threads: usize,
        waiting: IntGauge,
        cancelled: IntCounter,
        cpu: Cpu,
        answers: &Arc<Answers>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { queues: Mutex::default(), come: Condvar::new(), waiting });
        let places = affinity::allowed();
        for number in 0..threads {
            let (shared, answers) = (Arc::clone(&shared), Arc::clone(answers));
            let place = places.get(number % places.len().max(1)).copied();
            std::thread::Builder::new().name(format!("calc-{number}")).spawn(move || {
                if let Some(place) = place {
                    affinity::stay_on(place);
                }
                work(&shared, cpu, &answers);
            })?;
        }
        Ok(Self { shared, cancelled, threads })
    }

    /// Threads that compute.
    pub(crate) const fn threads(&self) -> usize {
        self.threads
    }

    /// Runs a computation; `None` when it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        lane: Lane,
        compute: impl FnOnce(&mut Scratch) -> T + Send + 'static,
    ) -> Result<Option<T>, Full> {
        let (answer, answered) = oneshot::channel();
        let left = Left::default();
        self.push(lane, left.clone(), move |scratch| {
            let _client_gone = answer.send(compute(scratch));
        })?;
        let mut waiting = Waiting { left, cancelled: &self.cancelled, is_answered: false };
        let answer = answered.await.ok();
        waiting.is_answered = true;
        Ok(answer)
    }

    /// Runs a computation that nobody waits for.
    pub(crate) fn spawn(
        &self,
        lane: Lane,
        compute: impl FnOnce(&mut Scratch) + Send + 'static,
    ) -> Result<(), Full> {
        self.push(lane, Left::default(), compute)
    }

    fn push(
        &self,
        lane: Lane,
        left: Left,
        compute: impl FnOnce(&mut Scratch) + Send + 'static,
    ) -> Result<(), Full> {
        let mut queues = self.shared.lock();
        let queue = &mut queues.lanes[lane as usize];
        if queue.len() >= QUEUES_MAX[lane as usize] {
            return Err(Full);
        }
        queue.push_back(Job { run: Box::new(compute), left });
        self.shared.waiting.inc();
        drop(queues);
        self.shared.come.notify_one();
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.come.notify_all();
    }
}

fn work(shared: &Shared, cpu: Cpu, answers: &Arc<Answers>) {
    let mut scratch = Scratch::new(cpu, Arc::clone(answers));
    while let Some(Job { run, left }) = shared.next() {
        if left.is_so() {
            continue;
        }
        scratch.left = left;
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut scratch)));
        if outcome.is_err() {
            tracing::error!(component = "pool", "a computation panicked");
            scratch = Scratch::new(cpu, Arc::clone(answers));
        }
        scratch.work.trim(Scratch::KEPT_LEN_MAX);
    }
}

#[cfg(test)]
mod tests;
