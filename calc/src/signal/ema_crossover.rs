//! The fast average crossing the slow one: upwards BUY, downwards SELL.

use super::{Action, Reading, Reason, Rule, Watch};
use crate::indicator::average::ema::Ema;
use crate::params::{Seed, Span};

/// How sure a crossing is.
const CONFIDENCE: f64 = 0.7;

/// Crossing of two exponential averages.
#[derive(Clone, Copy, Debug)]
pub(super) struct EmaCrossover {
    fast: Ema,
    slow: Ema,
    /// Closes that give the slow average a full window on the bar before, too.
    window: usize,
}

impl EmaCrossover {
    /// Compares the averages over `fast` and `slow` bars; the shorter is the fast one.
    pub(super) fn new(fast: Span, slow: Span, seed: Seed) -> Self {
        let (fast, slow) = (fast.min(slow), fast.max(slow));
        Self { fast: Ema::new(fast, seed), slow: Ema::new(slow, seed), window: slow.bars() + 1 }
    }
}

impl Rule for EmaCrossover {
    fn window(&self) -> usize {
        self.window
    }

    fn watch(&self) -> Watch {
        let (mut fast, mut slow, mut now) = (self.fast.running(), self.slow.running(), [f64::NAN; 2]);
        Box::new(move |bar| {
            let before = now;
            now = [fast.after([bar.close])[0], slow.after([bar.close])[0]];
            Reading::new(crossing(before, now), CONFIDENCE, [("ema_short", now[0]), ("ema_long", now[1])])
        })
    }
}

/// What two neighbouring bars of `[fast, slow]` say. Touching without passing is no crossing yet:
/// the bar that leaves the touch is.
pub(super) fn crossing(before: [f64; 2], now: [f64; 2]) -> (Action, Reason) {
    if before[0] <= before[1] && now[0] > now[1] {
        (Action::Buy, Reason::CrossedAbove)
    } else if before[0] >= before[1] && now[0] < now[1] {
        (Action::Sell, Reason::CrossedBelow)
    } else {
        (Action::Hold, Reason::NoCross)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Bars;
    use crate::signal::{Context, Fault, Signal, strategy};

    fn signal(close: &[f64]) -> Signal {
        let rule = EmaCrossover::new(Span::of::<4>(), Span::of::<2>(), Seed::Sma);
        strategy::newest(&rule, &Bars::from_close(close), &Context::default())
    }

    #[test]
    fn a_turn_is_signalled_once() {
        let fall_then_rise = [9.0, 8.0, 7.0, 6.0, 5.0, 9.0, 10.0];
        let buy = signal(&fall_then_rise[..6]);
        assert_eq!((buy.action, buy.reason, buy.confidence), (Action::Buy, Reason::CrossedAbove, 0.7));
        assert!(buy.validation.ok);
        assert_eq!(buy.price, 9.0);
        assert_eq!(buy.figures.as_slice()[0].0, "ema_short");
        let hold = signal(&fall_then_rise);
        assert_eq!((hold.action, hold.reason, hold.confidence), (Action::Hold, Reason::NoCross, 0.0));
        let sell = signal(&[1.0, 2.0, 3.0, 4.0, 5.0, 1.0]);
        assert_eq!((sell.action, sell.reason), (Action::Sell, Reason::CrossedBelow));
    }

    #[test]
    fn a_short_series_is_warming_up() {
        for len in 0..5 {
            let signal = signal(&[9.0, 1.0, 9.0, 1.0, 9.0][..len]);
            assert_eq!((signal.action, signal.reason), (Action::Hold, Reason::NotApplicable));
            assert!(!signal.validation.ok && signal.validation.faults.contains(Fault::WarmUp));
        }
    }
}
