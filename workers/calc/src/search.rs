//! `POST /calculations/search`: what is asked for, checked, and what comes of it.
//!
//! The body is parsed into a [`Plan`] on a thread of the pool; a plan can be run without further checks. Limits are
//! counted before anything is computed: bars that all combinations go through together, so that nobody books a worker
//! for a week.

mod request;
mod result;

use std::ops::Range;

use sluice_calc::risk::Figure;
use sluice_calc::search::{Best, Found, Method, Rank, Space, Task, Terms, Trials, Walk};
use sluice_calc::{Cpu, Workspace};

pub(crate) use request::{checked, fnv, plan, top, tried, unknown};
pub(crate) use result::{metrics, parameters};

use crate::data::Series;
use crate::error::Refusal;
use crate::jobs::{Leader, Pace, Stopped, Work};

/// A search that can begin.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) series: Series,
    pub(crate) space: Space,
    pub(crate) terms: Terms,
    pub(crate) rank: Rank,
    pub(crate) top: usize,
    pub(crate) method: Method,
    pub(crate) walk: Option<Walk>,
    pub(crate) seed: u64,
    /// Combinations tried over all bars and in all windows.
    pub(crate) total: u64,
}

impl Plan {
    /// Bytes of its prices.
    pub(crate) fn bytes(&self) -> usize {
        let Series { time_ms, open, high, low, volume, .. } = &self.series;
        let columns = [time_ms, open, high, low, volume].into_iter().flatten().count() + 1;
        columns * self.series.close.len() * size_of::<f64>()
    }
}

impl Work for Plan {
    fn run(&mut self, cpu: Cpu, pace: &mut Pace<'_>) -> Result<String, Stopped> {
        let bars = self.series.bars(0).map_err(Stopped::of_refusal)?;
        let rows = bars.len();
        let task = Task::new(&self.space, bars, self.terms, self.rank, self.top)?;
        let mut trials = Trials::new(&task, Workspace::new(cpu));
        let leader = |found: &Found| Leader {
            parameters: parameters(&self.space, found.number),
            score: self.rank.of(&found.figures),
        };
        let best = {
            let mut watch = |tried: u64, best: &[_]| pace.go(tried, || best.first().map(leader));
            trials.search(&self.method, 0..rows, &mut watch)?
        };
        let walked = match &self.walk {
            None => None,
            Some(walk) => Some(trials.walk(walk, &self.method, &mut |tried, _| pace.go(tried, || None))?),
        };
        let top = deflated(&mut trials, &best, 0..rows, pace)?;
        Ok(result::of(self, &top, walked.as_ref()).to_string())
    }
}

/// The best with their deflated Sharpe ratios; each is run once more.
pub(crate) fn deflated(
    trials: &mut Trials<'_, '_>,
    best: &Best,
    bars: Range<usize>,
    pace: &mut Pace<'_>,
) -> Result<Vec<(Found, Figure)>, Stopped> {
    let mut top = Vec::with_capacity(best.found().len());
    for found in best.found() {
        if !pace.go(0, || None) {
            return Err(Stopped::Cancelled);
        }
        top.push((*found, trials.deflated(found.number, bars.clone(), best)?));
    }
    Ok(top)
}

/// A search that cannot be, in the words of a refusal.
pub(crate) fn refused(error: &sluice_calc::search::SearchError) -> Refusal {
    use sluice_calc::search::SearchError;
    let row = match error {
        SearchError::NotPositive { row } => Some(*row),
        _ => None,
    };
    Refusal::Series { row, text: error.to_string() }
}
