//! Counts over a sliding window of ten buckets.
//!
//! The window covers the current bucket and the nine before it, so its true length lies between
//! nine and ten tenths. Running totals make reading O(1); moving on costs one subtraction a bucket,
//! at most ten however long the pause was. Time that runs backwards counts as the newest bucket.

use std::time::Duration;

use crate::time::{Nanos, nanos};

const BUCKETS: usize = 10;

/// `N` counters over one window.
#[derive(Clone, Debug)]
pub(crate) struct Window<const N: usize> {
    bucket_ns: u64,
    epoch: u64,
    buckets: [[u64; N]; BUCKETS],
    totals: [u64; N],
}

impl<const N: usize> Window<N> {
    pub(crate) fn new(length: Duration) -> Self {
        let bucket_ns = (nanos(length) / BUCKETS as u64).max(1);
        Self { bucket_ns, epoch: 0, buckets: [[0; N]; BUCKETS], totals: [0; N] }
    }

    /// Adds to every counter and returns the totals of the window that ends now.
    pub(crate) fn add(&mut self, now: Nanos, by: [u64; N]) -> [u64; N] {
        self.advance(now);
        let bucket = &mut self.buckets[self.epoch as usize % BUCKETS];
        for ((count, total), by) in bucket.iter_mut().zip(&mut self.totals).zip(by) {
            *count += by;
            *total += by;
        }
        self.totals
    }

    /// The totals of the window that ends now, without moving it.
    pub(crate) fn totals(&self, now: Nanos) -> [u64; N] {
        let gone = (now.0 / self.bucket_ns).saturating_sub(self.epoch);
        let mut totals = self.totals;
        for step in 1..=gone.min(BUCKETS as u64) {
            let old = &self.buckets[(self.epoch + step) as usize % BUCKETS];
            take_off(&mut totals, old);
        }
        totals
    }

    pub(crate) fn clear(&mut self) {
        self.buckets = [[0; N]; BUCKETS];
        self.totals = [0; N];
    }

    fn advance(&mut self, now: Nanos) {
        let epoch = now.0 / self.bucket_ns;
        let gone = epoch.saturating_sub(self.epoch);
        for step in 1..=gone.min(BUCKETS as u64) {
            let old = &mut self.buckets[(self.epoch + step) as usize % BUCKETS];
            take_off(&mut self.totals, old);
            *old = [0; N];
        }
        self.epoch += gone;
    }
}

fn take_off<const N: usize>(totals: &mut [u64; N], old: &[u64; N]) {
    for (total, old) in totals.iter_mut().zip(old) {
        *total -= old;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_a_list_of_everything(steps in proptest::collection::vec((0_u64..4_000, 1_u64..5), 1..60)) {
            let mut window = Window::<1>::new(Duration::from_secs(10));
            let (mut all, mut at_ms) = (Vec::new(), 0);
            for (pause_ms, count) in steps {
                at_ms += pause_ms;
                all.push((at_ms / 1000, count));
                let now = Nanos::from_millis(at_ms);
                let model: u64 = all.iter().filter(|(s, _)| s + 10 > at_ms / 1000).map(|(_, n)| n).sum();
                prop_assert_eq!(window.add(now, [count]), [model]);
                let later = at_ms + pause_ms * 3;
                let model: u64 = all.iter().filter(|(s, _)| s + 10 > later / 1000).map(|(_, n)| n).sum();
                prop_assert_eq!(window.totals(Nanos::from_millis(later)), [model]);
            }
        }
    }

    #[test]
    fn time_running_backwards_counts_as_now() {
        let mut window = Window::<1>::new(Duration::from_secs(10));
        window.add(Nanos::from_secs(100), [1]);
        assert_eq!(window.add(Nanos::from_secs(50), [1]), [2]);
        assert_eq!(window.totals(Nanos::from_secs(120)), [0]);
    }
}
