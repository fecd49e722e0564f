//! The signal rules by name.

use super::{BbReversal, Context, EmaCrossover, RsiLevels, Signal};
use crate::compat::Compat;
use crate::entry::{Args, CatalogError, Param, Value};
use crate::indicator::volatility::bbands::Bbands;
use crate::params::DEVIATIONS_MAX;
use crate::series::Bars;

/// A signal rule with checked parameters.
#[derive(Clone, Copy, Debug)]
pub enum Strategy {
    /// Crossing of two exponential averages.
    EmaCrossover(EmaCrossover),
    /// Levels of the relative strength index.
    Rsi(RsiLevels),
    /// Return from a Bollinger band.
    BbReversal(BbReversal),
}

impl Strategy {
    /// Checks a name and the parameters given for it; what is left out takes its default under
    /// `compat`. The error names the parameter and its allowed range.
    pub fn parse(name: &str, compat: Compat, given: &[(&str, Value<'_>)]) -> Result<Self, CatalogError> {
        let entry = STRATEGIES.into_iter().find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| CatalogError::UnknownName { name: name.to_owned() })?;
        (entry.build)(&Args::new(entry.name, entry.params, compat, given)?)
    }

    /// The catalogue's description of this rule.
    #[must_use]
    pub fn entry(&self) -> &'static StrategyEntry {
        match self {
            Self::EmaCrossover(_) => &EMA_CROSSOVER,
            Self::Rsi(_) => &RSI,
            Self::BbReversal(_) => &BB_REVERSAL,
        }
    }

    /// Closes needed before the rule speaks.
    #[must_use]
    pub fn window(&self) -> usize {
        match self {
            Self::EmaCrossover(rule) => rule.window(),
            Self::Rsi(rule) => rule.window(),
            Self::BbReversal(rule) => rule.window(),
        }
    }

    /// What the rule says of the newest bar; [`Bars::head`] gives the view of an earlier one.
    #[must_use]
    pub fn evaluate(&self, bars: &Bars<'_>, context: &Context) -> Signal {
        match self {
            Self::EmaCrossover(rule) => rule.evaluate(bars, context),
            Self::Rsi(rule) => rule.evaluate(bars, context),
            Self::BbReversal(rule) => rule.evaluate(bars, context),
        }
    }
}

/// What the catalogue says of a signal rule.
#[derive(Debug)]
pub struct StrategyEntry {
    /// Name on the wire.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Parameters it takes.
    pub params: &'static [Param],
    build: fn(&Args<'_>) -> Result<Strategy, CatalogError>,
}

/// Every signal rule, by name.
pub static STRATEGIES: [&StrategyEntry; 3] = [&BB_REVERSAL, &EMA_CROSSOVER, &RSI];

static EMA_CROSSOVER: StrategyEntry = StrategyEntry {
    name: "ema_crossover",
    summary: "buys when the fast average crosses above the slow one, sells when it crosses below",
    params: &[
        Param::bars("fast", 1, |_| Value::Number(9.0)),
        Param::bars("slow", 1, |_| Value::Number(21.0)),
        Param::SEED,
    ],
    build: |args| {
        let (fast, slow) = (args.window("fast")?, args.window("slow")?);
        if fast == slow {
            let rule = "fast and slow must differ, or the averages never cross";
            return Err(CatalogError::Contradiction { owner: args.owner, rule });
        }
        Ok(Strategy::EmaCrossover(EmaCrossover::new(fast, slow, args.seed()?)))
    },
};

static RSI: StrategyEntry = StrategyEntry {
    name: "rsi",
    summary: "buys when the index is oversold, sells when it is overbought",
    params: &[
        Param::bars("period", 2, |_| Value::Number(14.0)),
        Param::real("oversold", 0.0, 100.0, |_| Value::Number(30.0)),
        Param::real("overbought", 0.0, 100.0, |_| Value::Number(70.0)),
    ],
    build: |args| {
        let (oversold, overbought) = (args.number("oversold")?, args.number("overbought")?);
        let levels = RsiLevels::new(args.window("period")?, oversold, overbought);
        let rule = "oversold must be below overbought";
        levels.map(Strategy::Rsi).ok_or(CatalogError::Contradiction { owner: args.owner, rule })
    },
};

static BB_REVERSAL: StrategyEntry = StrategyEntry {
    name: "bb_reversal",
    summary: "buys when the close reaches the lower Bollinger band, sells when it reaches the upper",
    params: &[
        Param::bars("period", 2, |_| Value::Number(20.0)),
        Param::real("up", 0.0, DEVIATIONS_MAX, |_| Value::Number(2.0)),
        Param::real("down", 0.0, DEVIATIONS_MAX, |_| Value::Number(2.0)),
        Param::DDOF,
    ],
    build: |args| {
        let (up, down) = (args.deviations("up")?, args.deviations("down")?);
        let bands = Bbands::new(args.window("period")?, up, down, args.ddof()?);
        Ok(Strategy::BbReversal(BbReversal::new(bands)))
    },
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strategy_builds_from_its_defaults_and_names_itself() {
        for entry in STRATEGIES {
            let strategy = Strategy::parse(entry.name, Compat::TradPal, &[]).unwrap();
            assert_eq!(strategy.entry().name, entry.name);
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let n = Value::Number;
        let refused = |name, given: &[(&str, Value<'_>)]| {
            Strategy::parse(name, Compat::TaLib, given).unwrap_err().to_string()
        };
        assert_eq!(refused("rsi", &[("oversold", n(80.0))]), "rsi: oversold must be below overbought");
        assert!(refused("ema_crossover", &[("fast", n(21.0))]).contains("must differ"));
        assert!(refused("hodl", &[]).contains("no \"hodl\""));
    }
}
