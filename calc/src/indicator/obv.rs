//! On-balance volume: the running total of volume, added when the close rose, taken off when it
//! fell, left alone when it stood.
//!
//! Lookback 0: the first value is the first volume. Plainly summed, as TA-Lib does, which is exact
//! for whole volumes below 2^53 in total.

use super::Stream;
use crate::series::{Bar, ShapeError, same_length};

/// Bars whose signed volumes are worked out together before they are summed.
const BLOCK_BARS: usize = 1_024;

/// On-balance volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Obv;

impl Obv {
    /// Bars before the first value.
    #[must_use]
    pub const fn lookback(&self) -> usize {
        0
    }

    /// Writes the total of every bar; fails when `volume` or `out` is not as long as `close`.
    pub fn batch(&self, close: &[f64], volume: &[f64], out: &mut [f64]) -> Result<(), ShapeError> {
        same_length("volume", volume.len(), close.len())?;
        same_length("output", out.len(), close.len())?;
        let Some(&first) = volume.first() else { return Ok(()) };
        out[0] = first;
        let mut total = first;
        let before = close.chunks(BLOCK_BARS);
        let after = close[1..].chunks(BLOCK_BARS).zip(volume[1..].chunks(BLOCK_BARS));
        for ((before, (after, volume)), out) in before.zip(after).zip(out[1..].chunks_mut(BLOCK_BARS)) {
            for (((out, &before), &after), &volume) in out.iter_mut().zip(before).zip(after).zip(volume) {
                *out = flow(before, after, volume);
            }
            for out in out {
                total += *out;
                *out = total;
            }
        }
        Ok(())
    }

    /// The state before the first bar.
    #[must_use]
    pub fn stream(&self) -> ObvStream {
        ObvStream { last: None }
    }
}

/// Volume with the sign of the price change. Selections, no branches: the direction of a market is
/// not predictable, and a mispredicted branch costs more than all else here.
#[inline]
fn flow(before: f64, after: f64, volume: f64) -> f64 {
    let rising = if after > before { volume } else { 0.0 };
    if after < before { -volume } else { rising }
}

/// Streaming [`Obv`] over bars; reads close and volume.
#[derive(Clone, Copy, Debug)]
pub struct ObvStream {
    /// Close and total of the last bar.
    last: Option<(f64, f64)>,
}

impl Stream for ObvStream {
    type Input = Bar;
    type Output = f64;

    fn push(&mut self, bar: Bar) -> f64 {
        let total = match self.last {
            None => bar.volume,
            Some((close, total)) => total + flow(close, bar.close, bar.volume),
        };
        self.last = Some((bar.close, total));
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_follows_the_close() {
        let mut out = [0.0; 4];
        Obv.batch(&[1.0, 2.0, 2.0, 1.0], &[5.0, 7.0, 9.0, 2.0], &mut out).unwrap();
        assert_eq!(out, [5.0, 12.0, 12.0, 10.0]);
        assert!(Obv.batch(&[1.0], &[], &mut [0.0]).is_err());
        Obv.batch(&[], &[], &mut []).unwrap();
    }
}
