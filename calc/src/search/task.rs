//! What is searched, and the one who tries combinations.

use std::ops::Range;

use super::backtest::{self, Terms};
use super::columns::{Columns, LANES, Tile};
use super::condition::{Scene, Seen};
use super::figures::{Best, Figures, Found, Rank};
use super::space::{Genome, SearchError, Space};
use crate::catalog::Workspace;
use crate::risk::{self, Figure, Settings, Undefined};
use crate::series::Bars;

/// LIMIT: combinations passed over, since they break the rule's order, before the watcher is asked.
const PASSED_MAX: u64 = 4_096;

/// Hears how many combinations were tried since it was last told, and the best so far; says whether to go on. It is
/// asked between any two pieces of work: a line that is drawn, eight combinations.
pub type Watch<'a> = dyn FnMut(u64, &[Found]) -> bool + 'a;

/// A rule, its parameters, prices and terms.
#[derive(Clone, Debug)]
pub struct Task<'a> {
    pub(super) space: &'a Space,
    pub(super) bars: Bars<'a>,
    pub(super) returns: Vec<f64>,
    pub(super) terms: Terms,
    pub(super) rank: Rank,
    pub(super) keep: usize,
}

/// Tries combinations, and remembers the lines that they share. One a thread.
pub struct Trials<'t, 'a> {
    task: &'t Task<'a>,
    columns: Columns<'a>,
    tiles: Vec<Tile>,
    seen: Seen,
}

impl<'a> Task<'a> {
    /// A search that keeps the best `keep`.
    pub fn new(
        space: &'a Space,
        bars: Bars<'a>,
        terms: Terms,
        rank: Rank,
        keep: usize,
    ) -> Result<Self, SearchError> {
        let close = bars.close();
        if let Some(row) = close.iter().position(|close| *close <= 0.0 || !close.is_finite()) {
            return Err(SearchError::NotPositive { row });
        }
        if close.len() < 2 {
            return Err(SearchError::Range);
        }
        let returns = close.windows(2).map(|pair| pair[1] / pair[0] - 1.0).collect();
        Ok(Self { space, bars, returns, terms, rank, keep })
    }

    /// The rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.bars.len()
    }

    /// The parameters that are tried.
    #[must_use]
    pub const fn space(&self) -> &'a Space {
        self.space
    }

    /// Tries every combination of these numbers, within these bars. Combinations that break the rule's order are
    /// passed over. The result does not depend on how the numbers are divided among calls.
    pub fn grid(
        &self,
        work: Workspace,
        numbers: Range<u64>,
        bars: Range<usize>,
        watch: &mut Watch<'_>,
    ) -> Result<Best, SearchError> {
        let mut trials = Trials::new(self, work);
        trials.grid(numbers, bars, watch)
    }
}

impl<'t, 'a> Trials<'t, 'a> {
    pub(super) const fn task(&self) -> &'t Task<'a> {
        self.task
    }

    /// Nothing tried yet.
    #[must_use]
    pub fn new(task: &'t Task<'a>, work: Workspace) -> Self {
        Self { task, columns: Columns::new(task.bars, work), tiles: Vec::new(), seen: Seen::default() }
    }

    pub(super) fn grid(
        &mut self,
        numbers: Range<u64>,
        bars: Range<usize>,
        watch: &mut Watch<'_>,
    ) -> Result<Best, SearchError> {
        let space = self.task.space;
        let mut best = Best::new(self.task.rank, self.task.keep);
        let numbers = numbers.start..numbers.end.min(space.size());
        // Combinations that are not among eight neighbours, all valid.
        let mut waiting = Vec::with_capacity(2 * LANES);
        let mut seen = 0;
        for run in runs(numbers, space.last_radix()) {
            seen += run.end - run.start;
            let before = waiting.len();
            waiting.extend(run.map(|number| space.genome(number)).filter(|genome| space.is_valid(genome)));
            let from = if waiting.len() == before + LANES { before } else { 0 };
            if waiting.len() >= from + LANES {
                self.add(&waiting[from..from + LANES], bars.clone(), watch, &mut best)?;
                waiting.drain(from..from + LANES);
            } else if seen < PASSED_MAX {
                continue;
            }
            if !watch(std::mem::take(&mut seen), best.found()) {
                return Err(SearchError::Cancelled);
            }
        }
        if !waiting.is_empty() {
            self.add(&waiting, bars, watch, &mut best)?;
        }
        if (seen > 0 || !waiting.is_empty()) && !watch(seen, best.found()) {
            return Err(SearchError::Cancelled);
        }
        Ok(best)
    }

    /// Tries up to eight combinations.
    fn add(
        &mut self,
        genomes: &[Genome],
        bars: Range<usize>,
        watch: &mut Watch<'_>,
        best: &mut Best,
    ) -> Result<(), SearchError> {
        let figures = self.eight(genomes, bars, &mut || watch(0, best.found()))?;
        for (genome, figures) in genomes.iter().zip(figures) {
            best.add(Found { number: self.task.space.number(genome), figures });
        }
        Ok(())
    }

    /// What these combinations come to within these bars, in their order; at most eight.
    pub(super) fn eight(
        &mut self,
        genomes: &[Genome],
        bars: Range<usize>,
        go: &mut dyn FnMut() -> bool,
    ) -> Result<[Figures; LANES], SearchError> {
        self.taped(genomes, bars, None, go)
    }

    fn taped(
        &mut self,
        genomes: &[Genome],
        bars: Range<usize>,
        tape: Option<&mut Vec<f64>>,
        go: &mut dyn FnMut() -> bool,
    ) -> Result<[Figures; LANES], SearchError> {
        let (task, space) = (self.task, self.task.space);
        if bars.len() < 2 || bars.end > task.rows() {
            return Err(SearchError::Range);
        }
        // Fewer than eight: the last one several times.
        let lanes = std::array::from_fn(|lane| genomes[lane.min(genomes.len() - 1)]);
        let lines = 0..space.rule().lines.len();
        let drawn: Result<_, _> = lines.map(|line| self.columns.eight(space, line, &lanes, go)).collect();
        let scene = Scene::new(drawn?, &mut self.tiles, &lanes.map(|genome| space.values(&genome)));
        let seen = &mut self.seen;
        let tallies = backtest::run(space.rule(), (&scene, seen), &task.returns, bars, task.terms, tape);
        Ok(tallies.map(|tally| Figures::of(&tally, &task.terms)))
    }

    /// The deflated Sharpe ratio of a combination: the probability that its true ratio is above what the best of as many
    /// useless ones as were tried would show. Its own returns are run through once more, for their third and fourth
    /// moments.
    pub fn deflated(&mut self, number: u64, bars: Range<usize>, best: &Best) -> Result<Figure, SearchError> {
        let (genome, terms) = (self.task.space.genome(number), self.task.terms);
        let mut returns = Vec::with_capacity(bars.len());
        self.taped(&[genome], bars, Some(&mut returns), &mut || true)?;
        let mut scratch = vec![0.0; returns.len()];
        let found = risk::summary(&returns, &Settings::default(), &mut scratch);
        let sample = found.map_or(Err(Undefined::TooFewPeriods), |found| found.sample);
        let variance = best.sharpe_variance() / terms.periods_per_year;
        Ok(sample.and_then(|sample| sample.deflated(best.tried(), variance)))
    }

    /// What one combination comes to.
    pub fn one(&mut self, number: u64, bars: Range<usize>) -> Result<Figures, SearchError> {
        let genome = self.task.space.genome(number);
        Ok(self.eight(&[genome], bars, &mut || true)?[0])
    }
}

/// Rows of a tile of combinations.
const BAND: u64 = 64;

/// These numbers in runs of up to eight, which differ in the last gene. Rows, in which it alone differs, come in bands:
/// the same eight values of it go through all of a band's rows, so that its lines are read once for many.
fn runs(numbers: Range<u64>, radix: u64) -> impl Iterator<Item = Range<u64>> {
    let rows = numbers.start / radix..numbers.end.div_ceil(radix);
    let bands = rows.clone().step_by(BAND as usize).map(move |from| from..rows.end.min(from + BAND));
    bands.flat_map(move |band| {
        let numbers = numbers.clone();
        (0..radix).step_by(LANES).flat_map(move |from| {
            let (numbers, until) = (numbers.clone(), radix.min(from + LANES as u64));
            band.clone().filter_map(move |row| {
                let run = (row * radix + from).max(numbers.start)..(row * radix + until).min(numbers.end);
                (!run.is_empty()).then_some(run)
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_is_in_one_run(start in 0_u64..2_000, count in 0_u64..2_000, radix in 1_u64..100) {
            let mut found: Vec<u64> = Vec::new();
            for run in runs(start..start + count, radix) {
                prop_assert!(run.end - run.start <= LANES as u64 && run.start / radix == (run.end - 1) / radix);
                found.extend(run);
            }
            found.sort_unstable();
            prop_assert!(found.into_iter().eq(start..start + count));
        }
    }
}
