//! Rate against latency: each subject is asked faster and faster until it does not keep up, in every round anew.
//!
//! The knee is the highest rate that was held: answered as fast as asked, nothing failed, p99 within a limit. When
//! the generator is late first, the knee is not the subject's and the run says so.

mod search;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::figures::{Cell, Run, Spread};
use crate::load::Pace;
use search::Search;

const STEPS_MAX: u32 = 40;

/// `[sweep]` of a scenario's timing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sweep {
    pub from_per_s: u32,
    pub to_per_s: u32,
    /// Rates on the way up, each the same share above the one before.
    pub steps: u32,
    /// A rate at which the 99th percentile is above is not held.
    pub p99_ms_max: f64,
}

/// One subject's rates and what came of them.
#[derive(Debug)]
pub(crate) struct Climb {
    pub subject: String,
    cells: BTreeMap<u32, Cell>,
    /// Of each round.
    knees: Vec<f64>,
    /// A knee was where the rates ended.
    open: bool,
    /// A rate was lost by the generator.
    late: bool,
}

/// A climb as it is reported.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Climbed {
    pub subject: String,
    pub knee_per_s: Option<Spread>,
    /// No rate was too high: the knee lies beyond the last one.
    pub beyond: bool,
    /// The generator did not keep a rate: the knee is its own.
    pub generator_late: bool,
    pub points: Vec<Point>,
}

/// What came of one rate, medians of the rounds that tried it.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub(crate) struct Point {
    pub rate_per_s: u32,
    pub answered_per_s: f64,
    pub cpu_us: Option<f64>,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub send_lag_p99_ms: f64,
    pub failed: u64,
}

impl Sweep {
    /// Says what is wrong with it.
    pub(crate) fn check(&self, rate_max: u32) -> Result<(), String> {
        let Self { from_per_s: from, to_per_s: to, steps, p99_ms_max } = *self;
        if !(10..to).contains(&from) || to > rate_max || !(2..=STEPS_MAX).contains(&steps) {
            return Err(format!(
                "`sweep` goes up from at least 10 to at most {rate_max} in 2 to {STEPS_MAX} steps"
            ));
        }
        if !(p99_ms_max > 0.0 && p99_ms_max.is_finite()) {
            return Err("`sweep.p99_ms_max` must be above zero".into());
        }
        Ok(())
    }

    /// LIMIT: runs of one subject in a round.
    pub(crate) fn tries_max(&self) -> u32 {
        Search::tries_max(self.steps)
    }

    fn holds(&self, run: &Run) -> bool {
        run.kept && run.failures.total() == 0 && run.latency.p99 <= self.p99_ms_max
    }

    /// Climbs once. `measure` runs one rate into a cell; `lag_ms_max` is what the generator may be late by.
    pub(crate) async fn climb(
        &self,
        climb: &mut Climb,
        lag_ms_max: f64,
        mut measure: impl AsyncFnMut(&mut Cell) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut search = Search::new(self.from_per_s, self.to_per_s, self.steps);
        while let Some(rate) = search.next() {
            let new = || Cell::new(&climb.subject, Pace::Open(rate));
            let cell = climb.cells.entry(rate).or_insert_with(new);
            measure(cell).await?;
            let run = cell.runs.last();
            let held = run.is_some_and(|run| self.holds(run));
            climb.late |= !held && run.is_some_and(|run| run.lag_p99_ms > lag_ms_max);
            search.told(rate, held);
        }
        climb.knees.push(f64::from(search.knee()));
        climb.open |= search.is_open();
        Ok(())
    }
}

impl Climb {
    /// Of a subject that was not asked yet.
    pub(crate) fn new(subject: &str) -> Self {
        let subject = subject.to_owned();
        Self { subject, cells: BTreeMap::new(), knees: Vec::new(), open: false, late: false }
    }

    /// The highest rate held, over the rounds.
    pub(crate) fn knee(&self) -> Option<Spread> {
        Spread::of(self.knees.iter().copied())
    }

    /// The generator did not keep a rate.
    pub(crate) fn is_late(&self) -> bool {
        self.late
    }

    /// What is reported.
    pub(crate) fn told(&self) -> Climbed {
        let point = |(rate, cell): (&u32, &Cell)| {
            let median = |figure: fn(&Run) -> f64| cell.spread(figure).map_or(0.0, |spread| spread.median);
            Point {
                rate_per_s: *rate,
                answered_per_s: median(|run| run.requests_per_s),
                cpu_us: cell.accounted.then(|| median(|run| run.cpu_us)),
                p50_ms: median(|run| run.latency.p50),
                p99_ms: median(|run| run.latency.p99),
                p999_ms: median(|run| run.latency.p999),
                send_lag_p99_ms: median(|run| run.lag_p99_ms),
                failed: cell.failed(),
            }
        };
        Climbed {
            subject: self.subject.clone(),
            knee_per_s: self.knee(),
            beyond: self.open,
            generator_late: self.late,
            points: self.cells.iter().filter(|(_, cell)| !cell.runs.is_empty()).map(point).collect(),
        }
    }
}
