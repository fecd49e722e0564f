//! What is summed, or sought, in a window, against the oracle.

use super::{BARS, assert_close, compute, each_market, reference};
use crate::series::{Kind, columns};

#[test]
fn mfi_agrees() {
    each_market(|kind, c| {
        for period in [2, 14, 100, 1_500] {
            let theirs = reference(BARS, |core, last, [out]| {
                core.mfi(0, last, &c.high, &c.low, &c.close, &c.volume, period as i32, out)
            });
            let ours = compute("mfi", &[("period", period)], c);
            assert_close(&format!("{kind:?} {period}"), &ours, &theirs, 100.0);
        }
    });
}

#[test]
fn mfi_of_a_flat_market_is_0() {
    // Its first bar alone has a range.
    let c = columns(Kind::Flat, 1, 100);
    assert!(compute("mfi", &[], &c)[0][15..].iter().all(|value| value.to_bits() == 0));
}
