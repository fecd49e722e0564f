//! Threads that hash passwords and nothing else.
//!
//! A hash is dear on purpose, and anybody may ask for one: so at most two threads do it, at a lower priority than
//! everything that serves, and at most [`QUEUE_MAX`] wait for them. Who finds the queue full is told when to come back.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use zeroize::Zeroizing;

use super::password::{Cost, argon2id};

/// LIMIT: hashes that wait.
const QUEUE_MAX: usize = 32;
/// LIMIT: threads.
const THREADS_MAX: usize = 2;
/// Their niceness: whatever serves comes first.
const NICE: i32 = 10;

type Digest = Zeroizing<[u8; 32]>;

/// The threads and the way to them. They end with it.
pub(crate) struct Pool {
    jobs: SyncSender<Job>,
    cost: Cost,
}

/// The queue is full.
#[derive(Debug)]
pub(crate) struct Busy {
    pub(crate) retry_s: u64,
}

struct Job {
    password: Zeroizing<Vec<u8>>,
    salt: [u8; 16],
    cost: Cost,
    done: SyncSender<Option<Digest>>,
}

impl Pool {
    /// As many threads as this machine can spare.
    pub(crate) fn sized(cost: Cost) -> Self {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self::new((cores / 2).clamp(1, THREADS_MAX), cost)
    }

    pub(super) fn new(threads: usize, cost: Cost) -> Self {
        let (jobs, queue) = sync_channel(QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            let started = thread::Builder::new().name("passwords".into()).spawn(move || work(&queue));
            // With none at all every hash is refused as busy.
            drop(started);
        }
        Self { jobs, cost }
    }

    /// What a new hash costs.
    pub(crate) const fn cost(&self) -> Cost {
        self.cost
    }

    /// Hashes a password, and waits for it.
    pub(super) fn hash(
        &self,
        password: Zeroizing<Vec<u8>>,
        salt: [u8; 16],
        cost: Cost,
    ) -> Result<Digest, Busy> {
        let (done, result) = sync_channel(1);
        match self.jobs.try_send(Job { password, salt, cost, done }) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => return Err(Busy { retry_s: 2 }),
        }
        result.recv().ok().flatten().ok_or(Busy { retry_s: 2 })
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    // On Linux this is the priority of the calling thread alone.
    let _stays_as_it_was_where_refused = rustix::process::setpriority_process(None, NICE);
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { password, salt, cost, done }) = next else { return };
        // Whoever asked may have gone.
        drop(done.send(argon2id(&password, salt, cost)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_at_once() {
        let cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };
        let (jobs, _never_read) = sync_channel(1);
        let pool = Pool { jobs, cost };
        let (done, _result) = sync_channel(1);
        let job = || Job { password: Zeroizing::new(Vec::new()), salt: [0; 16], cost, done: done.clone() };
        pool.jobs.try_send(job()).unwrap();
        assert!(pool.hash(Zeroizing::new(b"x".to_vec()), [0; 16], cost).unwrap_err().retry_s > 0);
        let working = Pool::new(2, cost);
        let hashes: Vec<_> = thread::scope(|scope| {
            let ask = || scope.spawn(|| working.hash(Zeroizing::new(b"x".to_vec()), [7; 16], cost).ok());
            let asked: Vec<_> = (0..QUEUE_MAX).map(|_| ask()).collect();
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        assert!(hashes.iter().all(|hash| hash.is_some() && *hash == hashes[0]));
    }
}
