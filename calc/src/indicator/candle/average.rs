//! The means by which a candle is long or short, of the candles before it.

use crate::lanes::Lanes;

/// Candles of the longest mean.
pub(super) const LONGEST: usize = 10;

/// Candles of the mean by which two prices are near or far.
const SHORTEST: usize = 5;

/// The mean of the values `back` bars ago, from `bars` down to 1, summed in that order.
#[inline(always)]
fn mean<V: Lanes>(bars: usize, value: impl Fn(usize) -> V) -> V {
    let sum = (1..bars).rev().fold(value(bars), |sum, back| sum + value(back));
    sum / V::splat(bars as f64)
}

/// The mean of the ten values before; `value` answers for a bar so many before the judged one.
#[inline(always)]
pub(super) fn of_ten<V: Lanes>(value: impl Fn(usize) -> V) -> V {
    mean(LONGEST, value)
}

/// The mean of the five values before.
#[inline(always)]
pub(super) fn of_five<V: Lanes>(value: impl Fn(usize) -> V) -> V {
    mean(SHORTEST, value)
}

/// Writes to every place of `out` the mean of the values before it; `values` begins [`LONGEST`]
/// values earlier.
fn fill(values: &[f64], out: &mut [f64], mean: impl Fn(&[f64]) -> f64) {
    for (out, window) in out.iter_mut().zip(values.windows(LONGEST)) {
        *out = mean(window);
    }
}

/// [`of_ten`] of every place.
pub(super) fn fill_ten(values: &[f64], out: &mut [f64]) {
    fill(values, out, |window| of_ten(|back| window[LONGEST - back]));
}

/// [`of_five`] of every place.
pub(super) fn fill_five(values: &[f64], out: &mut [f64]) {
    fill(values, out, |window| of_five(|back| window[LONGEST - back]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_of_the_values_before() {
        let values: Vec<f64> = (1..=12).map(f64::from).collect();
        let (mut ten, mut five) = ([0.0; 3], [0.0; 3]);
        fill_ten(&values, &mut ten);
        fill_five(&values, &mut five);
        assert_eq!((ten, five), ([5.5, 6.5, 7.5], [8.0, 9.0, 10.0]));
    }
}
