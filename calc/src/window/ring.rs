//! The last few values of a stream.

/// The values of the last `window` bars; zeros stand for bars before the first.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    slots: Box<[f64]>,
    oldest: usize,
}

impl Ring {
    pub(crate) fn new(window: usize) -> Self {
        Self { slots: vec![0.0; window].into_boxed_slice(), oldest: 0 }
    }

    /// The value that the next push drops.
    #[inline]
    pub(crate) fn oldest(&self) -> f64 {
        self.slots[self.oldest]
    }

    /// Drops the oldest value and keeps `value` as the newest.
    #[inline]
    pub(crate) fn push(&mut self, value: f64) {
        self.slots[self.oldest] = value;
        self.oldest = if self.oldest + 1 == self.slots.len() { 0 } else { self.oldest + 1 };
    }

    /// The window as it would be after pushing `newest`, oldest first.
    pub(crate) fn window_with(&self, newest: f64) -> impl Iterator<Item = f64> {
        let (late, early) = self.slots.split_at(self.oldest);
        early.iter().chain(late).skip(1).copied().chain([newest])
    }
}

/// The last values, as many as the window has, in one piece: each is written twice, a window apart.
#[derive(Clone, Debug)]
pub(crate) struct Doubled {
    slots: Box<[f64]>,
    oldest: usize,
}

impl Doubled {
    pub(crate) fn new(window: usize) -> Self {
        Self { slots: vec![0.0; 2 * window].into_boxed_slice(), oldest: 0 }
    }

    /// Drops the oldest value and keeps `value` as the newest.
    #[inline]
    pub(crate) fn push(&mut self, value: f64) {
        let window = self.slots.len() / 2;
        self.slots[self.oldest] = value;
        self.slots[self.oldest + window] = value;
        self.oldest = if self.oldest + 1 == window { 0 } else { self.oldest + 1 };
    }

    /// The window, oldest first.
    #[inline]
    pub(crate) fn window(&self) -> &[f64] {
        &self.slots[self.oldest..][..self.slots.len() / 2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubled_window_is_the_last_values_in_one_piece() {
        let mut doubled = Doubled::new(3);
        let mut values = vec![0.0; 3];
        for value in [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0] {
            doubled.push(value);
            values.push(value);
            assert_eq!(doubled.window(), &values[values.len() - 3..]);
        }
    }

    #[test]
    fn the_window_is_the_last_values_in_order() {
        let mut ring = Ring::new(3);
        for value in [1.0, 2.0, 3.0, 4.0] {
            ring.push(value);
        }
        assert_eq!(ring.oldest(), 2.0);
        assert_eq!(ring.window_with(5.0).collect::<Vec<_>>(), [3.0, 4.0, 5.0]);
    }
}
