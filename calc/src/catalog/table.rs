//! The table of indicators.

use super::Indicator;
use super::args::{Args, CatalogError, Param, Value};
use crate::indicator::{Adx, Atr, Bbands, Ema, Macd, Obv, Rsi, Sma, Stoch};
use crate::params::DEVIATIONS_MAX;
use crate::series::Column;

/// What the catalogue says of an indicator.
#[derive(Debug)]
pub struct Entry {
    /// Name on the wire.
    pub name: &'static str,
    /// Other names under which it is found.
    pub aliases: &'static [&'static str],
    /// One line for people.
    pub summary: &'static str,
    /// Columns it reads.
    pub columns: &'static [Column],
    /// Parameters it takes.
    pub params: &'static [Param],
    /// Names of its outputs, in order.
    pub outputs: &'static [&'static str],
    pub(super) build: fn(&Args<'_>) -> Result<Indicator, CatalogError>,
}

/// Every indicator, by name.
pub static ENTRIES: [&Entry; 9] = [&ADX, &ATR, &BBANDS, &EMA, &MACD, &OBV, &RSI, &SMA, &STOCH];

/// The entry of that name or alias, if there is one.
#[must_use]
pub fn find(name: &str) -> Option<&'static Entry> {
    ENTRIES.into_iter().find(|entry| entry.name == name || entry.aliases.contains(&name))
}

const CLOSE: &[Column] = &[Column::Close];
const HIGH_LOW_CLOSE: &[Column] = &[Column::High, Column::Low, Column::Close];
const SINGLE: &[&str] = &["value"];

pub(super) static SMA: Entry = Entry {
    name: "sma",
    aliases: &[],
    summary: "simple moving average",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(30.0))],
    outputs: SINGLE,
    build: |args| Ok(Indicator::Sma(Sma::new(args.window("period")?))),
};

pub(super) static EMA: Entry = Entry {
    name: "ema",
    aliases: &[],
    summary: "exponential moving average",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(30.0)), Param::SEED],
    outputs: SINGLE,
    build: |args| Ok(Indicator::Ema(Ema::new(args.window("period")?, args.seed()?))),
};

pub(super) static RSI: Entry = Entry {
    name: "rsi",
    aliases: &[],
    summary: "relative strength index, 0 to 100",
    columns: CLOSE,
    params: &[Param::bars("period", 2, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| Ok(Indicator::Rsi(Rsi::new(args.window("period")?))),
};

pub(super) static MACD: Entry = Entry {
    name: "macd",
    aliases: &[],
    summary: "moving average convergence/divergence",
    columns: CLOSE,
    params: &[
        Param::bars("fast", 2, |_| Value::Number(12.0)),
        Param::bars("slow", 2, |_| Value::Number(26.0)),
        Param::bars("signal", 1, |_| Value::Number(9.0)),
        Param::SEED,
    ],
    outputs: &["macd", "signal", "histogram"],
    build: |args| {
        let (fast, slow) = (args.window("fast")?, args.window("slow")?);
        Ok(Indicator::Macd(Macd::new(fast, slow, args.window("signal")?, args.seed()?)))
    },
};

pub(super) static BBANDS: Entry = Entry {
    name: "bbands",
    aliases: &["bb"],
    summary: "Bollinger bands around the simple moving average",
    columns: CLOSE,
    params: &[
        Param::bars("period", 2, |_| Value::Number(20.0)),
        Param::real("up", 0.0, DEVIATIONS_MAX, |_| Value::Number(2.0)),
        Param::real("down", 0.0, DEVIATIONS_MAX, |_| Value::Number(2.0)),
        Param::DDOF,
    ],
    outputs: &["upper", "middle", "lower"],
    build: |args| {
        let (up, down) = (args.deviations("up")?, args.deviations("down")?);
        Ok(Indicator::Bbands(Bbands::new(args.window("period")?, up, down, args.ddof()?)))
    },
};

pub(super) static ATR: Entry = Entry {
    name: "atr",
    aliases: &[],
    summary: "average true range",
    columns: HIGH_LOW_CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(14.0)), Param::SMOOTHING, Param::FIRST_RANGE],
    outputs: SINGLE,
    build: |args| {
        Ok(Indicator::Atr(Atr::new(args.window("period")?, args.smoothing()?, args.first_range()?)))
    },
};

pub(super) static STOCH: Entry = Entry {
    name: "stoch",
    aliases: &["stochastic"],
    summary: "slow stochastic oscillator, 0 to 100",
    columns: HIGH_LOW_CLOSE,
    params: &[
        Param::bars("fast_k", 1, |compat| Value::Number(compat.fast_k().count())),
        Param::bars("slow_k", 1, |_| Value::Number(3.0)),
        Param::bars("slow_d", 1, |_| Value::Number(3.0)),
    ],
    outputs: &["k", "d"],
    build: |args| {
        let (slow_k, slow_d) = (args.window("slow_k")?, args.window("slow_d")?);
        Ok(Indicator::Stoch(Stoch::new(args.window("fast_k")?, slow_k, slow_d)))
    },
};

pub(super) static ADX: Entry = Entry {
    name: "adx",
    aliases: &[],
    summary: "average directional index, 0 to 100",
    columns: HIGH_LOW_CLOSE,
    params: &[Param::bars("period", 2, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| Ok(Indicator::Adx(Adx::new(args.window("period")?))),
};

pub(super) static OBV: Entry = Entry {
    name: "obv",
    aliases: &[],
    summary: "on-balance volume",
    columns: &[Column::Close, Column::Volume],
    params: &[],
    outputs: SINGLE,
    build: |_| Ok(Indicator::Obv(Obv)),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compat::Compat;
    use crate::series::Bars;

    #[test]
    fn every_entry_builds_from_its_defaults_and_names_itself() {
        for entry in ENTRIES {
            for compat in Compat::ALL {
                let indicator = Indicator::parse(entry.name, compat, &[]).unwrap();
                assert_eq!(indicator.entry().name, entry.name);
                assert_eq!(indicator.outputs(), entry.outputs);
            }
        }
        assert!(ENTRIES.is_sorted_by_key(|entry| entry.name));
    }

    #[test]
    fn seed_names_are_found() {
        assert_eq!(find("bb").unwrap().name, "bbands");
        assert_eq!(find("stochastic").unwrap().name, "stoch");
        assert!(find("RSI").is_none());
    }

    #[test]
    fn compat_changes_only_conventions() {
        let lookback = |name, compat| Indicator::parse(name, compat, &[]).unwrap().lookback();
        assert_eq!(lookback("ema", Compat::TaLib), 29);
        assert_eq!(lookback("ema", Compat::TradPal), 0);
        assert_eq!(lookback("atr", Compat::TaLib), 14);
        assert_eq!(lookback("atr", Compat::TradingView), 13);
        assert_eq!(lookback("macd", Compat::TaLib), 33);
        assert_eq!(lookback("stoch", Compat::TaLib), 8);
        assert_eq!(lookback("stoch", Compat::TradPal), 17);
        assert_eq!(lookback("adx", Compat::TradPal), 27);
    }

    #[test]
    fn compute_says_what_is_missing() {
        let close = [1.0; 4];
        let bars = Bars::from_close(&close);
        let atr = Indicator::parse("atr", Compat::TaLib, &[]).unwrap();
        let mut out = [0.0; 4];
        let error = atr.compute(&bars, &mut [&mut out]).unwrap_err();
        assert_eq!(error.to_string(), "atr needs the column high");
        let error = atr.compute(&bars, &mut []).unwrap_err();
        assert_eq!(error.to_string(), "0 output buffers were given where 1 are needed");
        let sma = Indicator::parse("sma", Compat::TaLib, &[]).unwrap();
        let error = sma.compute(&bars, &mut [&mut out[1..]]).unwrap_err();
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "output has 3 values where 4 are needed");
    }
}
