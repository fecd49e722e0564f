//! Prices themselves against the oracle.

use super::{BARS, assert_close, compute, each_market, reference};
use crate::series::same_bits;

#[test]
fn extremes_have_the_same_bits() {
    each_market(|kind, c| {
        for period in [2_u32, 3, 14, 30, 64, 200, 511, 600, 1_500] {
            let bars = period as i32;
            let highest = reference(BARS, |core, last, [out]| core.max(0, last, &c.close, bars, out));
            let lowest = reference(BARS, |core, last, [out]| core.min(0, last, &c.close, bars, out));
            let point = reference(BARS, |core, last, [out]| core.midpoint(0, last, &c.close, bars, out));
            let price =
                reference(BARS, |core, last, [out]| core.midprice(0, last, &c.high, &c.low, bars, out));
            for (name, theirs) in
                [("max", highest), ("min", lowest), ("midpoint", point), ("midprice", price)]
            {
                let ours = compute(name, &[("period", period)], c);
                assert!(same_bits(&ours[0], &theirs[0]), "{name} {kind:?} {period}");
            }
        }
    });
}

#[test]
fn extremes_of_one_bar_are_the_bar() {
    each_market(|kind, c| {
        for name in ["max", "min"] {
            assert!(same_bits(&compute(name, &[("period", 1)], c)[0], &c.close), "{name} {kind:?}");
        }
    });
}

#[test]
fn regressions_agree() {
    each_market(|kind, c| {
        for period in [2_u32, 3, 14, 100, 1_500] {
            let bars = period as i32;
            let line = reference(BARS, |core, last, [out]| core.linearreg(0, last, &c.close, bars, out));
            let slope =
                reference(BARS, |core, last, [out]| core.linearreg_slope(0, last, &c.close, bars, out));
            let oldest =
                reference(BARS, |core, last, [out]| core.linearreg_intercept(0, last, &c.close, bars, out));
            let angle =
                reference(BARS, |core, last, [out]| core.linearreg_angle(0, last, &c.close, bars, out));
            let next = reference(BARS, |core, last, [out]| core.tsf(0, last, &c.close, bars, out));
            for (name, theirs, scale) in [
                ("linearreg", line, c.scale()),
                ("slope", slope, c.scale()),
                ("intercept", oldest, c.scale()),
                ("angle", angle, 90.0 * c.scale().max(1.0)),
                ("tsf", next, c.scale()),
            ] {
                let ours = compute(name, &[("period", period)], c);
                assert_close(&format!("{name} {kind:?} {period}"), &ours, &theirs, scale);
            }
        }
    });
}

#[test]
fn median_has_the_same_bits() {
    each_market(|kind, c| {
        for period in [2_u32, 3, 30, 101, 1_500] {
            let theirs =
                reference(BARS, |core, last, [out]| core.median(0, last, &c.close, period as i32, out));
            let ours = compute("median", &[("period", period)], c);
            assert!(same_bits(&ours[0], &theirs[0]), "{kind:?} {period}");
        }
    });
}
