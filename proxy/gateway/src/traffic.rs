//! What a route did lately: the figures of the dashboard.
//!
//! A ring of one-second slots with counts and a latency histogram (two significant digits), one ring an
//! edge thread so that threads do not wait for each other. Rates and percentiles cover the ten whole
//! seconds before the present one. Cost: one uncontended lock and a few additions a request. LIMIT: a
//! histogram grows with the largest latency seen (about 8 KiB up to a minute); a route
//! without traffic has neither ring nor histogram.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

/// Rings; more edge threads than this share.
const SHARDS: usize = 8;
/// Whole seconds that rates and percentiles cover.
pub(crate) const WINDOW_S: u64 = 10;
const SLOTS: usize = WINDOW_S as usize + 2;
/// Seconds of the spark line.
pub(crate) const SPARK_S: usize = 60;
/// LIMIT: latencies above count as this, microseconds.
const LATENCY_US_MAX: u64 = 600_000_000;

/// Recent traffic of one route.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    shards: [Mutex<Option<Box<Ring>>>; SHARDS],
}

#[derive(Debug)]
struct Ring {
    slots: [Slot; SLOTS],
    spark: [(u64, u32); SPARK_S + 2],
}

#[derive(Debug, Default)]
struct Slot {
    second: u64,
    requests: u64,
    errors: u64,
    limited: u64,
    latency_us: Option<Histogram<u32>>,
}

/// Sums over the window.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    /// Requests.
    pub(crate) requests: u64,
    /// Answers of 500 and above.
    pub(crate) errors: u64,
    /// Answers 429.
    pub(crate) limited: u64,
    /// Latencies, microseconds.
    latency_us: Option<Histogram<u32>>,
}

impl Default for Ring {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Slot::default()), spark: [(u64::MAX, 0); SPARK_S + 2] }
    }
}

thread_local! {
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SHARD.with(|shard| {
        if shard.get() == usize::MAX {
            shard.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        shard.get()
    })
}

impl Traffic {
    /// Counts one answered request. `second` is monotonic.
    pub(crate) fn record(&self, second: u64, status: u16, latency_us: u64) {
        let mut shard = self.shards[own_shard()].lock().unwrap_or_else(PoisonError::into_inner);
        let ring = shard.get_or_insert_default();
        let spark = &mut ring.spark[second as usize % (SPARK_S + 2)];
        if spark.0 == second {
            spark.1 += 1;
        } else {
            *spark = (second, 1);
        }
        let slot = &mut ring.slots[second as usize % SLOTS];
        if slot.second != second {
            slot.restart(second);
        }
        slot.requests += 1;
        slot.errors += u64::from(status >= 500);
        slot.limited += u64::from(status == 429);
        if slot.latency_us.is_none() {
            slot.latency_us = Histogram::new(2).ok();
        }
        if let Some(histogram) = &mut slot.latency_us {
            // It grows as needed; a value inside the bounds cannot fail.
            histogram.record(latency_us.clamp(1, LATENCY_US_MAX)).unwrap_or_default();
        }
    }

    /// Sums of the window that ends before `second`. Gives up the histograms of rings without traffic.
    pub(crate) fn sums(&self, second: u64) -> Sums {
        let mut sums = Sums::default();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in shard.iter_mut().flat_map(|ring| &mut ring.slots) {
                if slot.second + WINDOW_S >= second && slot.second < second {
                    sums.add(slot);
                } else if slot.second + 3 * WINDOW_S < second {
                    slot.latency_us = None;
                }
            }
        }
        sums
    }

    /// Requests in each of the last [`SPARK_S`] whole seconds, oldest first.
    pub(crate) fn spark(&self, second: u64) -> Vec<u32> {
        let mut spark = vec![0; SPARK_S.min(second as usize)];
        let first = second - spark.len() as u64;
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            for (at, count) in shard.iter().flat_map(|ring| ring.spark) {
                if let Some(cell) = at.checked_sub(first).and_then(|index| spark.get_mut(index as usize)) {
                    *cell += count;
                }
            }
        }
        spark
    }
}

impl Slot {
    fn restart(&mut self, second: u64) {
        self.second = second;
        (self.requests, self.errors, self.limited) = (0, 0, 0);
        if let Some(histogram) = &mut self.latency_us {
            histogram.reset();
        }
    }
}

impl Sums {
    fn add(&mut self, slot: &Slot) {
        self.requests += slot.requests;
        self.errors += slot.errors;
        self.limited += slot.limited;
        self.add_latencies(slot.latency_us.as_ref());
    }

    fn add_latencies(&mut self, other: Option<&Histogram<u32>>) {
        let Some(other) = other else { return };
        match &mut self.latency_us {
            // Both have two digits and grow as needed: adding cannot fail.
            Some(sum) => drop(sum.add(other)),
            none => *none = Some(other.clone()),
        }
    }

    /// Adds the sums of another route.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.errors += other.errors;
        self.limited += other.limited;
        self.add_latencies(other.latency_us.as_ref());
    }

    /// Requests a second.
    pub(crate) fn rps(&self) -> f64 {
        self.requests as f64 / WINDOW_S as f64
    }

    /// Answers 429 a second.
    pub(crate) fn limited_per_s(&self) -> f64 {
        self.limited as f64 / WINDOW_S as f64
    }

    /// Share of answers of 500 and above, percent; `None` without requests.
    pub(crate) fn error_pct(&self) -> Option<f64> {
        (self.requests > 0).then(|| self.errors as f64 * 100.0 / self.requests as f64)
    }

    /// A latency quantile (0 to 1) in milliseconds; `None` without requests.
    pub(crate) fn latency_ms(&self, quantile: f64) -> Option<f64> {
        let histogram = self.latency_us.as_ref().filter(|histogram| !histogram.is_empty())?;
        Some(histogram.value_at_quantile(quantile) as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_holds_the_ten_whole_seconds_before_now() {
        let traffic = Traffic::default();
        for second in 0..30 {
            traffic.record(second, if second == 25 { 503 } else { 200 }, 1000 * (second + 1));
        }
        let sums = traffic.sums(29);
        assert_eq!((sums.requests, sums.errors), (10, 1));
        assert!((sums.rps() - 1.0).abs() < 1e-9);
        assert_eq!(sums.error_pct(), Some(10.0));
        let p50 = sums.latency_ms(0.5).unwrap();
        assert!((23.0..26.0).contains(&p50), "{p50}");
        assert_eq!(traffic.spark(29), vec![1; 29]);
        assert_eq!(traffic.sums(200).latency_ms(0.5), None);
    }

    #[test]
    fn threads_add_up() {
        let traffic = std::sync::Arc::new(Traffic::default());
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let traffic = std::sync::Arc::clone(&traffic);
                std::thread::spawn(move || traffic.record(5, 429, 10))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let sums = traffic.sums(6);
        assert_eq!((sums.requests, sums.limited), (4, 4));
        assert_eq!(traffic.spark(6), vec![0, 0, 0, 0, 0, 4]);
    }
}
