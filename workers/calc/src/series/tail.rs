//! The newest outputs of indicators over a series, kept for who asks for more bars than one.
//!
//! They are computed once over all rows, and from then on a bar costs what its outputs take. All tails together are
//! bounded; where there is no room for one its owner computes again each time.

use std::collections::VecDeque;
use std::sync::Arc;

use super::space::{Space, Taken};

/// Outputs of the newest rows, bar after bar.
pub(super) struct Tail {
    values: VecDeque<f64>,
    /// Values of a bar.
    width: usize,
    rows_max: usize,
    _taken: Taken,
}

impl Tail {
    /// A tail of so many rows at most, which has those of the columns; `None` where there is no room for it.
    pub(super) fn of(columns: &[Vec<f64>], rows_max: usize, space: &Arc<Space>) -> Option<Self> {
        let (width, rows) = (columns.len(), columns.first()?.len());
        let taken = space.take((width * rows_max * size_of::<f64>()) as u64)?;
        let mut values = VecDeque::with_capacity(width * rows_max);
        values.extend((0..rows).flat_map(|row| columns.iter().map(move |column| column[row])));
        Some(Self { values, width, rows_max, _taken: taken })
    }

    /// Rows that there are.
    pub(super) fn rows(&self) -> usize {
        self.values.len() / self.width
    }

    /// Adds the outputs of the next bar.
    pub(super) fn push(&mut self, outputs: impl Iterator<Item = f64>) {
        if self.rows() == self.rows_max {
            self.values.drain(..self.width);
        }
        self.values.extend(outputs);
    }

    /// The newest values of each output.
    pub(super) fn columns(&self, rows: usize) -> Vec<Vec<f64>> {
        let first = (self.rows() - rows.min(self.rows())) * self.width;
        let column = |at: usize| self.values.range(first..).skip(at).step_by(self.width).copied().collect();
        (0..self.width).map(column).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_has_the_newest_rows_and_room_is_given_back() {
        let space = Space::new(6 * 8);
        let columns = [vec![1.0, 2.0], vec![10.0, 20.0]];
        let mut tail = Tail::of(&columns, 3, &space).unwrap();
        assert!(Tail::of(&columns, 3, &space).is_none());
        for value in [3.0, 4.0] {
            tail.push([value, value * 10.0].into_iter());
        }
        assert_eq!((tail.rows(), tail.columns(2)), (3, vec![vec![3.0, 4.0], vec![30.0, 40.0]]));
        assert_eq!(tail.columns(9)[0], [2.0, 3.0, 4.0]);
        drop(tail);
        assert!(Tail::of(&columns, 3, &space).is_some());
    }
}
