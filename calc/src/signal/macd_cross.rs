//! The MACD crossing its signal line: the histogram rising above zero BUY, falling below SELL.

use super::{Action, Reading, Reason, Rule, Watch};
use crate::catalog::Indicator;

/// How sure a crossing is.
const CONFIDENCE: f64 = 0.7;

/// Crossing of the MACD and its signal line.
#[derive(Clone, Debug)]
pub(super) struct MacdCross {
    /// The indicator `macd`.
    pub(super) macd: Indicator,
}

impl Rule for MacdCross {
    fn window(&self) -> usize {
        self.macd.lookback() + 2
    }

    fn watch(&self) -> Watch {
        let (mut stream, mut now) = (self.macd.stream(), f64::NAN);
        Box::new(move |bar| {
            let outputs = stream.push(bar);
            let [line, signal, histogram] = [0, 1, 2].map(|at| outputs.as_slice()[at]);
            let before = std::mem::replace(&mut now, histogram);
            let says = if before <= 0.0 && histogram > 0.0 {
                (Action::Buy, Reason::CrossedZeroUp)
            } else if before >= 0.0 && histogram < 0.0 {
                (Action::Sell, Reason::CrossedZeroDown)
            } else {
                (Action::Hold, Reason::NoCross)
            };
            let figures = [("macd_line", line), ("macd_signal", signal), ("macd_histogram", histogram)];
            Reading::new(says, CONFIDENCE, figures)
        })
    }
}
