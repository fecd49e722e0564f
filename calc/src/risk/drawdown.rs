//! The way down from a peak and back.

use super::returns::positive;
use super::{Undefined, usable};

/// The deepest fall below an earlier peak, and how long falls last. Positions count equity values:
/// 0 is the start, `t` the value after `t` returns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drawdown {
    /// Depth of the deepest, `equity / peak - 1`: 0 when equity never fell, -1 when all is lost.
    pub depth: f64,
    /// Position of the peak it fell from.
    pub peak: usize,
    /// Position of its lowest value.
    pub trough: usize,
    /// Position where the peak was reached again; `None` while it is open.
    pub recovery: Option<usize>,
    /// Periods from its peak to its recovery, or to the end while it is open.
    pub duration: usize,
    /// Periods of the longest fall, deepest or not.
    pub longest: usize,
}

/// The drawdown of an equity curve that starts at 1 and grows by each return. Needs one return; none
/// may be below -1.
pub fn drawdown_of_returns(returns: &[f64]) -> Result<Drawdown, Undefined> {
    usable(returns, 1)?;
    if returns.iter().any(|&r| r < -1.0) {
        return Err(Undefined::NotPositive);
    }
    // Equity relative to its last peak: what is asked for, and it cannot overflow.
    let mut relative = 1.0;
    let mut walk = Walk::default();
    for r in returns {
        relative *= 1.0 + r;
        walk.step(relative);
        relative = if relative >= 1.0 { 1.0 } else { relative };
    }
    Ok(walk.finish())
}

/// The drawdown of an equity curve, whose first value is the start. Needs two values, all positive.
pub fn drawdown_of_equity(equity: &[f64]) -> Result<Drawdown, Undefined> {
    usable(equity, 2)?;
    positive(equity)?;
    let mut peak = equity[0];
    let mut walk = Walk::default();
    for &value in &equity[1..] {
        walk.step(value / peak);
        peak = if value >= peak { value } else { peak };
    }
    Ok(walk.finish())
}

/// The curve so far.
#[derive(Default)]
struct Walk {
    at: usize,
    peak: usize,
    /// The fall that is under way: depth and trough.
    open: Option<(f64, usize)>,
    deepest: Option<Drawdown>,
    longest: usize,
}

impl Walk {
    /// Takes the next value, relative to the last peak.
    fn step(&mut self, relative: f64) {
        self.at += 1;
        if relative >= 1.0 {
            self.close(Some(self.at));
            self.peak = self.at;
            return;
        }
        let depth = relative - 1.0;
        if self.open.is_none_or(|(deepest, _)| depth < deepest) {
            self.open = Some((depth, self.at));
        }
    }

    fn close(&mut self, recovery: Option<usize>) {
        let Some((depth, trough)) = self.open.take() else { return };
        let duration = self.at - self.peak;
        self.longest = self.longest.max(duration);
        if self.deepest.is_none_or(|deepest| depth < deepest.depth) {
            self.deepest = Some(Drawdown { depth, peak: self.peak, trough, recovery, duration, longest: 0 });
        }
    }

    fn finish(mut self) -> Drawdown {
        self.close(None);
        let none =
            Drawdown { depth: 0.0, peak: self.at, trough: self.at, recovery: None, duration: 0, longest: 0 };
        Drawdown { longest: self.longest, ..self.deepest.unwrap_or(none) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_loss_counts() {
        let drawdown = drawdown_of_returns(&[-0.5, 1.0, 0.5]).unwrap();
        assert_eq!((drawdown.depth, drawdown.peak, drawdown.trough), (-0.5, 0, 1));
        assert_eq!((drawdown.recovery, drawdown.duration, drawdown.longest), (Some(2), 2, 2));
    }

    #[test]
    fn the_longest_fall_need_not_be_the_deepest() {
        let drawdown = drawdown_of_equity(&[100.0, 99.0, 98.0, 99.0, 100.0, 50.0]).unwrap();
        assert_eq!((drawdown.depth, drawdown.peak, drawdown.trough), (-0.5, 4, 5));
        assert_eq!((drawdown.recovery, drawdown.duration, drawdown.longest), (None, 1, 4));
    }

    #[test]
    fn a_rise_has_no_drawdown() {
        let drawdown = drawdown_of_equity(&[1.0, 2.0, 2.0, 3.0]).unwrap();
        assert_eq!((drawdown.depth, drawdown.duration, drawdown.longest), (0.0, 0, 0));
    }

    #[test]
    fn all_may_be_lost_but_not_more() {
        let drawdown = drawdown_of_returns(&[0.1, -1.0, 5.0]).unwrap();
        assert_eq!((drawdown.depth, drawdown.recovery, drawdown.duration), (-1.0, None, 2));
        assert_eq!(drawdown_of_returns(&[-1.1]), Err(Undefined::NotPositive));
        assert_eq!(drawdown_of_equity(&[1.0, 0.0]), Err(Undefined::NotPositive));
        assert_eq!(drawdown_of_equity(&[1.0]), Err(Undefined::TooFewPeriods));
    }

    #[test]
    fn long_growth_does_not_overflow() {
        let mut returns = vec![1.0; 5_000];
        returns.push(-0.25);
        assert_eq!(drawdown_of_returns(&returns).unwrap().depth, -0.25);
    }
}
