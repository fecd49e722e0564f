//! Where a condition holds: a bit for each of eight combinations, a byte a bar.

use std::ops::Range;

use super::columns::{Eight, LANES, Tile};
use super::rule::{Cond, Operand};
use super::space::GENES_MAX;
use crate::lanes::{Lanes as _, Wide};

/// Bars of one block: what one step writes and the next reads stays in the nearest cache.
pub(super) const BLOCK: usize = 64;
/// A block and the bar before it.
const SEEN: usize = BLOCK + 1;

/// A byte a bar, a bit a combination; first the bar before the block.
pub(super) type Bits = [u8; SEEN];

/// What conditions speak of, for eight combinations.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    /// The lines; with their lanes, where those are kept.
    lines: Vec<(Eight, Option<&'a [Wide]>)>,
    genes: [[f64; GENES_MAX]; LANES],
    /// Bars before all lines of a combination have values; it decides nothing there.
    begins: [usize; LANES],
}

/// A side of a comparison, at the bars of a block and the one before.
#[derive(Clone, Copy)]
enum Side<'a> {
    Same(&'a [f64]),
    Each(&'a [Wide]),
    Level(Wide),
}

/// Lines whose lanes are not kept, at the bars of one block and the one before.
#[derive(Debug, Default)]
pub(super) struct Seen(Vec<Box<[Wide; SEEN]>>);

impl<'a> Scene<'a> {
    pub(super) fn new(
        lines: Vec<Eight>,
        tiles: &'a mut Vec<Tile>,
        genes: &[[f64; GENES_MAX]; LANES],
    ) -> Self {
        let begins = |lane: usize| lines.iter().map(|line| line.begins[lane]).max().unwrap_or(0);
        let begins = std::array::from_fn(begins);
        tiles.resize_with(lines.len(), Tile::default);
        let kept = |(line, tile): (Eight, &'a mut Tile)| {
            let lanes = tile.of(&line);
            (line, lanes)
        };
        Self { genes: *genes, begins, lines: lines.into_iter().zip(tiles).map(kept).collect() }
    }

    /// Reads the lines at these bars, at most [`BLOCK`] of them, and at the one before.
    pub(super) fn look(&self, bars: &Range<usize>, seen: &mut Seen) {
        seen.0.resize_with(self.lines.len(), || Box::new([Wide::splat(f64::NAN); SEEN]));
        for ((line, kept), seen) in self.lines.iter().zip(&mut seen.0) {
            if kept.is_none() && line.same().is_none() {
                line.fill(bars.start..bars.end + 1, &mut seen[..]);
            }
        }
    }

    /// Writes where the condition holds at the bars that were looked at, and at the one before.
    pub(super) fn holds(&self, cond: &Cond, bars: &Range<usize>, seen: &Seen, found: &mut Bits) {
        let found = &mut found[..=bars.len()];
        self.test(cond, bars, seen, found);
        self.mask(bars.start, found);
    }

    fn test(&self, cond: &Cond, bars: &Range<usize>, seen: &Seen, found: &mut [u8]) {
        let side = |operand| self.side(operand, bars, seen);
        match *cond {
            Cond::Above(a, b) => above(side(a), side(b), found),
            Cond::Rises(a, b) => {
                above(side(a), side(b), found);
                // Where both have values, not above is at or below.
                self.mask_before(bars.start, found);
                for at in (1..found.len()).rev() {
                    found[at] &= !found[at - 1];
                }
            }
            Cond::And(a, b) => {
                let mut other = [0; SEEN];
                let other = &mut other[..found.len()];
                self.test(a, bars, seen, found);
                self.test(b, bars, seen, other);
                found.iter_mut().zip(other).for_each(|(found, other)| *found &= *other);
            }
            Cond::Or(a, b) => {
                let mut other = [0; SEEN];
                let other = &mut other[..found.len()];
                self.test(a, bars, seen, found);
                self.test(b, bars, seen, other);
                found.iter_mut().zip(other).for_each(|(found, other)| *found |= *other);
            }
        }
    }

    fn side<'s>(&'s self, operand: Operand, bars: &Range<usize>, seen: &'s Seen) -> Side<'s> {
        let line = match operand {
            Operand::Line(line) => line,
            Operand::Gene(gene) => return Side::Level(Wide::gather(|lane| self.genes[lane][gene])),
            Operand::Number(number) => return Side::Level(Wide::splat(number)),
        };
        let places = bars.start..bars.end + 1;
        match &self.lines[line] {
            (_, Some(lanes)) => Side::Each(&lanes[places]),
            (eight, None) => match eight.same() {
                Some(column) => Side::Same(&column[places]),
                None => Side::Each(&seen.0[line][..places.len()]),
            },
        }
    }

    /// Takes away what a combination says before it has all its lines.
    fn mask(&self, start: usize, found: &mut [u8]) {
        for (lane, begins) in self.begins.iter().enumerate() {
            // `found[1]` is the bar `start`.
            let silent = (begins + 1).saturating_sub(start).min(found.len());
            found[..silent].iter_mut().for_each(|found| *found &= !(1 << lane));
        }
    }

    /// As if each combination were above at the last bar at which it has not all its lines: nothing rises from there.
    fn mask_before(&self, start: usize, found: &mut [u8]) {
        for (lane, begins) in self.begins.iter().enumerate() {
            if let Some(last) = (*begins).checked_sub(start).filter(|last| *last < found.len()) {
                found[last] |= 1 << lane;
            }
        }
    }
}

/// Where the first is above the second.
fn above(a: Side<'_>, b: Side<'_>, found: &mut [u8]) {
    let bars = found.len();
    match a {
        Side::Same(a) => above_other(a[..bars].iter().map(|a| Wide::splat(*a)), b, found),
        Side::Each(a) => above_other(a[..bars].iter().copied(), b, found),
        Side::Level(a) => above_other(std::iter::repeat(a), b, found),
    }
}

#[inline]
fn above_other(a: impl Iterator<Item = Wide>, b: Side<'_>, found: &mut [u8]) {
    match b {
        Side::Same(b) => each(a, b.iter().map(|b| Wide::splat(*b)), found),
        Side::Each(b) => each(a, b.iter().copied(), found),
        Side::Level(b) => each(a, std::iter::repeat(b), found),
    }
}

#[inline]
fn each(a: impl Iterator<Item = Wide>, b: impl Iterator<Item = Wide>, found: &mut [u8]) {
    for ((found, a), b) in found.iter_mut().zip(a).zip(b) {
        *found = Wide::bits(b.lt(a)) as u8;
    }
}
