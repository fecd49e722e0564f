//! Averages.

use super::{BARS, assert_close, compute, each_market, reference};
use crate::series::{Columns, same_bits};
use ta_lib::{Core, OutRange, RetCode};

/// Checks an indicator of whole parameters on every market, for each set of them.
pub(super) fn agrees<const OUTPUTS: usize>(
    name: &str,
    params: &[&str],
    sets: &[&[u32]],
    scale: impl Fn(&Columns) -> f64,
    call: impl Fn(&Core, usize, &Columns, &[i32], &mut [Vec<f64>; OUTPUTS]) -> Result<OutRange, RetCode>,
) {
    each_market(|kind, c| {
        for set in sets {
            let given: Vec<_> = params.iter().copied().zip(set.iter().copied()).collect();
            let whole: Vec<i32> = set.iter().map(|&value| value as i32).collect();
            let theirs = reference(BARS, |core, last, outs| call(core, last, c, &whole, outs));
            let ours = compute(name, &given, c);
            assert_close(&format!("{name} {kind:?} {set:?}"), &ours, &theirs, scale(c));
        }
    });
}

#[test]
fn wma_agrees() {
    agrees(
        "wma",
        &["period"],
        &[&[1], &[2], &[5], &[30], &[200], &[1_500]],
        Columns::scale,
        |core, last, c, p, [out]| core.wma(0, last, &c.close, p[0], out),
    );
}

#[test]
fn an_average_over_one_bar_copies() {
    each_market(|kind, c| {
        for name in ["wma"] {
            assert!(same_bits(&compute(name, &[("period", 1)], c)[0], &c.close), "{name} {kind:?}");
        }
    });
}
