//! A trend beginning: averages, close, strength and direction agree on this bar and did not on the
//! one before.

use super::{Action, Reading, Reason, Rule, Watch};
use crate::catalog::Indicator;
use crate::series::{Bar, Column};

/// How sure a trend is.
const CONFIDENCE: f64 = 0.7;

/// Agreement of two averages, the close, the directional index and its direction.
#[derive(Clone, Debug)]
pub(super) struct TrendFollowing {
    /// The indicator `ema`, twice.
    pub(super) fast: Indicator,
    pub(super) slow: Indicator,
    /// The indicator `adx` and its period.
    pub(super) adx: Indicator,
    pub(super) period: usize,
    pub(super) threshold: f64,
}

impl Rule for TrendFollowing {
    fn window(&self) -> usize {
        self.slow.lookback().max(self.fast.lookback()).max(self.adx.lookback()) + 2
    }

    fn columns(&self) -> &[Column] {
        &[Column::High, Column::Low, Column::Close]
    }

    fn watch(&self) -> Watch {
        let (mut fast, mut slow, mut adx) = (self.fast.stream(), self.slow.stream(), self.adx.stream());
        let (mut direction, threshold) = (Direction::new(self.period), self.threshold);
        let mut now = Action::Hold;
        Box::new(move |bar| {
            let last = |outputs: crate::catalog::Outputs| outputs.as_slice()[0];
            let (fast, slow, adx) = (last(fast.push(bar)), last(slow.push(bar)), last(adx.push(bar)));
            let [up, down] = direction.push(bar);
            let before = now;
            let strong = adx >= threshold;
            now = if strong && fast > slow && bar.close > fast && up > down {
                Action::Buy
            } else if strong && fast < slow && bar.close < fast && up < down {
                Action::Sell
            } else {
                Action::Hold
            };
            let says = match now {
                Action::Buy if before != now => (now, Reason::UptrendBegan),
                Action::Sell if before != now => (now, Reason::DowntrendBegan),
                _ => (Action::Hold, Reason::NoTrendBegan),
            };
            Reading::new(says, CONFIDENCE, [("ema_fast", fast), ("ema_slow", slow), ("adx", adx)])
        })
    }
}

/// Smoothed upward and downward movement, as in the directional index. Which of the two directional
/// indicators is larger needs no more: both are divided by the same range.
#[derive(Clone, Copy, Debug)]
struct Direction {
    period: usize,
    seen: usize,
    before: Option<Bar>,
    sums: [f64; 2],
}

impl Direction {
    const fn new(period: usize) -> Self {
        Self { period, seen: 0, before: None, sums: [0.0; 2] }
    }

    fn push(&mut self, bar: Bar) -> [f64; 2] {
        let Some(before) = self.before.replace(bar) else { return self.sums };
        self.seen += 1;
        let (rise, fall) = (bar.high - before.high, before.low - bar.low);
        let moved =
            [if rise > fall { rise.max(0.0) } else { 0.0 }, if fall > rise { fall.max(0.0) } else { 0.0 }];
        // The first period but one is summed, what follows replaces a share.
        let kept = if self.seen < self.period { 1.0 } else { 1.0 - 1.0 / self.period as f64 };
        for (sum, moved) in self.sums.iter_mut().zip(moved) {
            *sum = *sum * kept + moved;
        }
        self.sums
    }
}
