//! A strategy's score and the confidence in it.
//!
//! The formulas are those of an existing platform; its inputs are corrected: figures are taken of the
//! equity, not of the price, and annualised with the real number of periods a year.

use crate::risk::{Figure, Undefined};

/// A figure from the range where strategies live to 0 to 1: -1 is 0, 2 is 1.
#[must_use]
pub const fn normalised(figure: f64) -> f64 {
    ((figure + 1.0) / 3.0).clamp(0.0, 1.0)
}

/// What a score is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    /// Sharpe ratio a year.
    pub sharpe: Figure,
    /// Deepest drawdown, 0 to -1.
    pub max_drawdown: Figure,
    /// Share of wins.
    pub win_rate: Figure,
    /// Return a year.
    pub cagr: Figure,
    /// Gains over losses.
    pub profit_factor: Figure,
}

impl Parts {
    /// Name, weight and value from 0 to 1 of every part; one that does not exist counts nothing.
    /// Without losses the profit factor is the best there is.
    pub fn terms(&self) -> [(&'static str, f64, Figure); 5] {
        let profit = match self.profit_factor {
            Err(Undefined::NoLosses) => Ok(1.0),
            figure => figure.map(normalised),
        };
        [
            ("sharpe", 0.25, self.sharpe.map(normalised)),
            ("max_drawdown", 0.20, self.max_drawdown.map(|depth| (1.0 - depth.abs()).clamp(0.0, 1.0))),
            ("win_rate", 0.20, self.win_rate.map(|rate| rate.clamp(0.0, 1.0))),
            ("cagr", 0.20, self.cagr.map(normalised)),
            ("profit_factor", 0.15, profit),
        ]
    }
}

/// The weighted sum of the parts, 0 to 1.
#[must_use]
pub fn score(parts: &Parts) -> f64 {
    parts.terms().iter().map(|(_, weight, value)| weight * value.unwrap_or(0.0)).sum()
}

/// `0.60 performance + 0.25 min(count / count_max, 1) + 0.15 max(0, 1 - days / 30)`, of the performance
/// from 0 to 1, how often the strategy was seen and how long ago that was. No `count_max`, no second
/// term.
#[must_use]
pub fn confidence(performance: f64, count: f64, count_max: f64, days: f64) -> f64 {
    let seen = if count_max > 0.0 { (count / count_max).clamp(0.0, 1.0) } else { 0.0 };
    0.60 * performance.clamp(0.0, 1.0) + 0.25 * seen + 0.15 * (1.0 - days / 30.0).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: Parts = Parts {
        sharpe: Ok(0.5),
        max_drawdown: Ok(-0.25),
        win_rate: Ok(0.5),
        cagr: Ok(0.2),
        profit_factor: Ok(2.0),
    };

    #[test]
    fn the_parts_are_weighed() {
        let expected = 0.25 * 0.5 + 0.20 * 0.75 + 0.20 * 0.5 + 0.20 * 0.4 + 0.15;
        assert!((score(&PARTS) - expected).abs() < 1e-15);
        let lossless = Parts { profit_factor: Err(Undefined::NoLosses), ..PARTS };
        assert_eq!(score(&lossless), score(&PARTS));
        let unknown = Parts { sharpe: Err(Undefined::NoVariation), ..PARTS };
        assert!((score(&unknown) - (expected - 0.125)).abs() < 1e-15);
        assert_eq!((normalised(-9.0), normalised(2.0), normalised(9.0)), (0.0, 1.0, 1.0));
    }

    #[test]
    fn confidence_fades_and_is_bounded() {
        assert!((confidence(0.5, 5.0, 10.0, 15.0) - (0.3 + 0.125 + 0.075)).abs() < 1e-15);
        assert_eq!(confidence(1.0, 50.0, 10.0, 0.0), 1.0);
        assert_eq!(confidence(0.0, 5.0, 0.0, 90.0), 0.0);
        assert!((confidence(9.0, 0.0, 1.0, 30.0) - 0.6).abs() < 1e-15);
    }
}
