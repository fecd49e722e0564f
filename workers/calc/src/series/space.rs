//! How much the stored series may take, all together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is taken of a limit.
#[derive(Debug)]
pub(crate) struct Space {
    taken: AtomicU64,
    max: u64,
}

/// Bytes that a file takes; given back when neither its name nor a reader of it is left.
#[derive(Debug)]
pub(crate) struct Taken {
    space: Arc<Space>,
    bytes: u64,
}

impl Space {
    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { taken: AtomicU64::new(0), max })
    }

    /// Takes bytes; `None` when that would be more than the limit.
    pub(crate) fn take(self: &Arc<Self>, bytes: u64) -> Option<Taken> {
        let grown = |taken: u64| taken.checked_add(bytes).filter(|sum| *sum <= self.max);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).ok()?;
        Some(Taken { space: Arc::clone(self), bytes })
    }

    /// Takes the bytes of a file that is there already, whatever the limit is now.
    pub(crate) fn owe(self: &Arc<Self>, bytes: u64) -> Taken {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Taken { space: Arc::clone(self), bytes }
    }

    pub(crate) const fn max(&self) -> u64 {
        self.max
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.space.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_can_be_taken_again() {
        let space = Space::new(10);
        let most = space.take(8).unwrap();
        assert!(space.take(3).is_none() && space.take(u64::MAX).is_none());
        let _rest = space.take(2).unwrap();
        drop(most);
        assert!(space.take(8).is_some());
        // Files that are there are there; only new ones are refused.
        let _over = space.owe(100);
        assert!(space.take(1).is_none());
    }
}
