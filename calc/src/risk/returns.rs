//! Returns out of prices.

use super::Undefined;
use crate::series::{ShapeError, same_length};

/// Writes the simple return of every price but the first, `price / price before - 1`; serves prices
/// and equity alike. `out` is one shorter than `prices`, empty for none. The outer error is a wrong
/// length, the inner one a price that is not finite or not positive.
pub fn returns_of_prices(prices: &[f64], out: &mut [f64]) -> Result<Result<(), Undefined>, ShapeError> {
    same_length("returns", out.len(), prices.len().saturating_sub(1))?;
    if let Err(undefined) = positive(prices) {
        return Ok(Err(undefined));
    }
    for (out, pair) in out.iter_mut().zip(prices.windows(2)) {
        *out = pair[1] / pair[0] - 1.0;
    }
    Ok(Ok(()))
}

/// Fails unless every price is finite and above zero.
pub(super) fn positive(prices: &[f64]) -> Result<(), Undefined> {
    if !prices.iter().all(|price| price.is_finite()) {
        return Err(Undefined::NotFinite);
    }
    if prices.iter().all(|&price| price > 0.0) { Ok(()) } else { Err(Undefined::NotPositive) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_is_the_relative_change() {
        let mut out = [0.0; 2];
        assert_eq!(returns_of_prices(&[2.0, 3.0, 1.5], &mut out).unwrap(), Ok(()));
        assert_eq!(out, [0.5, -0.5]);
        assert_eq!(returns_of_prices(&[], &mut []).unwrap(), Ok(()));
        assert_eq!(returns_of_prices(&[1.0, 0.0], &mut [0.0]).unwrap(), Err(Undefined::NotPositive));
        assert_eq!(returns_of_prices(&[1.0, f64::NAN], &mut [0.0]).unwrap(), Err(Undefined::NotFinite));
        assert!(returns_of_prices(&[1.0, 2.0], &mut []).is_err());
    }
}
