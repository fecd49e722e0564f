//! Rules by the names of a discovery platform, with the parameter names of its messages.
//!
//! Its messages give names and parameters alone. What enters and leaves is our own reading of the name: what crosses
//! enters and leaves by crossings, what oscillates by being oversold and overbought, with customary levels (20, 80, 100)
//! where a message has no parameter for them.

use super::rule::Arg::{self, Gene as G, Number as N};
use super::rule::Cond::{Above, And, Or, Rises};
use super::rule::Operand::{Gene as Value, Line as At, Number as Level};
use super::rule::{Gene, Line, Rule};
use crate::series::Column;

const CLOSE: Line = Line::Price(Column::Close);
const MOMENTUM: Line = Line::of("mom", &[("period", G(0))]);
const OBV: Line = Line::of("obv", &[]);
const PPO: Line = Line::of("ppo", &[("fast", G(0)), ("slow", G(1))]);
const ROC: Line = Line::of("roc", &[("period", G(0))]);
const RSI: Line = Line::of("rsi", &[("period", G(0))]);
const TRIX: Line = Line::of("trix", &[("period", G(0))]);

/// An average of another line.
const fn over(indicator: &'static str, given: &'static [(&'static str, Arg)], line: &'static Line) -> Line {
    Line::Drawn { indicator, given, output: "value", over: Some(line), late: 0 }
}

/// As it was a bar before.
const fn late(indicator: &'static str, given: &'static [(&'static str, Arg)], output: &'static str) -> Line {
    Line::Drawn { indicator, given, output, over: None, late: 1 }
}

static SMA_RSI: Rule = Rule {
    name: "SMA_RSI",
    summary: "In while oversold below the average, out while overbought above it",
    genes: &[
        Gene::bars("movingAveragePeriod", 5..=50, 1),
        Gene::bars("rsiPeriod", 5..=30, 1),
        Gene::real("overboughtThreshold", (0.0, 100.0), (60.0, 90.0, 5.0)),
        Gene::real("oversoldThreshold", (0.0, 100.0), (10.0, 40.0, 5.0)),
    ],
    lines: &[CLOSE, Line::of("sma", &[("period", G(0))]), Line::of("rsi", &[("period", G(1))])],
    enter: And(&Above(Value(3), At(2)), &Above(At(1), At(0))),
    exit: And(&Above(At(2), Value(2)), &Above(At(0), At(1))),
    ordered: &[(3, 2)],
};

static EMA_MACD: Rule = Rule {
    name: "EMA_MACD",
    summary: "In when the MACD rises above its signal while above zero, out when it falls below",
    genes: &[
        Gene::bars("shortEmaPeriod", 5..=20, 1),
        Gene::bars("longEmaPeriod", 15..=50, 1),
        Gene::bars("signalPeriod", 5..=15, 1),
    ],
    lines: &[
        Line::output("macd", &[("fast", G(0)), ("slow", G(1)), ("signal", G(2))], "macd"),
        Line::output("macd", &[("fast", G(0)), ("slow", G(1)), ("signal", G(2))], "signal"),
    ],
    enter: And(&Rises(At(0), At(1)), &Above(At(0), Level(0.0))),
    exit: Rises(At(1), At(0)),
    ordered: &[(0, 1)],
};

static ADX_STOCHASTIC: Rule = Rule {
    name: "ADX_STOCHASTIC",
    summary: "In while oversold in a strong trend, out while overbought",
    genes: &[
        Gene::bars("adxPeriod", 7..=30, 1),
        Gene::bars("stochasticKPeriod", 5..=20, 1),
        Gene::bars("stochasticDPeriod", 2..=8, 1),
        Gene::real("overboughtThreshold", (0.0, 100.0), (60.0, 90.0, 5.0)),
        Gene::real("oversoldThreshold", (0.0, 100.0), (10.0, 40.0, 5.0)),
    ],
    lines: &[
        Line::of("adx", &[("period", G(0))]),
        Line::output("stoch", &[("fast_k", G(1)), ("slow_k", N(3.0)), ("slow_d", G(2))], "k"),
    ],
    enter: And(&Above(At(0), Level(20.0)), &Above(Value(4), At(1))),
    exit: Above(At(1), Value(3)),
    ordered: &[(4, 3)],
};

static AROON_MFI: Rule = Rule {
    name: "AROON_MFI",
    summary: "In while Aroon points up and money flow is oversold, out while down and overbought",
    genes: &[
        Gene::bars("aroonPeriod", 10..=40, 1),
        Gene::bars("mfiPeriod", 5..=30, 1),
        Gene::real("overboughtThreshold", (0.0, 100.0), (60.0, 90.0, 5.0)),
        Gene::real("oversoldThreshold", (0.0, 100.0), (10.0, 40.0, 5.0)),
    ],
    lines: &[
        Line::output("aroon", &[("period", G(0))], "up"),
        Line::output("aroon", &[("period", G(0))], "down"),
        Line::of("mfi", &[("period", G(1))]),
    ],
    enter: And(&Above(At(0), At(1)), &Above(Value(3), At(2))),
    exit: And(&Above(At(1), At(0)), &Above(At(2), Value(2))),
    ordered: &[(3, 2)],
};

static SMA_EMA: Rule = Rule {
    name: "SMA_EMA_CROSSOVER",
    summary: "In when the exponential average rises above the simple one, out when it falls below",
    genes: &[Gene::bars("smaPeriod", 5..=50, 1), Gene::bars("emaPeriod", 5..=50, 1)],
    lines: &[Line::of("ema", &[("period", G(1))]), Line::of("sma", &[("period", G(0))])],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[],
};

static DOUBLE_EMA: Rule = Rule {
    name: "DOUBLE_EMA_CROSSOVER",
    summary: "In when the short average rises above the long one, out when it falls below",
    genes: &[Gene::bars("shortEmaPeriod", 3..=30, 1), Gene::bars("longEmaPeriod", 20..=100, 1)],
    lines: &[Line::of("ema", &[("period", G(0))]), Line::of("ema", &[("period", G(1))])],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[(0, 1)],
};

static TRIPLE_EMA: Rule = Rule {
    name: "TRIPLE_EMA_CROSSOVER",
    summary: "In when the short average rises above the medium one that is above the long one, out when it falls below",
    genes: &[
        Gene::bars("shortEmaPeriod", 3..=15, 1),
        Gene::bars("mediumEmaPeriod", 10..=40, 1),
        Gene::bars("longEmaPeriod", 30..=100, 1),
    ],
    lines: &[
        Line::of("ema", &[("period", G(0))]),
        Line::of("ema", &[("period", G(1))]),
        Line::of("ema", &[("period", G(2))]),
    ],
    enter: And(&Rises(At(0), At(1)), &Above(At(1), At(2))),
    exit: Rises(At(1), At(0)),
    ordered: &[(0, 1), (1, 2)],
};

static BBAND_W_R: Rule = Rule {
    name: "BBAND_W_R",
    summary: "In below the lower band with %R below -80, out above the upper band with %R above -20",
    genes: &[
        Gene::bars("bbandsPeriod", 10..=50, 1),
        Gene::bars("wrPeriod", 5..=30, 1),
        Gene::real("stdDevMultiplier", (0.0, 10.0), (1.0, 3.0, 0.25)),
    ],
    lines: &[
        CLOSE,
        Line::output("bbands", &[("period", G(0)), ("up", G(2)), ("down", G(2))], "lower"),
        Line::output("bbands", &[("period", G(0)), ("up", G(2)), ("down", G(2))], "upper"),
        Line::of("willr", &[("period", G(1))]),
    ],
    enter: And(&Above(At(1), At(0)), &Above(Level(-80.0), At(3))),
    exit: And(&Above(At(0), At(2)), &Above(At(3), Level(-20.0))),
    ordered: &[],
};

static ATR_CCI: Rule = Rule {
    name: "ATR_CCI",
    summary: "In when the CCI rises above -100 while ranges widen, out when it falls below 100",
    genes: &[Gene::bars("atrPeriod", 5..=30, 1), Gene::bars("cciPeriod", 10..=40, 1)],
    lines: &[
        Line::of("cci", &[("period", G(1))]),
        Line::of("atr", &[("period", G(0))]),
        late("atr", &[("period", G(0))], "value"),
    ],
    enter: And(&Rises(At(0), Level(-100.0)), &Above(At(1), At(2))),
    exit: Rises(Level(100.0), At(0)),
    ordered: &[],
};

static DONCHIAN: Rule = Rule {
    name: "DONCHIAN_BREAKOUT",
    summary: "In above the highest high of the bars before, out below their lowest low",
    genes: &[Gene::bars("donchianPeriod", 5..=60, 1)],
    lines: &[
        CLOSE,
        late("donchian", &[("period", G(0))], "upper"),
        late("donchian", &[("period", G(0))], "lower"),
    ],
    enter: Above(At(0), At(1)),
    exit: Above(At(2), At(0)),
    ordered: &[],
};

static VOLATILITY_STOP: Rule = Rule {
    name: "VOLATILITY_STOP",
    summary: "In when the close rises above a stop of average true ranges, out when it falls below",
    genes: &[Gene::bars("atrPeriod", 5..=30, 1), Gene::real("multiplier", (0.0, 100.0), (1.0, 5.0, 0.25))],
    lines: &[CLOSE, Line::output("supertrend", &[("period", G(0)), ("multiplier", G(1))], "value")],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[],
};

static ATR_TRAILING_STOP: Rule = Rule {
    name: "ATR_TRAILING_STOP",
    summary: "In while a trailing stop of average true ranges rises, out while it falls",
    genes: &[Gene::bars("atrPeriod", 5..=30, 1), Gene::real("multiplier", (0.0, 100.0), (1.0, 5.0, 0.25))],
    lines: &[Line::output("supertrend", &[("period", G(0)), ("multiplier", G(1))], "trend")],
    enter: Above(At(0), Level(0.0)),
    exit: Above(Level(0.0), At(0)),
    ordered: &[],
};

static MOMENTUM_SMA: Rule = Rule {
    name: "MOMENTUM_SMA_CROSSOVER",
    summary: "In when momentum rises above its average, out when it falls below",
    genes: &[Gene::bars("momentumPeriod", 5..=30, 1), Gene::bars("smaPeriod", 3..=30, 1)],
    lines: &[MOMENTUM, over("sma", &[("period", G(1))], &MOMENTUM)],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[],
};

static STOCHASTIC_RSI: Rule = Rule {
    name: "STOCHASTIC_RSI",
    summary: "In when %K of the RSI rises above %D while oversold, out when it falls below while overbought",
    genes: &[
        Gene::bars("rsiPeriod", 5..=30, 1),
        Gene::bars("stochasticKPeriod", 3..=20, 1),
        Gene::bars("stochasticDPeriod", 2..=8, 1),
        Gene::real("overboughtThreshold", (0.0, 100.0), (60.0, 90.0, 5.0)),
        Gene::real("oversoldThreshold", (0.0, 100.0), (10.0, 40.0, 5.0)),
    ],
    lines: &[
        Line::output("stochrsi", &[("period", G(0)), ("fast_k", G(1)), ("fast_d", G(2))], "fastk"),
        Line::output("stochrsi", &[("period", G(0)), ("fast_k", G(1)), ("fast_d", G(2))], "fastd"),
    ],
    enter: And(&Rises(At(0), At(1)), &Above(Value(4), At(1))),
    exit: And(&Rises(At(1), At(0)), &Above(At(1), Value(3))),
    ordered: &[(4, 3)],
};

static OBV_EMA: Rule = Rule {
    name: "OBV_EMA",
    summary: "In when on-balance volume rises above its average, out when it falls below",
    genes: &[Gene::bars("emaPeriod", 5..=60, 1)],
    lines: &[OBV, over("ema", &[("period", G(0))], &OBV)],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[],
};

static CHAIKIN: Rule = Rule {
    name: "CHAIKIN_OSCILLATOR",
    summary: "In when the oscillator rises above zero, out when it falls below",
    genes: &[Gene::bars("fastPeriod", 2..=15, 1), Gene::bars("slowPeriod", 8..=40, 1)],
    lines: &[Line::of("adosc", &[("fast", G(0)), ("slow", G(1))])],
    enter: Rises(At(0), Level(0.0)),
    exit: Rises(Level(0.0), At(0)),
    ordered: &[(0, 1)],
};

static STOCHASTIC_EMA: Rule = Rule {
    name: "STOCHASTIC_EMA",
    summary: "In when %K rises above %D while oversold and above the average, out when it falls below while overbought",
    genes: &[
        Gene::bars("emaPeriod", 5..=50, 1),
        Gene::bars("stochasticKPeriod", 5..=20, 1),
        Gene::bars("stochasticDPeriod", 2..=8, 1),
        Gene::real("overboughtThreshold", (0.0, 100.0), (60.0, 90.0, 5.0)),
        Gene::real("oversoldThreshold", (0.0, 100.0), (10.0, 40.0, 5.0)),
    ],
    lines: &[
        CLOSE,
        Line::of("ema", &[("period", G(0))]),
        Line::output("stoch", &[("fast_k", G(1)), ("slow_k", N(3.0)), ("slow_d", G(2))], "k"),
        Line::output("stoch", &[("fast_k", G(1)), ("slow_k", N(3.0)), ("slow_d", G(2))], "d"),
    ],
    enter: And(&Rises(At(2), At(3)), &And(&Above(Value(4), At(3)), &Above(At(0), At(1)))),
    exit: And(&Rises(At(3), At(2)), &Above(At(3), Value(3))),
    ordered: &[(4, 3)],
};

static CMO_MFI: Rule = Rule {
    name: "CMO_MFI",
    summary: "In while the CMO is below -50 and money flow below 20, out while above 50 or 80",
    genes: &[Gene::bars("cmoPeriod", 5..=30, 1), Gene::bars("mfiPeriod", 5..=30, 1)],
    lines: &[Line::of("cmo", &[("period", G(0))]), Line::of("mfi", &[("period", G(1))])],
    enter: And(&Above(Level(-50.0), At(0)), &Above(Level(20.0), At(1))),
    exit: Or(&Above(At(0), Level(50.0)), &Above(At(1), Level(80.0))),
    ordered: &[],
};

static RSI_EMA: Rule = Rule {
    name: "RSI_EMA_CROSSOVER",
    summary: "In when the RSI rises above its average, out when it falls below",
    genes: &[Gene::bars("rsiPeriod", 5..=30, 1), Gene::bars("emaPeriod", 3..=30, 1)],
    lines: &[RSI, over("ema", &[("period", G(1))], &RSI)],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[],
};

static TRIX_SIGNAL: Rule = Rule {
    name: "TRIX_SIGNAL_LINE",
    summary: "In when TRIX rises above its average, out when it falls below",
    genes: &[Gene::bars("trixPeriod", 5..=30, 1), Gene::bars("signalPeriod", 3..=20, 1)],
    lines: &[TRIX, over("ema", &[("period", G(1))], &TRIX)],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[],
};

static CMF_ZERO: Rule = Rule {
    name: "CMF_ZERO_LINE",
    summary: "In when money flow rises above zero, out when it falls below",
    genes: &[Gene::bars("period", 5..=60, 1)],
    lines: &[Line::of("cmf", &[("period", G(0))])],
    enter: Rises(At(0), Level(0.0)),
    exit: Rises(Level(0.0), At(0)),
    ordered: &[],
};

static PRICE_OSCILLATOR: Rule = Rule {
    name: "PRICE_OSCILLATOR_SIGNAL",
    summary: "In when the price oscillator rises above its average, out when it falls below",
    genes: &[
        Gene::bars("fastPeriod", 5..=20, 1),
        Gene::bars("slowPeriod", 15..=50, 1),
        Gene::bars("signalPeriod", 3..=20, 1),
    ],
    lines: &[PPO, over("ema", &[("period", G(2))], &PPO)],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[(0, 1)],
};

static DEMA_TEMA: Rule = Rule {
    name: "DEMA_TEMA_CROSSOVER",
    summary: "In when the triple average rises above the double one, out when it falls below",
    genes: &[Gene::bars("demaPeriod", 5..=50, 1), Gene::bars("temaPeriod", 5..=50, 1)],
    lines: &[Line::of("tema", &[("period", G(1))]), Line::of("dema", &[("period", G(0))])],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[],
};

static MACD: Rule = Rule {
    name: "MACD_CROSSOVER",
    summary: "In when the MACD rises above its signal, out when it falls below",
    genes: &[
        Gene::bars("shortEmaPeriod", 5..=20, 1),
        Gene::bars("longEmaPeriod", 15..=50, 1),
        Gene::bars("signalPeriod", 5..=15, 1),
    ],
    lines: &[
        Line::output("macd", &[("fast", G(0)), ("slow", G(1)), ("signal", G(2))], "macd"),
        Line::output("macd", &[("fast", G(0)), ("slow", G(1)), ("signal", G(2))], "signal"),
    ],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[(0, 1)],
};

static VWAP: Rule = Rule {
    name: "VWAP_CROSSOVER",
    summary: "In when the average rises above the one weighted by volume, out when it falls below",
    genes: &[Gene::bars("vwapPeriod", 5..=60, 1), Gene::bars("movingAveragePeriod", 5..=60, 1)],
    lines: &[Line::of("sma", &[("period", G(1))]), Line::of("vwma", &[("period", G(0))])],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[],
};

static ROC_MA: Rule = Rule {
    name: "ROC_MA_CROSSOVER",
    summary: "In when the rate of change rises above its average, out when it falls below",
    genes: &[Gene::bars("rocPeriod", 5..=30, 1), Gene::bars("maPeriod", 3..=30, 1)],
    lines: &[ROC, over("sma", &[("period", G(1))], &ROC)],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[],
};

static REGRESSION: Rule = Rule {
    name: "REGRESSION_CHANNEL",
    summary: "In when the close rises above the regression line, out when it falls below",
    genes: &[Gene::bars("period", 10..=100, 1)],
    lines: &[CLOSE, Line::of("linearreg", &[("period", G(0))])],
    enter: Rises(At(0), At(1)),
    exit: Rises(At(1), At(0)),
    ordered: &[],
};

static ADX_DMI: Rule = Rule {
    name: "ADX_DMI",
    summary: "In when +DI rises above -DI in a strong trend, out when it falls below",
    genes: &[Gene::bars("adxPeriod", 7..=30, 1), Gene::bars("diPeriod", 7..=30, 1)],
    lines: &[
        Line::output("di", &[("period", G(1))], "plus"),
        Line::output("di", &[("period", G(1))], "minus"),
        Line::of("adx", &[("period", G(0))]),
    ],
    enter: And(&Rises(At(0), At(1)), &Above(At(2), Level(20.0))),
    exit: Rises(At(1), At(0)),
    ordered: &[],
};

/// Every one of them that is expressed.
pub static NAMED: &[&Rule] = &[
    &SMA_RSI,
    &EMA_MACD,
    &ADX_STOCHASTIC,
    &AROON_MFI,
    &SMA_EMA,
    &DOUBLE_EMA,
    &TRIPLE_EMA,
    &BBAND_W_R,
    &ATR_CCI,
    &DONCHIAN,
    &VOLATILITY_STOP,
    &ATR_TRAILING_STOP,
    &MOMENTUM_SMA,
    &STOCHASTIC_RSI,
    &OBV_EMA,
    &CHAIKIN,
    &STOCHASTIC_EMA,
    &CMO_MFI,
    &RSI_EMA,
    &TRIX_SIGNAL,
    &CMF_ZERO,
    &PRICE_OSCILLATOR,
    &DEMA_TEMA,
    &MACD,
    &VWAP,
    &ROC_MA,
    &REGRESSION,
    &ADX_DMI,
];

/// Names of the platform that are not: their lines are no indicators of the catalogue, or need arithmetic between lines.
pub static NOT_EXPRESSED: &[&str] = &[
    "ICHIMOKU_CLOUD",
    "PARABOLIC_SAR",
    "LINEAR_REGRESSION_CHANNELS",
    "VWAP_MEAN_REVERSION",
    "VOLUME_BREAKOUT",
    "SAR_MFI",
    "HEIKEN_ASHI",
    "KST_OSCILLATOR",
    "RVI",
    "MASS_INDEX",
    "MOMENTUM_PINBALL",
    "VOLUME_WEIGHTED_MACD",
    "KLINGER_VOLUME",
    "PVT",
    "VPT",
    "VOLUME_SPREAD_ANALYSIS",
    "TICK_VOLUME_ANALYSIS",
    "VOLUME_PROFILE_DEVIATIONS",
    "VOLUME_PROFILE",
    "RAINBOW_OSCILLATOR",
    "AWESOME_OSCILLATOR",
    "FRAMA",
    "PIVOT",
    "DOUBLE_TOP_BOTTOM",
    "FIBONACCI_RETRACEMENTS",
    "PRICE_GAP",
    "RENKO_CHART",
    "RANGE_BARS",
    "GANN_SWING",
    "ELDER_RAY_MA",
    "DPO_CROSSOVER",
    "VARIABLE_PERIOD_EMA",
];
