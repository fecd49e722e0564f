//! The kernels that are measured, and what the rivals call them.

use sluice_calc::Value;
use ta_lib::{Core, MAType, OutRange, RetCode};

/// Open, high, low, close, volume.
pub(crate) type Columns = [Vec<f64>; 5];

/// One kernel with its parameters.
pub(crate) struct Kernel {
    pub(crate) name: &'static str,
    pub(crate) given: &'static [(&'static str, Value<'static>)],
    pub(super) talib: TaLib,
    pub(super) tulip: Tulip,
}

/// TA-Lib's function in C and its kind of arguments.
pub(super) enum TaLib {
    /// Closes and a period.
    Closes(&'static str, i32),
    /// Closes, a period and a factor.
    Scaled(&'static str, i32, f64),
    /// High, low, close and a period.
    Bars(&'static str, i32),
    /// MACD's three periods.
    Macd(i32, i32, i32),
    /// Period and deviations of the bands.
    Bands(i32, f64),
    /// Periods of the two lines of the stochastic.
    Stochastic(i32, i32, i32),
    /// Closes and volume.
    Volume(&'static str),
    /// High, low, close, volume and a period.
    Flow(&'static str, i32),
}

/// Tulip's function: the columns it reads, in order, and its options.
pub(super) struct Tulip {
    pub(super) name: &'static str,
    pub(super) columns: &'static [usize],
    pub(super) options: &'static [f64],
    pub(super) outputs: usize,
}

const HLC: &[usize] = &[1, 2, 3];
const CLOSE: &[usize] = &[3];

const fn tulip(name: &'static str, columns: &'static [usize], options: &'static [f64]) -> Tulip {
    Tulip { name, columns, options, outputs: 1 }
}

const fn period(number: f64) -> [(&'static str, Value<'static>); 1] {
    [("period", Value::Number(number))]
}

const FAST_K: &[(&str, Value<'static>)] = &[("fast_k", Value::Number(14.0))];

/// The kernels of the goals.
pub(crate) const KERNELS: &[Kernel] = &[
    Kernel {
        name: "sma",
        given: &period(20.0),
        talib: TaLib::Closes("TA_SMA", 20),
        tulip: tulip("ti_sma", CLOSE, &[20.0]),
    },
    Kernel {
        name: "ema",
        given: &period(20.0),
        talib: TaLib::Closes("TA_EMA", 20),
        tulip: tulip("ti_ema", CLOSE, &[20.0]),
    },
    Kernel {
        name: "rsi",
        given: &period(14.0),
        talib: TaLib::Closes("TA_RSI", 14),
        tulip: tulip("ti_rsi", CLOSE, &[14.0]),
    },
    Kernel {
        name: "macd",
        given: &[],
        talib: TaLib::Macd(12, 26, 9),
        tulip: Tulip { outputs: 3, ..tulip("ti_macd", CLOSE, &[12.0, 26.0, 9.0]) },
    },
    Kernel {
        name: "bbands",
        given: &period(20.0),
        talib: TaLib::Bands(20, 2.0),
        tulip: Tulip { outputs: 3, ..tulip("ti_bbands", CLOSE, &[20.0, 2.0]) },
    },
    Kernel {
        name: "atr",
        given: &period(14.0),
        talib: TaLib::Bars("TA_ATR", 14),
        tulip: tulip("ti_atr", HLC, &[14.0]),
    },
    Kernel {
        name: "stoch",
        given: FAST_K,
        talib: TaLib::Stochastic(14, 3, 3),
        tulip: Tulip { outputs: 2, ..tulip("ti_stoch", HLC, &[14.0, 3.0, 3.0]) },
    },
    Kernel {
        name: "adx",
        given: &period(14.0),
        talib: TaLib::Bars("TA_ADX", 14),
        tulip: tulip("ti_adx", HLC, &[14.0]),
    },
    Kernel {
        name: "cci",
        given: &period(20.0),
        talib: TaLib::Bars("TA_CCI", 20),
        tulip: tulip("ti_cci", HLC, &[20.0]),
    },
    Kernel { name: "obv", given: &[], talib: TaLib::Volume("TA_OBV"), tulip: tulip("ti_obv", &[3, 4], &[]) },
    Kernel {
        name: "mfi",
        given: &period(14.0),
        talib: TaLib::Flow("TA_MFI", 14),
        tulip: tulip("ti_mfi", &[1, 2, 3, 4], &[14.0]),
    },
    Kernel {
        name: "willr",
        given: &period(14.0),
        talib: TaLib::Bars("TA_WILLR", 14),
        tulip: tulip("ti_willr", HLC, &[14.0]),
    },
    Kernel {
        name: "stddev",
        given: &period(20.0),
        talib: TaLib::Scaled("TA_STDDEV", 20, 1.0),
        tulip: tulip("ti_stddev", CLOSE, &[20.0]),
    },
    Kernel {
        name: "linearreg",
        given: &period(14.0),
        talib: TaLib::Closes("TA_LINEARREG", 14),
        tulip: tulip("ti_linreg", CLOSE, &[14.0]),
    },
    Kernel {
        name: "max",
        given: &period(30.0),
        talib: TaLib::Closes("TA_MAX", 30),
        tulip: tulip("ti_max", CLOSE, &[30.0]),
    },
];

/// The same kernel of the `ta-lib` crate.
pub(super) fn of_crate(name: &str, columns: &Columns, outs: &mut [Vec<f64>]) -> Result<OutRange, RetCode> {
    let [_, high, low, close, volume] = columns;
    let [first, second, third, ..] = outs else { return Err(RetCode::BadParam) };
    let (core, last, sma) = (Core::new(), close.len() - 1, MAType::SMA);
    match name {
        "sma" => core.sma(0, last, close, 20, first),
        "ema" => core.ema(0, last, close, 20, first),
        "rsi" => core.rsi(0, last, close, 14, first),
        "macd" => core.macd(0, last, close, 12, 26, 9, first, second, third),
        "bbands" => core.bbands(0, last, close, 20, 2.0, 2.0, sma, first, second, third),
        "atr" => core.atr(0, last, high, low, close, 14, first),
        "stoch" => core.stoch(0, last, high, low, close, 14, 3, sma, 3, sma, first, second),
        "adx" => core.adx(0, last, high, low, close, 14, first),
        "cci" => core.cci(0, last, high, low, close, 20, first),
        "obv" => core.obv(0, last, close, volume, first),
        "mfi" => core.mfi(0, last, high, low, close, volume, 14, first),
        "willr" => core.willr(0, last, high, low, close, 14, first),
        "stddev" => core.stddev(0, last, close, 20, 1.0, first),
        "linearreg" => core.linearreg(0, last, close, 14, first),
        "max" => core.max(0, last, close, 30, first),
        _ => Err(RetCode::BadParam),
    }
}

/// A random walk.
pub(crate) fn walk(bars: usize) -> Columns {
    let mut state = 42_u64;
    let mut roll = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut columns = [(); 5].map(|()| Vec::with_capacity(bars));
    let mut close = 100.0_f64;
    for _ in 0..bars {
        let open = close;
        close *= 1.0 + (roll() - 0.5) * 0.01;
        let (high, low) =
            (open.max(close) * (1.0 + roll() * 0.003), open.min(close) * (1.0 - roll() * 0.003));
        let row = [open, high, low, close, (roll() * 1e5).floor()];
        columns.iter_mut().zip(row).for_each(|(column, value)| column.push(value));
    }
    columns
}
