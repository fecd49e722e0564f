//! How long ago the highest or the lowest value of a window was, the newest of equal ones.
//!
//! Blocks of one window as for the extreme itself, with the bar beside the value; batch and stream
//! take the same steps, in slots that the batch is lent and the stream owns.

use super::Side;
use std::marker::PhantomData;

/// A value and its bar.
#[derive(Clone, Copy, Debug)]
struct Spot {
    value: f64,
    bar: f64,
}

/// Seeks the place of an extreme in slots of type `B`, two values a bar of the window.
#[derive(Clone, Debug)]
pub(crate) struct Place<S, B> {
    /// Values, then bars: before `at` those of this block, from `at` on, for each bar of the block
    /// before, the extreme from there to that block's end.
    slots: [B; 2],
    at: usize,
    /// The coming bar.
    bar: f64,
    /// The extreme of this block so far.
    most: Spot,
    side: PhantomData<S>,
}

impl<S: Side, B: AsRef<[f64]> + AsMut<[f64]>> Place<S, B> {
    /// Before the first bar; both slots have the window's length.
    pub(crate) fn new(mut slots: [B; 2]) -> Self {
        slots[0].as_mut().fill(S::WORST);
        slots[1].as_mut().fill(0.0);
        Self { slots, at: 0, bar: 0.0, most: Spot { value: S::WORST, bar: 0.0 }, side: PhantomData }
    }

    /// The extreme of this block, and the bars since that of the window, after `value`.
    #[inline]
    fn next(&self, value: f64) -> (Spot, f64) {
        let most = if S::beats(self.most.value, value) { self.most } else { Spot { value, bar: self.bar } };
        let [values, bars] = self.slots.each_ref().map(|slots| slots.as_ref().get(self.at + 1));
        let older = values.zip(bars).filter(|(older, _)| S::beats(**older, most.value));
        (most, self.bar - older.map_or(most.bar, |(_, &bar)| bar))
    }

    /// Takes a value and returns the bars since the extreme of the window.
    #[inline]
    pub(crate) fn after(&mut self, value: f64) -> f64 {
        let (most, since) = self.next(value);
        self.most = most;
        let [values, bars] = self.slots.each_mut().map(AsMut::as_mut);
        (values[self.at], bars[self.at]) = (value, self.bar);
        self.at += 1;
        self.bar += 1.0;
        if self.at == values.len() {
            self.end_block();
        }
        since
    }

    /// What [`after`](Self::after) would return; the state stays.
    #[inline]
    pub(crate) fn glance(&self, value: f64) -> f64 {
        self.next(value).1
    }

    fn end_block(&mut self) {
        let [values, bars] = self.slots.each_mut().map(AsMut::as_mut);
        let mut most = Spot { value: S::WORST, bar: 0.0 };
        for (value, bar) in values.iter_mut().zip(bars).rev() {
            // Backwards, so an equal one is older and does not count; the block's last one always does.
            if S::beats(*value, most.value) {
                most = Spot { value: *value, bar: *bar };
            }
            (*value, *bar) = (most.value, most.bar);
        }
        self.at = 0;
        self.most = Spot { value: S::WORST, bar: 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::window::{Highest, Lowest};

    fn check<S: Side>(input: &[f64], window: usize) {
        let mut place = Place::<S, _>::new([vec![0.0; window], vec![0.0; window]]);
        for at in 0..input.len() {
            let seen = &input[(at + 1).saturating_sub(window)..=at];
            let naive =
                seen.iter().rev().enumerate().fold((0, seen[seen.len() - 1]), |most, (since, &value)| {
                    if S::beats(value, most.1) { (since, value) } else { most }
                });
            assert_eq!(place.glance(input[at]), naive.0 as f64, "{window} {at}");
            assert_eq!(place.after(input[at]), naive.0 as f64, "{window} {at}");
        }
    }

    #[test]
    fn the_newest_of_equals_is_found() {
        let input: Vec<f64> = (0..300).map(|at| f64::from((at * 37) % 11 / 3)).collect();
        for window in [1, 2, 3, 15, 100, 400] {
            check::<Highest>(&input, window);
            check::<Lowest>(&input, window);
        }
    }
}
