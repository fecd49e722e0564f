//! The standard normal distribution.
//!
//! The distribution function goes through Cody's rational approximations of the error function
//! (Math. Comp. 23, 1969), its inverse through Acklam's with one step of Halley's method on top.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Euler's constant.
pub(super) const EULER: f64 = 0.577_215_664_901_532_9;

/// Share of the distribution below `z`.
#[must_use]
pub fn distribution(z: f64) -> f64 {
    0.5 * erfc(-z * FRAC_1_SQRT_2)
}

/// Density at `z`.
#[must_use]
pub fn density(z: f64) -> f64 {
    (-0.5 * z * z).exp() / (2.0 * PI).sqrt()
}

/// The value that the share `p` lies below: infinite for 0 and 1, `NaN` outside.
#[must_use]
pub fn quantile(p: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 || p.is_nan() {
        return match p {
            0.0 => f64::NEG_INFINITY,
            1.0 => f64::INFINITY,
            _ => f64::NAN,
        };
    }
    // The upper half mirrors the lower one, where a share keeps its digits.
    if p > 0.5 {
        return -lower_quantile(1.0 - p);
    }
    lower_quantile(p)
}

const CENTRE_OVER: [f64; 6] = [
    -3.969_683_028_665_376e1,
    2.209_460_984_245_205e2,
    -2.759_285_104_469_687e2,
    1.383_577_518_672_69e2,
    -3.066_479_806_614_716e1,
    2.506_628_277_459_239,
];
const CENTRE_UNDER: [f64; 6] = [
    -5.447_609_879_822_406e1,
    1.615_858_368_580_409e2,
    -1.556_989_798_598_866e2,
    6.680_131_188_771_972e1,
    -1.328_068_155_288_572e1,
    1.0,
];
const TAIL_OVER: [f64; 6] = [
    -7.784_894_002_430_293e-3,
    -3.223_964_580_411_365e-1,
    -2.400_758_277_161_838,
    -2.549_732_539_343_734,
    4.374_664_141_464_968,
    2.938_163_982_698_783,
];
const TAIL_UNDER: [f64; 5] =
    [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416, 1.0];
/// Below this share the tail's approximation holds.
const TAIL: f64 = 0.024_25;

fn lower_quantile(p: f64) -> f64 {
    let z = if p < TAIL {
        let q = (-2.0 * p.ln()).sqrt();
        polynomial(&TAIL_OVER, q) / polynomial(&TAIL_UNDER, q)
    } else {
        let q = p - 0.5;
        polynomial(&CENTRE_OVER, q * q) * q / polynomial(&CENTRE_UNDER, q * q)
    };
    let miss = (distribution(z) - p) / density(z);
    let refined = z - miss / (1.0 + z * miss / 2.0);
    // So far out that the density is zero the approximation has to do.
    if refined.is_finite() { refined } else { z }
}

const NEAR_OVER: [f64; 5] = [
    1.857_777_061_846_031_5e-1,
    3.161_123_743_870_565_6,
    1.138_641_541_510_501_6e2,
    3.774_852_376_853_02e2,
    3.209_377_589_138_469_4e3,
];
const NEAR_UNDER: [f64; 5] = [
    1.0,
    2.360_129_095_234_412e1,
    2.440_246_379_344_441_7e2,
    1.282_616_526_077_372_3e3,
    2.844_236_833_439_171e3,
];
const MIDDLE_OVER: [f64; 9] = [
    2.153_115_354_744_038_3e-8,
    5.641_884_969_886_701e-1,
    8.883_149_794_388_377,
    6.611_919_063_714_163e1,
    2.986_351_381_974_001e2,
    8.819_522_212_417_69e2,
    1.712_047_612_634_070_7e3,
    2.051_078_377_826_071_6e3,
    1.230_339_354_797_997_2e3,
];
const MIDDLE_UNDER: [f64; 9] = [
    1.0,
    1.574_492_611_070_983_5e1,
    1.176_939_508_913_125e2,
    5.371_811_018_620_099e2,
    1.621_389_574_566_690_3e3,
    3.290_799_235_733_459_7e3,
    4.362_619_090_143_247e3,
    3.439_367_674_143_721_6e3,
    1.230_339_354_803_749_5e3,
];
const FAR_OVER: [f64; 6] = [
    1.631_538_713_730_209_8e-2,
    3.053_266_349_612_323_6e-1,
    3.603_448_999_498_044_5e-1,
    1.257_817_261_112_292_6e-1,
    1.608_378_514_874_227_5e-2,
    6.587_491_615_298_378e-4,
];
const FAR_UNDER: [f64; 6] = [
    1.0,
    2.568_520_192_289_822,
    1.872_952_849_923_460_4,
    5.279_051_029_514_285e-1,
    6.051_834_131_244_132e-2,
    2.335_204_976_268_691_8e-3,
];

/// One minus the error function.
fn erfc(x: f64) -> f64 {
    let far = x.abs();
    if far <= 0.468_75 {
        let square = x * x;
        return 1.0 - x * polynomial(&NEAR_OVER, square) / polynomial(&NEAR_UNDER, square);
    }
    let ratio = if far <= 4.0 {
        polynomial(&MIDDLE_OVER, far) / polynomial(&MIDDLE_UNDER, far)
    } else {
        let inverse = 1.0 / (far * far);
        let tail = inverse * polynomial(&FAR_OVER, inverse) / polynomial(&FAR_UNDER, inverse);
        (1.0 / PI.sqrt() - tail) / far
    };
    // The square in two parts: its rounding would be multiplied by itself.
    let head = (far * 16.0).trunc() / 16.0;
    let above = ratio * (-head * head).exp() * (-(far - head) * (far + head)).exp();
    if x < 0.0 { 2.0 - above } else { above }
}

/// Highest power first.
fn polynomial(coefficients: &[f64], x: f64) -> f64 {
    coefficients.iter().fold(0.0, |value, coefficient| value * x + coefficient)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * b.abs()
    }

    #[test]
    fn known_values() {
        for (z, share) in [
            (-37.0, 5.725_571_222_525_139e-300),
            (-20.0, 2.753_624_118_606_331_4e-89),
            (-8.5, 9.479_534_822_203_355e-18),
            (-6.0, 9.865_876_450_377_012e-10),
            (-5.5, 1.898_956_246_588_773_8e-08),
            (-4.0, 3.167_124_183_311_996_5e-05),
            (-3.0, 0.001_349_898_031_630_095_7),
            (-2.326_347_874_040_841, 0.010_000_000_000_000_002),
            (-1.644_853_626_951_472_9, 0.050_000_000_000_000_02),
            (-1.0, 0.158_655_253_931_457_07),
            (-0.6, 0.274_253_117_750_073_6),
            (-0.25, 0.401_293_674_317_076_3),
            (0.1, 0.539_827_837_277_029),
            (0.5, 0.691_462_461_274_013_1),
            (0.66, 0.745_373_085_328_663_9),
            (1.0, 0.841_344_746_068_542_9),
            (2.0, 0.977_249_868_051_820_8),
            (3.0, 0.998_650_101_968_369_9),
            (5.0, 0.999_999_713_348_428_1),
            (7.0, 0.999_999_999_998_720_1),
        ] {
            assert!(near(distribution(z), share), "{z}: {} {share}", distribution(z));
            if share > 1e-300 && share < 0.999 {
                assert!((quantile(share) - z).abs() <= 1e-12 * z.abs().max(1.0), "{z}: {}", quantile(share));
            }
        }
        assert!(near(density(1.0), 0.241_970_724_519_143_37));
    }

    #[test]
    fn the_ends() {
        assert_eq!((quantile(0.0), quantile(1.0)), (f64::NEG_INFINITY, f64::INFINITY));
        assert!(quantile(-0.1).is_nan() && quantile(1.1).is_nan() && quantile(f64::NAN).is_nan());
        assert!(quantile(5e-324) < -38.0);
        assert_eq!(distribution(40.0), 1.0);
        assert_eq!(distribution(-40.0), 0.0);
        assert_eq!(quantile(0.5), 0.0);
    }
}
