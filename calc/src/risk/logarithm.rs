//! `ln(1 + r)` for a whole slice, without a branch, so that compilers put it into vector registers.
//!
//! The platform's function takes several times as long and differs between platforms in the last
//! bit; this one uses additions, multiplications and divisions only, so its bits are the same
//! everywhere. Reduction and series are those of fdlibm's `e_log.c`: `1 + r = 2^k (1 + f)` with
//! `1 + f` between `sqrt(1/2)` and `sqrt(2)`, what `1 + r` rounded away put back at the end. Error
//! below one unit in the last place.

/// Bits of `sqrt(1/2)`, above which the reduced argument lies.
const FLOOR_BITS: u64 = 0x3fe6_a09e_0000_0000;
/// Bits of one.
const ONE_BITS: u64 = 0x3ff0_0000_0000_0000;
/// The mantissa of a number.
const MANTISSA: u64 = 0x000f_ffff_ffff_ffff;
/// Two to the power of 52, whose mantissa counts ones: turns a small integer into a number.
const COUNTING: u64 = 0x4330_0000_0000_0000;
/// Added to exponents so that the integer is not negative.
const BIAS: u64 = 1_023;

const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
/// The series of `ln((1 + s) / (1 - s)) - 2s`, in `s * s`.
const SERIES: [f64; 7] = [
    6.666_666_666_666_735e-1,
    3.999_999_999_940_942e-1,
    2.857_142_874_366_239e-1,
    2.222_219_843_214_978_4e-1,
    1.818_357_216_161_805e-1,
    1.531_383_769_920_937_3e-1,
    1.479_819_860_511_658_6e-1,
];

/// Writes the logarithm of one plus every value; meaningless where that is not positive and finite.
pub(super) fn ln_1p(values: &[f64], out: &mut [f64]) {
    for (out, &r) in out.iter_mut().zip(values) {
        *out = one(r);
    }
}

/// The logarithm of a positive, normal number.
#[inline]
pub(super) fn ln(value: f64) -> f64 {
    of_sum(value, 0.0)
}

#[inline]
fn one(r: f64) -> f64 {
    let whole = 1.0 + r;
    // What the sum rounded away; either form is exact on its side.
    let lost = if whole >= 2.0 { 1.0 - (whole - r) } else { r - (whole - 1.0) };
    of_sum(whole, lost)
}

/// The logarithm of `whole + lost`, the second too small to show in the first.
#[inline]
fn of_sum(whole: f64, lost: f64) -> f64 {
    let bits = whole.to_bits().wrapping_add(ONE_BITS - FLOOR_BITS);
    let exponent = f64::from_bits(COUNTING | (bits >> 52)) - f64::from_bits(COUNTING | BIAS);
    let f = f64::from_bits((bits & MANTISSA).wrapping_add(FLOOR_BITS)) - 1.0;
    let half_square = 0.5 * f * f;
    let s = f / (2.0 + f);
    let (square, [c1, c2, c3, c4, c5, c6, c7]) = (s * s, SERIES);
    let fourth = square * square;
    let even = fourth * (c2 + fourth * (c4 + fourth * c6));
    let odd = square * (c1 + fourth * (c3 + fourth * (c5 + fourth * c7)));
    let small = s * (half_square + (even + odd)) + (exponent * LN2_LOW + lost / whole);
    exponent * LN2_HIGH - ((half_square - small) - f)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in units of the last place of `b`.
    fn apart(a: f64, b: f64) -> u64 {
        a.to_bits().abs_diff(b.to_bits())
    }

    #[test]
    fn it_is_the_logarithm_to_the_last_place() {
        let mut state = 7_u64;
        let mut worst = 0;
        for at in 0..200_000_u32 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let uniform = (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5;
            let scale = [0.04, 1.9, 1e-6, 1e-15, 2e3, 1e200][at as usize % 6];
            let r = (uniform * scale).max(-0.999_999);
            worst = worst.max(apart(one(r), r.ln_1p()));
        }
        assert!(worst <= 2, "{worst}");
    }

    #[test]
    fn ends_and_exact_values() {
        assert_eq!(one(0.0), 0.0);
        assert_eq!(one(5e-324), 5e-324);
        assert_eq!(one(-1e-300), -1e-300);
        assert!(apart(one(1.0), std::f64::consts::LN_2) <= 1);
        assert!(apart(one(f64::MAX), f64::MAX.ln()) <= 1);
        assert!(apart(one(-1.0 + f64::EPSILON), (-1.0 + f64::EPSILON).ln_1p()) <= 1);
        let mut out = [9.0; 3];
        ln_1p(&[0.5, -0.5], &mut out);
        assert!(out[0] > 0.4 && out[1] < -0.69 && out[2] == 9.0);
    }
}
