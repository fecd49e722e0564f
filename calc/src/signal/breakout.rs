//! The close leaving the prices before it, upwards BUY, downwards SELL, with volume if that is asked.

use super::closes::Extremes;
use super::{Action, Reading, Reason, Rule, Watch};
use crate::catalog::Indicator;
use crate::series::{Bar, Column};

/// How sure a breakout is.
const CONFIDENCE: f64 = 0.65;

/// The close beyond the channel of the bars before.
#[derive(Clone, Debug)]
pub(super) struct Breakout {
    pub(super) period: usize,
    /// Volume wanted, as a multiple of its average; 0 asks for none.
    pub(super) factor: f64,
    /// The indicator `sma`, which the volume goes through.
    pub(super) sma: Indicator,
}

impl Rule for Breakout {
    fn window(&self) -> usize {
        self.period + 1
    }

    fn columns(&self) -> &[Column] {
        let all = &[Column::High, Column::Low, Column::Close, Column::Volume];
        if self.factor > 0.0 { all } else { &all[..3] }
    }

    fn watch(&self) -> Watch {
        let (mut channel, mut average) = (Extremes::new(self.period), self.sma.stream());
        let factor = self.factor;
        Box::new(move |bar| {
            let (highest, lowest) = (channel.highest(), channel.lowest());
            channel.push(bar.high, bar.low);
            let usual = average.push(Bar { close: bar.volume, ..bar }).as_slice()[0];
            // Where nothing is traded usually, nothing is unusual.
            let ratio = if usual == 0.0 { 0.0 } else { bar.volume / usual };
            let enough = factor == 0.0 || ratio >= factor;
            let says = if enough && bar.close > highest {
                (Action::Buy, Reason::AboveChannel)
            } else if enough && bar.close < lowest {
                (Action::Sell, Reason::BelowChannel)
            } else {
                (Action::Hold, Reason::InsideChannel)
            };
            let figures = [("highest", highest), ("lowest", lowest), ("volume_ratio", ratio)];
            let told = if factor > 0.0 { 3 } else { 2 };
            Reading::new(says, CONFIDENCE, figures.into_iter().take(told))
        })
    }
}
