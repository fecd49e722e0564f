//! How fast prices move.

use super::average::agrees;
use super::{BARS, assert_close, compute, each_market, reference};
use crate::series::{self, Columns, Kind, columns, same_bits};
use sluice_calc::{Compat, Indicator, Value};
use ta_lib::MAType;

/// The scale of what is a share of the whole.
const fn percent(_: &Columns) -> f64 {
    100.0
}

/// Exception: the oracle decays its averages in another order.
#[test]
fn cmo_agrees_though_the_oracle_decays_in_another_order() {
    agrees("cmo", &["period"], &[&[3], &[14], &[30], &[100]], percent, |core, last, c, p, [out]| {
        core.cmo(0, last, &c.close, p[0], out)
    });
}

/// Exception: the smallest of all numbers cannot be halved. The oracle's gain over two bars so never
/// ends, ours does.
#[test]
fn a_gain_over_two_bars_ends() {
    let c = columns(Kind::OneStep, 1, BARS);
    let theirs = reference(BARS, |core, last, [out]| core.cmo(0, last, &c.close, 2, out));
    let ours = compute("cmo", &[("period", 2)], &c);
    assert_eq!((ours[0][BARS - 1], theirs[0][BARS - 1]), (0.0, 100.0));
}

/// Exception: the oracle fuses the multiplication and the addition of every stage.
#[test]
fn trix_agrees_though_the_oracle_fuses() {
    agrees("trix", &["period"], &[&[1], &[2], &[5], &[30], &[100]], percent, |core, last, c, p, [out]| {
        core.trix(0, last, &c.close, p[0], out)
    });
}

#[test]
fn changes_have_the_same_bits() {
    each_market(|kind, c| {
        for period in [1, 2, 10, 200] {
            let given = [("period", period)];
            let theirs = reference(BARS, |core, last, [out]| core.mom(0, last, &c.close, period as i32, out));
            assert!(same_bits(&compute("mom", &given, c)[0], &theirs[0]), "mom {kind:?} {period}");
            let theirs = reference(BARS, |core, last, [out]| core.roc(0, last, &c.close, period as i32, out));
            assert!(same_bits(&compute("roc", &given, c)[0], &theirs[0]), "roc {kind:?} {period}");
        }
    });
}

#[test]
fn a_close_of_nothing_has_no_rate_of_change() {
    let c = Columns { close: vec![0.0, 5.0, 10.0, 0.0, 0.0], ..Columns::default() };
    let c = Columns {
        open: c.close.clone(),
        high: c.close.clone(),
        low: c.close.clone(),
        volume: c.close.clone(),
        ..c
    };
    assert_eq!(compute("roc", &[("period", 1)], &c)[0][1..], [0.0, 100.0, -100.0, 0.0]);
}

/// The oscillator `name` of plain means or exponential averages.
fn oscillator(name: &str, ma: &str, [fast, slow]: [i32; 2], c: &Columns) -> Vec<Vec<f64>> {
    let given = [
        ("fast", Value::Number(f64::from(fast))),
        ("slow", Value::Number(f64::from(slow))),
        ("ma", Value::Word(ma)),
    ];
    series::compute(&Indicator::parse(name, Compat::TaLib, &given).unwrap(), &c.bars())
}

/// The averages of which the oracle's can be made.
const AVERAGES: [(&str, MAType); 2] = [("ema", MAType::EMA), ("sma", MAType::SMA)];

/// Exception: the oracle fuses the multiplication and the addition of its exponential averages.
#[test]
fn apo_agrees_though_the_oracle_fuses() {
    each_market(|kind, c| {
        for pair in [[12, 26], [26, 12], [2, 3], [5, 5], [20, 200]] {
            for (ma, kind_of_average) in AVERAGES {
                let theirs = reference(BARS, |core, last, [out]| {
                    core.apo(0, last, &c.close, pair[0], pair[1], kind_of_average, out)
                });
                let ours = oscillator("apo", ma, pair, c);
                assert_close(&format!("{kind:?} {ma} {pair:?}"), &ours, &theirs, c.scale());
            }
        }
    });
}

#[test]
fn ppo_agrees_though_the_oracle_fuses() {
    each_market(|kind, c| {
        for pair in [[12, 26], [26, 12], [2, 3], [5, 5], [20, 200]] {
            for (ma, kind_of_average) in AVERAGES {
                let theirs = reference(BARS, |core, last, [out]| {
                    core.ppo(0, last, &c.close, pair[0], pair[1], kind_of_average, out)
                });
                let ours = oscillator("ppo", ma, pair, c);
                assert_close(&format!("{kind:?} {ma} {pair:?}"), &ours, &theirs, 100.0);
            }
        }
    });
}

/// Exception: to the oracle an average below 1e-14 is nothing, whatever the price.
#[test]
fn ppo_of_tiny_prices_is_that_of_large_ones() {
    let mut c = columns(Kind::Walk, 1, 300);
    let large = oscillator("ppo", "ema", [12, 26], &c);
    // By a power of two nothing else changes.
    c.close.iter_mut().for_each(|close| *close *= 0.5_f64.powi(70));
    let theirs = reference(300, |core, last, [out]| core.ppo(0, last, &c.close, 12, 26, MAType::EMA, out));
    assert!(theirs[0][25..].iter().all(|&value| value == 0.0));
    assert!(same_bits(&oscillator("ppo", "ema", [12, 26], &c)[0], &large[0]));
}

#[test]
fn bop_has_the_same_bits() {
    each_market(|kind, c| {
        let theirs =
            reference(BARS, |core, last, [out]| core.bop(0, last, &c.open, &c.high, &c.low, &c.close, out));
        assert!(same_bits(&compute("bop", &[], c)[0], &theirs[0]), "{kind:?}");
    });
}

#[test]
fn stochrsi_agrees() {
    let sets: &[&[u32]] = &[&[14, 5, 3], &[14, 14, 3], &[2, 3, 1], &[30, 1, 2], &[14, 100, 5]];
    agrees("stochrsi", &["period", "fast_k", "fast_d"], sets, percent, |core, last, c, p, [k, d]| {
        core.stochrsi(0, last, &c.close, p[0], p[1], p[2], MAType::SMA, k, d)
    });
}
