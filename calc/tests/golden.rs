//! The indicators against figures recorded from TA-Lib C 0.8.1, `golden/make.py`.
//!
//! A recorded line that no check takes, and a check that takes no line, both fail: an indicator
//! cannot drop out by being renamed.

use crate::series::{Columns, compute, real};
use sluice_calc::risk::{FIGURES, Settings, summary};
use sluice_calc::{Compat, Indicator, Value, catalog};

/// The markets of `made`, and where their prices begin.
const MADE: [(&str, f64); 6] =
    [("plain", 100.0), ("tiny", 1e-9), ("huge", 1e9), ("gaps", 100.0), ("still", 100.0), ("untraded", 100.0)];
const MADE_BARS: usize = 300;

/// What 1e-12 of a tolerance is taken of.
#[derive(Clone, Copy)]
enum Scale {
    Price,
    Percent,
    Square,
    Volume,
}

use Scale::{Percent, Price, Square, Volume};

/// Each indicator's scale.
const CHECKS: &[(&str, Scale)] = &[
    ("sma", Price),
    ("ema", Price),
    ("wma", Price),
    ("dema", Price),
    ("tema", Price),
    ("trima", Price),
    ("kama", Price),
    ("t3", Price),
    ("macd", Price),
    ("apo", Price),
    ("mom", Price),
    ("atr", Price),
    ("trange", Price),
    ("psar", Price),
    ("bbands", Price),
    ("max", Price),
    ("min", Price),
    ("midpoint", Price),
    ("midprice", Price),
    ("stddev", Price),
    ("linearreg", Price),
    ("intercept", Price),
    ("slope", Price),
    ("tsf", Price),
    ("var", Square),
    ("rsi", Percent),
    ("roc", Percent),
    ("trix", Percent),
    ("cmo", Percent),
    ("ppo", Percent),
    ("natr", Percent),
    ("adx", Percent),
    ("adxr", Percent),
    ("dx", Percent),
    ("di", Percent),
    ("willr", Percent),
    ("cci", Percent),
    ("mfi", Percent),
    ("aroon", Percent),
    ("aroonosc", Percent),
    ("bop", Percent),
    ("ultosc", Percent),
    ("stoch", Percent),
    ("stochf", Percent),
    ("stochrsi", Percent),
    ("angle", Percent),
    ("cdldoji", Percent),
    ("cdldragonflydoji", Percent),
    ("cdlhammer", Percent),
    ("cdlinvertedhammer", Percent),
    ("cdlhangingman", Percent),
    ("cdlshootingstar", Percent),
    ("cdlmarubozu", Percent),
    ("cdlengulfing", Percent),
    ("cdlharami", Percent),
    ("cdlpiercing", Percent),
    ("cdldarkcloudcover", Percent),
    ("cdlmorningstar", Percent),
    ("cdleveningstar", Percent),
    ("cdl3whitesoldiers", Percent),
    ("cdl3blackcrows", Percent),
    ("obv", Volume),
    ("ad", Volume),
    ("adosc", Volume),
];

/// What the catalogue has and TA-Lib C lacks, or has under another definition (`keltner`, `supertrend` and the like are in
/// the crate alone).
const OURS: &[&str] = &[
    "cmf",
    "donchian",
    "fractal",
    "hma",
    "ichimoku",
    "keltner",
    "median",
    "pivot",
    "supertrend",
    "vwap",
    "vwma",
    "zscore",
];

impl Scale {
    fn of(self, columns: &Columns) -> f64 {
        match self {
            Price => columns.scale(),
            Percent => 100.0,
            Square => columns.scale() * columns.scale(),
            Volume => columns.volume.iter().sum(),
        }
    }
}

/// A market of `make.py`, by the same steps.
fn made(name: &str, mut close: f64) -> Columns {
    let mut state = 7_u64;
    let mut chance = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / 2_147_483_648.0
    };
    let only = |so: bool, value: f64| if so { value } else { 0.0 };
    let moves = name != "still";
    let mut columns = Columns::default();
    for _ in 0..MADE_BARS {
        let first = close * (1.0 + (chance() - 0.5) * only(name == "gaps", 0.1));
        let last = first * (1.0 + (chance() - 0.5) * only(moves, 0.04));
        columns.open.push(first);
        columns.high.push(first.max(last) * (1.0 + chance() * only(moves, 0.01)));
        columns.low.push(first.min(last) * (1.0 - chance() * only(moves, 0.01)));
        columns.close.push(last);
        columns.volume.push((chance() * 1_000.0).floor() * only(name != "untraded", 1.0));
        close = last;
    }
    columns
}

fn market(name: &str) -> Columns {
    MADE.iter().find(|(made, _)| *made == name).map_or_else(|| real(name), |(name, close)| made(name, *close))
}

/// The exponential average as TA-Lib's wheel has it: its compiler fuses the step's multiplication and addition, which
/// ours does not (calc.md asks for the same bits on every build).
#[allow(clippy::disallowed_methods, reason = "the fused step is what is shown")]
fn fused_ema(closes: &[f64], period: usize) -> Vec<f64> {
    let mut value = closes[..period].iter().sum::<f64>() / period as f64;
    let share = 2.0 / (period as f64 + 1.0);
    let later = closes[period..].iter().map(|close| {
        value = (close - value).mul_add(share, value);
        value
    });
    let later: Vec<f64> = later.collect();
    let first = closes[..period].iter().sum::<f64>() / period as f64;
    std::iter::once(first).chain(later).collect()
}

/// FNV-1a over the little-endian bytes.
fn fnv64(values: &[f64]) -> u64 {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What a line says that is not so, empty where all of it is.
fn faults(line: &str, scale: Scale) -> Vec<String> {
    let fields: Vec<_> = line.split('|').collect();
    let &[name, given, series, output, lookback, count, whole, samples] = fields.as_slice() else {
        panic!("{line}");
    };
    let given: Vec<_> = given.split_terminator(',').map(|pair| pair.split_once('=').unwrap()).collect();
    let given: Vec<_> =
        given.into_iter().map(|(name, value)| (name, Value::Number(value.parse().unwrap()))).collect();
    let columns = market(series);
    let indicator = Indicator::parse(name, Compat::TaLib, &given).unwrap();
    let outputs = indicator.outputs();
    let place = if outputs.len() == 1 { 0 } else { outputs.iter().position(|&o| o == output).unwrap() };
    let ours = compute(&indicator, &columns.bars()).swap_remove(place);
    let (begin, count): (usize, usize) = (lookback.parse().unwrap(), count.parse().unwrap());
    let what = format!("{name} {given:?} {output} of {series}");
    let mut faults = Vec::new();
    if (indicator.lookback(), ours.len()) != (begin, begin + count) {
        faults.push(format!("{what}: lookback {}, recorded {begin}", indicator.lookback()));
        return faults;
    }
    let bits = match name {
        "ema" => fnv64(&fused_ema(&columns.close, begin + 1)),
        _ => fnv64(&ours[begin..]),
    };
    if whole != "-" && bits != u64::from_str_radix(whole, 16).unwrap() {
        faults.push(format!("{what}: other bits"));
    }
    for sample in samples.split_whitespace() {
        let (row, bits) = sample.split_once(':').unwrap();
        let row: usize = row.parse().unwrap();
        let recorded = f64::from_bits(u64::from_str_radix(bits, 16).unwrap());
        let tolerance = 1e-9 * recorded.abs() + 1e-12 * scale.of(&columns);
        let near = (ours[row] - recorded).abs() <= tolerance;
        if !near {
            faults.push(format!("{what}, row {row}: {:?}, recorded {recorded:?}", ours[row]));
        }
    }
    faults
}

#[test]
fn indicators_are_as_recorded_from_ta_lib() {
    let lines: Vec<_> =
        include_str!("golden/talib-0.8.1.txt").lines().filter(|line| !line.starts_with('#')).collect();
    let of = |line: &str, name: &str| line.split('|').next() == Some(name);
    for (name, _) in CHECKS {
        assert!(lines.iter().any(|line| of(line, name)), "nothing is recorded of {name}");
    }
    for entry in catalog::entries() {
        let is_checked = CHECKS.iter().any(|(name, _)| *name == entry.name);
        assert_ne!(is_checked, OURS.contains(&entry.name), "{}", entry.name);
    }
    let mut all = Vec::new();
    for line in lines {
        let checks: Vec<_> = CHECKS.iter().filter(|(name, _)| of(line, name)).collect();
        let &[&(_, scale)] = checks.as_slice() else { panic!("{} checks take {line}", checks.len()) };
        all.extend(faults(line, scale));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

#[test]
fn risk_figures_are_as_recorded_from_empyrical() {
    let settings = Settings::new(252.0, 0.0, 0.05).unwrap();
    for line in include_str!("golden/risk.txt").lines().filter(|line| !line.starts_with('#')) {
        let &[series, figure, value] = line.split('|').collect::<Vec<_>>().as_slice() else {
            panic!("{line}")
        };
        let returns: Vec<_> = real(series).close.windows(2).map(|pair| pair[1] / pair[0] - 1.0).collect();
        let figures = summary(&returns, &settings, &mut vec![0.0; returns.len()]).unwrap();
        let (_, of) = FIGURES.iter().find(|(name, _)| *name == figure).unwrap();
        let (ours, recorded) = (of(&figures).unwrap(), value.parse::<f64>().unwrap());
        assert!((ours - recorded).abs() <= 1e-10 * recorded.abs(), "{line}: {ours:?}");
    }
}
