//! Averages.

use super::{BARS, assert_close, compute, each_market, reference};
use crate::series::{Columns, Kind, columns, same_bits};
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
        for name in ["wma", "dema", "tema", "t3", "trima", "hma", "kama", "vwma"] {
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

#[test]
fn averages_over_windows_agree() {
    let periods: &[&[u32]] = &[&[1], &[2], &[3], &[5], &[30], &[200]];
    agrees("trima", &["period"], periods, Columns::scale, |core, last, c, p, [out]| {
        core.trima(0, last, &c.close, p[0], out)
    });
    agrees("hma", &["period"], periods, Columns::scale, |core, last, c, p, [out]| {
        core.hma(0, last, &c.close, p[0], out)
    });
    agrees("kama", &["period"], periods, Columns::scale, |core, last, c, p, [out]| {
        core.kama(0, last, &c.close, p[0], out)
    });
}

#[test]
fn vwma_agrees_where_anything_was_traded() {
    each_market(|kind, c| {
        for period in [1, 2, 5, 30, 200] {
            let theirs = reference(BARS, |core, last, [out]| {
                core.vwma(0, last, &c.close, &c.volume, period as i32, out)
            });
            let ours = compute("vwma", &[("period", period)], c);
            if kind != Kind::ZeroVolume {
                assert_close(&format!("{kind:?} {period}"), &ours, &theirs, c.scale());
            }
        }
    });
}

/// Exception: where nothing was traded the oracle divides 0 by 0.
#[test]
fn vwma_without_volume_is_the_plain_mean() {
    let c = columns(Kind::ZeroVolume, 1, 300);
    let theirs = reference(300, |core, last, [out]| core.vwma(0, last, &c.close, &c.volume, 20, out));
    assert!(theirs[0].iter().all(|value| value.is_nan()));
    let plain = compute("sma", &[("period", 20)], &c);
    assert!(same_bits(&compute("vwma", &[("period", 20)], &c)[0], &plain[0]));
}

#[test]
fn vwma_keeps_its_digits_after_spikes_of_price_and_volume() {
    let mut c = columns(Kind::Spikes, 5, BARS);
    for row in (17..BARS).step_by(113) {
        c.volume[row] *= 1e9;
    }
    let ours = compute("vwma", &[("period", 20)], &c);
    for (row, our) in ours[0].iter().enumerate().skip(19) {
        let window = row - 19..=row;
        let paid: f64 =
            c.close[window.clone()].iter().zip(&c.volume[window.clone()]).map(|(c, v)| c * v).sum();
        let plain = paid / c.volume[window].iter().sum::<f64>();
        assert!((our - plain).abs() <= 2e-9 * plain, "row {row}: {our} for {plain}");
    }
}

#[test]
fn vwap_has_the_same_bits_where_anything_was_traded() {
    each_market(|kind, c| {
        let theirs = reference(BARS, |core, last, [out]| {
            core.vwap(0, last, &c.high, &c.low, &c.close, &c.volume, out)
        });
        assert!(kind == Kind::ZeroVolume || same_bits(&compute("vwap", &[], c)[0], &theirs[0]), "{kind:?}");
    });
}

/// Exception: before anything was traded the oracle answers 0.
#[test]
fn vwap_before_any_volume_is_the_price_of_the_bar() {
    let mut c = columns(Kind::Walk, 1, 5);
    c.volume = vec![0.0, 0.0, 5.0, 0.0, 1.0];
    let theirs =
        reference(5, |core, last, [out]| core.vwap(0, last, &c.high, &c.low, &c.close, &c.volume, out));
    let ours = compute("vwap", &[], &c);
    assert_eq!(theirs[0][..2], [0.0; 2]);
    assert_eq!(ours[0][1], (c.high[1] + c.low[1] + c.close[1]) / 3.0);
    assert_eq!(ours[0][2..], theirs[0][2..]);
}
