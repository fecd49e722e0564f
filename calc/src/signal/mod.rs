//! Trading signals: what a rule says of the newest bar, and whether to believe it.
//!
//! A rule answers BUY, SELL or HOLD. It cannot answer at all when its indicator is still warming up,
//! when a figure is not finite, or when the window is flat (an RSI of a market that stood still is
//! 0, which would read as oversold): then it says HOLD and the validation says why. A cool-down or a
//! repetition does not change the answer, only its validation: `ok` is false and the caller decides.

mod bb_reversal;
mod breakout;
mod closes;
mod ema_crossover;
mod macd_cross;
mod rsi;
mod stochastic;
mod strategy;
mod trend_following;
mod validation;
mod vote;

pub use strategy::{STRATEGIES, Strategy, StrategyEntry, Watcher};
pub use validation::{Fault, Faults, Previous, Validation};
pub use vote::MEMBERS_MAX;

use crate::series::{Bar, Column};
use std::fmt;

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
    /// The histogram rose above zero.
    CrossedZeroUp,
    /// The histogram fell below zero.
    CrossedZeroDown,
    /// All that makes an upward trend came together on this bar.
    UptrendBegan,
    /// All that makes a downward trend came together on this bar.
    DowntrendBegan,
    /// No trend began on this bar.
    NoTrendBegan,
    /// The close is above the highest price before.
    AboveChannel,
    /// The close is below the lowest price before.
    BelowChannel,
    /// The close is within the prices before, or the volume is too low.
    InsideChannel,
    /// The members' weight is for BUY.
    VotedBuy,
    /// The members' weight is for SELL.
    VotedSell,
    /// The members' weight is for neither.
    Undecided,
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
            Self::CrossedZeroUp => "crossed_zero_up",
            Self::CrossedZeroDown => "crossed_zero_down",
            Self::UptrendBegan => "uptrend_began",
            Self::DowntrendBegan => "downtrend_began",
            Self::NoTrendBegan => "no_trend_began",
            Self::AboveChannel => "above_channel",
            Self::BelowChannel => "below_channel",
            Self::InsideChannel => "inside_channel",
            Self::VotedBuy => "voted_buy",
            Self::VotedSell => "voted_sell",
            Self::Undecided => "undecided",
            Self::NotApplicable => "not_applicable",
        }
    }
}

/// Most figures a signal carries.
const FIGURES_MAX: usize = 8;

/// The named indicator values a signal rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    named: [(&'static str, f64); FIGURES_MAX],
    len: usize,
}

impl Figures {
    /// The first eight of these.
    fn of(figures: impl IntoIterator<Item = (&'static str, f64)>) -> Self {
        let mut all = Self { named: [("", f64::NAN); FIGURES_MAX], len: 0 };
        for (slot, figure) in all.named.iter_mut().zip(figures) {
            *slot = figure;
            all.len += 1;
        }
        all
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

/// A rule with checked parameters.
trait Rule: fmt::Debug + Send + Sync {
    /// Bars needed before the rule speaks, newest included.
    fn window(&self) -> usize;

    /// Columns it reads.
    fn columns(&self) -> &[Column] {
        &[Column::Close]
    }

    /// The rule before the first bar.
    fn watch(&self) -> Watch;
}

/// A rule following a series: what it alone says of the next bar, whatever it likes while it is
/// warming up.
type Watch = Box<dyn FnMut(Bar) -> Reading + Send>;

/// What a rule alone reports, before it is validated.
#[derive(Clone, Copy, Debug)]
struct Reading {
    action: Action,
    reason: Reason,
    /// How sure it is; counts for nothing with HOLD.
    confidence: f64,
    figures: Figures,
    /// What the rule itself found against being applied.
    faults: Faults,
}

impl Reading {
    fn new(
        (action, reason): (Action, Reason),
        confidence: f64,
        figures: impl IntoIterator<Item = (&'static str, f64)>,
    ) -> Self {
        Self { action, reason, confidence, figures: Figures::of(figures), faults: Faults::default() }
    }

    /// The reading with what speaks against it.
    fn signal(self, mut faults: Faults, close: f64, context: &Context) -> Signal {
        faults.extend(self.faults.iter());
        let applies = faults.is_empty();
        let action = if applies { self.action } else { Action::Hold };
        faults.extend(validation::timing_faults(action, context));
        Signal {
            action,
            confidence: if action == Action::Hold { 0.0 } else { self.confidence },
            reason: if applies { self.reason } else { Reason::NotApplicable },
            price: close,
            figures: self.figures,
            validation: Validation::of(faults),
        }
    }
}
