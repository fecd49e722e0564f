//! The last closes, and what speaks against applying a rule to them.

use super::{Fault, Faults, Figures};
use std::collections::VecDeque;

/// A window whose highest and lowest close are this close, relative to their size, stood still.
const FLAT: f64 = 1e-14;

/// Highest and lowest of the last `window` values: candidates in order, each worse than the one
/// before it and younger, so a value enters and leaves once.
#[derive(Clone, Debug)]
pub(super) struct Extremes {
    window: usize,
    seen: usize,
    highest: VecDeque<(usize, f64)>,
    lowest: VecDeque<(usize, f64)>,
}

impl Extremes {
    pub(super) const fn new(window: usize) -> Self {
        Self { window, seen: 0, highest: VecDeque::new(), lowest: VecDeque::new() }
    }

    /// Takes the next bar's highest and lowest value; what is `NaN` is passed over.
    pub(super) fn push(&mut self, high: f64, low: f64) {
        let at = self.seen;
        self.seen += 1;
        keep(&mut self.highest, (at, high), self.window, |old, new| old <= new);
        keep(&mut self.lowest, (at, low), self.window, |old, new| old >= new);
    }

    /// `NaN` where nothing was seen.
    pub(super) fn highest(&self) -> f64 {
        self.highest.front().map_or(f64::NAN, |(_, value)| *value)
    }

    pub(super) fn lowest(&self) -> f64 {
        self.lowest.front().map_or(f64::NAN, |(_, value)| *value)
    }
}

fn keep(
    best: &mut VecDeque<(usize, f64)>,
    (at, value): (usize, f64),
    window: usize,
    beaten: impl Fn(f64, f64) -> bool,
) {
    while best.front().is_some_and(|(from, _)| from + window <= at) {
        best.pop_front();
    }
    while best.back().is_some_and(|(_, old)| beaten(*old, value)) {
        best.pop_back();
    }
    if !value.is_nan() {
        best.push_back((at, value));
    }
}

/// The closes a rule looks back on.
#[derive(Clone, Debug)]
pub(super) struct Closes {
    extremes: Extremes,
    /// Finite closes in a row, up to the newest.
    finite: usize,
}

impl Closes {
    pub(super) const fn new(window: usize) -> Self {
        Self { extremes: Extremes::new(window), finite: 0 }
    }

    pub(super) fn push(&mut self, close: f64) {
        self.finite = if close.is_finite() { self.finite + 1 } else { 0 };
        self.extremes.push(close, close);
    }

    /// What speaks against figures of the last `window` closes.
    pub(super) fn faults(&self, figures: &Figures) -> Faults {
        let Extremes { window, seen, .. } = self.extremes;
        if seen < window || seen == 0 {
            return Faults::from_iter([Fault::WarmUp]);
        }
        let finite = figures.as_slice().iter().all(|(_, value)| value.is_finite());
        if self.finite < window || !finite {
            return Faults::from_iter([Fault::NotFinite]);
        }
        let (highest, lowest) = (self.extremes.highest(), self.extremes.lowest());
        let flat = highest - lowest <= FLAT * (highest.abs() + lowest.abs());
        flat.then_some(Fault::FlatWindow).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_are_those_of_the_window() {
        let values: Vec<f64> = (0..200_u32).map(|at| f64::from(at * 7_919 % 31)).collect();
        for window in [1, 2, 7, 40] {
            let mut extremes = Extremes::new(window);
            for (at, &value) in values.iter().enumerate() {
                extremes.push(value, value);
                let seen = &values[(at + 1).saturating_sub(window)..=at];
                assert_eq!(extremes.highest(), seen.iter().copied().fold(f64::MIN, f64::max));
                assert_eq!(extremes.lowest(), seen.iter().copied().fold(f64::MAX, f64::min));
            }
        }
    }

    #[test]
    fn a_broken_close_counts_while_it_is_in_the_window() {
        let none = Figures::of([]);
        let mut closes = Closes::new(3);
        let mut told = Vec::new();
        for close in [1.0, f64::NAN, 2.0, 3.0, 4.0, 4.0, 4.0] {
            closes.push(close);
            told.push(closes.faults(&none).iter().next());
        }
        let (warm_up, broken) = (Some(Fault::WarmUp), Some(Fault::NotFinite));
        assert_eq!(told, [warm_up, warm_up, broken, broken, None, None, Some(Fault::FlatWindow)]);
    }
}
