//! From what single runs saw to what is reported: percentiles, medians and spreads over the rounds.

use std::time::Duration;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::account::CpuTime;
use crate::load::{Failures, Moment, Outcome, Pace, Timeline};

/// Longest latency told apart, one minute in nanoseconds; longer ones count as this.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// LIMIT: distinct complaints kept for a cell.
const COMPLAINTS_MAX: usize = 5;

/// An empty histogram of nanoseconds with three significant digits.
pub(crate) fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, 3).expect("constant bounds are valid")
}

/// Median, lowest and highest of the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// The spread of `values`; `None` without any.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, low, high })
    }

    /// In another unit.
    pub(crate) fn times(self, factor: f64) -> Self {
        Self { median: self.median * factor, low: self.low * factor, high: self.high * factor }
    }
}

/// Latency percentiles of one run or of merged runs, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub p9999: f64,
    pub max: f64,
}

impl Percentiles {
    /// Reads the percentiles of a histogram in nanoseconds; all zero when it is empty.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: ms(histogram.max()),
        }
    }
}

/// Points of a curve: shares of the requests, from none to 9,999 of 10,000, as many between each two nines.
const CURVE_POINTS: u32 = 36;

/// The latency within which each share of the requests was answered, in milliseconds; empty without requests.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let share = |point: u32| 1.0 - 10_f64.powf(-4.0 * f64::from(point) / f64::from(CURVE_POINTS));
    (0..=CURVE_POINTS).map(share).map(|share| (share, ms(histogram.value_at_quantile(share)))).collect()
}

fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// The figures of one run: one subject, one pace, one round.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub requests_per_s: f64,
    pub cpu_us: f64,
    /// Context switches of the subject, each answer's share.
    pub switches: f64,
    /// Share of one core the proxy used, 0 to about 1.
    pub core_busy: f64,
    pub latency: Percentiles,
    pub service_p99_ms: f64,
    pub lag_p99_ms: f64,
    pub rss_bytes: u64,
    pub failures: Failures,
    /// The subject answered as fast as it was asked; always so in a closed loop.
    pub kept: bool,
}

impl Run {
    /// Draws the figures out of an outcome.
    fn of(outcome: &Outcome<CpuTime>, pace: Pace, rss_bytes: u64, ticks_per_s: u64) -> Self {
        let cpu = outcome.accounts.1.since(outcome.accounts.0, ticks_per_s);
        let elapsed_s = outcome.elapsed.max(Duration::from_nanos(1)).as_secs_f64();
        Self {
            requests_per_s: outcome.answered as f64 / elapsed_s,
            cpu_us: cpu.as_secs_f64() * 1e6 / outcome.answered.max(1) as f64,
            switches: outcome.accounts.1.switches_since(outcome.accounts.0) as f64
                / outcome.answered.max(1) as f64,
            core_busy: cpu.as_secs_f64() / elapsed_s,
            latency: Percentiles::of(&outcome.latency),
            service_p99_ms: ms(outcome.service.value_at_quantile(0.99)),
            lag_p99_ms: ms(outcome.lag.value_at_quantile(0.99)),
            rss_bytes,
            failures: outcome.failures.clone(),
            kept: match pace {
                // In requests, each of which may cause many deliveries.
                Pace::Open(rate) => kept(outcome.answered / outcome.each.max(1), f64::from(rate) * elapsed_s),
                Pace::Closed => true,
            },
        }
    }
}

/// At least 97 of 100 answered while they were asked; a few may be on their way when the window ends.
fn kept(answered: u64, asked: f64) -> bool {
    const ON_THEIR_WAY: f64 = 16.0;
    answered as f64 + ON_THEIR_WAY >= 0.97 * asked
}

/// All rounds of one subject at one pace.
#[derive(Debug)]
pub(crate) struct Cell {
    pub subject: String,
    pub pace: Pace,
    /// The CPU time and memory of the subject are known.
    pub accounted: bool,
    pub runs: Vec<Run>,
    /// Latency of all rounds together, in nanoseconds.
    pub merged: Histogram<u64>,
    /// The same over time; nothing without a round.
    timeline: Option<Timeline>,
    pub complaints: Vec<String>,
}

impl Cell {
    /// A cell without rounds.
    pub(crate) fn new(subject: &str, pace: Pace) -> Self {
        Self {
            subject: subject.into(),
            pace,
            accounted: true,
            runs: Vec::new(),
            merged: new_histogram(),
            timeline: None,
            complaints: Vec::new(),
        }
    }

    /// Adds one round.
    pub(crate) fn add(&mut self, outcome: &Outcome<CpuTime>, rss_bytes: u64, ticks_per_s: u64) {
        self.merged.add(&outcome.latency).expect("all histograms have the same bounds");
        match &mut self.timeline {
            Some(line) => line.add(&outcome.timeline),
            none => *none = Some(outcome.timeline.clone()),
        }
        if let Some(words) = outcome.complaint.as_ref()
            && self.complaints.len() < COMPLAINTS_MAX
            && !self.complaints.contains(words)
        {
            self.complaints.push(words.clone());
        }
        self.runs.push(Run::of(outcome, self.pace, rss_bytes, ticks_per_s));
    }

    /// Median and spread of one figure over the rounds.
    pub(crate) fn spread(&self, figure: impl Fn(&Run) -> f64) -> Option<Spread> {
        Spread::of(self.runs.iter().map(figure))
    }

    /// Requests that failed, all rounds together.
    pub(crate) fn failed(&self) -> u64 {
        self.runs.iter().map(|run| run.failures.total()).sum()
    }

    /// The same by kind.
    pub(crate) fn failures(&self) -> Failures {
        let mut all = Failures::default();
        self.runs.iter().for_each(|run| all.add(&run.failures));
        all
    }

    /// Latency over time, all rounds together.
    pub(crate) fn moments(&self) -> Vec<Moment> {
        self.timeline.as_ref().map_or_else(Vec::new, |line| line.moments(self.runs.len()))
    }

    /// Of these, requests that were only too late: unsent or unanswered at the end.
    pub(crate) fn left_waiting(&self) -> u64 {
        self.runs.iter().map(|run| run.failures.left_waiting()).sum()
    }

    /// The subject kept the offered rate in most rounds: as with every figure, the median round speaks.
    pub(crate) fn kept(&self) -> bool {
        2 * self.runs.iter().filter(|run| run.kept).count() > self.runs.len()
    }

    /// Ratio of a figure to the same figure of `peer`, round by round: both of a round ran side by side, so
    /// slow drifts of the machine cancel.
    pub(crate) fn ratio(&self, peer: &Self, figure: impl Fn(&Run) -> f64) -> Option<Spread> {
        let pairs = self.runs.iter().zip(&peer.runs);
        Spread::of(pairs.map(|(own, other)| figure(own) / figure(other)).filter(|ratio| ratio.is_finite()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A run of plain figures, for the tests of reports and thresholds.
    pub(crate) fn run(cpu_us: f64, requests_per_s: f64) -> Run {
        let mut histogram = new_histogram();
        for ms in 1..=1000 {
            histogram.saturating_record(ms * 1_000);
        }
        Run {
            requests_per_s,
            cpu_us,
            switches: 0.5,
            core_busy: 0.5,
            latency: Percentiles::of(&histogram),
            service_p99_ms: 0.5,
            lag_p99_ms: 0.05,
            rss_bytes: 10 << 20,
            failures: Failures::default(),
            kept: true,
        }
    }

    /// A cell of such runs.
    pub(crate) fn cell(subject: &str, pace: Pace, runs: Vec<Run>) -> Cell {
        Cell { runs, ..Cell::new(subject, pace) }
    }

    fn outcome(latencies_ns: &[u64]) -> Outcome<CpuTime> {
        let mut latency = new_histogram();
        for &ns in latencies_ns {
            latency.saturating_record(ns);
        }
        Outcome {
            latency,
            service: new_histogram(),
            lag: new_histogram(),
            failures: Failures::of_status(500, 1),
            timeline: Timeline::new(Duration::from_secs(1)),
            complaint: Some(format!("status {}", latencies_ns.len())),
            answered: latencies_ns.len() as u64,
            each: 1,
            elapsed: Duration::from_secs(1),
            accounts: (CpuTime::default(), CpuTime::default()),
        }
    }

    #[test]
    fn median_of_even_and_odd_counts() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]), Some(Spread { median: 2.0, low: 1.0, high: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0]), Some(Spread { median: 2.5, low: 1.0, high: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn merged_histogram_holds_every_round() {
        let mut cell = Cell::new("x", Pace::Closed);
        cell.add(&outcome(&[1_000_000; 99]), 1, 100);
        cell.add(&outcome(&[9_000_000]), 1, 100);
        let merged = Percentiles::of(&cell.merged);
        assert_eq!(cell.merged.len(), 100);
        assert!((merged.p99 - 1.0).abs() < 0.01 && (merged.max - 9.0).abs() < 0.01, "{merged:?}");
        assert_eq!(cell.failed(), 2);
        assert_eq!(cell.complaints, ["status 99", "status 1"]);
    }

    #[test]
    fn latencies_beyond_the_range_are_kept_as_the_longest() {
        let mut cell = Cell::new("x", Pace::Closed);
        cell.add(&outcome(&[u64::MAX, 0]), 1, 100);
        assert_eq!(cell.merged.len(), 2);
        assert!(Percentiles::of(&cell.merged).max >= 60_000.0);
        assert_eq!(Percentiles::of(&new_histogram()).p999, 0.0);
    }

    #[test]
    fn ratio_pairs_rounds_and_skips_what_is_no_number() {
        let own = cell("a", Pace::Closed, vec![run(20.0, 1.0), run(40.0, 1.0), run(5.0, 1.0)]);
        let peer = cell("b", Pace::Closed, vec![run(10.0, 1.0), run(20.0, 1.0), run(0.0, 1.0)]);
        let ratio = own.ratio(&peer, |run| run.cpu_us).unwrap();
        assert_eq!(ratio, Spread { median: 2.0, low: 2.0, high: 2.0 });
    }

    #[test]
    fn a_slow_subject_did_not_keep_the_rate() {
        assert!(kept(9_700, 10_000.0) && !kept(9_600, 10_000.0) && kept(0, 10.0));
        let rounds = |kept: [bool; 3]| kept.map(|kept| Run { kept, ..run(1.0, 1.0) }).to_vec();
        assert!(cell("a", Pace::Open(9), rounds([true, false, true])).kept());
        assert!(!cell("a", Pace::Open(9), rounds([false, false, true])).kept());
    }
}
