//! The rolling highest and lowest value.
//!
//! The series is cut into blocks of one window. A window then is the end of one block and the
//! beginning of the next, and its extreme that of two running extremes: one of the older block from
//! its end backwards, one of the newer from its beginning on. Three comparisons a bar, whatever the
//! window, and no branch that depends on prices.

use std::marker::PhantomData;

/// Which extreme is sought.
pub(crate) trait Side: Copy + std::fmt::Debug {
    /// What every value beats.
    const WORST: f64;

    /// The more extreme of the two.
    fn pick(a: f64, b: f64) -> f64;
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
    fn pick(a: f64, b: f64) -> f64 {
        if a > b { a } else { b }
    }
}

impl Side for Lowest {
    const WORST: f64 = f64::INFINITY;

    #[inline]
    fn pick(a: f64, b: f64) -> f64 {
        if a < b { a } else { b }
    }
}

/// For every `j` whose block of `window` values is complete, writes the extreme from `j` to the end
/// of its block to `out[j + window - 1]`, where the window that begins at `j` ends. Blocks are
/// counted from the start of `input`; `blocks` selects some of them.
pub(crate) fn suffix_extremes<S: Side>(
    input: &[f64],
    window: usize,
    blocks: std::ops::Range<usize>,
    out: &mut [f64],
) {
    for block in blocks {
        let start = block * window;
        let block = &input[start..start + window];
        let end = out.len().min(start + 2 * window - 1);
        let targets = &mut out[start + window - 1..end];
        let (kept, rest) = block.split_at(targets.len());
        let mut best = block[window - 1];
        for &value in rest.iter().rev() {
            best = S::pick(best, value);
        }
        for (target, &value) in targets.iter_mut().zip(kept).rev() {
            best = S::pick(best, value);
            *target = best;
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
    fn joined_blocks_agree_with_a_scan() {
        for (len, window) in [(200, 7), (21, 7), (20, 7), (13, 7), (7, 7), (9, 1), (100, 99)] {
            let input = saw(len);
            let mut out = vec![f64::NAN; len];
            suffix_extremes::<Highest>(&input, window, 0..len / window, &mut out);
            for at in window - 1..len {
                let begun = at / window * window;
                let joined = naive(&input[begun..=at], window, at - begun);
                assert_eq!(Highest::pick(out[at], joined), naive(&input, window, at), "{len} {window} {at}");
            }
        }
    }
}
