//! The indicators against the `ta-lib` crate, 0.8.3.
//!
//! A value `v` agrees with its reference `r` when `|v - r| <= 1e-9 * |r| + 1e-12 * scale`, the scale
//! being the largest price, 100 for an oscillator or the largest volume total. Where the two differ
//! on purpose, a test of its own says so.

mod average;
mod candle;
mod momentum;
mod recursive;

mod price;
mod trend;
mod volume;
mod window;

use crate::series::{self, Columns, Kind, columns, same_bits};
use sluice_calc::{Compat, Indicator, Value};
use ta_lib::{Core, MAType, OutRange, RetCode};

pub(crate) const BARS: usize = 3_000;

/// Markets on which the two must agree everywhere.
const KINDS: [Kind; 8] = [
    Kind::Walk,
    Kind::Trend,
    Kind::OneStep,
    Kind::Ticks,
    Kind::Tiny,
    Kind::Huge,
    Kind::Halts,
    Kind::ZeroVolume,
];

pub(crate) fn compute(name: &str, given: &[(&str, u32)], columns: &Columns) -> Vec<Vec<f64>> {
    let given: Vec<_> = given.iter().map(|(name, bars)| (*name, Value::Number(f64::from(*bars)))).collect();
    let indicator = Indicator::parse(name, Compat::TaLib, &given).unwrap();
    series::compute(&indicator, &columns.bars())
}

/// The oracle's outputs moved to the bars they belong to, `NaN` before.
pub(crate) fn reference<const OUTPUTS: usize>(
    len: usize,
    call: impl FnOnce(&Core, usize, &mut [Vec<f64>; OUTPUTS]) -> Result<OutRange, RetCode>,
) -> Vec<Vec<f64>> {
    let mut outs = std::array::from_fn(|_| vec![0.0; len]);
    let range = call(&Core::new(), len - 1, &mut outs).unwrap();
    let placed = |out: Vec<f64>| {
        let mut placed = vec![f64::NAN; range.beg_idx];
        placed.extend_from_slice(&out[..range.count]);
        placed
    };
    outs.into_iter().map(placed).collect()
}

#[track_caller]
pub(crate) fn assert_close(what: &str, ours: &[Vec<f64>], theirs: &[Vec<f64>], scale: f64) {
    for (output, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
        assert_eq!(ours.len(), theirs.len());
        for (row, (our, their)) in ours.iter().zip(theirs).enumerate() {
            let tolerance = 1e-9 * their.abs() + 1e-12 * scale;
            let agrees = (our.is_nan() && their.is_nan()) || (our - their).abs() <= tolerance;
            assert!(agrees, "{what}, output {output}, row {row}: {our:?}, the oracle {their:?}");
        }
    }
}

pub(crate) fn each_market(check: impl Fn(Kind, &Columns)) {
    for (seed, kind) in KINDS.into_iter().enumerate() {
        check(kind, &columns(kind, seed as u64 + 1, BARS));
    }
}

#[test]
fn sma_agrees() {
    each_market(|kind, c| {
        for period in [1, 2, 5, 20, 200, 1_500] {
            let theirs = reference(BARS, |core, last, [out]| core.sma(0, last, &c.close, period as i32, out));
            let ours = compute("sma", &[("period", period)], c);
            assert_close(&format!("{kind:?} {period}"), &ours, &theirs, c.scale());
        }
    });
}

#[test]
fn sma_has_the_same_bits_until_the_first_restart() {
    let c = columns(Kind::Walk, 9, 600);
    let theirs = reference(600, |core, last, [out]| core.sma(0, last, &c.close, 20, out));
    assert!(same_bits(&compute("sma", &[("period", 20)], &c)[0], &theirs[0]));
}

/// Exception: the oracle fuses the multiplication and the addition; we round both.
#[test]
fn ema_agrees_though_the_oracle_fuses() {
    each_market(|kind, c| {
        for period in [1, 2, 12, 20, 200] {
            let theirs = reference(BARS, |core, last, [out]| core.ema(0, last, &c.close, period as i32, out));
            let ours = compute("ema", &[("period", period)], c);
            assert_close(&format!("{kind:?} {period}"), &ours, &theirs, c.scale());
        }
    });
}

#[test]
fn rsi_has_the_same_bits() {
    each_market(|kind, c| {
        for period in [2, 14, 100] {
            let theirs = reference(BARS, |core, last, [out]| core.rsi(0, last, &c.close, period as i32, out));
            let ours = compute("rsi", &[("period", period)], c);
            let agree = ours[0].iter().zip(&theirs[0]).all(|(our, their)| {
                // Before its only step, that market stands still: see the test below.
                same_bits(&[*our], &[*their]) || (kind == Kind::OneStep && (*our, *their) == (0.0, 50.0))
            });
            assert!(agree, "{kind:?} {period}");
        }
    });
}

/// Exception: the oracle answers 50 where nothing moved; TA-Lib up to 0.8.1, and we, answer 0.
#[test]
fn flat_rsi_is_0_where_the_oracle_says_50() {
    let c = columns(Kind::Flat, 1, 50);
    let theirs = reference(50, |core, last, [out]| core.rsi(0, last, &c.close, 14, out));
    assert!(theirs[0][14..].iter().all(|&value| value == 50.0));
    assert!(compute("rsi", &[("period", 14)], &c)[0][14..].iter().all(|&value| value == 0.0));
}

#[test]
fn macd_agrees_though_the_oracle_fuses() {
    each_market(|kind, c| {
        for (fast, slow, signal) in [(12, 26, 9), (26, 12, 9), (2, 3, 1), (50, 200, 20)] {
            let theirs = reference(BARS, |core, last, [line, average, histogram]| {
                let (f, s, g) = (fast as i32, slow as i32, signal as i32);
                core.macd(0, last, &c.close, f, s, g, line, average, histogram)
            });
            let ours = compute("macd", &[("fast", fast), ("slow", slow), ("signal", signal)], c);
            assert_close(&format!("{kind:?} {fast} {slow} {signal}"), &ours, &theirs, c.scale());
        }
    });
}

#[test]
fn bbands_agrees() {
    each_market(|kind, c| {
        for period in [2, 5, 20, 200, 1_500] {
            let theirs = reference(BARS, |core, last, [upper, middle, lower]| {
                core.bbands(0, last, &c.close, period as i32, 2.0, 2.0, MAType::SMA, upper, middle, lower)
            });
            let ours = compute("bbands", &[("period", period)], c);
            assert_close(&format!("{kind:?} {period}"), &ours, &theirs, c.scale());
        }
    });
}

#[test]
fn atr_agrees_though_the_oracle_fuses() {
    each_market(|kind, c| {
        for period in [1, 2, 14, 100] {
            let theirs = reference(BARS, |core, last, [out]| {
                core.atr(0, last, &c.high, &c.low, &c.close, period as i32, out)
            });
            let ours = compute("atr", &[("period", period)], c);
            assert_close(&format!("{kind:?} {period}"), &ours, &theirs, c.scale());
        }
    });
}

/// Exception: the oracle divides by the true range twice before it divides the quotients.
#[test]
fn adx_agrees_though_we_divide_once() {
    each_market(|kind, c| {
        for period in [2, 14, 100] {
            let theirs = reference(BARS, |core, last, [out]| {
                core.adx(0, last, &c.high, &c.low, &c.close, period as i32, out)
            });
            let ours = compute("adx", &[("period", period)], c);
            assert_close(&format!("{kind:?} {period}"), &ours, &theirs, 100.0);
        }
    });
}

#[test]
fn lookbacks_are_the_same() {
    let core = Core::new();
    let ours = |name: &str, given: &[(&str, f64)]| {
        let given: Vec<_> = given.iter().map(|(name, bars)| (*name, Value::Number(*bars))).collect();
        Indicator::parse(name, Compat::TaLib, &given).unwrap().lookback()
    };
    for bars in [2, 14, 100_000] {
        let period = [("period", f64::from(bars))];
        assert_eq!(ours("sma", &period), core.sma_lookback(bars).unwrap());
        assert_eq!(ours("ema", &period), core.ema_lookback(bars).unwrap());
        assert_eq!(ours("rsi", &period), core.rsi_lookback(bars).unwrap());
        assert_eq!(ours("atr", &period), core.atr_lookback(bars).unwrap());
        assert_eq!(ours("adx", &period), core.adx_lookback(bars).unwrap());
        assert_eq!(ours("wma", &period), core.wma_lookback(bars).unwrap());
        assert_eq!(ours("trima", &period), core.trima_lookback(bars).unwrap());
        assert_eq!(ours("hma", &period), core.hma_lookback(bars).unwrap());
        assert_eq!(ours("kama", &period), core.kama_lookback(bars).unwrap());
        assert_eq!(ours("vwma", &period), core.vwma_lookback(bars).unwrap());
        assert_eq!(ours("dema", &period), core.dema_lookback(bars).unwrap());
        assert_eq!(ours("tema", &period), core.tema_lookback(bars).unwrap());
        assert_eq!(ours("t3", &period), core.t3_lookback(bars, 0.7).unwrap());
        assert_eq!(ours("trix", &period), core.trix_lookback(bars).unwrap());
        assert_eq!(ours("cmo", &period), core.cmo_lookback(bars).unwrap());
        assert_eq!(ours("mom", &period), core.mom_lookback(bars).unwrap());
        assert_eq!(ours("natr", &period), core.natr_lookback(bars).unwrap());
        assert_eq!(ours("dx", &period), core.dx_lookback(bars).unwrap());
        assert_eq!(ours("di", &period), core.plus_di_lookback(bars).unwrap());
        assert_eq!(ours("adxr", &period), core.adxr_lookback(bars).unwrap());
    }
    assert_eq!(ours("apo", &[]), core.apo_lookback(12, 26, MAType::EMA).unwrap());
    assert_eq!(ours("stochrsi", &[]), core.stochrsi_lookback(14, 5, 3, MAType::SMA).unwrap());
    assert_eq!(ours("macd", &[]), core.macd_lookback(12, 26, 9).unwrap());
    assert_eq!(ours("bbands", &[]), core.bbands_lookback(20, 2.0, 2.0, MAType::SMA).unwrap());
    assert_eq!(ours("stoch", &[]), core.stoch_lookback(5, 3, MAType::SMA, 3, MAType::SMA).unwrap());
    assert_eq!(ours("obv", &[]), core.obv_lookback().unwrap());
}
