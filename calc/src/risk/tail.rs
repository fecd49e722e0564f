//! The worst returns, as they were.

use super::{Settings, Undefined, usable};
use crate::series::{ShapeError, same_length};

/// Historical value at risk and what lies beyond it, as returns: losses are negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    /// The return that the `alpha` share of periods falls below.
    pub value_at_risk: f64,
    /// The mean return of that share.
    pub conditional: f64,
}

/// The tail of the returns. Needs one return; `scratch` holds at least as many values as `returns`
/// and is overwritten.
pub fn tail(
    returns: &[f64],
    settings: &Settings,
    scratch: &mut [f64],
) -> Result<Result<Tail, Undefined>, ShapeError> {
    same_length("scratch", scratch.len().min(returns.len()), returns.len())?;
    if let Err(undefined) = usable(returns, 1) {
        return Ok(Err(undefined));
    }
    let scratch = &mut scratch[..returns.len()];
    scratch.copy_from_slice(returns);
    let tail = of_finite(scratch, settings.alpha);
    let finite = tail.value_at_risk.is_finite() && tail.conditional.is_finite();
    Ok(if finite { Ok(tail) } else { Err(Undefined::NotFinite) })
}

/// The tail of at least one finite return; puts them out of order.
fn of_finite(returns: &mut [f64], alpha: f64) -> Tail {
    let rank = (returns.len() - 1) as f64 * alpha;
    let whole = rank.floor();
    let (_, &mut floor, above) = returns.select_nth_unstable_by(whole as usize, f64::total_cmp);
    let ceiling = above.iter().copied().fold(f64::INFINITY, f64::min);
    let ceiling = if above.is_empty() { floor } else { ceiling };
    let value_at_risk = interpolate(floor, ceiling, rank - whole);
    // Sorted, so that the sum does not depend on how the selection left them.
    let worst = &mut returns[..=whole as usize];
    worst.sort_unstable_by(f64::total_cmp);
    let conditional = worst.iter().sum::<f64>() / worst.len() as f64;
    Tail { value_at_risk, conditional }
}

/// The point `share` of the way from `floor` to `ceiling`, measured from the nearer end.
fn interpolate(floor: f64, ceiling: f64, share: f64) -> f64 {
    let step = ceiling - floor;
    if share == 0.0 {
        floor
    } else if share < 0.5 {
        floor + step * share
    } else {
        ceiling - step * (1.0 - share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(returns: &[f64], alpha: f64) -> Tail {
        let settings = Settings::new(252.0, 0.0, alpha).unwrap();
        tail(returns, &settings, &mut vec![0.0; returns.len()]).unwrap().unwrap()
    }

    #[test]
    fn the_quantile_is_interpolated() {
        let returns = [0.03, -0.04, 0.01, -0.02, 0.05];
        assert_eq!(at(&returns, 0.25), Tail { value_at_risk: -0.02, conditional: -0.03 });
        let tail = at(&returns, 0.05);
        assert!((tail.value_at_risk - -0.036).abs() < 1e-15);
        assert_eq!(tail.conditional, -0.04);
        assert_eq!(at(&[0.5], 0.05), Tail { value_at_risk: 0.5, conditional: 0.5 });
    }

    #[test]
    fn a_scratch_that_is_too_short_is_refused() {
        assert!(tail(&[0.1, 0.2], &Settings::default(), &mut [0.0]).is_err());
        let nan = tail(&[f64::NAN], &Settings::default(), &mut [0.0]).unwrap();
        assert_eq!(nan, Err(Undefined::NotFinite));
    }
}
