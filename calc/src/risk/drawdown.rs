//! The way down from a peak and back.

use super::returns::positive;
use super::{Figure, Undefined, finite, usable};

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
    let mut walk = Walk::default();
    for &r in returns {
        walk.grow(r);
    }
    walk.finish()
}

/// The drawdown of an equity curve, whose first value is the start. Needs two values, all positive.
pub fn drawdown_of_equity(equity: &[f64]) -> Result<Drawdown, Undefined> {
    each_drawdown(equity, |_| ())
}

/// The same, and `each` is told every fall of the curve, oldest first, one that is open at the end
/// last; their `longest` is their own duration.
pub fn each_drawdown(equity: &[f64], mut each: impl FnMut(Drawdown)) -> Result<Drawdown, Undefined> {
    usable(equity, 2)?;
    positive(equity)?;
    let mut peak = equity[0];
    let mut walk = Walk::default();
    for &value in &equity[1..] {
        if let Some(fall) = walk.step(value / peak) {
            each(fall);
        }
        peak = if value >= peak { value } else { peak };
    }
    if let Some(fall) = walk.close(None) {
        each(fall);
    }
    walk.finish()
}

/// The curve so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// Equity relative to its last peak: what is asked for, and it cannot overflow.
    relative: f64,
    at: usize,
    peak: usize,
    /// The fall that is under way, 0 when there is none, and where it was deepest.
    depth: f64,
    trough: usize,
    deepest: Option<Drawdown>,
    longest: usize,
    /// Sums of all depths and of their squares.
    depths: f64,
    squares: f64,
    least: f64,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            relative: 1.0,
            at: 0,
            peak: 0,
            depth: 0.0,
            trough: 0,
            deepest: None,
            longest: 0,
            depths: 0.0,
            squares: 0.0,
            least: 0.0,
        }
    }
}

impl Walk {
    /// Takes the next return.
    #[inline]
    pub(super) fn grow(&mut self, r: f64) {
        self.least = if r < self.least { r } else { self.least };
        let relative = self.relative * (1.0 + r);
        self.step(relative);
        self.relative = if relative >= 1.0 { 1.0 } else { relative };
    }

    /// Takes the next value, relative to the last peak; returns the fall that ends with it.
    #[inline]
    fn step(&mut self, relative: f64) -> Option<Drawdown> {
        self.at += 1;
        if relative >= 1.0 {
            let ended = if self.depth < 0.0 { self.close(Some(self.at)) } else { None };
            self.peak = self.at;
            return ended;
        }
        let depth = relative - 1.0;
        if depth < self.depth {
            (self.depth, self.trough) = (depth, self.at);
        }
        self.depths += depth;
        self.squares += depth * depth;
        None
    }

    fn close(&mut self, recovery: Option<usize>) -> Option<Drawdown> {
        if self.depth == 0.0 {
            return None;
        }
        let duration = self.at - self.peak;
        let (depth, peak, trough) = (self.depth, self.peak, self.trough);
        let fall = Drawdown { depth, peak, trough, recovery, duration, longest: duration };
        self.depth = 0.0;
        self.longest = self.longest.max(duration);
        if self.deepest.is_none_or(|deepest| depth < deepest.depth) {
            self.deepest = Some(fall);
        }
        Some(fall)
    }

    /// The least return so far, or 0.
    pub(super) const fn least(&self) -> f64 {
        self.least
    }

    /// Mean depth, as a positive share.
    pub(super) fn pain(&self) -> Figure {
        self.sound()?;
        finite(-self.depths / self.at as f64)
    }

    /// Root of the sum of squared depths over one less than their number.
    pub(super) fn ulcer(&self) -> Figure {
        self.sound()?;
        if self.at < 2 {
            return Err(Undefined::TooFewPeriods);
        }
        finite((self.squares / (self.at - 1) as f64).sqrt())
    }

    const fn sound(&self) -> Result<(), Undefined> {
        if self.least < -1.0 { Err(Undefined::NotPositive) } else { Ok(()) }
    }

    pub(super) fn finish(mut self) -> Result<Drawdown, Undefined> {
        self.sound()?;
        self.close(None);
        let (at, longest) = (self.at, self.longest);
        let none = Drawdown { depth: 0.0, peak: at, trough: at, recovery: None, duration: 0, longest: 0 };
        Ok(Drawdown { longest, ..self.deepest.unwrap_or(none) })
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
