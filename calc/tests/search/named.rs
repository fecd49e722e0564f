//! The second text of the rules by the names of the discovery platform.

use sluice_calc::{Bars, Compat, Indicator, Value};

use super::{Test, line, rises};
use crate::series::Columns;

/// Where a rule enters and leaves: lines, and what holds between them.
pub(super) fn decisions(rule: &str, columns: &Columns, gene: &dyn Fn(&str) -> f64) -> Vec<(bool, bool)> {
    let of = |name: &str, given: &[(&str, &str)], output: &str| {
        let given: Vec<_> = given.iter().map(|(name, gene_name)| (*name, gene(gene_name))).collect();
        line(columns, name, &given, output)
    };
    let one = |name: &str, gene_name: &str| of(name, &[("period", gene_name)], "value");
    let over = |inner: Vec<f64>, name: &str, gene_name: &str| {
        let begin = inner.iter().take_while(|value| value.is_nan()).count();
        let mut drawn = vec![f64::NAN; begin];
        let average = Indicator::parse(name, Compat::TaLib, &[("period", Value::Number(gene(gene_name)))]);
        let average = average.unwrap();
        drawn.extend(crate::series::compute(&average, &Bars::from_close(&inner[begin..])).swap_remove(0));
        vec![inner, drawn]
    };
    let before = |mut line: Vec<f64>| {
        line.rotate_right(1);
        line[0] = f64::NAN;
        line
    };
    let close = || columns.close.clone();
    let macd = |output| {
        of(
            "macd",
            &[("fast", "shortEmaPeriod"), ("slow", "longEmaPeriod"), ("signal", "signalPeriod")],
            output,
        )
    };
    let stoch = |output| {
        let given =
            [("fast_k", gene("stochasticKPeriod")), ("slow_k", 3.0), ("slow_d", gene("stochasticDPeriod"))];
        line(columns, "stoch", &given, output)
    };
    let stop = |output| of("supertrend", &[("period", "atrPeriod"), ("multiplier", "multiplier")], output);
    let bands = |output| {
        let factor = "stdDevMultiplier";
        of("bbands", &[("period", "bbandsPeriod"), ("up", factor), ("down", factor)], output)
    };
    let stochrsi = |output| {
        let given =
            [("period", "rsiPeriod"), ("fast_k", "stochasticKPeriod"), ("fast_d", "stochasticDPeriod")];
        of("stochrsi", &given, output)
    };
    let has_levels =
        matches!(rule, "SMA_RSI" | "ADX_STOCHASTIC" | "AROON_MFI" | "STOCHASTIC_RSI" | "STOCHASTIC_EMA");
    let level = |name| if has_levels { gene(name) } else { f64::NAN };
    let (low, high) = (level("oversoldThreshold"), level("overboughtThreshold"));
    let crossing: Test = Box::new(|l, at| (rises(l, 0, 1, at), rises(l, 1, 0, at)));
    let zero: Test =
        Box::new(|l, at| (l[0][at] > 0.0 && l[0][at - 1] <= 0.0, l[0][at] < 0.0 && l[0][at - 1] >= 0.0));
    let (lines, test): (Vec<Vec<f64>>, Test) = match rule {
        "SMA_RSI" => (
            vec![close(), one("sma", "movingAveragePeriod"), one("rsi", "rsiPeriod")],
            Box::new(move |l, at| {
                (l[2][at] < low && l[0][at] < l[1][at], l[2][at] > high && l[0][at] > l[1][at])
            }),
        ),
        "EMA_MACD" => (
            vec![macd("macd"), macd("signal")],
            Box::new(|l, at| (rises(l, 0, 1, at) && l[0][at] > 0.0, rises(l, 1, 0, at))),
        ),
        "ADX_STOCHASTIC" => (
            vec![one("adx", "adxPeriod"), stoch("k")],
            Box::new(move |l, at| (l[0][at] > 20.0 && l[1][at] < low, l[1][at] > high)),
        ),
        "AROON_MFI" => {
            let aroon = |output| of("aroon", &[("period", "aroonPeriod")], output);
            (
                vec![aroon("up"), aroon("down"), one("mfi", "mfiPeriod")],
                Box::new(move |l, at| {
                    (l[0][at] > l[1][at] && l[2][at] < low, l[0][at] < l[1][at] && l[2][at] > high)
                }),
            )
        }
        "SMA_EMA_CROSSOVER" => (vec![one("ema", "emaPeriod"), one("sma", "smaPeriod")], crossing),
        "DOUBLE_EMA_CROSSOVER" => (vec![one("ema", "shortEmaPeriod"), one("ema", "longEmaPeriod")], crossing),
        "TRIPLE_EMA_CROSSOVER" => (
            vec![one("ema", "shortEmaPeriod"), one("ema", "mediumEmaPeriod"), one("ema", "longEmaPeriod")],
            Box::new(|l, at| (rises(l, 0, 1, at) && l[1][at] > l[2][at], rises(l, 1, 0, at))),
        ),
        "BBAND_W_R" => (
            vec![close(), bands("lower"), bands("upper"), one("willr", "wrPeriod")],
            Box::new(|l, at| {
                (l[0][at] < l[1][at] && l[3][at] < -80.0, l[0][at] > l[2][at] && l[3][at] > -20.0)
            }),
        ),
        "ATR_CCI" => (
            vec![one("cci", "cciPeriod"), one("atr", "atrPeriod"), before(one("atr", "atrPeriod"))],
            Box::new(|l, at| {
                let (was, is) = (l[0][at - 1], l[0][at]);
                (is > -100.0 && was <= -100.0 && l[1][at] > l[2][at], is < 100.0 && was >= 100.0)
            }),
        ),
        "DONCHIAN_BREAKOUT" => {
            let side = |output| before(of("donchian", &[("period", "donchianPeriod")], output));
            (
                vec![close(), side("upper"), side("lower")],
                Box::new(|l, at| (l[0][at] > l[1][at], l[0][at] < l[2][at])),
            )
        }
        "VOLATILITY_STOP" => (vec![close(), stop("value")], crossing),
        "ATR_TRAILING_STOP" => (vec![stop("trend")], Box::new(|l, at| (l[0][at] > 0.0, l[0][at] < 0.0))),
        "MOMENTUM_SMA_CROSSOVER" => (over(one("mom", "momentumPeriod"), "sma", "smaPeriod"), crossing),
        "STOCHASTIC_RSI" => (
            vec![stochrsi("fastk"), stochrsi("fastd")],
            Box::new(move |l, at| {
                (rises(l, 0, 1, at) && l[1][at] < low, rises(l, 1, 0, at) && l[1][at] > high)
            }),
        ),
        "OBV_EMA" => (over(of("obv", &[], "value"), "ema", "emaPeriod"), crossing),
        "CHAIKIN_OSCILLATOR" => {
            (vec![of("adosc", &[("fast", "fastPeriod"), ("slow", "slowPeriod")], "value")], zero)
        }
        "STOCHASTIC_EMA" => (
            vec![close(), one("ema", "emaPeriod"), stoch("k"), stoch("d")],
            Box::new(move |l, at| {
                let up = rises(l, 2, 3, at) && l[3][at] < low && l[0][at] > l[1][at];
                (up, rises(l, 3, 2, at) && l[3][at] > high)
            }),
        ),
        "CMO_MFI" => (
            vec![one("cmo", "cmoPeriod"), one("mfi", "mfiPeriod")],
            Box::new(|l, at| (l[0][at] < -50.0 && l[1][at] < 20.0, l[0][at] > 50.0 || l[1][at] > 80.0)),
        ),
        "RSI_EMA_CROSSOVER" => (over(one("rsi", "rsiPeriod"), "ema", "emaPeriod"), crossing),
        "TRIX_SIGNAL_LINE" => (over(one("trix", "trixPeriod"), "ema", "signalPeriod"), crossing),
        "CMF_ZERO_LINE" => (vec![one("cmf", "period")], zero),
        "PRICE_OSCILLATOR_SIGNAL" => {
            let ppo = of("ppo", &[("fast", "fastPeriod"), ("slow", "slowPeriod")], "value");
            (over(ppo, "ema", "signalPeriod"), crossing)
        }
        "DEMA_TEMA_CROSSOVER" => (vec![one("tema", "temaPeriod"), one("dema", "demaPeriod")], crossing),
        "MACD_CROSSOVER" => (vec![macd("macd"), macd("signal")], crossing),
        "VWAP_CROSSOVER" => (vec![one("sma", "movingAveragePeriod"), one("vwma", "vwapPeriod")], crossing),
        "ROC_MA_CROSSOVER" => (over(one("roc", "rocPeriod"), "sma", "maPeriod"), crossing),
        "REGRESSION_CHANNEL" => (vec![close(), one("linearreg", "period")], crossing),
        "ADX_DMI" => {
            let di = |output| of("di", &[("period", "diPeriod")], output);
            (
                vec![di("plus"), di("minus"), one("adx", "adxPeriod")],
                Box::new(|l, at| (rises(l, 0, 1, at) && l[2][at] > 20.0, rises(l, 1, 0, at))),
            )
        }
        other => panic!("no second text of {other}"),
    };
    // Nothing rises to the first bar at which all lines have values; what is above there, is.
    let mut seen = lines.clone();
    let rows = columns.close.len();
    let begin = (0..rows).find(|bar| lines.iter().all(|line| !line[*bar].is_nan())).unwrap_or(rows);
    for line in &mut seen {
        line[..begin].fill(f64::NAN);
    }
    (0..rows).map(|bar| if bar < begin.max(1) { (false, false) } else { test(&seen, bar) }).collect()
}
