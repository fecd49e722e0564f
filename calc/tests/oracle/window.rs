//! What is summed, or sought, in a window, against the oracle.

use super::{BARS, assert_close, compute, each_market, reference};
use crate::series::{Kind, columns, same_bits};
use ta_lib::MAType;

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

#[test]
fn stoch_agrees() {
    each_market(|kind, c| {
        for (fast_k, slow_k, slow_d) in [(5, 3, 3), (14, 3, 3), (14, 1, 1), (1, 2, 2), (200, 20, 5)] {
            let theirs = reference(BARS, |core, last, [k, d]| {
                let (fast_k, slow_k, slow_d, sma) =
                    (fast_k as i32, slow_k as i32, slow_d as i32, MAType::SMA);
                core.stoch(0, last, &c.high, &c.low, &c.close, fast_k, slow_k, sma, slow_d, sma, k, d)
            });
            let given = [("fast_k", fast_k), ("slow_k", slow_k), ("slow_d", slow_d)];
            assert_close(&format!("{kind:?} {given:?}"), &compute("stoch", &given, c), &theirs, 100.0);
        }
    });
}

#[test]
fn stochf_agrees() {
    each_market(|kind, c| {
        for (fast_k, fast_d) in [(5, 3), (14, 3), (14, 1), (1, 2), (200, 20), (700, 3)] {
            let theirs = reference(BARS, |core, last, [k, d]| {
                let (fast_k, fast_d) = (fast_k as i32, fast_d as i32);
                core.stochf(0, last, &c.high, &c.low, &c.close, fast_k, fast_d, MAType::SMA, k, d)
            });
            let given = [("fast_k", fast_k), ("fast_d", fast_d)];
            assert_close(&format!("{kind:?} {given:?}"), &compute("stochf", &given, c), &theirs, 100.0);
        }
    });
}

#[test]
fn willr_agrees() {
    each_market(|kind, c| {
        for period in [2, 14, 100, 1_500] {
            let theirs = reference(BARS, |core, last, [out]| {
                core.willr(0, last, &c.high, &c.low, &c.close, period as i32, out)
            });
            let ours = compute("willr", &[("period", period)], c);
            assert_close(&format!("{kind:?} {period}"), &ours, &theirs, 100.0);
        }
    });
}

#[test]
fn positions_in_a_flat_market_are_0() {
    let c = columns(Kind::Flat, 1, 100);
    for name in ["stoch", "stochf", "willr"] {
        let outs = compute(name, &[], &c);
        assert!(outs.iter().all(|out| out[20..].iter().all(|value| value.to_bits() == 0)), "{name}");
    }
}

#[test]
fn donchian_has_the_same_bits() {
    each_market(|kind, c| {
        for period in [2, 20, 200, 1_500] {
            let theirs = reference(BARS, |core, last, [upper, middle, lower]| {
                core.donchian(0, last, &c.high, &c.low, period as i32, upper, middle, lower)
            });
            let ours = compute("donchian", &[("period", period)], c);
            assert!(
                ours.iter().zip(&theirs).all(|(ours, theirs)| same_bits(ours, theirs)),
                "{kind:?} {period}"
            );
        }
    });
}

#[test]
fn ultosc_agrees() {
    each_market(|kind, c| {
        for (short, medium, long) in [(7, 14, 28), (28, 7, 14), (1, 2, 3), (20, 100, 1_500)] {
            let theirs = reference(BARS, |core, last, [out]| {
                let (short, medium, long) = (short as i32, medium as i32, long as i32);
                core.ultosc(0, last, &c.high, &c.low, &c.close, short, medium, long, out)
            });
            let ours = compute("ultosc", &[("short", short), ("medium", medium), ("long", long)], c);
            assert_close(&format!("{kind:?} {short} {medium} {long}"), &ours, &theirs, 100.0);
        }
    });
}

#[test]
fn aroon_has_the_same_bits() {
    each_market(|kind, c| {
        for period in [2_u32, 14, 100, 1_500] {
            let bars = period as i32;
            let both = reference(BARS, |core, last, [down, up]| {
                core.aroon(0, last, &c.high, &c.low, bars, down, up)
            });
            let ours = compute("aroon", &[("period", period)], c);
            assert!(
                ours.iter().zip(&both).all(|(ours, theirs)| same_bits(ours, theirs)),
                "{kind:?} {period}"
            );
            let one = reference(BARS, |core, last, [out]| core.aroonosc(0, last, &c.high, &c.low, bars, out));
            let ours = compute("aroonosc", &[("period", period)], c);
            assert!(same_bits(&ours[0], &one[0]), "oscillator {kind:?} {period}");
        }
    });
}

/// Exception: see within.
#[test]
fn stddev_and_var_agree_but_for_the_digits_the_oracle_loses() {
    each_market(|kind, c| {
        for period in [2_u32, 5, 20, 200, 1_500] {
            let bars = period as i32;
            let theirs = reference(BARS, |core, last, [out]| core.stddev(0, last, &c.close, bars, 1.0, out));
            let ours = compute("stddev", &[("period", period)], c);
            // The oracle's variance is a difference of squares, whose rounding the root lays bare: it
            // is right to 1e-7 of the price. `accuracy` holds ours to 1e-9 of itself.
            assert_close(&format!("{kind:?} {period}"), &ours, &theirs, 1e5 * c.scale());
            let theirs = reference(BARS, |core, last, [out]| core.var(0, last, &c.close, bars, 1.0, out));
            let ours = compute("var", &[("period", period)], c);
            assert_close(&format!("variance {kind:?} {period}"), &ours, &theirs, c.scale() * c.scale());
        }
    });
}

#[test]
fn cci_agrees() {
    each_market(|kind, c| {
        for period in [2_u32, 14, 20, 100, 700] {
            let theirs = reference(BARS, |core, last, [out]| {
                core.cci(0, last, &c.high, &c.low, &c.close, period as i32, out)
            });
            let ours = compute("cci", &[("period", period)], c);
            assert_close(&format!("{kind:?} {period}"), &ours, &theirs, 1e4);
        }
    });
}

#[test]
fn cci_of_a_flat_market_is_0() {
    let c = columns(Kind::Flat, 1, 100);
    assert!(compute("cci", &[], &c)[0][15..].iter().all(|value| value.to_bits() == 0));
}

#[test]
fn keltner_agrees_though_the_oracle_fuses() {
    each_market(|kind, c| {
        for (period, ranges) in [(20, 10), (10, 20), (2, 2), (14, 14), (15, 14), (200, 300)] {
            let theirs = reference(BARS, |core, last, [upper, middle, lower]| {
                let (period, ranges) = (period as i32, ranges as i32);
                core.kc(0, last, &c.high, &c.low, &c.close, period, ranges, 2.0, upper, middle, lower)
            });
            let given = [("period", period), ("atr_period", ranges)];
            assert_close(&format!("{kind:?} {given:?}"), &compute("keltner", &given, c), &theirs, c.scale());
        }
    });
}
