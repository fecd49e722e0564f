//! The rolling highest and lowest value.
//!
//! An extreme is exact, so batch and stream may differ in method: the batch splits the series into
//! blocks of one window and joins the running extreme of a block's end with that of the next
//! block's beginning (three comparisons a bar, whatever the window), the stream keeps the values
//! that can still become the extreme in a queue.

use std::marker::PhantomData;

/// Which extreme is sought.
pub(crate) trait Side: Copy + std::fmt::Debug {
    /// Whether `a` is at least as extreme as `b`.
    fn beats(a: f64, b: f64) -> bool;

    /// The more extreme of the two.
    #[inline]
    fn pick(a: f64, b: f64) -> f64 {
        if Self::beats(a, b) { a } else { b }
    }
}

/// Seeks the highest value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Highest;

/// Seeks the lowest value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lowest;

impl Side for Highest {
    #[inline]
    fn beats(a: f64, b: f64) -> bool {
        a >= b
    }
}

impl Side for Lowest {
    #[inline]
    fn beats(a: f64, b: f64) -> bool {
        a <= b
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
#[derive(Clone, Debug)]
pub(crate) struct Rolling<S> {
    /// Candidates, most extreme first, each with the bar it came with; a ring of one window.
    queue: Box<[(u64, f64)]>,
    front: usize,
    len: usize,
    bar: u64,
    side: PhantomData<S>,
}

impl<S: Side> Rolling<S> {
    pub(crate) fn new(window: usize) -> Self {
        let queue = vec![(0, 0.0); window].into_boxed_slice();
        Self { queue, front: 0, len: 0, bar: 0, side: PhantomData }
    }

    fn slot(&self, place: usize) -> usize {
        let slot = self.front + place;
        if slot < self.queue.len() { slot } else { slot - self.queue.len() }
    }

    /// Whether the front candidate leaves the window when another bar comes.
    fn front_leaves(&self) -> bool {
        self.len > 0 && self.queue[self.front].0 + self.queue.len() as u64 <= self.bar
    }

    pub(crate) fn push(&mut self, value: f64) -> f64 {
        if self.front_leaves() {
            self.front = self.slot(1);
            self.len -= 1;
        }
        while self.len > 0 && S::beats(value, self.queue[self.slot(self.len - 1)].1) {
            self.len -= 1;
        }
        let back = self.slot(self.len);
        self.queue[back] = (self.bar, value);
        self.len += 1;
        self.bar += 1;
        self.queue[self.front].1
    }

    pub(crate) fn peek(&self, value: f64) -> f64 {
        let skip = usize::from(self.front_leaves());
        if self.len == skip { value } else { S::pick(value, self.queue[self.slot(skip)].1) }
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
