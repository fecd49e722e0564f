//! Walk-forward validation: parameters chosen on some bars, judged on those that follow.

use std::ops::Range;

use super::figures::{Best, Figures, Found};
use super::genetic::Genetic;
use super::space::SearchError;
use super::task::{Trials, Watch};
use crate::risk::{Figure, Undefined};

/// How the windows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Bars to choose on.
    pub train: usize,
    /// Bars to judge on, right after.
    pub test: usize,
    /// Bars from one window to the next.
    pub step: usize,
    /// Windows needed for a verdict.
    pub least: usize,
}

/// How parameters are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// Every combination.
    Grid,
    /// By chance and selection.
    Genetic(Genetic),
}

/// One window.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Bars that the choice was made on.
    pub train: Range<usize>,
    /// Bars that it was judged on.
    pub test: Range<usize>,
    /// The best on the first, and what it came to there.
    pub chosen: Found,
    /// What it came to on the second.
    pub out: Figures,
}

/// Whether what was found holds outside of what it was found on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// At least half of the windows earned by their Sharpe ratio, and at least half of it was left on average.
    Approved,
    /// Not so.
    Rejected,
    /// Fewer windows than needed.
    InsufficientData,
}

impl Verdict {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approved => "APPROVED",
            Self::Rejected => "REJECTED",
            Self::InsufficientData => "INSUFFICIENT_DATA",
        }
    }
}

/// All windows together.
#[derive(Clone, Debug, PartialEq)]
pub struct Walked {
    /// One by one, oldest first.
    pub windows: Vec<Window>,
    /// Mean Sharpe ratio where the choice was made.
    pub sharpe_in: Figure,
    /// Mean Sharpe ratio where it was judged.
    pub sharpe_out: Figure,
    /// Deviation of the latter between windows, ddof 1.
    pub sharpe_out_deviation: Figure,
    /// `1 - out / in`; undefined unless the Sharpe ratio was positive where the choice was made.
    pub sharpe_degradation: Figure,
    /// The same of the mean total return.
    pub return_degradation: Figure,
    /// What follows of it.
    pub verdict: Verdict,
}

impl Walk {
    /// The windows within so many bars, oldest first.
    pub fn windows(&self, rows: usize) -> impl Iterator<Item = (Range<usize>, Range<usize>)> + use<> {
        let (train, test) = (self.train, self.test);
        let room = rows.checked_sub(train.saturating_add(test));
        let last = room.map_or(0, |room| room / self.step.max(1) + 1);
        let step = self.step.max(1);
        (0..last)
            .map(move |index| index * step)
            .map(move |at| (at..at + train, at + train..at + train + test))
    }
}

impl Trials<'_, '_> {
    /// Searches within these bars, in this way.
    pub fn search(
        &mut self,
        method: &Method,
        bars: Range<usize>,
        watch: &mut Watch<'_>,
    ) -> Result<Best, SearchError> {
        match method {
            Method::Grid => self.grid(0..self.task().space.size(), bars, watch),
            Method::Genetic(how) => Ok(self.genetic(how, bars, watch)?.0),
        }
    }

    /// Chooses and judges window by window. A position is never carried into a window or out of it.
    pub fn walk(
        &mut self,
        walk: &Walk,
        method: &Method,
        watch: &mut Watch<'_>,
    ) -> Result<Walked, SearchError> {
        let rows = self.task().rows();
        let mut windows = Vec::new();
        for (train, test) in walk.windows(rows) {
            let best = self.search(method, train.clone(), watch)?;
            let Some(&chosen) = best.found().first() else { continue };
            let out = self.one(chosen.number, test.clone())?;
            windows.push(Window { train, test, chosen, out });
        }
        Ok(Walked::of(windows, walk.least))
    }
}

impl Walked {
    fn of(windows: Vec<Window>, least: usize) -> Self {
        let inside = |figure: fn(&Figures) -> Figure| {
            mean(windows.iter().map(|window| figure(&window.chosen.figures)))
        };
        let outside = |figure: fn(&Figures) -> Figure| mean(windows.iter().map(|window| figure(&window.out)));
        let (sharpe_in, sharpe_out) = (inside(|figures| figures.sharpe), outside(|figures| figures.sharpe));
        let total = |figures: &Figures| Ok(figures.total_return);
        let return_degradation = degradation(inside(total), outside(total));
        let sharpe_degradation = degradation(sharpe_in, sharpe_out);
        let earned =
            windows.iter().filter(|window| window.out.sharpe.is_ok_and(|sharpe| sharpe > 0.0)).count();
        let verdict = if windows.len() < least.max(1) {
            Verdict::InsufficientData
        } else if 2 * earned >= windows.len() && sharpe_degradation.is_ok_and(|lost| lost <= 0.5) {
            Verdict::Approved
        } else {
            Verdict::Rejected
        };
        let sharpe_out_deviation = deviation(windows.iter().map(|window| window.out.sharpe));
        Self {
            windows,
            sharpe_in,
            sharpe_out,
            sharpe_out_deviation,
            sharpe_degradation,
            return_degradation,
            verdict,
        }
    }
}

/// The mean; a window whose figure is not defined (it never traded) counts as 0.
fn mean(figures: impl ExactSizeIterator<Item = Figure>) -> Figure {
    let count = figures.len();
    if count == 0 {
        return Err(Undefined::TooFewPeriods);
    }
    Ok(figures.map(|figure| figure.unwrap_or(0.0)).sum::<f64>() / count as f64)
}

fn deviation(figures: impl ExactSizeIterator<Item = Figure> + Clone) -> Figure {
    let count = figures.len();
    if count < 2 {
        return Err(Undefined::TooFewPeriods);
    }
    let mean = mean(figures.clone())?;
    let squares: f64 = figures.map(|figure| (figure.unwrap_or(0.0) - mean).powi(2)).sum();
    Ok((squares / (count - 1) as f64).sqrt())
}

fn degradation(inside: Figure, outside: Figure) -> Figure {
    let (inside, outside) = (inside?, outside?);
    if inside > 0.0 { Ok(1.0 - outside / inside) } else { Err(Undefined::NotPositive) }
}
