//! The rolling highest and lowest value.
//!
//! A maximum does not round and does not mind in which order, or how often, a value is looked at. So
//! batch and stream may differ in how they find it.
//!
//! The batch covers a window by two runs of a power of two that overlap. Runs of up to sixteen bars
//! are found in registers, longer ones of two half as long, each a pass over a tile that stays in the
//! nearest cache. Long windows, and the stream, go by blocks of one window: a window then is the end
//! of one block and the beginning of the next, and its extreme that of two running extremes, one of
//! the older block from its end backwards, one of the newer from its beginning on. Three comparisons
//! a bar, whatever the window. Neither way has a branch that depends on prices.
//!
//! Of several equal zeros either sign may be found; so `0.0` is added to an extreme that is shown.

use crate::dispatch::foresee;
use crate::lanes::{Lanes, Wide};
use std::marker::PhantomData;
use wide::f64x4;

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

    #[inline(always)]
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

    #[inline(always)]
    fn pick<V: Lanes>(a: V, b: V) -> V {
        a.bottom(b)
    }

    #[inline]
    fn beats(a: f64, b: f64) -> bool {
        a < b
    }
}

/// Values of a tile, and of the passes over it: all that a bar needs stays in the nearest cache.
const TILE: usize = 992;

/// Longest window that goes by tiles: about half of a tile is then new.
const TILED_MAX: usize = 512;

/// Fewest windows that go by tiles, which have to be cleared first.
const TILED_MIN: usize = 256;

/// Bars of the first pass at once: longest run that it finds in registers.
const FIRST: usize = 16;

/// What is kept from pass to pass lies in two of them in turn, whose lines begin where vectors do.
#[repr(align(64))]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tile([f64; TILE + FIRST]);

impl Tile {
    pub(crate) const EMPTY: Self = Self([0.0; TILE + FIRST]);

    /// New windows of a tile: a multiple of what vectors hold.
    pub(crate) const fn windows(window: usize) -> usize {
        (TILE + 1 - window) / 8 * 8
    }
}

/// The extremes of runs of a power of two; two that overlap cover a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs<'a, S> {
    values: &'a [f64],
    /// Where the second run begins.
    behind: usize,
    side: PhantomData<S>,
}

impl<'a, S: Side> Runs<'a, S> {
    /// For a tile's worth of windows; what more there is of the input is looked at where that saves a branch.
    pub(crate) fn of(input: &'a [f64], window: usize, windows: usize, tiles: &'a mut [Tile; 2]) -> Self {
        let longest = 1 << window.ilog2();
        let bars = windows + window - 1;
        let [runs, next] = tiles;
        let (mut runs, mut next) = (&mut runs.0, &mut next.0);
        let mut run = longest.min(FIRST);
        match run {
            1 => {}
            2 => first::<S, 2>(input, bars - 1, runs),
            4 => first::<S, 4>(input, bars - 3, runs),
            8 => first::<S, 8>(input, bars - 7, runs),
            _ => first::<S, FIRST>(input, bars + 1 - FIRST, runs),
        }
        while run < longest {
            let shorter = Runs::<S> { values: &*runs, behind: run, side: PhantomData };
            shorter.find::<false>(&mut next[..bars + 1 - 2 * run], &[]);
            std::mem::swap(&mut runs, &mut next);
            run *= 2;
        }
        Self { values: if run == 1 { input } else { runs }, behind: window - run, side: PhantomData }
    }

    /// What the two runs of `len` windows see.
    #[inline(always)]
    pub(crate) fn looks(&self, len: usize) -> [&'a [f64]; 2] {
        [&self.values[..len], &self.values[self.behind..][..len]]
    }

    /// The extreme of the windows from `at` on.
    #[inline(always)]
    pub(crate) fn most<V: Lanes>([first, second]: [&[f64]; 2], at: usize) -> V {
        S::pick(V::load(&first[at..][..V::WIDTH]), V::load(&second[at..][..V::WIDTH]))
    }

    /// Writes the extremes and asks for as much of what comes `next`; `SHOWN`, a zero is positive.
    fn find<const SHOWN: bool>(&self, out: &mut [f64], next: &[f64]) {
        let len = out.len();
        let looks = self.looks(len);
        let whole = len / Wide::WIDTH * Wide::WIDTH;
        for at in (0..whole).step_by(Wide::WIDTH) {
            if !next.is_empty() {
                foresee(next, at);
            }
            let most = Self::most::<Wide>(looks, at);
            let most = if SHOWN { most + Wide::splat(0.0) } else { most };
            most.store(&mut out[at..][..Wide::WIDTH]);
        }
        for (out, at) in out[whole..].iter_mut().zip(whole..) {
            let most: f64 = Self::most(looks, at);
            *out = if SHOWN { most + 0.0 } else { most };
        }
    }
}

/// Runs of four bars that begin with the next sixteen.
#[inline(always)]
fn fours<S: Side, const RUN: usize>(input: &[f64]) -> [f64x4; 4] {
    let bars: &[f64] = &input[..FIRST + 3];
    let run = |from: usize| {
        let look = |behind: usize| f64x4::load(&bars[from + behind..][..4]);
        let two = S::pick(look(0), look(1));
        if RUN == 2 { two } else { S::pick(two, S::pick(look(2), look(3))) }
    };
    [run(0), run(4), run(8), run(12)]
}

/// Writes the extremes of `len` runs of `RUN` bars, and of a few more where the input has them.
fn first<S: Side, const RUN: usize>(input: &[f64], len: usize, out: &mut [f64; TILE + FIRST]) {
    let mut at = 0;
    if input.len() >= FIRST + 3 {
        let mut now = fours::<S, RUN>(input);
        // Runs of eight and sixteen bars are made of those of four a whole vector on.
        while at < len && input.len() >= at + 2 * FIRST + 3 {
            let next = fours::<S, RUN>(&input[at + FIRST..]);
            let all = [now[0], now[1], now[2], now[3], next[0], next[1], next[2]];
            let eight = |vector: usize| S::pick(all[vector], all[vector + 1]);
            let eights = [eight(0), eight(1), eight(2), eight(3), eight(4), eight(5)];
            for vector in 0..4 {
                let run = match RUN {
                    FIRST => S::pick(eights[vector], eights[vector + 2]),
                    8 => eights[vector],
                    _ => now[vector],
                };
                run.store(&mut out[at + 4 * vector..][..4]);
            }
            now = next;
            at += FIRST;
        }
    }
    for at in at..len {
        out[at] = input[at..at + RUN].iter().fold(S::WORST, |most, &value| S::pick(value, most));
    }
}

/// Whether so many windows go by tiles.
pub(crate) const fn tiled(window: usize, windows: usize) -> bool {
    window <= TILED_MAX && windows >= TILED_MIN
}

/// Writes the extreme of every full window, a zero positive: `out[i]` is that of `input[i..i + window]`.
pub(crate) fn extremes<S: Side>(input: &[f64], window: usize, out: &mut [f64]) {
    if !tiled(window, out.len()) {
        by_blocks::<S>(input, window, out);
        return out.iter_mut().for_each(|value| *value += 0.0);
    }
    let mut tiles = [Tile::EMPTY; 2];
    let step = Tile::windows(window);
    for (tile, out) in out.chunks_mut(step).enumerate() {
        let input = &input[tile * step..];
        let next = input.get(step + window..).unwrap_or_default();
        Runs::<S>::of(input, window, out.len(), &mut tiles).find::<true>(out, next);
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
        for (len, window) in [
            (200, 7),
            (9, 1),
            (100, 99),
            (300, 1),
            (300, 3),
            (5_000, 30),
            (3_000, 512),
            (3_000, 513),
            (1_200, 1_200),
        ] {
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
