//! Trend and volatility by recursions.

use super::average::agrees;
use super::{BARS, compute, each_market, reference};
use crate::series::{Columns, same_bits};

const PERIODS: &[&[u32]] = &[&[2], &[14], &[100]];

/// The scale of what is a share of the whole.
const fn percent(_: &Columns) -> f64 {
    100.0
}

/// Exception: the oracle fuses the multiplication and the addition.
#[test]
fn natr_agrees_though_the_oracle_fuses() {
    agrees("natr", &["period"], PERIODS, percent, |core, last, c, p, [out]| {
        core.natr(0, last, &c.high, &c.low, &c.close, p[0], out)
    });
}

/// Exception: over one bar the oracle answers the true range in prices.
#[test]
fn natr_over_one_bar_is_a_percentage_where_the_oracle_has_a_price() {
    each_market(|kind, c| {
        let theirs =
            reference(BARS, |core, last, [out]| core.natr(0, last, &c.high, &c.low, &c.close, 1, out));
        let ours = compute("natr", &[("period", 1)], c);
        let range = compute("trange", &[], c);
        for row in 1..BARS {
            assert!((theirs[0][row] - range[0][row]).abs() <= 1e-12 * c.scale(), "{kind:?} {row}");
            let percentage = 100.0 * range[0][row] / c.close[row];
            assert!((ours[0][row] - percentage).abs() <= 1e-9 * percentage, "{kind:?} {row}");
        }
    });
}

#[test]
fn trange_has_the_same_bits() {
    each_market(|kind, c| {
        let theirs =
            reference(BARS, |core, last, [out]| core.trange(0, last, &c.high, &c.low, &c.close, out));
        assert!(same_bits(&compute("trange", &[], c)[0], &theirs[0]), "{kind:?}");
    });
}

/// Exception: the oracle divides by the true range twice before it divides the quotients.
#[test]
fn dx_and_adxr_agree_though_we_divide_once() {
    agrees("dx", &["period"], PERIODS, percent, |core, last, c, p, [out]| {
        core.dx(0, last, &c.high, &c.low, &c.close, p[0], out)
    });
    agrees("adxr", &["period"], PERIODS, percent, |core, last, c, p, [out]| {
        core.adxr(0, last, &c.high, &c.low, &c.close, p[0], out)
    });
}

#[test]
fn di_agrees() {
    agrees("di", &["period"], &[&[1], &[2], &[14], &[100]], percent, |core, last, c, p, [plus, minus]| {
        core.plus_di(0, last, &c.high, &c.low, &c.close, p[0], plus)?;
        core.minus_di(0, last, &c.high, &c.low, &c.close, p[0], minus)
    });
}
