//! Latency over time: what the requests due in each slice of the window saw. A stall of a second in a run of a minute
//! is a percentile in the whole and a wall here.

use std::time::Duration;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::Serialize;

/// Slices of a window; fewer when they would be shorter than [`SLICE_MIN`].
const SLICES: u32 = 100;
const SLICE_MIN: Duration = Duration::from_millis(50);
/// Longest latency told apart in nanoseconds.
const LATENCY_NS_MAX: u64 = 60_000_000_000;

/// What was due in each slice, from the beginning of the window on.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    slice_ns: u64,
    slices: Vec<Slice>,
}

#[derive(Debug, Clone)]
struct Slice {
    latency: Histogram<u64>,
    failed: u64,
}

/// One slice as it is reported.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Moment {
    /// Beginning of the slice, in milliseconds from that of the window.
    pub at_ms: f64,
    /// Answers to requests that were due in it, a second and round.
    pub per_s: f64,
    /// Of these requests, those that failed, in all rounds.
    pub failed: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

impl Timeline {
    /// Of a window that nothing was due in yet.
    pub(crate) fn new(window: Duration) -> Self {
        let slice = (window / SLICES).max(SLICE_MIN);
        let count = window.as_nanos().div_ceil(slice.as_nanos()).clamp(1, SLICES.into());
        let empty = Histogram::new_with_bounds(1, LATENCY_NS_MAX, 2).expect("constant bounds are valid");
        let slice_ns = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
        Self { slice_ns, slices: vec![Slice { latency: empty, failed: 0 }; count as usize] }
    }

    /// An answer to what was due so many nanoseconds after the window's beginning.
    pub(super) fn answered(&mut self, due_ns: u64, latency_ns: u64) {
        if let Some(slice) = self.at(due_ns) {
            slice.latency.saturating_record(latency_ns);
        }
    }

    /// A failure of what was due then.
    pub(super) fn failed(&mut self, due_ns: u64) {
        if let Some(slice) = self.at(due_ns) {
            slice.failed += 1;
        }
    }

    fn at(&mut self, due_ns: u64) -> Option<&mut Slice> {
        self.slices.get_mut(usize::try_from(due_ns / self.slice_ns).ok()?)
    }

    /// Adds another round of the same window.
    pub(crate) fn add(&mut self, other: &Self) {
        for (own, more) in self.slices.iter_mut().zip(&other.slices) {
            own.latency.add(&more.latency).expect("all slices have the same bounds");
            own.failed += more.failed;
        }
    }

    /// The slices of so many rounds together.
    pub(crate) fn moments(&self, rounds: usize) -> Vec<Moment> {
        let ms = |ns: u64| ns as f64 / 1e6;
        let seconds = self.slice_ns as f64 / 1e9 * rounds.max(1) as f64;
        let moment = |(index, slice): (usize, &Slice)| Moment {
            at_ms: ms(self.slice_ns * index as u64),
            per_s: slice.latency.len() as f64 / seconds,
            failed: slice.failed,
            p50_ms: ms(slice.latency.value_at_quantile(0.5)),
            p99_ms: ms(slice.latency.value_at_quantile(0.99)),
            max_ms: ms(slice.latency.max()),
        };
        self.slices.iter().enumerate().map(moment).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_in_a_slice_is_told_there_and_nowhere_else() {
        let mut line = Timeline::new(Duration::from_secs(10));
        assert_eq!(line.slices.len(), 100);
        line.answered(250_000_000, 5_000_000);
        line.answered(250_000_000, 7_000_000);
        line.failed(9_999_999_999);
        line.answered(10_000_000_000, 1);
        let mut two = line.clone();
        two.add(&line);
        let moments = two.moments(2);
        assert_eq!(moments.iter().filter(|moment| moment.per_s > 0.0).count(), 1);
        let Moment { at_ms, per_s, failed, max_ms, .. } = moments[2];
        assert_eq!((at_ms, per_s, failed), (200.0, 20.0, 0));
        assert!((6.9..7.2).contains(&max_ms), "{max_ms}");
        assert_eq!(moments[99].failed, 2);
    }

    #[test]
    fn short_windows_have_few_slices() {
        assert_eq!(Timeline::new(Duration::from_millis(120)).slices.len(), 3);
        assert_eq!(Timeline::new(Duration::from_millis(1)).slices.len(), 1);
        assert_eq!(Timeline::new(Duration::from_secs(300)).slices.len(), 100);
    }
}
