//! The rolling mean and deviation against two passes over every window, where the running sums of
//! other libraries lose their digits.

use crate::series::{Columns, Kind, columns, compute};
use sluice_calc::{Compat, Indicator, Value};

/// A sum with its rounding errors carried along.
fn exact_sum(values: impl Iterator<Item = f64>) -> f64 {
    let (mut sum, mut lost) = (0.0_f64, 0.0);
    for value in values {
        let next = sum + value;
        lost += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
    }
    sum + lost
}

/// Mean and deviation of a window, in two passes around one of its values.
fn two_pass(window: &[f64], ddof: f64) -> (f64, f64) {
    let count = window.len() as f64;
    let anchor = window[0];
    let mean = exact_sum(window.iter().map(|value| value - anchor)) / count;
    let square = exact_sum(window.iter().map(|value| (value - anchor - mean).powi(2)));
    (anchor + mean, (square / (count - ddof)).sqrt())
}

/// Checks a band one deviation wide. The deviation must be right to 1e-9 beside what adding it to
/// the mean rounds off.
fn check(kind: Kind, bars: u32, ddof: u32) {
    let columns = columns(kind, 21, 6_000);
    let close = &columns.close;
    let degrees = f64::from(ddof);
    let given = [("period", f64::from(bars)), ("up", 1.0), ("down", 1.0), ("ddof", degrees)];
    let given = given.map(|(name, value)| (name, Value::Number(value)));
    let bands = Indicator::parse("bbands", Compat::TaLib, &given).unwrap();
    let outs = compute(&bands, &columns.bars());
    let [upper, middle, lower] = outs.as_slice() else { panic!("three bands") };
    let window = bars as usize;
    for row in window - 1..close.len() {
        let seen = &close[row + 1 - window..=row];
        let (mean, deviation) = two_pass(seen, degrees);
        let largest = seen.iter().copied().fold(0.0, f64::max);
        // What left the window within the segment may have been larger, and left its rounding.
        let passed =
            close[(row + 1).saturating_sub(window + 1_001)..=row].iter().copied().fold(0.0, f64::max);
        let what = format!("{kind:?} {bars} row {row}");
        assert!((middle[row] - mean).abs() <= 1e-13 * passed, "{what}: mean {} for {mean}", middle[row]);
        let width = (upper[row] - lower[row]) / 2.0;
        let tolerance = 1e-9 * deviation + 4.0 * f64::EPSILON * (middle[row].abs() + largest + deviation);
        assert!((width - deviation).abs() <= tolerance, "{what}: deviation {width} for {deviation}");
    }
}

#[test]
fn deviations_are_those_of_two_passes() {
    for kind in Kind::ALL {
        for bars in [2, 3, 20, 100] {
            check(kind, bars, 0);
        }
        check(kind, 20, 1);
    }
}

/// The one output of an indicator over so many bars.
fn single(name: &str, bars: usize, columns: &Columns) -> Vec<f64> {
    let given = [("period", Value::Number(bars as f64))];
    let indicator = Indicator::parse(name, Compat::TaLib, &given).unwrap();
    compute(&indicator, &columns.bars()).remove(0)
}

/// Volumes now and then a billionfold, and long stretches without any.
fn hard_volume(kind: Kind) -> Columns {
    let mut columns = columns(kind, 23, 6_000);
    for (row, volume) in columns.volume.iter_mut().enumerate() {
        *volume *= [1.0, 1e9, 0.0][usize::from(row % 211 == 50) + 2 * usize::from(row % 211 > 120)];
    }
    columns
}

/// Checks shares of `whole` that are within -1 and 1, times `scale`.
fn check_shares(what: &str, out: &[f64], [part, whole]: [&[f64]; 2], bars: usize, scale: f64) {
    let late = out.len() - part.len();
    for (row, &ours) in out.iter().enumerate().skip(late + bars - 1) {
        let seen = row + 1 - bars - late..row + 1 - late;
        let [part, whole] = [part, whole].map(|terms| exact_sum(terms[seen.clone()].iter().copied()));
        let plain = if whole > 0.0 { part / whole * scale } else { 0.0 };
        assert!((ours - plain).abs() <= 1e-9 * scale, "{what} {bars} row {row}: {ours} for {plain}");
        assert!(whole > 0.0 || ours.to_bits() == 0, "{what} {bars} row {row}: {ours}");
    }
}

#[test]
fn money_flows_are_those_of_two_passes() {
    for kind in Kind::ALL {
        let c = hard_volume(kind);
        let bars = || c.high.iter().zip(&c.low).zip(&c.close).zip(&c.volume);
        let flows: Vec<f64> = bars()
            .map(|(((high, low), close), volume)| {
                let range = high - low;
                if range > 0.0 { ((close - low) - (high - close)) / range * volume } else { 0.0 }
            })
            .collect();
        let typical: Vec<f64> = bars().map(|(((high, low), close), _)| (high + low + close) / 3.0).collect();
        let moves = || typical.iter().zip(&typical[1..]).zip(&c.volume[1..]);
        let moved = |before: f64, now: f64| (now - before).abs() > 1e-14 * (now.abs() + before.abs());
        let money: Vec<f64> =
            moves().map(|((b, n), volume)| if moved(*b, *n) { n * volume } else { 0.0 }).collect();
        let rising: Vec<f64> =
            moves().zip(&money).map(|(((b, n), _), money)| if n > b { *money } else { 0.0 }).collect();
        for bars in [2, 14, 50, 200] {
            let what = format!("{kind:?}");
            check_shares(&what, &single("cmf", bars, &c), [&flows, &c.volume], bars, 1.0);
            check_shares(&what, &single("mfi", bars, &c), [&rising, &money], bars, 100.0);
        }
    }
}

#[test]
fn spreads_are_those_of_two_passes() {
    for kind in Kind::ALL {
        let c = columns(kind, 25, 6_000);
        for bars in [2, 5, 20, 100] {
            let [deviations, variances, scores] =
                ["stddev", "var", "zscore"].map(|name| single(name, bars, &c));
            for row in bars - 1..c.close.len() {
                let seen = &c.close[row + 1 - bars..=row];
                let (mean, deviation) = two_pass(seen, 0.0);
                let what = format!("{kind:?} {bars} row {row}");
                let (ours, variance) = (deviations[row], deviation * deviation);
                assert!((ours - deviation).abs() <= 1e-9 * deviation, "{what}: {ours} for {deviation}");
                assert!((variances[row] - variance).abs() <= 2e-9 * variance, "{what}: variance");
                if deviation > 0.0 {
                    let plain = (c.close[row] - mean) / deviation;
                    // The reference's own mean is rounded to the price.
                    let rounded = 4.0 * f64::EPSILON * mean.abs() / deviation;
                    let close = (scores[row] - plain).abs() <= 1e-9 * plain.abs().max(1.0) + rounded;
                    assert!(close, "{what}: score {} for {plain}", scores[row]);
                } else {
                    assert_eq!([ours, variances[row], scores[row]].map(f64::to_bits), [0; 3], "{what}");
                }
            }
        }
    }
}

/// Slope, and value at the newest bar, of the line through a window, in two passes.
fn two_pass_line(window: &[f64]) -> (f64, f64) {
    let count = window.len() as f64;
    let middle = (count - 1.0) / 2.0;
    let mean = exact_sum(window.iter().map(|value| value - window[0])) / count;
    let place = |at: usize| at as f64 - middle;
    let tilt = window.iter().enumerate().map(|(at, value)| place(at) * (value - window[0] - mean));
    let slope = exact_sum(tilt) / exact_sum((0..window.len()).map(|at| place(at) * place(at)));
    (slope, window[0] + (mean + slope * middle))
}

#[test]
fn lines_are_those_of_two_passes() {
    for kind in Kind::ALL {
        let c = columns(kind, 27, 6_000);
        for bars in [2, 3, 14, 100] {
            let reach = (bars - 1) as f64;
            let outs = ["slope", "linearreg", "intercept", "tsf"].map(|name| single(name, bars, &c));
            for row in bars - 1..c.close.len() {
                let seen = &c.close[row + 1 - bars..=row];
                let (slope, newest) = two_pass_line(seen);
                let (_, deviation) = two_pass(seen, 0.0);
                let largest = seen.iter().copied().fold(0.0, f64::max);
                let plain = [slope, newest, newest - slope * reach, newest + slope];
                for (at, (out, plain)) in outs.iter().zip(plain).enumerate() {
                    let rounded = if at == 0 { 0.0 } else { 8.0 * f64::EPSILON * largest };
                    let allowed = 1e-9 * (plain.abs().min(deviation) + deviation) + rounded;
                    let close = (out[row] - plain).abs() <= allowed;
                    assert!(close, "{kind:?} {bars} row {row}, {at}: {} for {plain}", out[row]);
                }
                if deviation == 0.0 {
                    assert_eq!(
                        (outs[0][row].to_bits(), outs[1][row]),
                        (0, seen[0]),
                        "{kind:?} {bars} row {row}"
                    );
                }
            }
        }
    }
}
