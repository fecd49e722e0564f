//! Volume against the oracle.

use super::{BARS, assert_close, compute, each_market, reference};
use crate::series::{Kind, columns, same_bits};

#[test]
fn obv_has_the_same_bits() {
    each_market(|kind, c| {
        let theirs = reference(BARS, |core, last, [out]| core.obv(0, last, &c.close, &c.volume, out));
        let ours = compute("obv", &[], c);
        assert!(same_bits(&ours[0], &theirs[0]), "{kind:?}");
    });
}

#[test]
fn ad_has_the_same_bits() {
    each_market(|kind, c| {
        let theirs =
            reference(BARS, |core, last, [out]| core.ad(0, last, &c.high, &c.low, &c.close, &c.volume, out));
        assert!(same_bits(&compute("ad", &[], c)[0], &theirs[0]), "{kind:?}");
    });
}

#[test]
fn adosc_agrees() {
    each_market(|kind, c| {
        let total = compute("ad", &[], c)[0].iter().fold(0.0, |most: f64, value| most.max(value.abs()));
        for (fast, slow) in [(3, 10), (10, 3), (2, 2), (20, 200)] {
            let theirs = reference(BARS, |core, last, [out]| {
                let (fast, slow) = (fast as i32, slow as i32);
                core.adosc(0, last, &c.high, &c.low, &c.close, &c.volume, fast, slow, out)
            });
            let ours = compute("adosc", &[("fast", fast), ("slow", slow)], c);
            assert_close(&format!("{kind:?} {fast} {slow}"), &ours, &theirs, total);
        }
    });
}

#[test]
fn cmf_agrees() {
    each_market(|kind, c| {
        for period in [2, 5, 20, 200, 1_500] {
            let theirs = reference(BARS, |core, last, [out]| {
                core.cmf(0, last, &c.high, &c.low, &c.close, &c.volume, period as i32, out)
            });
            let ours = compute("cmf", &[("period", period)], c);
            assert_close(&format!("{kind:?} {period}"), &ours, &theirs, 1.0);
        }
    });
}

#[test]
fn cmf_of_no_volume_is_0() {
    let c = columns(Kind::ZeroVolume, 1, 200);
    assert!(compute("cmf", &[], &c)[0][19..].iter().all(|value| value.to_bits() == 0));
}
