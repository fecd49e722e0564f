//! Volatility, and return measured against it.

use super::moments::Moments;
use super::returns::positive;
use super::{Figure, Settings, Undefined, logarithm};
use crate::series::{ShapeError, same_length};

/// Standard deviation of the returns a year. Needs two returns.
pub fn volatility(returns: &[f64], settings: &Settings) -> Figure {
    Moments::of(returns, settings)?.volatility(settings)
}

/// Standard deviation a year of the logarithmic returns of `prices`. Needs three prices; `scratch`
/// holds at least one value less than `prices` and is overwritten.
pub fn close_to_close_volatility(
    prices: &[f64],
    settings: &Settings,
    scratch: &mut [f64],
) -> Result<Figure, ShapeError> {
    let needed = prices.len().saturating_sub(1);
    same_length("scratch", scratch.len().min(needed), needed)?;
    let logs = &mut scratch[..needed];
    if let Err(undefined) = positive(prices) {
        return Ok(Err(undefined));
    }
    for (log, pair) in logs.iter_mut().zip(prices.windows(2)) {
        *log = logarithm::ln(pair[1] / pair[0]);
    }
    Ok(volatility(logs, settings))
}

/// Mean excess return over its standard deviation, a year. Needs two returns that vary.
pub fn sharpe(returns: &[f64], settings: &Settings) -> Figure {
    if returns.len() < 2 {
        return Err(Undefined::TooFewPeriods);
    }
    Moments::of(returns, settings)?.sharpe(settings)
}

/// Mean return beyond the required one over the downside deviation, a year. Needs one return, and
/// one below the required return.
pub fn sortino(returns: &[f64], settings: &Settings) -> Figure {
    Moments::of(returns, settings)?.sortino(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-12 * b.abs()
    }

    #[test]
    fn the_ratios_follow_their_definitions() {
        let returns = [0.01, -0.02, 0.03, 0.0];
        let settings = Settings::new(252.0, 0.001, 0.05).unwrap();
        // mean 0.005, deviations 0.005 -0.025 0.025 -0.005
        let deviation = (0.0013_f64 / 3.0).sqrt();
        assert!(close(volatility(&returns, &settings).unwrap(), deviation * 252_f64.sqrt()));
        assert!(close(sharpe(&returns, &settings).unwrap(), 0.004 / deviation * 252_f64.sqrt()));
        let downside = ((0.021_f64.powi(2) + 0.001_f64.powi(2)) / 4.0).sqrt();
        assert!(close(sortino(&returns, &settings).unwrap(), 0.004 / downside * 252_f64.sqrt()));
        let zero = settings.with_required_return(0.0).unwrap();
        assert!(close(sortino(&returns, &zero).unwrap(), 0.005 / 0.01 * 252_f64.sqrt()));
    }

    #[test]
    fn returns_that_do_not_vary_have_no_ratio() {
        let settings = Settings::default();
        let flat = [0.01; 10];
        assert_eq!(sharpe(&flat, &settings), Err(Undefined::NoVariation));
        assert_eq!(sortino(&flat, &settings), Err(Undefined::NoDownside));
        assert!(volatility(&flat, &settings).unwrap() < 1e-15);
        let mut growth = vec![1.0];
        (0..100).for_each(|i| growth.push(growth[i] * 1.01));
        let mut returns = vec![0.0; 100];
        super::super::returns_of_prices(&growth, &mut returns).unwrap().unwrap();
        assert_eq!(sharpe(&returns, &settings), Err(Undefined::NoVariation));
    }

    #[test]
    fn one_return_has_no_deviation() {
        let settings = Settings::default();
        assert_eq!(volatility(&[0.1], &settings), Err(Undefined::TooFewPeriods));
        assert_eq!(sharpe(&[0.1, f64::NAN], &settings), Err(Undefined::NotFinite));
    }

    #[test]
    fn log_returns_of_prices() {
        let settings = Settings::new(1.0, 0.0, 0.05).unwrap();
        let prices = [1.0, 2.0, 1.0];
        let volatility = close_to_close_volatility(&prices, &settings, &mut [0.0; 2]).unwrap().unwrap();
        assert!(close(volatility, 2.0_f64.ln() * 2.0_f64.sqrt()));
        assert!(close_to_close_volatility(&prices, &settings, &mut [0.0; 1]).is_err());
        let broken = close_to_close_volatility(&[1.0, 0.0, 1.0], &settings, &mut [0.0; 2]).unwrap();
        assert_eq!(broken, Err(Undefined::NotPositive));
        let few = close_to_close_volatility(&[], &settings, &mut []).unwrap();
        assert_eq!(few, Err(Undefined::TooFewPeriods));
    }
}
