//! The stochastic lines crossing beyond a level: `k` above `d` from oversold BUY, below `d` from
//! overbought SELL.

use super::ema_crossover::crossing;
use super::{Action, Reading, Reason, Rule, Watch};
use crate::catalog::Indicator;
use crate::series::Column;

/// How sure a crossing is.
const CONFIDENCE: f64 = 0.6;

/// Lines this close touch: in a steady market both are the same but for rounding, which must not
/// cross them.
const TOUCH: f64 = 1e-9;

/// Crossing of the stochastic lines.
#[derive(Clone, Debug)]
pub(super) struct Stochastic {
    /// The indicator `stoch`.
    pub(super) stoch: Indicator,
    pub(super) oversold: f64,
    pub(super) overbought: f64,
}

/// The lines, the same where they touch.
fn apart([k, d]: [f64; 2]) -> [f64; 2] {
    if (k - d).abs() <= TOUCH { [d, d] } else { [k, d] }
}

impl Rule for Stochastic {
    fn window(&self) -> usize {
        self.stoch.lookback() + 2
    }

    fn columns(&self) -> &[Column] {
        &[Column::High, Column::Low, Column::Close]
    }

    fn watch(&self) -> Watch {
        let (mut stream, mut now) = (self.stoch.stream(), [f64::NAN; 2]);
        let (oversold, overbought) = (self.oversold, self.overbought);
        Box::new(move |bar| {
            let outputs = stream.push(bar);
            let before = now;
            now = apart([0, 1].map(|at| outputs.as_slice()[at]));
            let says = match crossing(before, now) {
                (Action::Buy, _) if before[0] >= oversold => (Action::Hold, Reason::Neutral),
                (Action::Sell, _) if before[0] <= overbought => (Action::Hold, Reason::Neutral),
                says => says,
            };
            Reading::new(says, CONFIDENCE, [("stoch_k", now[0]), ("stoch_d", now[1])])
        })
    }
}
