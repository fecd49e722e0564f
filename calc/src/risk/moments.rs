//! Mean, deviations and shape of the returns, and what lies above and below what is required.
//!
//! Two passes: the moments are taken around the mean, which has to be known first. The second goes
//! over tiles that stay in the nearest cache, with a few sums at a time, as many as fit in registers.

use super::sums::{Sums, Term};
use super::{Figure, Settings, Undefined, finite};
use crate::lanes::Lanes;

/// A deviation up to so many roundings of `1 + r` is none: returns of prices carry that much noise,
/// and a ratio to noise is noise.
const NOISE_ROUNDINGS: f64 = 8.0;

/// Returns looked at before the next sums are taken of them; a multiple of the lanes.
pub(super) const TILE: usize = 1_024;

/// The first pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scan {
    /// The sum of the returns.
    pub(super) sum: f64,
    /// The largest return without its sign.
    pub(super) largest: f64,
}

struct Plain;

impl Term<2> for Plain {
    /// The second sum is 0, or `NaN` when a value is not finite.
    fn of<V: Lanes>(&self, value: V) -> [V; 2] {
        [value, value * V::splat(0.0)]
    }
}

impl Scan {
    /// Fails when a return is not finite.
    pub(super) fn of(returns: &[f64]) -> Result<Self, Undefined> {
        let (mut sums, mut largest) = (Sums::ZERO, 0.0_f64);
        for tile in returns.chunks(TILE) {
            sums.add(tile, &Plain);
            largest = largest.max(super::tail::largest(tile));
        }
        let [sum, fault] = sums.finish();
        if fault.is_nan() { Err(Undefined::NotFinite) } else { Ok(Self { sum, largest }) }
    }

    /// Fails when a value is not finite.
    pub(super) fn finite(values: &[f64]) -> Result<(), Undefined> {
        let [_, fault] = Sums::over(values, &Plain);
        if fault.is_nan() { Err(Undefined::NotFinite) } else { Ok(()) }
    }
}

/// Powers of the distance from the mean.
struct Central {
    mean: f64,
}

impl Term<4> for Central {
    fn of<V: Lanes>(&self, value: V) -> [V; 4] {
        let distance = value - V::splat(self.mean);
        let square = distance * distance;
        [distance, square, square * distance, square * square]
    }
}

/// What is missing to the required return, and what lies on both sides of the Omega ratio's.
struct Beyond {
    required: f64,
    threshold: f64,
}

impl Term<4> for Beyond {
    fn of<V: Lanes>(&self, value: V) -> [V; 4] {
        let excess = value - V::splat(self.required);
        let short = (V::splat(self.required) - value).positive();
        let (above, threshold) = (value, V::splat(self.threshold));
        [excess, short * short, (above - threshold).positive(), (threshold - above).positive()]
    }
}

/// The moments of at least one return.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    count: f64,
    mean: f64,
    /// Sample standard deviation; `None` for one return.
    deviation: Option<f64>,
    /// Population moments around the mean: second, third, fourth.
    central: [f64; 3],
    /// Means of the excess over the required return and of the square of what is missing to it.
    beyond: [f64; 2],
    /// Sums above and below the Omega ratio's threshold.
    sides: [f64; 2],
    noise: f64,
}

impl Moments {
    /// Needs one return.
    pub(super) fn of(returns: &[f64], settings: &Settings) -> Result<Self, Undefined> {
        if returns.is_empty() {
            return Err(Undefined::TooFewPeriods);
        }
        let scan = Scan::of(returns)?;
        Ok(Self::after(&scan, returns, settings))
    }

    /// The second pass.
    pub(super) fn after(scan: &Scan, returns: &[f64], settings: &Settings) -> Self {
        let count = returns.len() as f64;
        let mean = scan.sum / count;
        let (mut powers, mut sides) = (Sums::ZERO, Sums::ZERO);
        let (central, beyond) = (
            Central { mean },
            Beyond { required: settings.required_return, threshold: settings.omega_threshold },
        );
        for tile in returns.chunks(TILE) {
            powers.add(tile, &central);
            sides.add(tile, &beyond);
        }
        let [residue, square, cube, fourth] = powers.finish();
        let [excess, short, above, below] = sides.finish();
        // The sum of the distances, zero without rounding, corrects the mean's rounding.
        let spread = square - residue * residue / count;
        let spread = if spread < 0.0 { 0.0 } else { spread };
        Self {
            count,
            mean,
            deviation: (returns.len() > 1).then(|| (spread / (count - 1.0)).sqrt()),
            central: [spread / count, cube / count, fourth / count],
            beyond: [excess / count, short / count],
            sides: [above, below],
            noise: NOISE_ROUNDINGS * f64::EPSILON * (1.0 + scan.largest),
        }
    }

    pub(super) fn mean(&self) -> Figure {
        finite(self.mean)
    }

    /// Standard deviation a period. Needs two returns.
    pub(super) fn deviation(&self) -> Figure {
        self.deviation.map_or(Err(Undefined::TooFewPeriods), finite)
    }

    /// A deviation that is more than rounding.
    pub(super) fn varying(&self) -> Figure {
        let deviation = self.deviation()?;
        if deviation <= self.noise { Err(Undefined::NoVariation) } else { Ok(deviation) }
    }

    /// Standard deviation a year.
    pub(super) fn volatility(&self, settings: &Settings) -> Figure {
        finite(self.deviation()? * settings.periods_per_year.sqrt())
    }

    /// Mean excess return over its standard deviation, a period.
    pub(super) fn sharpe_a_period(&self, settings: &Settings) -> Figure {
        let excess = finite(self.mean - settings.risk_free)?;
        finite(excess / self.varying()?)
    }

    /// The same a year.
    pub(super) fn sharpe(&self, settings: &Settings) -> Figure {
        finite(self.sharpe_a_period(settings)? * settings.periods_per_year.sqrt())
    }

    pub(super) fn sortino(&self, settings: &Settings) -> Figure {
        let [excess, short] = self.beyond;
        if short == 0.0 {
            return Err(Undefined::NoDownside);
        }
        finite(excess / short.sqrt() * settings.periods_per_year.sqrt())
    }

    pub(super) fn omega(&self) -> Figure {
        let [above, below] = self.sides;
        if below == 0.0 { Err(Undefined::NoDownside) } else { finite(above / below) }
    }

    pub(super) fn skew(&self) -> Figure {
        self.varying()?;
        let [square, cube, _] = self.central;
        finite(cube / (square * square.sqrt()))
    }

    /// Beyond that of the normal distribution.
    pub(super) fn kurtosis(&self) -> Figure {
        self.varying()?;
        let [square, _, fourth] = self.central;
        finite(fourth / (square * square) - 3.0)
    }

    /// Mean over variance.
    pub(super) fn kelly(&self) -> Figure {
        let deviation = self.varying()?;
        finite(self.mean / (deviation * deviation))
    }

    pub(super) const fn count(&self) -> f64 {
        self.count
    }
}
