//! How fast prices move.

use super::average::agrees;
use super::{BARS, compute, each_market, reference};
use crate::series::{Columns, Kind, columns, same_bits};

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
