//! A processor for each computing thread: its caches hold the thread's buffers, and the threads that talk move around it.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The processors this process may use, as the system and whoever started it allow.
pub(crate) fn allowed() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Keeps the calling thread on a processor. A system that does not let it has it computing all the same.
pub(crate) fn stay_on(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::debug!(component = "pool", cpu, %error, "a computing thread may run anywhere");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_where_it_is_put() {
        let all = allowed();
        let last = *all.last().expect("a process runs somewhere");
        let own = std::thread::spawn(move || {
            stay_on(last);
            allowed()
        });
        assert_eq!(own.join().unwrap(), [last]);
        assert_eq!(allowed(), all, "others are not bound by it");
    }
}
