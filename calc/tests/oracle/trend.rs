//! What follows a trend, and where prices stand, against the oracle.

use super::{BARS, assert_close, compute, each_market, reference};
use crate::series::{Columns, Kind, REAL, columns, compute as compute_any, real, same_bits};
use sluice_calc::{Compat, Indicator, Value};
use ta_lib::Core;

/// An indicator of parameters that are no whole numbers.
fn of_numbers(name: &str, given: &[(&str, f64)], c: &Columns) -> Vec<Vec<f64>> {
    let given: Vec<_> = given.iter().map(|(name, value)| (*name, Value::Number(*value))).collect();
    compute_any(&Indicator::parse(name, Compat::TaLib, &given).unwrap(), &c.bars())
}

/// Exception: the oracle fuses the multiplication and the addition.
#[test]
fn psar_agrees_though_the_oracle_fuses() {
    let check = |what: &str, c: &Columns| {
        for (acceleration, maximum) in [(0.02, 0.2), (0.0, 0.0), (0.5, 0.1), (0.1, 1.0)] {
            let last = c.close.len();
            let theirs = reference(last, |core, last, [out]| {
                core.sar(0, last, &c.high, &c.low, acceleration, maximum, out)
            });
            let ours = of_numbers("psar", &[("acceleration", acceleration), ("maximum", maximum)], c);
            assert_close(&format!("{what} {acceleration} {maximum}"), &ours, &theirs, c.scale());
        }
    };
    each_market(|kind, c| check(&format!("{kind:?}"), c));
    for name in REAL {
        check(name, &real(name));
    }
}

/// Exception: the oracle fuses within the average range.
#[test]
fn supertrend_agrees_though_the_oracle_fuses() {
    let check = |what: &str, c: &Columns| {
        for (period, multiplier) in [(10, 3.0), (2, 1.0), (100, 0.5), (14, 0.0)] {
            let mut trend = vec![0; c.close.len()];
            let theirs = reference(c.close.len(), |core, last, [value]| {
                let (high, low, close) = (&c.high, &c.low, &c.close);
                core.supertrend(0, last, high, low, close, period, multiplier, value, &mut trend)
            });
            let given = [("period", f64::from(period)), ("multiplier", multiplier)];
            let ours = of_numbers("supertrend", &given, c);
            assert_close(&format!("{what} {given:?}"), &ours[..1], &theirs, c.scale());
            let from = period as usize;
            let same = ours[1][from..].iter().zip(&trend).all(|(our, their)| *our == f64::from(*their));
            assert!(same, "{what} {given:?} trend");
        }
    };
    each_market(|kind, c| check(&format!("{kind:?}"), c));
    for name in REAL {
        check(name, &real(name));
    }
}

#[test]
fn ichimoku_has_the_same_bits() {
    each_market(|kind, c| {
        for (tenkan, kijun, senkou) in [(9, 26, 52), (2, 3, 2), (100, 26, 9), (30, 600, 1_200)] {
            let theirs = reference(BARS, |core, last, [a, b, span_a, span_b]| {
                let (tenkan, kijun, senkou) = (tenkan as i32, kijun as i32, senkou as i32);
                core.ichimoku(0, last, &c.high, &c.low, tenkan, kijun, senkou, a, b, span_a, span_b)
            });
            let ours = compute("ichimoku", &[("tenkan", tenkan), ("kijun", kijun), ("senkou", senkou)], c);
            for (our, their) in ours.iter().zip(&theirs) {
                assert!(same_bits(our, their), "{kind:?} {tenkan} {kijun} {senkou}");
            }
        }
    });
}

#[test]
fn fractals_are_the_same() {
    let core = Core::new();
    for kind in Kind::ALL {
        let c = columns(kind, 5, BARS);
        for (left, right) in [(2, 2), (1, 1), (1, 5), (20, 3), (16, 16), (40, 60), (1_000, 1)] {
            let (mut high, mut low) = (vec![0; BARS], vec![0; BARS]);
            let range =
                core.fractal(0, BARS - 1, &c.high, &c.low, left as i32, right as i32, &mut high, &mut low);
            let first = range.unwrap().beg_idx;
            let ours = compute("fractal", &[("left", left), ("right", right)], &c);
            for (our, their) in ours.iter().zip([&high, &low]) {
                assert!(our[..first].iter().all(|value| value.is_nan()));
                let same = our[first..].iter().zip(their).all(|(our, their)| *our == f64::from(*their));
                assert!(same, "{kind:?} {left} {right}");
            }
        }
    }
}

/// The oracle has none: each level in the words of its definition.
#[test]
fn pivots_follow_their_definition() {
    let c = real("GOOG");
    let ours = compute("pivot", &[], &c);
    for row in 1..c.close.len() {
        let (high, low, close) = (c.high[row - 1], c.low[row - 1], c.close[row - 1]);
        let pivot = (high + low + close) / 3.0;
        let (resistance, support) = (pivot + (pivot - low), pivot - (high - pivot));
        let expected = [
            pivot,
            resistance,
            support,
            pivot + (resistance - support),
            pivot - (resistance - support),
            high + 2.0 * (pivot - low),
            low - 2.0 * (high - pivot),
        ];
        for (our, expected) in ours.iter().zip(expected) {
            assert!((our[row] - expected).abs() <= 1e-12 * high, "row {row}");
        }
    }
}

#[test]
fn a_shift_says_where_a_value_belongs() {
    let shifts = |name: &str| -> Vec<isize> {
        let indicator = Indicator::parse(name, Compat::TaLib, &[]).unwrap();
        (0..indicator.outputs().len()).map(|output| indicator.shift(output)).collect()
    };
    assert_eq!(shifts("ichimoku"), [0, 0, 26, 26]);
    assert_eq!(shifts("fractal"), [-2, -2]);
    assert_eq!(shifts("psar"), [0]);
}
