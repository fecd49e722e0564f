//! Risk and performance of a series of simple returns, one a period, oldest first.
//!
//! Every figure is a [`Figure`]: a finite number, or the reason why there is none. Let `r` be the
//! returns, `N` their number, `A` the periods a year, `rf` the risk-free return a period.
//!
//! | figure | definition |
//! |---|---|
//! | volatility | `std(r, ddof 1) * sqrt(A)` |
//! | close-to-close volatility | `std(ln(C / C before), ddof 1) * sqrt(A)` |
//! | Sharpe | `mean(r - rf) / std(r - rf, ddof 1) * sqrt(A)` |
//! | Sortino | `mean(r - t) / sqrt(mean(min(r - t, 0)^2)) * sqrt(A)` over all `N`, `t` the required return |
//! | drawdown | `E / peak - 1` with `E` the product of `1 + r` from 1, the start counting as a peak |
//! | value at risk | the `alpha` quantile of `r`, interpolated linearly (`(N - 1) * alpha`) |
//! | conditional value at risk | the mean of the `floor((N - 1) * alpha) + 1` smallest `r` |
//!
//! | total return, CAGR | `E - 1`, `E^(A / N) - 1` with `E` the product of `1 + r` |
//! | Calmar, recovery | CAGR, or the sum of `r`, over the deepest drawdown |
//! | Omega | `sum(max(r - t, 0)) / sum(max(t - r, 0))`, `t` from a return a year |
//! | ulcer, pain | `sqrt(sum(D^2) / (N - 1))`, `mean(-D)` with `D` the drawdown after each return |
//! | tail ratio | the 0.95 quantile over the 0.05 quantile, without sign |
//! | parametric VaR, CVaR | `mean + z s`, `mean - s phi(z) / alpha`, `s` the standard deviation |
//! | Cornish-Fisher VaR | the same with `z` corrected for skewness and excess kurtosis |
//! | skew, kurtosis | `m3 / m2^1.5`, `m4 / m2^2 - 3` of the population's moments |
//! | stability | the share of the variance of the sum of `ln(1 + r)` that a straight line explains |
//! | Kelly | `p - (1 - p) / b` by win rate and payoff; continuous: `mean / s^2` |
//! | beta, alpha | `cov(r, f) / var(f)`, `(1 + mean(r - rf - beta (f - rf)))^A - 1` with `f` the benchmark |
//! | information ratio, Treynor | `mean(r - f) / std(r - f, ddof 1)` a period, `(CAGR - rf A) / beta` |
//! | PSR, DSR | the probability that the true Sharpe ratio is above 0, or above the best of many trials |
//!
//! Value at risk and its conditional form are returns, so losses are negative.

mod drawdown;
mod fit;
mod logarithm;
mod moments;
mod monthly;
pub mod normal;
mod range;
mod ratio;
mod relative;
mod returns;
mod settings;
mod sharpe;
mod summary;
mod sums;
mod tail;
mod trades;
mod undefined;

pub use drawdown::{Drawdown, drawdown_of_equity, drawdown_of_returns, each_drawdown};
pub use monthly::Month;
pub use range::{RangeVolatility, range_volatility};
pub use ratio::{close_to_close_volatility, sharpe, sortino, volatility};
pub use relative::{Relative, relative};
pub use returns::returns_of_prices;
pub use settings::{Settings, SettingsError};
pub use sharpe::Sample;
pub use summary::{FIGURES, Parametric, Reader, Summary, summary};
pub use tail::{Tail, tail};
pub use trades::{Outcomes, streaks};
pub use undefined::{Figure, Undefined};

use undefined::{finite, usable};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_series_has_no_figure() {
        let summary = summary(&[], &Settings::default(), &mut []).unwrap();
        let few = Undefined::TooFewPeriods;
        assert_eq!((summary.volatility, summary.sharpe, summary.sortino), (Err(few), Err(few), Err(few)));
        assert_eq!((summary.drawdown, summary.tail), (Err(few), Err(few)));
    }

    #[test]
    fn a_figure_is_never_infinite() {
        let huge = [1e308, -1e308, 1e308];
        let summary = summary(&huge, &Settings::default(), &mut [0.0; 3]).unwrap();
        assert_eq!(summary.volatility, Err(Undefined::NotFinite));
        assert_eq!(summary.sharpe, Err(Undefined::NotFinite));
        assert_eq!(summary.drawdown, Err(Undefined::NotPositive));
        assert_eq!(summary.tail, Err(Undefined::NotFinite));
    }
}
