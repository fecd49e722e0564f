//! The close reaching a Bollinger band, from where it is expected to return: lower band BUY, upper
//! band SELL.

use super::{Action, Reading, Reason, Rule, Watch};
use crate::indicator::Kernel;
use crate::indicator::volatility::bbands::Bbands;

/// How sure a touch is.
const CONFIDENCE: f64 = 0.65;

/// Return from a Bollinger band.
#[derive(Clone, Copy, Debug)]
pub(super) struct BbReversal {
    bands: Bbands,
}

impl BbReversal {
    /// Watches these bands.
    pub(super) const fn new(bands: Bbands) -> Self {
        Self { bands }
    }
}

impl Rule for BbReversal {
    fn window(&self) -> usize {
        self.bands.lookback() + 1
    }

    fn watch(&self) -> Watch {
        let mut bands = self.bands.running();
        Box::new(move |bar| {
            let [upper, middle, lower] = bands.after([bar.close]);
            let says = if bar.close <= lower {
                (Action::Buy, Reason::AtLowerBand)
            } else if bar.close >= upper {
                (Action::Sell, Reason::AtUpperBand)
            } else {
                (Action::Hold, Reason::InsideBands)
            };
            Reading::new(says, CONFIDENCE, [("bb_upper", upper), ("bb_middle", middle), ("bb_lower", lower)])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Ddof, Deviations, Period};
    use crate::series::Bars;
    use crate::signal::{Context, Fault, Signal, strategy};

    fn signal(close: &[f64]) -> Signal {
        let one = Deviations::new(1.0).unwrap();
        let rule = BbReversal::new(Bbands::new(Period::of::<4>(), one, one, Ddof::Population));
        strategy::newest(&rule, &Bars::from_close(close), &Context::default())
    }

    #[test]
    fn the_bands_decide() {
        let buy = signal(&[5.0, 5.0, 5.0, 5.0, 2.0]);
        assert_eq!((buy.action, buy.reason, buy.confidence), (Action::Buy, Reason::AtLowerBand, 0.65));
        let sell = signal(&[5.0, 5.0, 5.0, 8.0]);
        assert_eq!((sell.action, sell.reason), (Action::Sell, Reason::AtUpperBand));
        let hold = signal(&[4.0, 6.0, 4.0, 5.0]);
        assert_eq!((hold.action, hold.reason), (Action::Hold, Reason::InsideBands));
        assert_eq!(hold.figures.as_slice()[1], ("bb_middle", 4.75));
    }

    #[test]
    fn bands_without_width_give_no_signal() {
        let signal = signal(&[5.0; 6]);
        assert_eq!(signal.action, Action::Hold);
        assert!(signal.validation.faults.contains(Fault::FlatWindow));
    }
}
