//! The signal rules by name.

use super::bb_reversal::BbReversal;
use super::breakout::Breakout;
use super::closes::Closes;
use super::ema_crossover::EmaCrossover;
use super::macd_cross::MacdCross;
use super::rsi::RsiLevels;
use super::stochastic::Stochastic;
use super::trend_following::TrendFollowing;
use super::vote::{MEMBERS_MAX, Vote};
use super::{Context, Rule, Signal, Watch};
use crate::catalog::Indicator;
use crate::compat::Compat;
use crate::entry::{Args, CatalogError, Param, Value};
use crate::indicator::volatility::bbands::Bbands;
use crate::params::{DEVIATIONS_MAX, Period, Seed, Span, within};
use crate::series::{Bar, Bars, Column};
use std::fmt;
use std::sync::Arc;

/// A signal rule with checked parameters.
#[derive(Clone, Debug)]
pub struct Strategy {
    entry: &'static StrategyEntry,
    rule: Arc<dyn Rule>,
}

impl Strategy {
    /// Checks a name and the parameters given for it; what is left out takes its default under
    /// `compat`. The error names the parameter and its allowed range.
    pub fn parse(name: &str, compat: Compat, given: &[(&str, Value<'_>)]) -> Result<Self, CatalogError> {
        let entry = STRATEGIES.into_iter().find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| CatalogError::UnknownName { name: name.to_owned() })?;
        let rule = (entry.build)(&Args::new(entry.name, entry.params, compat, given)?, compat)?;
        Ok(Self { entry, rule })
    }

    /// The rule `combined`: a vote of one to eight others with their weights, above 0 and up to
    /// 1,000, no name twice; `given` as in [`parse`](Self::parse).
    pub fn vote(
        members: Vec<(Self, f64)>,
        compat: Compat,
        given: &[(&str, Value<'_>)],
    ) -> Result<Self, CatalogError> {
        let refused = |rule| Err(CatalogError::Contradiction { owner: COMBINED.name, rule });
        let args = Args::new(COMBINED.name, COMBINED.params, compat, given)?;
        let threshold = args.number("threshold")?;
        if members.is_empty() || members.len() > MEMBERS_MAX {
            return refused("it has one to eight members");
        }
        if members.iter().any(|(_, weight)| within(*weight, f64::MIN_POSITIVE, 1_000.0).is_err()) {
            return refused("a weight is above 0 and at most 1000");
        }
        let names = || members.iter().map(|(member, _)| member.entry.name);
        if names().any(|name| name == COMBINED.name) {
            return refused("a vote cannot be a member");
        }
        if names().enumerate().any(|(at, name)| names().take(at).any(|other| other == name)) {
            return refused("no member may occur twice");
        }
        let read = |column: &Column| members.iter().any(|(member, _)| member.columns().contains(column));
        let columns = Column::ALL.into_iter().filter(read).collect();
        Ok(Self { entry: &COMBINED, rule: Arc::new(Vote { members, threshold, columns }) })
    }

    /// The catalogue's description of this rule.
    #[must_use]
    pub const fn entry(&self) -> &'static StrategyEntry {
        self.entry
    }

    /// Closes needed before the rule speaks.
    #[must_use]
    pub fn window(&self) -> usize {
        self.rule.window()
    }

    /// Columns the rule reads; without them it never speaks.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        self.rule.columns()
    }

    pub(super) fn watch(&self) -> Watch {
        self.rule.watch()
    }

    /// The rule before the first bar: it takes bar after bar, each in constant time.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher::of(&*self.rule)
    }

    /// What the rule says of the newest bar.
    #[must_use]
    pub fn evaluate(&self, bars: &Bars<'_>, context: &Context) -> Signal {
        newest(&*self.rule, bars, context)
    }
}

/// What a rule says of the newest bar; without any it is warming up.
pub(super) fn newest(rule: &dyn Rule, bars: &Bars<'_>, context: &Context) -> Signal {
    let mut watcher = Watcher::of(rule);
    let rows = (0..bars.len()).filter_map(|row| bars.bar(row));
    let last = rows.fold(None, |_, bar| Some(watcher.next(bar, context)));
    last.unwrap_or_else(|| {
        let nothing =
            Bar { open: f64::NAN, high: f64::NAN, low: f64::NAN, close: f64::NAN, volume: f64::NAN };
        let reading = (rule.watch())(nothing);
        reading.signal(Closes::new(rule.window()).faults(&reading.figures), f64::NAN, context)
    })
}

/// A rule following a series, and what its validation looks back on.
pub struct Watcher {
    watch: Watch,
    closes: Closes,
}

impl Watcher {
    fn of(rule: &dyn Rule) -> Self {
        Self { watch: rule.watch(), closes: Closes::new(rule.window()) }
    }

    /// What the rule says of the next bar.
    pub fn next(&mut self, bar: Bar, context: &Context) -> Signal {
        self.closes.push(bar.close);
        let reading = (self.watch)(bar);
        reading.signal(self.closes.faults(&reading.figures), bar.close, context)
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("closes", &self.closes).finish_non_exhaustive()
    }
}

type Build = fn(&Args<'_>, Compat) -> Result<Arc<dyn Rule>, CatalogError>;

/// What the catalogue says of a signal rule.
#[derive(Debug)]
pub struct StrategyEntry {
    /// Name on the wire.
    pub name: &'static str,
    /// One line for people.
    pub summary: &'static str,
    /// Parameters it takes.
    pub params: &'static [Param],
    build: Build,
}

/// Every signal rule, by name.
pub static STRATEGIES: [&StrategyEntry; 8] =
    [&BB_REVERSAL, &BREAKOUT, &COMBINED, &EMA_CROSSOVER, &MACD_CROSS, &RSI, &STOCHASTIC, &TREND_FOLLOWING];

static EMA_CROSSOVER: StrategyEntry = StrategyEntry {
    name: "ema_crossover",
    summary: "buys when the fast average crosses above the slow one, sells when it crosses below",
    params: &[
        Param::bars("fast", 1, |_| Value::Number(9.0)),
        Param::bars("slow", 1, |_| Value::Number(21.0)),
        Param::SEED,
    ],
    build: |args, _| {
        let (fast, slow) = (args.window("fast")?, args.window("slow")?);
        if fast == slow {
            let rule = "fast and slow must differ, or the averages never cross";
            return Err(CatalogError::Contradiction { owner: args.owner, rule });
        }
        Ok(Arc::new(EmaCrossover::new(fast, slow, args.seed()?)))
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
    build: |args, _| {
        let (oversold, overbought) = (args.number("oversold")?, args.number("overbought")?);
        let levels = RsiLevels::new(args.window("period")?, oversold, overbought);
        let rule = "oversold must be below overbought";
        let levels = levels.ok_or(CatalogError::Contradiction { owner: args.owner, rule })?;
        Ok(Arc::new(levels))
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
    build: |args, _| {
        let (up, down) = (args.deviations("up")?, args.deviations("down")?);
        let bands = Bbands::new(args.window("period")?, up, down, args.ddof()?);
        Ok(Arc::new(BbReversal::new(bands)))
    },
};

static MACD_CROSS: StrategyEntry = StrategyEntry {
    name: "macd_cross",
    summary: "buys when the MACD crosses above its signal line, sells when it crosses below",
    params: &[
        Param::bars("fast", 2, |_| Value::Number(12.0)),
        Param::bars("slow", 2, |_| Value::Number(26.0)),
        Param::bars("signal", 1, |_| Value::Number(9.0)),
        Param::SEED,
    ],
    build: |args, compat| {
        let [fast, slow, signal] = ["fast", "slow", "signal"].map(|name| number(args, name));
        let given = [("fast", fast?), ("slow", slow?), ("signal", signal?), ("seed", word(args.seed()?))];
        Ok(Arc::new(MacdCross { macd: Indicator::parse("macd", compat, &given)? }))
    },
};

static STOCHASTIC: StrategyEntry = StrategyEntry {
    name: "stochastic",
    summary: "buys when k crosses above d from oversold, sells when it crosses below from overbought",
    params: &[
        Param::bars("fast_k", 1, |_| Value::Number(14.0)),
        Param::bars("slow_k", 1, |_| Value::Number(3.0)),
        Param::bars("slow_d", 1, |_| Value::Number(3.0)),
        Param::real("oversold", 0.0, 100.0, |_| Value::Number(20.0)),
        Param::real("overbought", 0.0, 100.0, |_| Value::Number(80.0)),
    ],
    build: |args, compat| {
        let (oversold, overbought) = (args.number("oversold")?, args.number("overbought")?);
        if oversold >= overbought {
            let rule = "oversold must be below overbought";
            return Err(CatalogError::Contradiction { owner: args.owner, rule });
        }
        let [fast_k, slow_k, slow_d] = ["fast_k", "slow_k", "slow_d"].map(|name| number(args, name));
        let given = [("fast_k", fast_k?), ("slow_k", slow_k?), ("slow_d", slow_d?)];
        let stoch = Indicator::parse("stoch", compat, &given)?;
        Ok(Arc::new(Stochastic { stoch, oversold, overbought }))
    },
};

static TREND_FOLLOWING: StrategyEntry = StrategyEntry {
    name: "trend_following",
    summary: "buys when averages, close and a strong directional index begin to agree upwards, sells downwards",
    params: &[
        Param::bars("fast", 1, |_| Value::Number(20.0)),
        Param::bars("slow", 1, |_| Value::Number(50.0)),
        Param::bars("adx", 2, |_| Value::Number(14.0)),
        Param::real("threshold", 0.0, 100.0, |_| Value::Number(25.0)),
    ],
    build: |args, compat| {
        let (fast, slow): (Span, Span) = (args.window("fast")?, args.window("slow")?);
        if fast >= slow {
            let rule = "fast must be below slow";
            return Err(CatalogError::Contradiction { owner: args.owner, rule });
        }
        let average = |name| Indicator::parse("ema", compat, &[("period", number(args, name)?)]);
        let period: Period = args.window("adx")?;
        Ok(Arc::new(TrendFollowing {
            fast: average("fast")?,
            slow: average("slow")?,
            adx: Indicator::parse("adx", compat, &[("period", number(args, "adx")?)])?,
            period: period.bars(),
            threshold: args.number("threshold")?,
        }))
    },
};

static BREAKOUT: StrategyEntry = StrategyEntry {
    name: "breakout",
    summary: "buys when the close leaves the prices before it upwards, sells downwards, with volume if asked",
    params: &[
        Param::bars("period", 2, |_| Value::Number(20.0)),
        Param::real("volume_factor", 0.0, 100.0, |_| Value::Number(0.0)),
    ],
    build: |args, compat| {
        let period: Period = args.window("period")?;
        let sma = Indicator::parse("sma", compat, &[("period", number(args, "period")?)])?;
        Ok(Arc::new(Breakout { period: period.bars(), factor: args.number("volume_factor")?, sma }))
    },
};

static COMBINED: StrategyEntry = StrategyEntry {
    name: "combined",
    summary: "a vote of other strategies, listed as members with their parameters and a weight each",
    params: &[Param::real("threshold", 1e-9, 1.0, |_| Value::Number(0.3))],
    build: |args, _| {
        let rule = "it has one to eight members";
        Err(CatalogError::Contradiction { owner: args.owner, rule })
    },
};

/// A parameter as another indicator is given it.
fn number(args: &Args<'_>, name: &'static str) -> Result<Value<'static>, CatalogError> {
    args.number(name).map(Value::Number)
}

const fn word(seed: Seed) -> Value<'static> {
    Value::Word(match seed {
        Seed::Sma => "sma",
        Seed::First => "first",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strategy_builds_from_its_defaults_and_names_itself() {
        // A vote has no default members.
        for entry in STRATEGIES.into_iter().filter(|entry| entry.name != "combined") {
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
