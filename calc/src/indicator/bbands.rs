//! Bollinger bands: the mean of the last `period` values, and so many standard deviations above and
//! below it.
//!
//! Lookback `period - 1`. The middle band is bit for bit the simple moving average; the variance is
//! that of the `window` module, divided by `n - ddof`.

use super::{Stream, fill_warm_up};
use crate::params::{Ddof, Deviations, Period};
use crate::series::{ShapeError, same_length};
use crate::window::{Spread, rolling_means, rolling_variances};

/// Bollinger bands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bbands {
    period: Period,
    up: Deviations,
    down: Deviations,
    ddof: Ddof,
}

/// The outputs of one bar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bands {
    /// Mean plus `up` deviations.
    pub upper: f64,
    /// Mean.
    pub middle: f64,
    /// Mean minus `down` deviations.
    pub lower: f64,
}

impl Bbands {
    /// Bands `up` and `down` deviations away from the mean of `period` values.
    #[must_use]
    pub const fn new(period: Period, up: Deviations, down: Deviations, ddof: Ddof) -> Self {
        Self { period, up, down, ddof }
    }

    /// Bars before the first value of every output.
    #[must_use]
    pub const fn lookback(&self) -> usize {
        self.period.bars() - 1
    }

    /// Writes the three outputs of every bar; fails when one is not as long as `input`.
    pub fn batch(
        &self,
        input: &[f64],
        upper: &mut [f64],
        middle: &mut [f64],
        lower: &mut [f64],
    ) -> Result<(), ShapeError> {
        same_length("upper", upper.len(), input.len())?;
        same_length("middle", middle.len(), input.len())?;
        same_length("lower", lower.len(), input.len())?;
        for out in [&mut *upper, &mut *middle, &mut *lower] {
            fill_warm_up(out, self.lookback());
        }
        rolling_means(input, self.period.bars(), middle);
        // The upper band's buffer holds the variance until the bands are drawn.
        rolling_variances(input, self.period.bars(), upper);
        let ready = self.lookback().min(input.len());
        let width = self.width();
        for ((upper, &middle), lower) in
            upper[ready..].iter_mut().zip(&middle[ready..]).zip(&mut lower[ready..])
        {
            let bands = width.around((middle, *upper));
            *upper = bands.upper;
            *lower = bands.lower;
        }
        Ok(())
    }

    /// The state before the first bar.
    #[must_use]
    pub fn stream(&self) -> BbandsStream {
        BbandsStream { spread: Spread::new(self.period.bars()), width: self.width() }
    }

    fn width(&self) -> Width {
        let count = self.period.count();
        let correction = match self.ddof {
            Ddof::Population => 1.0,
            Ddof::Sample => count / (count - 1.0),
        };
        Width { up: self.up.width(), down: self.down.width(), correction }
    }
}

/// How far the bands stand from the mean.
#[derive(Clone, Copy, Debug)]
struct Width {
    up: f64,
    down: f64,
    /// From the population variance to the wanted one.
    correction: f64,
}

impl Width {
    #[inline]
    fn around(self, (middle, population_variance): (f64, f64)) -> Bands {
        let deviation = (population_variance * self.correction).sqrt();
        Bands { upper: middle + deviation * self.up, middle, lower: middle - deviation * self.down }
    }
}

/// Streaming [`Bbands`] over prices; `peek` costs what `push` does.
#[derive(Clone, Debug)]
pub struct BbandsStream {
    spread: Spread,
    width: Width,
}

impl Stream for BbandsStream {
    type Input = f64;
    type Output = Bands;

    fn push(&mut self, input: f64) -> Bands {
        self.width.around(self.spread.push(input))
    }

    fn peek(&self, input: f64) -> Bands {
        self.width.around(self.spread.peek(input))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_series_has_bands_without_width() {
        let (mut upper, mut middle, mut lower) = ([0.0; 5], [0.0; 5], [0.0; 5]);
        let bands = Bbands::new(Period::of::<3>(), Deviations::TWO, Deviations::TWO, Ddof::Sample);
        bands.batch(&[0.1; 5], &mut upper, &mut middle, &mut lower).unwrap();
        assert_eq!(upper[2..], middle[2..]);
        assert_eq!(lower[2..], middle[2..]);
    }

    #[test]
    fn degrees_of_freedom_widen_the_bands() {
        let input = [1.0, 3.0];
        let (mut upper, mut middle, mut lower) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        let two = Period::of::<2>();
        let one = Deviations::new(1.0).unwrap();
        let population = Bbands::new(two, one, Deviations::TWO, Ddof::Population);
        population.batch(&input, &mut upper, &mut middle, &mut lower).unwrap();
        assert_eq!((upper[1], middle[1], lower[1]), (3.0, 2.0, 0.0));
        let sample = Bbands::new(two, one, Deviations::TWO, Ddof::Sample);
        sample.batch(&input, &mut upper, &mut middle, &mut lower).unwrap();
        assert_eq!(upper[1], 2.0 + 2.0_f64.sqrt());
    }
}
