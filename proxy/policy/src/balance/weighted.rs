//! Random by weight.
//!
//! [`Draw`] is Vose's alias table in whole numbers: every candidate has a column of equal height, filled by itself
//! up to a mark and by one other above it; a draw takes a column and a height. Exact for any weights.

use super::field::Candidate;
use crate::random::{below, mix};

/// How often a second draw may find the first one again before its neighbour is taken.
const SECOND_TRIES: u64 = 8;
/// Tells draws of one seed apart.
const HEIGHT: u64 = 0x5bd1_e995_9d1c_3f21;
const SECOND: u64 = 0x2545_f491_4f6c_dd1d;

/// Draws an index by weight in constant time.
#[derive(Debug, Default)]
pub(super) struct Draw {
    /// Mark and the one above it.
    columns: Vec<(u64, usize)>,
    /// Height of a column.
    height: u64,
}

impl Draw {
    /// Of these weights.
    pub(super) fn of(weights: impl Iterator<Item = u64>) -> Self {
        let weights: Vec<u64> = weights.collect();
        let (height, count) = (weights.iter().sum(), weights.len() as u64);
        let mut left: Vec<u64> = weights.iter().map(|weight| weight * count).collect();
        let mut columns: Vec<_> = (0..weights.len()).map(|at| (height, at)).collect();
        let (mut low, mut high): (Vec<_>, Vec<_>) = (0..left.len()).partition(|at| left[*at] < height);
        while let (Some(small), Some(large)) = (low.pop(), high.last().copied()) {
            columns[small] = (left[small], large);
            left[large] -= height - left[small];
            if left[large] < height {
                high.pop();
                low.push(large);
            }
        }
        Self { columns, height }
    }

    /// One; `None` of none.
    pub(super) fn one(&self, seed: u64) -> Option<usize> {
        let at = below(self.columns.len() as u64, seed) as usize;
        let (mark, other) = self.columns.get(at)?;
        Some(if below(self.height, seed ^ HEIGHT) < *mark { at } else { *other })
    }

    /// Two different ones of two or more.
    pub(super) fn two(&self, seed: u64) -> Option<(usize, usize)> {
        let one = self.one(seed)?;
        let mut others = (1..=SECOND_TRIES).filter_map(|n| self.one(mix(seed ^ SECOND.wrapping_mul(n))));
        let other = others.find(|other| *other != one);
        Some((one, other.unwrap_or((one + 1) % self.columns.len())))
    }
}

/// One of the usable candidates, by weight.
pub(super) fn by_weight(
    side: &[Candidate],
    seed: u64,
    usable: impl Fn(&Candidate) -> bool,
) -> Option<&Candidate> {
    let usable = || side.iter().filter(|candidate| usable(candidate));
    let mut ticket = below(usable().map(|candidate| candidate.weight).sum(), seed);
    usable().find(|candidate| {
        let hit = ticket < candidate.weight;
        ticket = ticket.saturating_sub(candidate.weight);
        hit
    })
}
