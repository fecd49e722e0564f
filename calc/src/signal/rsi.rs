//! The relative strength index beyond its levels: oversold BUY, overbought SELL.

use super::{Action, Reading, Reason, Rule, Watch};
use crate::indicator::momentum::rsi::Rsi;
use crate::params::Period;
use crate::recursion::Recursive;

/// How sure a level is.
const CONFIDENCE: f64 = 0.6;

/// Two levels of the relative strength index.
#[derive(Clone, Copy, Debug)]
pub(super) struct RsiLevels {
    rsi: Rsi,
    oversold: f64,
    overbought: f64,
}

impl RsiLevels {
    /// The index over `period` changes against two levels, 0 to 100; `None` unless
    /// `0 <= oversold < overbought <= 100`.
    pub(super) fn new(period: Period, oversold: f64, overbought: f64) -> Option<Self> {
        let ordered = 0.0 <= oversold && oversold < overbought && overbought <= 100.0;
        ordered.then_some(Self { rsi: Rsi::new(period), oversold, overbought })
    }
}

impl Rule for RsiLevels {
    fn window(&self) -> usize {
        self.rsi.0.lookback() + 1
    }

    fn watch(&self) -> Watch {
        let (mut stream, oversold, overbought) = (self.rsi.running(), self.oversold, self.overbought);
        Box::new(move |bar| {
            let [rsi] = stream.after([bar.close]);
            let says = if rsi < oversold {
                (Action::Buy, Reason::Oversold)
            } else if rsi > overbought {
                (Action::Sell, Reason::Overbought)
            } else {
                (Action::Hold, Reason::Neutral)
            };
            Reading::new(says, CONFIDENCE, [("rsi", rsi)])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Bars;
    use crate::signal::{Context, Fault, Previous, Signal, strategy};

    fn signal(close: &[f64], context: &Context) -> Signal {
        let rule = RsiLevels::new(Period::of::<3>(), 30.0, 70.0).unwrap();
        strategy::newest(&rule, &Bars::from_close(close), context)
    }

    #[test]
    fn the_levels_decide() {
        let now = Context::default();
        let buy = signal(&[5.0, 4.0, 3.0, 2.0], &now);
        assert_eq!((buy.action, buy.reason, buy.confidence), (Action::Buy, Reason::Oversold, 0.6));
        assert_eq!(buy.figures.as_slice(), [("rsi", 0.0)]);
        let sell = signal(&[1.0, 2.0, 3.0, 4.0], &now);
        assert_eq!((sell.action, sell.reason), (Action::Sell, Reason::Overbought));
        let hold = signal(&[1.0, 2.0, 1.0, 2.0, 1.0], &now);
        assert_eq!((hold.action, hold.reason), (Action::Hold, Reason::Neutral));
        assert!(hold.validation.ok);
    }

    #[test]
    fn a_market_that_stood_still_is_not_oversold() {
        let signal = signal(&[5.0; 10], &Context::default());
        assert_eq!((signal.action, signal.reason), (Action::Hold, Reason::NotApplicable));
        assert!(signal.validation.faults.contains(Fault::FlatWindow));
    }

    #[test]
    fn a_broken_price_gives_no_signal() {
        let signal = signal(&[5.0, f64::NAN, 3.0, 2.0], &Context::default());
        assert_eq!(signal.action, Action::Hold);
        assert!(signal.validation.faults.contains(Fault::NotFinite));
    }

    #[test]
    fn a_repeated_signal_keeps_its_action_but_is_not_valid() {
        let previous = Some(Previous { action: Action::Buy, bar_time_ms: 7 });
        let context = Context { bar_time_ms: 7, previous, cool_down_ms: 0 };
        let signal = signal(&[5.0, 4.0, 3.0, 2.0], &context);
        assert_eq!(signal.action, Action::Buy);
        assert!(!signal.validation.ok && signal.validation.faults.contains(Fault::Duplicate));
    }

    #[test]
    fn levels_must_be_in_order() {
        assert!(RsiLevels::new(Period::of::<3>(), 70.0, 30.0).is_none());
        assert!(RsiLevels::new(Period::of::<3>(), f64::NAN, 30.0).is_none());
    }
}
