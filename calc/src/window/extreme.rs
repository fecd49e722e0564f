//! The rolling highest and lowest value.
//!
//! A maximum does not round and does not mind in which order, or how often, a value is looked at. So
//! batch and stream may differ in how they find it.
//!
//! The batch covers a window by four shorter ones that overlap, and each of those by four of a
//! quarter: runs of 4, 16, 64 bars, each a pass over a tile that stays in the nearest cache, eight
//! bars at a time. Long windows, and the stream, go by blocks of one window: a window then is the end
//! of one block and the beginning of the next, and its extreme that of two running extremes, one of
//! the older block from its end backwards, one of the newer from its beginning on. Three comparisons
//! a bar, whatever the window. Neither way has a branch that depends on prices.
//!
//! Of several equal zeros either sign may be found; who shows the extreme adds `0.0` to it.

use crate::lanes::{Lanes, Wide};
use std::marker::PhantomData;

/// Which extreme is sought.
pub(crate) trait Side: Copy + std::fmt::Debug + Send + Sync + 'static {
    /// What every value beats.
    const WORST: f64;

    /// The more extreme of the two.
    fn pick<V: Lanes>(a: V, b: V) -> V;

    /// The first is the more extreme one, not an equal one.
    fn beats(a: f64, b: f64) -> bool;
}

/// Seeks the highest value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Highest;

/// Seeks the lowest value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lowest;

impl Side for Highest {
    const WORST: f64 = f64::NEG_INFINITY;

    #[inline]
    fn pick<V: Lanes>(a: V, b: V) -> V {
        a.top(b)
    }

    #[inline]
    fn beats(a: f64, b: f64) -> bool {
        a > b
    }
}

impl Side for Lowest {
    const WORST: f64 = f64::INFINITY;

    #[inline]
    fn pick<V: Lanes>(a: V, b: V) -> V {
        a.bottom(b)
    }

    #[inline]
    fn beats(a: f64, b: f64) -> bool {
        a < b
    }
}

/// Values of a tile, and of the passes over it.
const TILE: usize = 1_024;

/// Longest window that goes by tiles: half of a tile is then new.
const TILED_MAX: usize = TILE / 2;

/// Writes the extreme of every full window: `out[i]` is that of `input[i..i + window]`.
pub(crate) fn extremes<S: Side>(input: &[f64], window: usize, out: &mut [f64]) {
    if window > TILED_MAX {
        return by_blocks::<S>(input, window, out);
    }
    let mut tiles = [[0.0; TILE]; 2];
    let step = TILE + 1 - window;
    for (tile, out) in out.chunks_mut(step).enumerate() {
        by_tile::<S>(&input[tile * step..][..out.len() + window - 1], window, &mut tiles, out);
    }
}

/// The extremes of one tile; what is kept from pass to pass lies in `tiles` in turn.
fn by_tile<S: Side>(input: &[f64], window: usize, tiles: &mut [[f64; TILE]; 2], out: &mut [f64]) {
    let [mut runs, mut next] = tiles.each_mut().map(|tile| &mut tile[..input.len()]);
    let mut run = 1;
    let mut begun = false;
    while 4 * run <= window {
        let from = if begun { &*runs } else { input };
        let whole = input.len() + 1 - 4 * run;
        cover::<S>(from, [0, run, 2 * run, 3 * run], &mut next[..whole]);
        std::mem::swap(&mut runs, &mut next);
        (run, begun) = (4 * run, true);
    }
    let rest = window - run;
    cover::<S>(if begun { runs } else { input }, [0, run.min(rest), (2 * run).min(rest), rest], out);
}

/// Writes to `out[i]` the most extreme of the values so far behind `from[i]`.
#[inline]
fn cover<S: Side>(from: &[f64], behind: [usize; 4], out: &mut [f64]) {
    let len = out.len();
    let [a, b, c, d] = behind.map(|behind| &from[behind..][..len]);
    let whole = len / Wide::WIDTH * Wide::WIDTH;
    for at in (0..whole).step_by(Wide::WIDTH) {
        let load = |values: &[f64]| Wide::load(&values[at..][..Wide::WIDTH]);
        let most = S::pick(S::pick(load(a), load(b)), S::pick(load(c), load(d)));
        most.store(&mut out[at..][..Wide::WIDTH]);
    }
    for at in whole..len {
        out[at] = S::pick(S::pick(a[at], b[at]), S::pick(c[at], d[at]));
    }
}

/// The extremes by blocks of one window.
fn by_blocks<S: Side>(input: &[f64], window: usize, out: &mut [f64]) {
    for start in (0..out.len()).step_by(window) {
        let block = &input[start..start + window];
        let targets = out.len().min(start + window);
        let out = &mut out[start..targets];
        // Backwards over the older block: the extreme from a bar to the block's end.
        let mut most = S::WORST;
        for at in (0..window).rev() {
            most = S::pick(block[at], most);
            if let Some(out) = out.get_mut(at) {
                *out = most;
            }
        }
        // Forwards over the newer, which the first of these windows does not reach.
        let newer = &input[start + window..][..out.len() - 1];
        let mut most = S::WORST;
        for (out, &value) in out[1..].iter_mut().zip(newer) {
            most = S::pick(value, most);
            *out = S::pick(*out, most);
        }
    }
}

/// The streaming rolling extreme. Before the window is full it is the extreme so far.
///
/// It goes block by block as the batch does: the push that ends a block turns the block's values
/// into its suffix extremes, so that push costs a window and all others a comparison or two.
#[derive(Clone, Debug)]
pub(crate) struct Rolling<S> {
    /// Before `at` the values of this block, from `at` on the suffix extremes of the block before.
    slots: Box<[f64]>,
    at: usize,
    /// The extreme of this block so far.
    best: f64,
    side: PhantomData<S>,
}

impl<S: Side> Rolling<S> {
    pub(crate) fn new(window: usize) -> Self {
        let slots = vec![S::WORST; window].into_boxed_slice();
        Self { slots, at: 0, best: S::WORST, side: PhantomData }
    }

    /// The extreme of this block, and of the window, after `value`.
    fn after(&self, value: f64) -> (f64, f64) {
        let best = S::pick(value, self.best);
        (best, self.slots.get(self.at + 1).map_or(best, |&suffix| S::pick(suffix, best)))
    }

    pub(crate) fn push(&mut self, value: f64) -> f64 {
        let (best, extreme) = self.after(value);
        self.best = best;
        self.slots[self.at] = value;
        self.at += 1;
        if self.at == self.slots.len() {
            self.end_block();
        }
        extreme
    }

    pub(crate) fn peek(&self, value: f64) -> f64 {
        self.after(value).1
    }

    fn end_block(&mut self) {
        let mut best = S::WORST;
        for slot in self.slots.iter_mut().rev() {
            best = S::pick(*slot, best);
            *slot = best;
        }
        self.at = 0;
        self.best = S::WORST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(input: &[f64], window: usize, at: usize) -> f64 {
        input[(at + 1).saturating_sub(window)..=at].iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    fn saw(len: usize) -> Vec<f64> {
        (0..len).map(|i| ((i * 37) % 19) as f64 - (i % 5) as f64).collect()
    }

    #[test]
    fn the_stream_agrees_with_a_scan_and_peek_with_push() {
        let input = saw(200);
        for window in [1, 2, 3, 7, 50, 300] {
            let mut rolling = Rolling::<Highest>::new(window);
            for (at, &value) in input.iter().enumerate() {
                assert_eq!(rolling.peek(value), naive(&input, window, at));
                assert_eq!(rolling.push(value), naive(&input, window, at));
            }
        }
    }

    #[test]
    fn tiles_and_blocks_agree_with_a_scan() {
        for (len, window) in
            [(200, 7), (9, 1), (100, 99), (5_000, 30), (3_000, 512), (3_000, 513), (1_200, 1_200)]
        {
            let input = saw(len);
            let mut out = vec![f64::NAN; len + 1 - window];
            for way in [extremes::<Highest>, by_blocks::<Highest>] {
                way(&input, window, &mut out);
                for (at, &found) in out.iter().enumerate() {
                    assert_eq!(found, naive(&input, window, at + window - 1), "{len} {window} {at}");
                }
            }
        }
    }

    #[test]
    fn every_window_up_to_a_tile_agrees_with_blocks() {
        let input: Vec<f64> = (0..1_300).map(|i| f64::from((i * 7_919) % 1_009)).collect();
        for window in 1..=TILED_MAX {
            let mut outs = [vec![f64::NAN; 1_301 - window], vec![f64::NAN; 1_301 - window]];
            extremes::<Lowest>(&input, window, &mut outs[0]);
            by_blocks::<Lowest>(&input, window, &mut outs[1]);
            assert_eq!(outs[0], outs[1], "{window}");
        }
    }
}
