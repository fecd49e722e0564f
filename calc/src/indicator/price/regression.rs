//! The straight line of least squares through the last `period` closes: its value at the newest bar,
//! its slope a bar, its value at the oldest bar, its angle in degrees and its value one bar ahead.
//!
//! Lookback `period - 1`. With the sums of the `window` module around their anchor, `S` of the values
//! and `T` of the values by age, the slope is `(p * (T - S) - S * p(p-1)/2)` over `p` times the sum of
//! squares of places less the square of their sum; the line passes the mean in the middle of the
//! window. The angle is that of a line whose bar is as wide as one unit of price is high; its
//! arc tangent is the platform's.

use crate::entry::{Args, CLOSE, CatalogError, Entry, Param, SINGLE, Value};
use crate::indicator::Kernel;
use crate::lanes::Lanes;
use crate::params::Period;
use crate::series::Column;
use crate::window::{Ramp, Sliding, Windowed};
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

const PARAMS: &[Param] = &[Param::bars("period", 2, |_| Value::Number(14.0))];

/// A row of the catalogue.
const fn entry<P: Point>(
    name: &'static str,
    aliases: &'static [&'static str],
    summary: &'static str,
) -> Entry {
    Entry { name, aliases, summary, columns: CLOSE, params: PARAMS, outputs: SINGLE, build: build::<P> }
}

fn build<P: Point>(args: &Args<'_>) -> Result<Arc<dyn Kernel>, CatalogError> {
    Ok(Arc::new(Windowed(Line::<P>::new(args.window("period")?))))
}

pub(super) static LINEARREG: Entry =
    entry::<Newest>("linearreg", &[], "value of the regression line at the newest bar");
pub(super) static SLOPE: Entry =
    entry::<Slope>("slope", &["linearreg_slope"], "slope of the regression line, a bar");
pub(super) static INTERCEPT: Entry =
    entry::<Oldest>("intercept", &["linearreg_intercept"], "value of the regression line at the oldest bar");
pub(super) static ANGLE: Entry =
    entry::<Angle>("angle", &["linearreg_angle"], "angle of the regression line, in degrees");
pub(super) static TSF: Entry = entry::<Next>("tsf", &[], "value of the regression line one bar ahead");

/// What is shown of the line.
trait Point: Copy + Debug + Send + Sync + 'static {
    /// Bars from the middle of a window of `period` to where the line is read, where it is read.
    fn ahead(period: f64) -> f64;

    /// Of the slope and the value there.
    fn of<V: Lanes>(slope: V, value: V) -> V;
}

/// Points at which the line is read.
macro_rules! read_at {
    ($($name:ident: $ahead:expr),*) => {$(
        #[derive(Clone, Copy, Debug)]
        struct $name;

        impl Point for $name {
            fn ahead(period: f64) -> f64 {
                $ahead(period)
            }

            #[inline(always)]
            fn of<V: Lanes>(_: V, value: V) -> V {
                value
            }
        }
    )*};
}

read_at!(
    Newest: |period| (period - 1.0) / 2.0,
    Oldest: |period| (1.0 - period) / 2.0,
    Next: |period| (period - 1.0) / 2.0 + 1.0
);

#[derive(Clone, Copy, Debug)]
struct Slope;

impl Point for Slope {
    fn ahead(_: f64) -> f64 {
        0.0
    }

    #[inline(always)]
    fn of<V: Lanes>(slope: V, _: V) -> V {
        slope
    }
}

#[derive(Clone, Copy, Debug)]
struct Angle;

impl Point for Angle {
    fn ahead(_: f64) -> f64 {
        0.0
    }

    #[inline(always)]
    fn of<V: Lanes>(slope: V, _: V) -> V {
        V::gather(|lane| slope.lane(lane).atan() * (180.0 / std::f64::consts::PI))
    }
}

#[derive(Clone, Copy, Debug)]
struct Line<P> {
    ramp: Ramp,
    count: f64,
    /// The sum of the places, the oldest 0.
    places: f64,
    /// One divided by what the slope is divided by.
    per_square: f64,
    per_bar: f64,
    ahead: f64,
    point: PhantomData<P>,
}

impl<P: Point> Line<P> {
    fn new(period: Period) -> Self {
        let count = period.count();
        let places = count * (count - 1.0) / 2.0;
        let squares = places * (2.0 * count - 1.0) / 3.0;
        Self {
            ramp: Ramp::new(period.bars()),
            count,
            places,
            per_square: 1.0 / (count * squares - places * places),
            per_bar: 1.0 / count,
            ahead: P::ahead(count),
            point: PhantomData,
        }
    }
}

impl<P: Point> Sliding<1, 6, 1> for Line<P> {
    const READS: [Column; 1] = [Column::Close];

    fn window(&self) -> usize {
        self.ramp.window()
    }

    #[inline(always)]
    fn open<V: Lanes>(&self, [oldest]: [V; 1]) -> [V; 6] {
        Ramp::open(oldest)
    }

    #[inline(always)]
    fn add<V: Lanes>(&self, sums: &mut [V; 6], [next]: [V; 1]) {
        Ramp::add(sums, next);
    }

    #[inline(always)]
    fn slide<V: Lanes>(&self, sums: &mut [V; 6], [oldest]: [V; 1], [newest]: [V; 1]) {
        self.ramp.slide(sums, oldest, newest);
    }

    #[inline(always)]
    fn distrusts<V: Lanes>(&self, sums: &[V; 6]) -> Option<V::Mask> {
        Some(self.ramp.distrusts(sums))
    }

    #[inline(always)]
    fn value<V: Lanes>(&self, sums: &[V; 6], _: [V; 1]) -> [V; 1] {
        let (anchor, sum, by_age) = Ramp::sums(sums);
        let product = V::splat(self.count) * (by_age - sum) - V::splat(self.places) * sum;
        let slope = product * V::splat(self.per_square);
        let value = anchor + (sum * V::splat(self.per_bar) + slope * V::splat(self.ahead));
        [P::of(slope, value)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last<P: Point>(input: &[f64]) -> f64 {
        let mut stream = Windowed(Line::<P>::new(Period::of::<3>())).running();
        input.iter().fold(f64::NAN, |_, &value| stream.after([value])[0])
    }

    #[test]
    fn a_straight_line_is_its_own() {
        let input = [9.0, 1.0, 3.0, 5.0];
        assert_eq!(
            [last::<Oldest>(&input), last::<Newest>(&input), last::<Next>(&input), last::<Slope>(&input)],
            [1.0, 5.0, 7.0, 2.0]
        );
        assert!((last::<Angle>(&[0.0, 1.0, 2.0]) - 45.0).abs() < 1e-12);
    }

    #[test]
    fn a_flat_line_lies() {
        assert_eq!(
            (last::<Slope>(&[0.1; 5]), last::<Angle>(&[0.1; 5]), last::<Next>(&[0.1; 5])),
            (0.0, 0.0, 0.1)
        );
    }
}
