//! Volatility of what happens within bars, not only between their closes.

use super::logarithm::ln;
use super::returns::positive;
use super::{Figure, Settings, Undefined, finite};
use crate::series::{Bars, Column};

/// Weight of the move of the close in Garman and Klass' estimate: `2 ln 2 - 1`.
const CLOSE_WEIGHT: f64 = 2.0 * std::f64::consts::LN_2 - 1.0;

/// Volatility a year by the estimates that need more than closes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RangeVolatility {
    /// Parkinson: `mean(ln(H / L)^2) / (4 ln 2)`. Needs one bar with high and low.
    pub parkinson: Figure,
    /// Garman and Klass: `mean(ln(H / L)^2 / 2 - (2 ln 2 - 1) ln(C / O)^2)`. Needs one whole bar.
    pub garman_klass: Figure,
    /// Rogers and Satchell: `mean(ln(H / C) ln(H / O) + ln(L / C) ln(L / O))`. Needs one whole bar.
    pub rogers_satchell: Figure,
    /// Yang and Zhang: `var(ln(O / C before)) + k var(ln(C / O)) + (1 - k) RS`, all without the first
    /// bar, sample variances, `k = 0.34 / (1.34 + (n + 1) / (n - 1))`. Needs three whole bars.
    pub yang_zhang: Figure,
}

/// The estimates of these bars; every price must be positive.
#[must_use]
pub fn range_volatility(bars: &Bars<'_>, settings: &Settings) -> RangeVolatility {
    let columns = [Column::Open, Column::High, Column::Low, Column::Close].map(|column| {
        let values = bars.column(column).ok_or(Undefined::TooFewPeriods)?;
        if values.is_empty() {
            return Err(Undefined::TooFewPeriods);
        }
        positive(values).map(|()| values)
    });
    let [open, high, low, close] = columns;
    let range = high.and_then(|high| Ok((high, low?)));
    let whole = range.and_then(|(high, low)| Ok([open?, high, low, close?]));
    let year = settings.periods_per_year;
    let annual = |variance: f64| {
        if variance < 0.0 { Err(Undefined::NotPositive) } else { finite((variance * year).sqrt()) }
    };
    RangeVolatility {
        parkinson: range.and_then(|(high, low)| annual(parkinson(high, low))),
        garman_klass: whole.and_then(|bars| annual(mean(bars, garman_klass))),
        rogers_satchell: whole.and_then(|bars| annual(mean(bars, rogers_satchell))),
        yang_zhang: whole.and_then(|bars| annual(yang_zhang(bars)?)),
    }
}

fn parkinson(high: &[f64], low: &[f64]) -> f64 {
    let squares = high.iter().zip(low).map(|(high, low)| ln(high / low).powi(2));
    squares.sum::<f64>() / high.len() as f64 / (4.0 * std::f64::consts::LN_2)
}

/// The mean of an estimate over the bars.
fn mean([open, high, low, close]: [&[f64]; 4], estimate: impl Fn([f64; 4]) -> f64) -> f64 {
    let bars = (0..open.len()).map(|row| estimate([open[row], high[row], low[row], close[row]]));
    bars.sum::<f64>() / open.len() as f64
}

fn garman_klass([open, high, low, close]: [f64; 4]) -> f64 {
    0.5 * ln(high / low).powi(2) - CLOSE_WEIGHT * ln(close / open).powi(2)
}

fn rogers_satchell([open, high, low, close]: [f64; 4]) -> f64 {
    ln(high / close) * ln(high / open) + ln(low / close) * ln(low / open)
}

fn yang_zhang(bars: [&[f64]; 4]) -> Figure {
    let [open, _, _, close] = bars;
    let count = open.len().saturating_sub(1) as f64;
    if count < 2.0 {
        return Err(Undefined::TooFewPeriods);
    }
    let overnight = variance(count, || open[1..].iter().zip(close).map(|(open, close)| ln(open / close)));
    let within = variance(count, || close[1..].iter().zip(&open[1..]).map(|(close, open)| ln(close / open)));
    let weight = 0.34 / (1.34 + (count + 1.0) / (count - 1.0));
    let range = mean(bars.map(|column| &column[1..]), rogers_satchell);
    finite(overnight + weight * within + (1.0 - weight) * range)
}

/// Sample variance of so many values.
fn variance<I: Iterator<Item = f64>>(count: f64, values: impl Fn() -> I) -> f64 {
    let mean = values().sum::<f64>() / count;
    values().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[[f64; 4]]) -> RangeVolatility {
        let column = |at: usize| rows.iter().map(|row| row[at]).collect::<Vec<_>>();
        let [open, high, low, close] = [0, 1, 2, 3].map(column);
        let volume = vec![0.0; rows.len()];
        let settings = Settings::new(1.0, 0.0, 0.05).unwrap();
        range_volatility(&Bars::ohlcv(&open, &high, &low, &close, &volume).unwrap(), &settings)
    }

    fn near(figure: Figure, expected: f64) {
        let value = figure.unwrap();
        assert!((value - expected).abs() < 1e-14, "{value}, {expected}");
    }

    #[test]
    fn the_estimates_follow_their_definitions() {
        let e = std::f64::consts::E;
        // Logarithms: open 0, high 1, low -1, close 0.
        let found = of(&[[1.0, e, 1.0 / e, 1.0]; 3]);
        near(found.parkinson, (1.0 / std::f64::consts::LN_2).sqrt());
        near(found.garman_klass, 2.0_f64.sqrt());
        near(found.rogers_satchell, 2.0_f64.sqrt());
        let weight: f64 = 0.34 / (1.34 + 3.0);
        near(found.yang_zhang, (2.0 * (1.0 - weight)).sqrt());
        // Open to close once 0 and once 1: variance 1/2; overnight 0 and -1, too.
        let found = of(&[[1.0, e, 1.0 / e, 1.0], [1.0, e, 1.0, e], [1.0, e, 1.0, 1.0]]);
        let range = 0.5;
        near(found.yang_zhang, (0.5 + weight * 0.5 + (1.0 - weight) * range).sqrt());
    }

    #[test]
    fn what_cannot_be_estimated_says_why() {
        let few = Err(Undefined::TooFewPeriods);
        assert_eq!(of(&[]).parkinson, few);
        let one = of(&[[1.0, 2.0, 0.5, 1.0]]);
        assert!(one.parkinson.is_ok() && one.garman_klass.is_ok());
        assert_eq!(one.yang_zhang, few);
        assert_eq!(of(&[[1.0, 2.0, 0.0, 1.0]]).garman_klass, Err(Undefined::NotPositive));
        assert_eq!(of(&[[1.0, f64::INFINITY, 1.0, 1.0]]).parkinson, Err(Undefined::NotFinite));
        // A close outside of its bar's range.
        assert_eq!(of(&[[1.0, 1.0, 1.0, 9.0]]).garman_klass, Err(Undefined::NotPositive));
        let closes = range_volatility(&Bars::from_close(&[1.0, 2.0]), &Settings::default());
        assert_eq!(closes.parkinson, few);
    }
}
