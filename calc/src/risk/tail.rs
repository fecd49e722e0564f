//! The ends of the distribution of returns, as they were.
//!
//! A quantile of a long series does not need the series in order: a sample says where the end
//! begins, what lies there is copied out without a branch, and only that is selected from and
//! sorted. Where the sample misled, the whole series is.

use super::{Figure, Settings, Undefined, finite, usable};
use crate::lanes::{Lanes, Wide};
use crate::series::{ShapeError, same_length};

/// Historical value at risk and what lies beyond it, as returns: losses are negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tail {
    /// The return that the `alpha` share of periods falls below.
    pub value_at_risk: f64,
    /// The mean return of that share.
    pub conditional: f64,
}

/// The share of the returns whose ends the tail ratio compares.
const TAIL_RATIO: f64 = 0.05;
/// Values the end's beginning is guessed from.
const SAMPLE: usize = 1_024;
/// Shorter series are put in order as a whole.
const SAMPLED_FROM: usize = 8 * SAMPLE;
/// How far behind the wanted rank the guess lies, in values of the sample: four deviations of a
/// rank in the middle.
const MARGIN: usize = 64;

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
    Ok(Ends::of(returns, settings, scratch).tail())
}

/// Both ends of the returns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends {
    tail: Tail,
    low: f64,
    high: f64,
}

impl Ends {
    /// Of at least one finite return; `scratch` is at least as long.
    pub(super) fn of(returns: &[f64], settings: &Settings, scratch: &mut [f64]) -> Self {
        let scratch = &mut scratch[..returns.len()];
        let (at_risk, low) = (Rank::of(settings.alpha, returns.len()), Rank::of(TAIL_RATIO, returns.len()));
        let worst = lowest(returns, at_risk.above.max(low.above), scratch, |value| value);
        let tail = Tail {
            value_at_risk: at_risk.interpolate(worst),
            conditional: worst[..=at_risk.below].iter().sum::<f64>() / (at_risk.below + 1) as f64,
        };
        let low = low.interpolate(worst);
        // The other end is the lowest of the opposite values.
        let high = Rank::of(1.0 - TAIL_RATIO, returns.len());
        let best = lowest(returns, returns.len() - 1 - high.below, scratch, |value| -value);
        Self { tail, low, high: high.interpolate_mirrored(best, returns.len()) }
    }

    pub(super) fn tail(&self) -> Result<Tail, Undefined> {
        let Tail { value_at_risk, conditional } = self.tail;
        let finite = value_at_risk.is_finite() && conditional.is_finite();
        if finite { Ok(self.tail) } else { Err(Undefined::NotFinite) }
    }

    pub(super) fn ratio(&self) -> Figure {
        if self.low == 0.0 { Err(Undefined::NoDownside) } else { finite((self.high / self.low).abs()) }
    }
}

/// The two places of the sorted returns that a quantile lies between.
#[derive(Clone, Copy, Debug)]
struct Rank {
    below: usize,
    above: usize,
    share: f64,
}

impl Rank {
    fn of(quantile: f64, count: usize) -> Self {
        let rank = (count - 1) as f64 * quantile;
        let below = rank.floor();
        let share = rank - below;
        let below = (below as usize).min(count - 1);
        Self { below, above: (below + 1).min(count - 1), share }
    }

    fn interpolate(self, sorted: &[f64]) -> f64 {
        interpolate(sorted[self.below], sorted[self.above], self.share)
    }

    /// The same, of the opposite values from the other end.
    fn interpolate_mirrored(self, sorted: &[f64], count: usize) -> f64 {
        interpolate(-sorted[count - 1 - self.below], -sorted[count - 1 - self.above], self.share)
    }
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

/// The values `of` the returns up to a rank, in order, so that sums of them do not depend on how
/// they were found.
fn lowest<'a>(
    returns: &[f64],
    rank: usize,
    scratch: &'a mut [f64],
    of: impl Fn(f64) -> f64 + Copy,
) -> &'a mut [f64] {
    let mut found = 0;
    if let Some(bound) = bound(returns, rank, of) {
        // A place ahead of those found so far is written each time and counts only if it is wanted;
        // at most as many are found as were read, so the place is there.
        for &value in returns {
            let value = of(value);
            scratch[found] = value;
            found += usize::from(value <= bound);
        }
    }
    if found <= rank {
        for (slot, &value) in scratch.iter_mut().zip(returns) {
            *slot = of(value);
        }
        found = returns.len();
    }
    let (worst, ..) = scratch[..found].select_nth_unstable_by(rank, f64::total_cmp);
    worst.sort_unstable_by(f64::total_cmp);
    &mut scratch[..=rank]
}

/// A value that the one at `rank` is most likely not above; `None` for short series.
fn bound(returns: &[f64], rank: usize, of: impl Fn(f64) -> f64) -> Option<f64> {
    if returns.len() < SAMPLED_FROM {
        return None;
    }
    let stride = returns.len() / SAMPLE;
    let mut sample = [0.0; SAMPLE];
    for (slot, chunk) in sample.iter_mut().zip(returns.chunks_exact(stride)) {
        *slot = of(chunk[0]);
    }
    let wanted = rank / stride + MARGIN;
    (wanted < SAMPLE).then(|| *sample.select_nth_unstable_by(wanted, f64::total_cmp).1)
}

/// The largest value without its sign.
pub(super) fn largest(values: &[f64]) -> f64 {
    let (chunks, rest) = values.as_chunks::<{ Wide::WIDTH }>();
    let lanes = chunks.iter().fold(Wide::splat(0.0), |top, chunk| Lanes::abs(Wide::load(chunk)).top(top));
    let lanes = (0..Wide::WIDTH).map(|lane| lanes.lane(lane));
    lanes.chain(rest.iter().map(|value| value.abs())).fold(0.0, f64::max)
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
    fn a_sample_that_misleads_changes_nothing() {
        // Every value the sample looks at is low, or high, or all are equal.
        for sampled in [-9.0, 9.0, 0.0] {
            let len = SAMPLED_FROM + 77;
            let stride = len / SAMPLE;
            let returns: Vec<f64> = (0..len)
                .map(|at| if at % stride == 0 { sampled } else { (at * 7_919 % 10_007) as f64 * 1e-4 - 0.5 })
                .collect();
            let mut sorted = returns.clone();
            sorted.sort_by(f64::total_cmp);
            for alpha in [1e-6, 0.05, 0.5] {
                let rank = (len - 1) as f64 * alpha;
                let tail = at(&returns, alpha);
                let (floor, ceiling) = (sorted[rank as usize], sorted[rank as usize + 1]);
                assert!((tail.value_at_risk - (floor + (ceiling - floor) * rank.fract())).abs() < 1e-12);
            }
        }
        assert_eq!(at(&vec![0.25; 9_000], 0.05), Tail { value_at_risk: 0.25, conditional: 0.25 });
    }

    #[test]
    fn both_ends_are_compared() {
        let returns: Vec<f64> = (0..=100).map(|at| f64::from(at) / 100.0 - 0.25).collect();
        let ends = Ends::of(&returns, &Settings::default(), &mut [0.0; 101]);
        assert!((ends.ratio().unwrap() - 0.7 / 0.2).abs() < 1e-12);
        let flat = Ends::of(&[0.0; 5], &Settings::default(), &mut [0.0; 5]);
        assert_eq!(flat.ratio(), Err(Undefined::NoDownside));
    }

    #[test]
    fn a_scratch_that_is_too_short_is_refused() {
        assert!(tail(&[0.1, 0.2], &Settings::default(), &mut [0.0]).is_err());
        let nan = tail(&[f64::NAN], &Settings::default(), &mut [0.0]).unwrap();
        assert_eq!(nan, Err(Undefined::NotFinite));
    }
}
