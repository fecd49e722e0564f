//! The close reaching a Bollinger band, from where it is expected to return: lower band BUY, upper
//! band SELL.

use super::{Action, Context, Figures, Reading, Reason, Signal};
use crate::indicator::Kernel;
use crate::indicator::volatility::bbands::Bbands;
use crate::series::Bars;

/// How sure a touch is.
const CONFIDENCE: f64 = 0.65;

/// Return from a Bollinger band.
#[derive(Clone, Copy, Debug)]
pub struct BbReversal {
    bands: Bbands,
}

impl BbReversal {
    /// Watches these bands.
    pub(crate) const fn new(bands: Bbands) -> Self {
        Self { bands }
    }

    /// Closes needed before the rule speaks.
    #[must_use]
    pub fn window(&self) -> usize {
        self.bands.lookback() + 1
    }

    /// What the newest bar says.
    #[must_use]
    pub fn evaluate(&self, bars: &Bars<'_>, context: &Context) -> Signal {
        let mut stream = self.bands.running();
        let [upper, middle, lower] =
            bars.close().iter().fold([f64::NAN; 3], |_, &close| stream.after([close]));
        let close = bars.close().last().copied().unwrap_or(f64::NAN);
        let (action, reason) = if close <= lower {
            (Action::Buy, Reason::AtLowerBand)
        } else if close >= upper {
            (Action::Sell, Reason::AtUpperBand)
        } else {
            (Action::Hold, Reason::InsideBands)
        };
        let figures = Figures::of([("bb_upper", upper), ("bb_middle", middle), ("bb_lower", lower)]);
        Reading { action, reason, figures, window: self.window() }.signal(bars, CONFIDENCE, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::{Ddof, Deviations, Period};
    use crate::signal::Fault;

    fn signal(close: &[f64]) -> Signal {
        let one = Deviations::new(1.0).unwrap();
        let rule = BbReversal::new(Bbands::new(Period::of::<4>(), one, one, Ddof::Population));
        rule.evaluate(&Bars::from_close(close), &Context::default())
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
