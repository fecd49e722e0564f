//! The rules that are searched, by name.

use super::named::NAMED;
use super::rule::Arg::{self, Gene as G, Number as N};
use super::rule::Cond::{Above, And, Or, Rises};
use super::rule::Operand::{Gene as Value, Line as At, Number as Level};
use super::rule::{Gene, Line, Rule};
use crate::series::Column;

/// The closes.
const CLOSE: Line = Line::Price(Column::Close);

static SMA_CROSSOVER: Rule = Rule {
    name: "sma_crossover",
    summary: "In while the fast simple average is above the slow one, from a crossing on",
    genes: &[Gene::bars("fast", 5..=50, 5), Gene::bars("slow", 20..=200, 20)],
    lines: &[Line::of("sma", &[("period", G(0))]), Line::of("sma", &[("period", G(1))])],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[(0, 1)],
};

static EMA_CROSSOVER: Rule = Rule {
    name: "ema_crossover",
    summary: "In while the fast exponential average is above the slow one, from a crossing on",
    genes: &[Gene::bars("fast", 5..=50, 5), Gene::bars("slow", 20..=200, 20)],
    lines: &[Line::of("ema", &[("period", G(0))]), Line::of("ema", &[("period", G(1))])],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[(0, 1)],
};

static RSI: Rule = Rule {
    name: "rsi",
    summary: "In from oversold until overbought",
    genes: &[
        Gene::bars("period", 7..=28, 7),
        Gene::real("oversold", (0.0, 100.0), (20.0, 40.0, 5.0)),
        Gene::real("overbought", (0.0, 100.0), (60.0, 80.0, 5.0)),
    ],
    lines: &[Line::of("rsi", &[("period", G(0))])],
    enter: Above(Value(1), At(0)),
    exit: Above(At(0), Value(2)),
    ordered: &[(1, 2)],
};

static BB_REVERSAL: Rule = Rule {
    name: "bb_reversal",
    summary: "In from below the lower Bollinger band until above the middle",
    genes: &[Gene::bars("period", 10..=50, 10), Gene::real("deviations", (0.0, 10.0), (1.0, 3.0, 0.5))],
    lines: &[
        CLOSE,
        Line::output("bbands", &[("period", G(0)), ("up", G(1)), ("down", G(1))], "lower"),
        Line::output("bbands", &[("period", G(0)), ("up", G(1)), ("down", G(1))], "middle"),
    ],
    enter: Above(At(1), At(0)),
    exit: Above(At(0), At(2)),
    ordered: &[],
};

static MACD_CROSS: Rule = Rule {
    name: "macd_cross",
    summary: "In while the MACD is above its signal, from a crossing on",
    genes: &[Gene::bars("fast", 8..=16, 4), Gene::bars("slow", 20..=32, 4), Gene::bars("signal", 6..=12, 3)],
    lines: &[
        Line::output("macd", &[("fast", G(0)), ("slow", G(1)), ("signal", G(2))], "macd"),
        Line::output("macd", &[("fast", G(0)), ("slow", G(1)), ("signal", G(2))], "signal"),
    ],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[(0, 1)],
};

static STOCHASTIC: Rule = Rule {
    name: "stochastic",
    summary: "In when %K rises above %D while oversold, out when it falls below while overbought",
    genes: &[
        Gene::bars("fast_k", 5..=20, 5),
        Gene::bars("slow_d", 3..=6, 3),
        Gene::real("oversold", (0.0, 100.0), (20.0, 40.0, 10.0)),
        Gene::real("overbought", (0.0, 100.0), (60.0, 80.0, 10.0)),
    ],
    lines: &[
        Line::output("stoch", &[("fast_k", G(0)), ("slow_k", N(3.0)), ("slow_d", G(1))], "k"),
        Line::output("stoch", &[("fast_k", G(0)), ("slow_k", N(3.0)), ("slow_d", G(1))], "d"),
    ],
    enter: And(&Rises(At(0), At(1)), &Above(Value(2), At(1))),
    exit: And(&Rises(At(1), At(0)), &Above(At(1), Value(3))),
    ordered: &[(2, 3)],
};

/// What closes above the channel of the bars before has broken out.
static BREAKOUT: Rule = Rule {
    name: "breakout",
    summary: "In above the highest high of the bars before, out below the lowest low of fewer bars before",
    genes: &[Gene::bars("period", 20..=60, 10), Gene::bars("exit_period", 10..=30, 10)],
    lines: &[CLOSE, channel(&[("period", G(0))], "upper"), channel(&[("period", G(1))], "lower")],
    enter: Above(At(0), At(1)),
    exit: Above(At(2), At(0)),
    ordered: &[],
};

static TREND_FOLLOWING: Rule = Rule {
    name: "trend_following",
    summary: "In while the fast average is above the slow one and the trend is strong, out when the averages cross",
    genes: &[
        Gene::bars("fast", 10..=30, 10),
        Gene::bars("slow", 40..=100, 20),
        Gene::bars("adx", 14..=28, 14),
        Gene::real("threshold", (0.0, 100.0), (15.0, 30.0, 5.0)),
    ],
    lines: &[
        Line::of("ema", &[("period", G(0))]),
        Line::of("ema", &[("period", G(1))]),
        Line::of("adx", &[("period", G(2))]),
    ],
    enter: And(&Above(At(0), At(1)), &Above(At(2), Value(3))),
    exit: Above(At(1), At(0)),
    ordered: &[(0, 1)],
};

/// The signal line is an average of another line.
static TRIX_SIGNAL: Rule = Rule {
    name: "trix_signal",
    summary: "In while TRIX is above its average, from a crossing on; out too when it falls below zero",
    genes: &[Gene::bars("period", 10..=30, 10), Gene::bars("signal", 6..=12, 3)],
    lines: &[
        TRIX,
        Line::Drawn {
            indicator: "ema",
            given: &[("period", G(1))],
            output: "value",
            over: Some(&TRIX),
            late: 0,
        },
    ],
    enter: Rises(At(0), At(1)),
    exit: Or(&Rises(At(1), At(0)), &Rises(Level(0.0), At(0))),
    ordered: &[],
};

const TRIX: Line = Line::of("trix", &[("period", G(0))]);

/// A side of the channel of the bars before a bar.
const fn channel(given: &'static [(&'static str, Arg)], output: &'static str) -> Line {
    Line::Drawn { indicator: "donchian", given, output, over: None, late: 1 }
}

/// Every rule.
pub static RULES: &[&Rule] = &[
    &SMA_CROSSOVER,
    &EMA_CROSSOVER,
    &RSI,
    &BB_REVERSAL,
    &MACD_CROSS,
    &STOCHASTIC,
    &BREAKOUT,
    &TREND_FOLLOWING,
    &TRIX_SIGNAL,
];

/// The rule of that name, ours or one of [`NAMED`].
#[must_use]
pub fn find(name: &str) -> Option<&'static Rule> {
    RULES.iter().chain(NAMED).copied().find(|rule| rule.name == name)
}
