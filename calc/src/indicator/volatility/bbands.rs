//! Bollinger bands: the mean of the last `period` values, and so many standard deviations above and
//! below it.
//!
//! Lookback `period - 1`. The middle band is bit for bit the simple moving average; the variance is
//! that of the `window` module, divided by `n - ddof`.

use crate::entry::{CLOSE, Entry, Param, Value};
use crate::lanes::Lanes;
use crate::params::{DEVIATIONS_MAX, Ddof, Deviations, Period};
use crate::series::Column;
use crate::window::{Moments, Sliding, Windowed};
use std::sync::Arc;

pub(super) static BBANDS: Entry = Entry {
    name: "bbands",
    aliases: &["bb"],
    summary: "Bollinger bands around the simple moving average",
    columns: CLOSE,
    params: &[
        Param::bars("period", 2, |_| Value::Number(20.0)),
        Param::real("up", 0.0, DEVIATIONS_MAX, |_| Value::Number(2.0)),
        Param::real("down", 0.0, DEVIATIONS_MAX, |_| Value::Number(2.0)),
        Param::DDOF,
    ],
    outputs: &["upper", "middle", "lower"],
    build: |args| {
        let (up, down) = (args.deviations("up")?, args.deviations("down")?);
        Ok(Arc::new(Bbands::new(args.window("period")?, up, down, args.ddof()?)))
    },
};

/// Bollinger bands of closes.
pub(crate) type Bbands = Windowed<Bands, 1, 5, 3>;

impl Bbands {
    /// Bands `up` and `down` deviations away from the mean of `period` values.
    pub(crate) fn new(period: Period, up: Deviations, down: Deviations, ddof: Ddof) -> Self {
        let (count, correction) = (period.count(), ddof.correction(period));
        let moments = Moments::new(period.bars());
        let deviation = moments.share(correction).sqrt();
        Windowed(Bands { moments, count, up: up.width() * deviation, down: down.width() * deviation })
    }
}

/// Bollinger bands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bands {
    moments: Moments,
    count: f64,
    /// Widths for a root of the spread.
    up: f64,
    down: f64,
}

/// The plain sum, which gives the middle band the bits of the simple average, before the words of
/// the variance.
impl Sliding<1, 5, 3> for Bands {
    const READS: [Column; 1] = [Column::Close];

    fn window(&self) -> usize {
        self.moments.window()
    }

    #[inline(always)]
    fn open<V: Lanes>(&self, [oldest]: [V; 1]) -> [V; 5] {
        let [anchor, sum, square, peak] = Moments::open(oldest);
        [V::splat(0.0) + oldest, anchor, sum, square, peak]
    }

    #[inline(always)]
    fn add<V: Lanes>(&self, [plain, words @ ..]: &mut [V; 5], [next]: [V; 1]) {
        *plain = *plain + next;
        Moments::add(words, next);
    }

    #[inline(always)]
    fn slide<V: Lanes>(&self, [plain, words @ ..]: &mut [V; 5], [oldest]: [V; 1], [newest]: [V; 1]) {
        *plain = (*plain - oldest) + newest;
        Moments::slide(words, oldest, newest);
    }

    #[inline(always)]
    fn distrusts<V: Lanes>(&self, [_, words @ ..]: &[V; 5]) -> Option<V::Mask> {
        Some(self.moments.distrusts(words))
    }

    fn renewed(&self, [plain, ..]: [f64; 5], [_, anchor, sum, square, peak]: [f64; 5]) -> [f64; 5] {
        [plain, anchor, sum, square, peak]
    }

    #[inline(always)]
    fn value<V: Lanes>(&self, [plain, words @ ..]: &[V; 5], _: [V; 1]) -> [V; 3] {
        let middle = *plain / V::splat(self.count);
        let root = self.moments.spread(words).sqrt();
        [middle + root * V::splat(self.up), middle, middle - root * V::splat(self.down)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(bands: Bbands, input: &[f64]) -> [f64; 3] {
        let mut stream = bands.running();
        input.iter().fold([f64::NAN; 3], |_, &value| stream.after([value]))
    }

    #[test]
    fn a_flat_series_has_bands_without_width() {
        let bands = Bbands::new(Period::of::<3>(), Deviations::TWO, Deviations::TWO, Ddof::Sample);
        let [upper, middle, lower] = last(bands, &[0.1; 5]);
        assert_eq!((upper, lower), (middle, middle));
    }

    #[test]
    fn degrees_of_freedom_widen_the_bands() {
        let (two, one) = (Period::of::<2>(), Deviations::new(1.0).unwrap());
        let population = Bbands::new(two, one, Deviations::TWO, Ddof::Population);
        assert_eq!(last(population, &[1.0, 3.0]), [3.0, 2.0, 0.0]);
        let sample = Bbands::new(two, one, Deviations::TWO, Ddof::Sample);
        assert_eq!(last(sample, &[1.0, 3.0])[0], 2.0 + 2.0_f64.sqrt());
    }
}
