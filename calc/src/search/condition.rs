//! Where a condition holds: a bit for each of eight combinations, a byte a bar.

use std::ops::Range;

use super::columns::{Eight, LANES};
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
pub(super) struct Scene {
    lines: Vec<Eight>,
    genes: [[f64; GENES_MAX]; LANES],
    /// Bars before all lines of a combination have values; it decides nothing there.
    begins: [usize; LANES],
}

/// A side of a comparison.
#[derive(Clone, Copy)]
enum Side<'a> {
    Same(&'a [f64; SEEN]),
    Each(&'a [Wide; SEEN]),
    Level(Wide),
}

/// The lines at the bars of one block.
#[derive(Debug, Default)]
pub(super) struct Seen(Vec<Box<Line>>);

/// One of them: eight columns, or one for all.
#[derive(Debug)]
struct Line {
    each: [Wide; SEEN],
    same: [f64; SEEN],
}

impl Scene {
    pub(super) fn new(lines: Vec<Eight>, genes: &[[f64; GENES_MAX]; LANES]) -> Self {
        let begins = |lane: usize| lines.iter().map(|line| line.begins[lane]).max().unwrap_or(0);
        Self { genes: *genes, begins: std::array::from_fn(begins), lines }
    }

    /// Reads the lines at these bars, at most [`BLOCK`] of them, and at the one before.
    pub(super) fn look(&self, bars: &Range<usize>, seen: &mut Seen) {
        let nothing = || Box::new(Line { each: [Wide::splat(f64::NAN); SEEN], same: [f64::NAN; SEEN] });
        seen.0.resize_with(self.lines.len(), nothing);
        let (from, skipped) = bars.start.checked_sub(1).map_or((0, 1), |before| (before, 0));
        for (line, seen) in self.lines.iter().zip(&mut seen.0) {
            if let Some(column) = line.same() {
                seen.same[skipped..][..bars.end - from].copy_from_slice(&column[from..bars.end]);
                seen.same[..skipped].fill(f64::NAN);
            } else {
                line.fill(from..bars.end, &mut seen.each[skipped..]);
                seen.each[..skipped].fill(Wide::splat(f64::NAN));
            }
        }
    }

    /// Writes where the condition holds at the bars that were looked at.
    pub(super) fn holds(&self, cond: &Cond, bars: &Range<usize>, seen: &Seen, found: &mut Bits) {
        self.test(cond, bars, seen, found);
        self.mask(bars.start, found);
    }

    fn test(&self, cond: &Cond, bars: &Range<usize>, seen: &Seen, found: &mut Bits) {
        match *cond {
            Cond::Above(a, b) => above(self.side(a, seen), self.side(b, seen), found),
            Cond::Rises(a, b) => {
                above(self.side(a, seen), self.side(b, seen), found);
                // Where both have values, not above is at or below.
                self.mask_before(bars.start, found);
                for at in (1..SEEN).rev() {
                    found[at] &= !found[at - 1];
                }
            }
            Cond::And(a, b) => {
                let mut other = [0; SEEN];
                self.test(a, bars, seen, found);
                self.test(b, bars, seen, &mut other);
                found.iter_mut().zip(other).for_each(|(found, other)| *found &= other);
            }
            Cond::Or(a, b) => {
                let mut other = [0; SEEN];
                self.test(a, bars, seen, found);
                self.test(b, bars, seen, &mut other);
                found.iter_mut().zip(other).for_each(|(found, other)| *found |= other);
            }
        }
    }

    fn side<'a>(&self, operand: Operand, seen: &'a Seen) -> Side<'a> {
        match operand {
            Operand::Line(line) if self.lines[line].same().is_some() => Side::Same(&seen.0[line].same),
            Operand::Line(line) => Side::Each(&seen.0[line].each),
            Operand::Gene(gene) => Side::Level(Wide::gather(|lane| self.genes[lane][gene])),
            Operand::Number(number) => Side::Level(Wide::splat(number)),
        }
    }

    /// Takes away what a combination says before it has all its lines.
    fn mask(&self, start: usize, found: &mut Bits) {
        for (lane, begins) in self.begins.iter().enumerate() {
            // `found[1]` is the bar `start`.
            let silent = (begins + 1).saturating_sub(start).min(SEEN);
            found[..silent].iter_mut().for_each(|found| *found &= !(1 << lane));
        }
    }

    /// As if each combination were above at the last bar at which it has not all its lines: nothing rises from there.
    fn mask_before(&self, start: usize, found: &mut Bits) {
        for (lane, begins) in self.begins.iter().enumerate() {
            if let Some(last) = (*begins).checked_sub(start).filter(|last| *last < SEEN) {
                found[last] |= 1 << lane;
            }
        }
    }
}

/// Where the first is above the second.
fn above(a: Side<'_>, b: Side<'_>, found: &mut Bits) {
    match a {
        Side::Same(a) => above_other(|at| Wide::splat(a[at]), b, found),
        Side::Each(a) => above_other(|at| a[at], b, found),
        Side::Level(a) => above_other(|_| a, b, found),
    }
}

#[inline]
fn above_other(a: impl Fn(usize) -> Wide, b: Side<'_>, found: &mut Bits) {
    match b {
        Side::Same(b) => each(a, |at| Wide::splat(b[at]), found),
        Side::Each(b) => each(a, |at| b[at], found),
        Side::Level(b) => each(a, |_| b, found),
    }
}

#[inline]
fn each(a: impl Fn(usize) -> Wide, b: impl Fn(usize) -> Wide, found: &mut Bits) {
    for (at, found) in found.iter_mut().enumerate() {
        *found = Wide::bits(b(at).lt(a(at))) as u8;
    }
}
