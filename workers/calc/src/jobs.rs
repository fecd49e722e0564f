//! Jobs: work that outlasts its request.
//!
//! At most [`JOBS_RUNNING_MAX`] run, each on a thread of its own. Such a thread computes only while it holds a turn of
//! the pool ([`pace`]), so that jobs never take a processor from requests; between two turns it hears whether it is to
//! end. What becomes of a job is written into a file of its own ([`store`]) when it is taken and when it ends, so that
//! it is there after a restart: done jobs with their results, all others as failed with `restarted`. A job's state
//! changes once from open to ended; who comes second (a result after its cancellation) changes nothing.

pub(crate) mod api;
mod pace;
mod record;
mod store;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use prometheus::IntGaugeVec;
use sluice_calc::Cpu;
use tokio::sync::{Notify, watch};

pub(crate) use pace::{Leader, Pace, Progress};
pub(crate) use record::{Failure, Outbox, RESTARTED, Record, Status};
use store::Store;

use crate::bounds::{
    JOBS_KEPT_BYTES_MAX, JOBS_KEPT_MAX, JOBS_RUNNING_MAX, JOBS_WAITING_BYTES_MAX, JOBS_WAITING_EACH_MAX,
    JOBS_WAITING_MAX,
};
use crate::error::{CalcError, Refusal};
use crate::pool::Pool;

/// What a job does.
pub(crate) trait Work: Send {
    /// Does it; the result as JSON on one line. It is to ask [`Pace::go`] every few milliseconds.
    fn run(&mut self, cpu: Cpu, pace: &mut Pace<'_>) -> Result<String, Stopped>;

    /// Whether what it found is published as events.
    fn is_published(&self) -> bool {
        false
    }
}

/// Why a job has no result.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// It was cancelled, or the worker ends.
    Cancelled,
    /// It could not be done.
    Failed(Failure),
}

impl From<sluice_calc::search::SearchError> for Stopped {
    fn from(error: sluice_calc::search::SearchError) -> Self {
        match error {
            sluice_calc::search::SearchError::Cancelled => Self::Cancelled,
            other => Self::of_refusal(crate::search::refused(&other)),
        }
    }
}

impl Stopped {
    pub(crate) fn of_refusal(refusal: Refusal) -> Self {
        let problem = refusal.problem();
        Self::Failed(Failure::new(problem.code.word(), problem.detail.unwrap_or_default()))
    }
}

/// A job that is known.
pub(crate) struct Job {
    record: Mutex<Record>,
    /// Bytes of its file.
    bytes: Mutex<u64>,
    progress: watch::Sender<Progress>,
    cancelled: AtomicBool,
    /// Held by who ends it, until its file says so: who sees that it has ended finds its result.
    ending: Mutex<()>,
}

/// All of them.
pub(crate) struct Jobs(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    come: Condvar,
    store: Store,
    /// Held while a job is taken, so that the bounds hold over the writing of its file.
    taking: Mutex<()>,
    gauge: IntGaugeVec,
    is_closed: AtomicBool,
    /// Told when there may be something to publish.
    to_publish: Notify,
}

#[derive(Default)]
struct State {
    known: BTreeMap<String, Arc<Job>>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    job: Arc<Job>,
    bytes: usize,
    work: Box<dyn Work>,
}

/// Why a job was not taken.
#[derive(Debug)]
pub(crate) enum NotTaken {
    /// As many wait as may.
    Full,
    /// As many of this owner wait as may.
    Share,
    /// Its file could not be written.
    Store,
}

impl Job {
    fn new(record: Record, bytes: u64) -> Arc<Self> {
        let (progress, _) = watch::channel(Progress::of(&record));
        Arc::new(Self {
            record: Mutex::new(record),
            bytes: Mutex::new(bytes),
            progress,
            cancelled: AtomicBool::new(false),
            ending: Mutex::default(),
        })
    }

    /// What is known of it.
    pub(crate) fn record(&self) -> Record {
        lock(&self.record).clone()
    }

    /// How far it is.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// It runs from now on, unless it has ended.
    fn begin(&self) -> bool {
        let _ending = lock(&self.ending);
        let mut record = lock(&self.record);
        if record.status.has_ended() {
            return false;
        }
        record.status = Status::Running;
        true
    }

    /// Tells those who watch that its state has changed.
    fn tell(&self) {
        let status = lock(&self.record).status;
        self.progress.send_modify(|progress| progress.status = status);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Jobs {
    /// Reads what an earlier worker left, and starts the threads.
    pub(crate) fn open(
        dir: std::path::PathBuf,
        pool: &Arc<Pool>,
        gauge: IntGaugeVec,
        cpu: Cpu,
    ) -> Result<Self, CalcError> {
        let store = Store::open(dir)?;
        let known = store.load(record::now_ms())?;
        let known = known.into_iter().map(|(record, bytes)| (record.job.clone(), Job::new(record, bytes)));
        let state = State { known: known.collect(), waiting: VecDeque::new() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            come: Condvar::new(),
            store,
            taking: Mutex::default(),
            gauge,
            is_closed: AtomicBool::new(false),
            to_publish: Notify::new(),
        });
        shared.trim();
        shared.count();
        for number in 0..JOBS_RUNNING_MAX {
            let (shared, pool) = (Arc::clone(&shared), Arc::clone(pool));
            std::thread::Builder::new()
                .name(format!("job-{number}"))
                .spawn(move || serve(&shared, &pool, cpu))
                .map_err(CalcError::Thread)?;
        }
        Ok(Self(shared))
    }

    /// Takes a job. Writes to the disk: not for the async threads.
    pub(crate) fn take(
        &self,
        record: Record,
        bytes: usize,
        work: Box<dyn Work>,
    ) -> Result<Arc<Job>, NotTaken> {
        let shared = &self.0;
        let _taking = lock(&shared.taking);
        lock(&shared.state).has_room(bytes, &record.owner)?;
        // Before a thread can have it: its end is written after.
        let written = shared.store.write(&record, None).map_err(|error| {
            tracing::error!(component = "jobs", error = %error, "a job could not be written");
            NotTaken::Store
        })?;
        let id = record.job.clone();
        let job = Job::new(record, written);
        {
            let mut state = lock(&shared.state);
            state.known.insert(id, Arc::clone(&job));
            state.waiting.push_back(Waiting { job: Arc::clone(&job), bytes, work });
        }
        shared.come.notify_one();
        shared.count();
        Ok(job)
    }

    /// The job of that id.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Job>> {
        lock(&self.0.state).known.get(id).cloned()
    }

    /// Jobs that satisfy a condition, newest first, from behind `after`; and whether there are more.
    pub(crate) fn page(
        &self,
        after: Option<&str>,
        limit: usize,
        wanted: impl Fn(&Record) -> bool,
    ) -> (Vec<Arc<Job>>, bool) {
        let state = lock(&self.0.state);
        let older = state.known.iter().rev().filter(|(id, _)| after.is_none_or(|after| id.as_str() < after));
        let mut found: Vec<_> = older
            .filter(|(_, job)| wanted(&lock(&job.record)))
            .map(|(_, job)| Arc::clone(job))
            .take(limit + 1)
            .collect();
        let is_more = found.len() > limit;
        found.truncate(limit);
        (found, is_more)
    }

    /// The result of a job that is done, as JSON. Reads from the disk: not for the async threads.
    pub(crate) fn result(&self, id: &str) -> std::io::Result<String> {
        self.0.store.result(id)
    }

    /// Ends a job that waits or runs, forgets one that has ended; its state, and whether it is forgotten. Writes to the
    /// disk.
    pub(crate) fn end(&self, job: &Arc<Job>) -> std::io::Result<(Status, bool)> {
        let shared = &self.0;
        job.cancelled.store(true, Ordering::Relaxed);
        let has_ended_now = shared.conclude(job, None, |record| record.end(Status::Cancelled, None));
        let Record { job: id, status, .. } = job.record();
        if has_ended_now {
            lock(&shared.state).waiting.retain(|waiting| !Arc::ptr_eq(&waiting.job, job));
        } else {
            let ending = lock(&job.ending);
            shared.store.remove(&id)?;
            lock(&shared.state).known.remove(&id);
            drop(ending);
            shared.count();
        }
        Ok((status, !has_ended_now))
    }

    /// The oldest job whose findings are to be published.
    pub(crate) fn unpublished(&self) -> Option<Record> {
        let state = lock(&self.0.state);
        let mut records = state.known.values().map(|job| lock(&job.record).clone());
        records.find(|record| record.status == Status::Done && record.outbox == Some(Outbox::Waits))
    }

    /// Returns when there may be another one.
    pub(crate) async fn to_publish(&self) {
        self.0.to_publish.notified().await;
    }

    /// The findings of a job are published, or never will be. Writes to the disk.
    pub(crate) fn settle(&self, id: &str, outbox: Outbox) -> std::io::Result<()> {
        let Some(job) = self.find(id) else { return Ok(()) };
        // Who removes a job waits: a file that is gone is not written again.
        let _ending = lock(&job.ending);
        if self.find(id).is_none() {
            return Ok(());
        }
        let record = Record { outbox: Some(outbox), ..job.record() };
        let result = self.0.store.result(id)?;
        *lock(&job.bytes) = self.0.store.write(&record, Some(&result))?;
        *lock(&job.record) = record;
        Ok(())
    }

    /// Ends the threads; jobs that run stay as they are in their files, and are told as `restarted` at the next start.
    pub(crate) fn close(&self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
        let _state = lock(&self.0.state);
        self.0.come.notify_all();
    }
}

impl Drop for Jobs {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    /// Whether another job may wait, of so many bytes; one alone always may.
    fn has_room(&self, bytes: usize, owner: &str) -> Result<(), NotTaken> {
        let held: usize = self.waiting.iter().map(|waiting| waiting.bytes).sum();
        let own = self.waiting.iter().filter(|waiting| lock(&waiting.job.record).owner == owner).count();
        if own >= JOBS_WAITING_EACH_MAX {
            return Err(NotTaken::Share);
        }
        let fits = self.waiting.len() < JOBS_WAITING_MAX && held + bytes <= JOBS_WAITING_BYTES_MAX;
        if self.waiting.is_empty() || fits { Ok(()) } else { Err(NotTaken::Full) }
    }
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// The job that waits longest; `None` when the worker ends.
    fn next(&self) -> Option<Waiting> {
        let mut state = lock(&self.state);
        loop {
            if self.is_closed() {
                return None;
            }
            if let Some(waiting) = state.waiting.pop_front() {
                return Some(waiting);
            }
            state = self.come.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends a job, unless it has ended: in its file, then for all who look. Whether it did.
    fn conclude(&self, job: &Job, result: Option<&str>, end: impl FnOnce(&mut Record)) -> bool {
        let ending = lock(&job.ending);
        let mut record = job.record();
        if record.status.has_ended() {
            return false;
        }
        end(&mut record);
        match self.store.write(&record, result) {
            Ok(bytes) => *lock(&job.bytes) = bytes,
            Err(error) => {
                tracing::error!(component = "jobs", error = %error, job = record.job, "a job's end could not be written");
                if result.is_some() {
                    record.fail(Failure::new("internal", "the result could not be written".to_owned()));
                }
            }
        }
        *lock(&job.record) = record;
        drop(ending);
        self.trim();
        self.count();
        job.tell();
        self.to_publish.notify_one();
        true
    }

    /// Forgets the oldest ended jobs beyond the limits.
    fn trim(&self) {
        let mut state = lock(&self.state);
        let ended = |job: &Arc<Job>| lock(&job.record).status.has_ended();
        let sizes: Vec<_> = state.known.iter().filter(|(_, job)| ended(job)).collect();
        let sizes: Vec<_> = sizes.into_iter().map(|(id, job)| (id.clone(), *lock(&job.bytes))).collect();
        let surplus = surplus(&sizes, JOBS_KEPT_MAX, JOBS_KEPT_BYTES_MAX);
        for (id, _) in sizes.into_iter().take(surplus) {
            if let Err(error) = self.store.remove(&id) {
                tracing::warn!(component = "jobs", error = %error, job = id, "an old job's file stays");
            }
            state.known.remove(&id);
        }
    }

    /// Sets the metric.
    fn count(&self) {
        let state = lock(&self.state);
        let mut counts = [0; Status::ALL.len()];
        for job in state.known.values() {
            counts[lock(&job.record).status as usize] += 1;
        }
        for (status, count) in Status::ALL.iter().zip(counts) {
            self.gauge.with_label_values(&[status.word()]).set(count);
        }
    }
}

/// How many of the oldest go, so that neither the number nor the bytes of the others are too many.
fn surplus(sizes: &[(String, u64)], count_max: usize, bytes_max: u64) -> usize {
    let (mut count, mut bytes) = (0, 0);
    let stays = sizes.iter().rev().take_while(|(_, size)| {
        (count, bytes) = (count + 1, bytes + size);
        count <= count_max && bytes <= bytes_max
    });
    sizes.len() - stays.count()
}

/// One thread: a job after the other.
fn serve(shared: &Shared, pool: &Pool, cpu: Cpu) {
    while let Some(Waiting { job, work, .. }) = shared.next() {
        if !job.begin() {
            continue;
        }
        shared.count();
        job.tell();
        let outbox = work.is_published().then_some(Outbox::Waits);
        let done = attempt(shared, pool, cpu, &job, work);
        if shared.is_closed() {
            return;
        }
        let (status, failure, result) = match done {
            Ok(result) => (Status::Done, None, Some(result)),
            Err(Stopped::Cancelled) => (Status::Cancelled, None, None),
            Err(Stopped::Failed(failure)) => (Status::Failed, Some(failure), None),
        };
        let progress = job.progress.borrow().clone();
        shared.conclude(&job, result.as_deref(), |record| {
            record.outbox = outbox.filter(|_| status == Status::Done);
            record.conclude(status, failure, &progress);
        });
    }
}

fn attempt(
    shared: &Shared,
    pool: &Pool,
    cpu: Cpu,
    job: &Job,
    mut work: Box<dyn Work>,
) -> Result<String, Stopped> {
    let ended = || shared.is_closed() || job.is_cancelled();
    let run = || {
        let mut pace = Pace::begin(pool, &ended, &job.progress);
        let result = work.run(cpu, &mut pace);
        pace.publish();
        result
    };
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|_| {
        tracing::error!(component = "jobs", "a job panicked");
        Err(Stopped::Failed(Failure::new("internal", String::new())))
    })
}

#[cfg(test)]
mod tests;
