//! Trading signals: what a rule says of the newest bar, and whether to believe it.
//!
//! A rule answers BUY, SELL or HOLD. It cannot answer at all when its indicator is still warming up,
//! when a figure is not finite, or when the window is flat (an RSI of a market that stood still is
//! 0, which would read as oversold): then it says HOLD and the validation says why. A cool-down or a
//! repetition does not change the answer, only its validation: `ok` is false and the caller decides.

mod bb_reversal;
mod ema_crossover;
mod rsi;
mod strategy;
mod validation;

pub use bb_reversal::BbReversal;
pub use ema_crossover::EmaCrossover;
pub use rsi::RsiLevels;
pub use strategy::{STRATEGIES, Strategy, StrategyEntry};
pub use validation::{Fault, Faults, Previous, Validation};

use crate::series::Bars;

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Open or add to a long position.
    Buy,
    /// Close it, or open a short one.
    Sell,
    /// Nothing.
    Hold,
}

impl Action {
    /// The word on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Buy => "BUY",
            Self::Sell => "SELL",
            Self::Hold => "HOLD",
        }
    }
}

/// Why a rule says what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The fast average rose above the slow one.
    CrossedAbove,
    /// The fast average fell below the slow one.
    CrossedBelow,
    /// The averages did not cross on this bar.
    NoCross,
    /// The index is below the lower level.
    Oversold,
    /// The index is above the upper level.
    Overbought,
    /// The index is between the levels.
    Neutral,
    /// The close is at or below the lower band.
    AtLowerBand,
    /// The close is at or above the upper band.
    AtUpperBand,
    /// The close is between the bands.
    InsideBands,
    /// The rule could not be applied; the validation says why.
    NotApplicable,
}

impl Reason {
    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::CrossedAbove => "crossed_above",
            Self::CrossedBelow => "crossed_below",
            Self::NoCross => "no_cross",
            Self::Oversold => "oversold",
            Self::Overbought => "overbought",
            Self::Neutral => "neutral",
            Self::AtLowerBand => "at_lower_band",
            Self::AtUpperBand => "at_upper_band",
            Self::InsideBands => "inside_bands",
            Self::NotApplicable => "not_applicable",
        }
    }
}

/// Most figures a signal carries.
const FIGURES_MAX: usize = 3;

/// The named indicator values a signal rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    named: [(&'static str, f64); FIGURES_MAX],
    len: usize,
}

impl Figures {
    pub(crate) fn of<const LEN: usize>(figures: [(&'static str, f64); LEN]) -> Self {
        let mut named = [("", f64::NAN); FIGURES_MAX];
        named[..LEN].copy_from_slice(&figures);
        Self { named, len: LEN }
    }

    /// Name and value of each figure; a value may be `NaN` when the signal is not valid.
    #[must_use]
    pub fn as_slice(&self) -> &[(&'static str, f64)] {
        &self.named[..self.len]
    }
}

/// What a rule says of the newest bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Signal {
    /// What to do.
    pub action: Action,
    /// How sure the rule is, 0 to 1; 0 for HOLD.
    pub confidence: f64,
    /// Why.
    pub reason: Reason,
    /// The newest close; `NaN` when there is no bar.
    pub price: f64,
    /// The values it rests on.
    pub figures: Figures,
    /// Whether to believe it.
    pub validation: Validation,
}

/// When the newest bar is, and what was said before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Context {
    /// Time of the newest bar, Unix milliseconds.
    pub bar_time_ms: i64,
    /// The last BUY or SELL of the same strategy on the same series.
    pub previous: Option<Previous>,
    /// Shortest time between two BUY or SELL signals, milliseconds.
    pub cool_down_ms: u64,
}

/// What a rule alone reports, before it is validated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    action: Action,
    reason: Reason,
    figures: Figures,
    /// Closes the figures look back on, newest included.
    window: usize,
}

impl Reading {
    /// Validates the reading of the newest bar of `bars`.
    fn signal(self, bars: &Bars<'_>, confidence: f64, context: &Context) -> Signal {
        let close = bars.close();
        let mut faults = validation::data_faults(close, self.window, &self.figures);
        let applies = faults.is_empty();
        let action = if applies { self.action } else { Action::Hold };
        faults.extend(validation::timing_faults(action, context));
        Signal {
            action,
            confidence: if action == Action::Hold { 0.0 } else { confidence },
            reason: if applies { self.reason } else { Reason::NotApplicable },
            price: close.last().copied().unwrap_or(f64::NAN),
            figures: self.figures,
            validation: Validation::of(faults),
        }
    }
}
