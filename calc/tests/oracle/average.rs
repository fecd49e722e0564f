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
        for name in ["wma", "dema", "tema", "t3"] {
            assert!(same_bits(&compute(name, &[("period", 1)], c)[0], &c.close), "{name} {kind:?}");
        }
    });
}

/// Exception: the oracle fuses the multiplication and the addition of every stage.
#[test]
fn cascades_agree_though_the_oracle_fuses() {
    let periods: &[&[u32]] = &[&[1], &[2], &[5], &[30], &[100]];
    agrees("dema", &["period"], periods, Columns::scale, |core, last, c, p, [out]| {
        core.dema(0, last, &c.close, p[0], out)
    });
    agrees("tema", &["period"], periods, Columns::scale, |core, last, c, p, [out]| {
        core.tema(0, last, &c.close, p[0], out)
    });
    for factor in [0, 1] {
        let sets: Vec<[u32; 2]> = [1, 2, 5, 30, 100].map(|period| [period, factor]).to_vec();
        let sets: Vec<&[u32]> = sets.iter().map(<[u32; 2]>::as_slice).collect();
        agrees("t3", &["period", "volume_factor"], &sets, Columns::scale, |core, last, c, p, [out]| {
            core.t3(0, last, &c.close, p[0], f64::from(p[1]), out)
        });
    }
    agrees("t3", &["period"], &[&[5], &[14]], Columns::scale, |core, last, c, p, [out]| {
        core.t3(0, last, &c.close, p[0], 0.7, out)
    });
}
