//! Threads that compute, apart from the threads that talk.
//!
//! A bounded queue in front: when it is full the answer is 429 at once, which a client can act on,
//! instead of a wait that it cannot see. Each thread keeps its buffers: a fresh page of memory
//! costs more than an indicator over it.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::IntGauge;
use sluice_calc::{Cpu, Workspace};
use tokio::sync::oneshot;

/// Buffers that a thread reuses from job to job.
pub(crate) struct Scratch {
    free: Vec<Vec<f64>>,
    work: Workspace,
}

impl Scratch {
    /// Buffers kept at most.
    const KEPT_MAX: usize = 64;
    /// Largest buffer kept, values: one unusual request must not hold memory for ever.
    const KEPT_LEN_MAX: usize = 1 << 21;

    pub(crate) const fn new(cpu: Cpu) -> Self {
        Self { free: Vec::new(), work: Workspace::new(cpu) }
    }

    /// What kernels work in.
    pub(crate) const fn workspace(&mut self) -> &mut Workspace {
        &mut self.work
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

type Job = Box<dyn FnOnce(&mut Scratch) + Send>;

/// The threads and their queue.
pub(crate) struct Pool {
    jobs: SyncSender<Job>,
    waiting: IntGauge,
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

impl Pool {
    /// Starts `threads` threads with a queue of `queue` jobs.
    pub(crate) fn start(threads: usize, queue: usize, waiting: IntGauge, cpu: Cpu) -> std::io::Result<Self> {
        let (jobs, take) = sync_channel::<Job>(queue);
        let take = Arc::new(Mutex::new(take));
        for number in 0..threads {
            let take = Arc::clone(&take);
            let waiting = waiting.clone();
            std::thread::Builder::new()
                .name(format!("calc-{number}"))
                .spawn(move || work(&take, &waiting, cpu))?;
        }
        Ok(Self { jobs, waiting })
    }

    /// Runs a computation; `None` when it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        compute: impl FnOnce(&mut Scratch) -> T + Send + 'static,
    ) -> Result<Option<T>, Full> {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |scratch| {
            if answer.is_closed() {
                // The client went away while this waited.
                return;
            }
            let _client_gone = answer.send(compute(scratch));
        });
        self.waiting.inc();
        self.jobs.try_send(job).map_err(|error| {
            self.waiting.dec();
            match error {
                TrySendError::Full(_) | TrySendError::Disconnected(_) => Full,
            }
        })?;
        Ok(answered.await.ok())
    }
}

fn work(take: &Mutex<Receiver<Job>>, waiting: &IntGauge, cpu: Cpu) {
    let mut scratch = Scratch::new(cpu);
    loop {
        let job = take.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        waiting.dec();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(&mut scratch)));
        if outcome.is_err() {
            tracing::error!(component = "pool", "a computation panicked");
            scratch = Scratch::new(cpu);
        }
        scratch.work.trim(Scratch::KEPT_LEN_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(queue: usize) -> Pool {
        Pool::start(1, queue, IntGauge::new("waiting", "test").unwrap(), Cpu::proven().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_panic_is_one_lost_job() {
        let pool = pool(4);
        assert_eq!(pool.run(|_| -> u8 { panic!("on purpose") }).await, Ok(None));
        assert_eq!(pool.run(|_| 7).await, Ok(Some(7)));
    }

    #[tokio::test]
    async fn a_full_queue_is_told_at_once() {
        let pool = Arc::new(pool(1));
        let (hold, held) = sync_channel::<()>(0);
        let (began, begun) = sync_channel::<()>(1);
        let busy = Arc::clone(&pool);
        let first = tokio::spawn(async move {
            busy.run(move |_| {
                began.send(()).unwrap();
                held.recv().unwrap();
            })
            .await
        });
        tokio::task::spawn_blocking(move || begun.recv().unwrap()).await.unwrap();
        let queued = Arc::clone(&pool);
        let second = tokio::spawn(async move { queued.run(|_| ()).await });
        while pool.waiting.get() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|_| ()).await, Err(Full));
        hold.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(Some(())));
        assert_eq!(second.await.unwrap(), Ok(Some(())));
    }
}
