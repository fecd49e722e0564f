//! How straight a line is.

use super::{Figure, Undefined, finite};
use crate::lanes::{Lanes, Wide};

/// Share of the variance of `values` that a straight line over their positions explains. Needs two
/// values that differ by more than rounding.
pub(super) fn determination(values: &[f64]) -> Figure {
    if values.len() < 2 {
        return Err(Undefined::TooFewPeriods);
    }
    let count = values.len() as f64;
    let mean = of(values, 0.0, 0.0)[0] / count;
    let middle = (count - 1.0) / 2.0;
    let [_, square, product] = of(values, mean, middle);
    let noise = 8.0 * f64::EPSILON * super::tail::largest(values);
    if square <= count * noise * noise {
        return Err(Undefined::NoVariation);
    }
    let positions = count * (count * count - 1.0) / 12.0;
    finite((product / square * (product / positions)).clamp(0.0, 1.0))
}

/// Sums of the distances from `mean`, of their squares, and of them times the positions' distances
/// from `middle`.
fn of(values: &[f64], mean: f64, middle: f64) -> [f64; 3] {
    let (chunks, rest) = values.as_chunks::<{ Wide::WIDTH }>();
    let mut sums = [Wide::splat(0.0); 3];
    let mut position = Wide::gather(|lane| lane as f64 - middle);
    for chunk in chunks {
        let distance = Wide::load(chunk) - Wide::splat(mean);
        sums = [sums[0] + distance, sums[1] + distance * distance, sums[2] + distance * position];
        position = position + Wide::splat(Wide::WIDTH as f64);
    }
    let mut sums = sums.map(|sum| (0..Wide::WIDTH).map(|lane| sum.lane(lane)).sum::<f64>());
    for (at, value) in rest.iter().enumerate() {
        let (distance, position) = (value - mean, (chunks.len() * Wide::WIDTH + at) as f64 - middle);
        sums = [sums[0] + distance, sums[1] + distance * distance, sums[2] + distance * position];
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_straight_and_a_bend_is_not() {
        for len in 2..40_u32 {
            let line: Vec<f64> = (0..len).map(|at| 3.0 - f64::from(at) * 0.5).collect();
            assert!((determination(&line).unwrap() - 1.0).abs() < 1e-14, "{len}");
        }
        // Positions 0 1 2, values 0 1 0: no slope at all.
        assert_eq!(determination(&[0.0, 1.0, 0.0]), Ok(0.0));
        assert!((determination(&[0.0, 1.0, 1.0]).unwrap() - 0.75).abs() < 1e-15);
        assert_eq!(determination(&[7.0; 20]), Err(Undefined::NoVariation));
    }
}
