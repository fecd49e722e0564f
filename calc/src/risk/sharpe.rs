//! How sure a Sharpe ratio is (Bailey and López de Prado, 2012 and 2014).

use super::moments::Moments;
use super::{Figure, Settings, Undefined, finite, normal};

/// A Sharpe ratio and what its error depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    count: f64,
    sharpe: f64,
    skew: f64,
    /// Full kurtosis: 3 for the normal distribution.
    kurtosis: f64,
}

impl Sample {
    /// Needs three returns that vary.
    pub(super) fn of(moments: &Moments, settings: &Settings) -> Result<Self, Undefined> {
        if moments.count() < 3.0 {
            return Err(Undefined::TooFewPeriods);
        }
        let sharpe = moments.sharpe_a_period(settings)?;
        let (skew, kurtosis) = (moments.skew()?, moments.kurtosis()? + 3.0);
        Ok(Self { count: moments.count(), sharpe, skew, kurtosis })
    }

    /// The ratio a period, not a year.
    #[must_use]
    pub const fn sharpe(&self) -> f64 {
        self.sharpe
    }

    /// Probability that the true ratio a period is above `benchmark`.
    pub fn probability_above(&self, benchmark: f64) -> Figure {
        let Self { count, sharpe, skew, kurtosis } = *self;
        let variance = 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe * sharpe;
        if variance <= 0.0 {
            return Err(Undefined::NoVariation);
        }
        let z = finite((sharpe - benchmark) * (count - 1.0).sqrt() / variance.sqrt())?;
        finite(normal::distribution(z))
    }

    /// Probability that the true ratio is above what the best of `trials` useless ones would show,
    /// whose ratios a period vary by `variance`.
    pub fn deflated(&self, trials: u64, variance: f64) -> Figure {
        self.probability_above(expected_best(trials, variance))
    }
}

/// The ratio that the best of `trials` shows by chance.
fn expected_best(trials: u64, variance: f64) -> f64 {
    if trials < 2 {
        return 0.0;
    }
    let rare = 1.0 / trials as f64;
    let [near, far] = [rare, rare / std::f64::consts::E].map(|share| -normal::quantile(share));
    variance.sqrt() * ((1.0 - normal::EULER) * near + normal::EULER * far)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Sample = Sample { count: 24.0, sharpe: 0.458, skew: -2.448, kurtosis: 10.164 };

    #[test]
    fn the_example_of_the_paper() {
        // Two years of months, a ratio of 1.59 a year: 0.913 (The Sharpe ratio efficient frontier).
        assert!((SAMPLE.probability_above(0.0).unwrap() - 0.9134).abs() < 1e-3);
        assert!((SAMPLE.probability_above(0.458).unwrap() - 0.5).abs() < 1e-15);
    }

    #[test]
    fn more_trials_make_a_ratio_less_sure() {
        assert_eq!(SAMPLE.deflated(1, 0.5), SAMPLE.probability_above(0.0));
        let sure: Vec<f64> = [2, 10, 1_000].map(|trials| SAMPLE.deflated(trials, 0.01).unwrap()).into();
        assert!(sure.windows(2).all(|pair| pair[0] > pair[1]), "{sure:?}");
        // A hundred trials, variance a year of 1/2 over 250 days: 0.1132 a day (The deflated Sharpe ratio).
        assert!((expected_best(100, 0.5 / 250.0) - 0.1132).abs() < 1e-4);
    }
}
