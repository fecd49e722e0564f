//! Returns beside those of a benchmark.

use super::moments::{Moments, Scan};
use super::sums::{Sums, Term};
use super::{Figure, Settings, Undefined, finite};
use crate::lanes::Lanes;
use crate::series::{ShapeError, same_length};

/// Figures of a return series beside a benchmark's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Relative {
    /// Covariance with the benchmark over its variance.
    pub beta: Figure,
    /// Mean of what beta does not explain, compounded to a year.
    pub alpha: Figure,
    /// The same times the periods a year.
    pub alpha_arithmetic: Figure,
    /// Mean difference over its standard deviation, a period.
    pub information_ratio: Figure,
    /// Return a year beyond the risk-free one, over beta.
    pub treynor: Figure,
}

impl Relative {
    const fn without(reason: Undefined) -> Self {
        let none = Err(reason);
        Self { beta: none, alpha: none, alpha_arithmetic: none, information_ratio: none, treynor: none }
    }
}

/// The values themselves.
struct Whole;

impl Term<1> for Whole {
    fn of<V: Lanes>(&self, value: V) -> [V; 1] {
        [value]
    }
}

/// Compares with a benchmark of as many returns; `cagr` is the series' own. `scratch` holds at least
/// as many values as `returns` and is overwritten.
pub fn relative(
    returns: &[f64],
    benchmark: &[f64],
    cagr: Figure,
    settings: &Settings,
    scratch: &mut [f64],
) -> Result<Relative, ShapeError> {
    same_length("benchmark", benchmark.len(), returns.len())?;
    same_length("scratch", scratch.len().min(returns.len()), returns.len())?;
    if returns.len() < 2 {
        return Ok(Relative::without(Undefined::TooFewPeriods));
    }
    let means = Scan::of(returns).and_then(|own| Ok((own, Scan::of(benchmark)?)));
    let (own, other) = match means {
        Ok(scans) => scans,
        Err(reason) => return Ok(Relative::without(reason)),
    };
    let scratch = &mut scratch[..returns.len()];
    let count = returns.len() as f64;
    let (own_mean, other_mean) = (own.sum / count, other.sum / count);
    for ((slot, r), f) in scratch.iter_mut().zip(returns).zip(benchmark) {
        *slot = (r - own_mean) * (f - other_mean);
    }
    let [covariance] = Sums::over(scratch, &Whole);
    let market = Moments::after(&other, benchmark, settings);
    let beta =
        market.varying().and_then(|deviation| finite(covariance / (count - 1.0) / (deviation * deviation)));
    let unexplained = beta
        .and_then(|beta| finite(own_mean - settings.risk_free - beta * (other_mean - settings.risk_free)));
    for ((slot, r), f) in scratch.iter_mut().zip(returns).zip(benchmark) {
        *slot = r - f;
    }
    let zero = Settings { risk_free: 0.0, ..*settings };
    let periods = settings.periods_per_year;
    Ok(Relative {
        beta,
        alpha: unexplained.and_then(|mean| compounded(mean, periods)),
        alpha_arithmetic: unexplained.and_then(|mean| finite(mean * periods)),
        information_ratio: Moments::of(scratch, &zero).and_then(|all| all.sharpe_a_period(&zero)),
        treynor: beta.and_then(|beta| over(finite(cagr? - settings.risk_free * periods)?, beta)),
    })
}

fn compounded(mean: f64, periods: f64) -> Figure {
    if mean <= -1.0 { Err(Undefined::TotalLoss) } else { finite((mean.ln_1p() * periods).exp_m1()) }
}

fn over(figure: f64, beta: f64) -> Figure {
    if beta == 0.0 { Err(Undefined::NoVariation) } else { finite(figure / beta) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(returns: &[f64], benchmark: &[f64], rf: f64) -> Relative {
        let settings = Settings::new(12.0, rf, 0.05).unwrap();
        relative(returns, benchmark, Ok(0.5), &settings, &mut vec![0.0; returns.len()]).unwrap()
    }

    #[test]
    fn a_lever_of_the_benchmark_has_its_beta_and_no_alpha() {
        let market = [0.01, -0.02, 0.03, 0.005];
        let levered = market.map(|f| 2.0 * f + 0.001);
        let found = of(&levered, &market, 0.0);
        assert!((found.beta.unwrap() - 2.0).abs() < 1e-12);
        assert!((found.alpha_arithmetic.unwrap() - 0.012).abs() < 1e-12);
        assert!((found.alpha.unwrap() - (1.001_f64.powi(12) - 1.0)).abs() < 1e-12);
        assert!((found.treynor.unwrap() - 0.25).abs() < 1e-12);
        // The difference is the market and a constant.
        let mean = 0.025 / 4.0;
        let square: f64 = market.iter().map(|f| (f - mean).powi(2)).sum();
        let expected = (mean + 0.001) / (square / 3.0).sqrt();
        assert!((found.information_ratio.unwrap() - expected).abs() < 1e-12);
    }

    #[test]
    fn what_cannot_be_compared_says_why() {
        let still = of(&[0.1, 0.2, 0.3], &[0.01; 3], 0.0);
        assert_eq!(
            (still.beta, still.alpha, still.treynor),
            (Err(Undefined::NoVariation), Err(Undefined::NoVariation), Err(Undefined::NoVariation))
        );
        assert!(still.information_ratio.is_ok());
        let same = of(&[0.1, 0.2], &[0.1, 0.2], 0.0);
        assert_eq!(same.information_ratio, Err(Undefined::NoVariation));
        assert_eq!(of(&[0.1], &[0.1], 0.0), Relative::without(Undefined::TooFewPeriods));
        assert_eq!(of(&[0.1, f64::NAN], &[0.1, 0.2], 0.0), Relative::without(Undefined::NotFinite));
        assert_eq!(of(&[0.1, 0.2], &[1e308, -1e308], 0.0).beta, Err(Undefined::NotFinite));
        let settings = Settings::default();
        assert!(relative(&[0.1], &[], Ok(0.0), &settings, &mut [0.0]).is_err());
    }
}
