//! For which processor this binary was compiled, and proof that it runs on one.
//!
//! `wide` chooses its instructions when it is compiled, not when it runs. So there are two binaries:
//! the baseline, and one for x86-64-v3. Whoever computes holds a [`Cpu`], which is made only where
//! every instruction compiled in is there.

use std::fmt;

/// Which instructions this binary may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// Those of every processor of the architecture.
    Baseline,
    /// Those of x86-64-v3: AVX2 and its companions.
    V3,
}

impl Build {
    /// The name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::V3 => "v3",
        }
    }

    /// What this processor could run.
    #[must_use]
    pub fn best() -> Self {
        if V3.iter().all(|feature| (feature.found)()) { Self::V3 } else { Self::Baseline }
    }
}

/// What this binary was compiled for.
pub const BUILD: Build =
    if cfg!(all(target_feature = "avx2", target_feature = "fma", target_feature = "bmi2")) {
        Build::V3
    } else {
        Build::Baseline
    };

/// Proof that this processor has every instruction this binary may use.
#[derive(Clone, Copy, Debug)]
pub struct Cpu(());

impl Cpu {
    /// Looks at the processor; the error names the first instruction set it lacks.
    pub fn proven() -> Result<Self, MissingFeature> {
        let needed: &[Feature] = if BUILD == Build::V3 { &V3 } else { &[] };
        match needed.iter().find(|feature| !(feature.found)()) {
            Some(feature) => Err(MissingFeature { feature: feature.name }),
            None => Ok(Self(())),
        }
    }
}

/// An instruction set that this binary was compiled for and this processor lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MissingFeature {
    /// Its name.
    pub feature: &'static str,
}

impl fmt::Display for MissingFeature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this binary needs a processor with {}", self.feature)
    }
}

impl std::error::Error for MissingFeature {}

struct Feature {
    name: &'static str,
    found: fn() -> bool,
}

macro_rules! features {
    ($($name:tt)*) => {[$(Feature {
        name: $name,
        #[cfg(target_arch = "x86_64")]
        found: || std::arch::is_x86_feature_detected!($name),
        #[cfg(not(target_arch = "x86_64"))]
        found: || false,
    }),*]};
}

/// What x86-64-v3 adds to the baseline.
static V3: [Feature; 8] = features!("avx" "avx2" "bmi1" "bmi2" "f16c" "fma" "lzcnt" "movbe");

/// Asks for the cache line of a value, into the second cache; a place outside of the column costs nothing.
#[inline(always)]
pub(crate) fn foresee(column: &[f64], at: usize) {
    ask(column.as_ptr().wrapping_add(at));
}

#[inline(always)]
fn ask(place: *const f64) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        #[allow(unsafe_code, reason = "an instruction that has no safe form")]
        // SAFETY: a prefetch reads nothing and faults nowhere, whatever the address; SSE is in the baseline.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(place.cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// Values of a cache line.
pub(crate) const LINE: usize = 8;

/// Asks for the next stretch of rows side by side: a whole stretch of one row after the other.
///
/// Eight rows of four columns are 32 streams, more than a processor foresees by itself, and memory that is
/// asked for a line of each in turn opens another of its pages for every line.
#[derive(Debug)]
pub(crate) struct Ahead<const I: usize, const O: usize> {
    read: [*const f64; I],
    written: [*const f64; O],
    stride: usize,
    /// Where the stretch begins in its row.
    from: usize,
    row: usize,
    line: usize,
}

impl<const I: usize, const O: usize> Ahead<I, O> {
    /// Lines of a stretch: a page of 4 KiB.
    const LINES: usize = 64;

    /// So few rows need no help.
    pub(crate) const NEEDED: bool = I + O > 2;

    /// Rows `stride` apart that are gone over from their beginnings.
    pub(crate) fn new(read: &[&[f64]; I], written: &[&mut [f64]; O], stride: usize) -> Self {
        let (read, written) = (read.map(<[f64]>::as_ptr), written.each_ref().map(|column| column.as_ptr()));
        Self { read, written, stride, from: Self::LINES * LINE, row: 0, line: 0 }
    }

    /// The share of every eight bars of the rows.
    #[inline(always)]
    pub(crate) fn ask(&mut self) {
        let mut left = ROWS * (I + O);
        while left > 0 {
            let (column, lane) = (self.row / ROWS, self.row % ROWS);
            let column = if column < I { self.read[column] } else { self.written[column - I] };
            let start = column.wrapping_add(lane * self.stride + self.from);
            let until = Self::LINES.min(self.line + left);
            (self.line..until).for_each(|line| ask(start.wrapping_add(line * LINE)));
            left -= until - self.line;
            self.line = until;
            if until == Self::LINES {
                (self.line, self.row) = (0, self.row + 1);
            }
            if self.row == ROWS * (I + O) {
                (self.row, self.from) = (0, self.from + Self::LINES * LINE);
            }
        }
    }
}

/// Rows side by side.
const ROWS: usize = 8;

/// Rows of one column side by side, eight of them, which begin `stride` apart.
///
/// Their ends are checked once, when it is made; a block costs one comparison instead of two a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Abreast<'a> {
    column: &'a [f64],
    stride: usize,
    /// Where the last whole block of a row begins.
    last: usize,
}

impl<'a> Abreast<'a> {
    /// Rows of `len` values, four at least, of which the first begins with the column.
    pub(crate) fn new(column: &'a [f64], stride: usize, len: usize) -> Self {
        Self { column, stride, last: last_block(column.len(), stride, len) }
    }

    /// Four values of each row, from `at` on.
    #[inline(always)]
    pub(crate) fn block(&self, at: usize) -> [&'a [f64; 4]; ROWS] {
        assert!(at <= self.last, "a block ends within its row");
        let row = |lane: usize| {
            #[allow(
                unsafe_code,
                reason = "the compiler cannot see that rows of one stride end with the column"
            )]
            // SAFETY: `last_block` has checked that the last row ends within the column; this one ends no later
            // than it, and `at` is at most where a row's last block begins. Arrays are aligned as their values.
            unsafe {
                &*self.column.as_ptr().add(lane * self.stride + at).cast()
            }
        };
        [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)]
    }
}

/// As [`Abreast`], to be written.
#[derive(Debug)]
pub(crate) struct AbreastMut<'a> {
    column: &'a mut [f64],
    stride: usize,
    last: usize,
}

impl<'a> AbreastMut<'a> {
    /// Rows of `len` values, four at least, of which the first begins with the column.
    pub(crate) fn new(column: &'a mut [f64], stride: usize, len: usize) -> Self {
        let last = last_block(column.len(), stride, len);
        Self { column, stride, last }
    }

    /// Writes four values of one row, from `at` on.
    #[inline(always)]
    pub(crate) fn put(&mut self, at: usize, block: [[f64; 4]; ROWS]) {
        assert!(at <= self.last, "a block ends within its row");
        for (lane, values) in block.into_iter().enumerate() {
            #[allow(
                unsafe_code,
                reason = "the compiler cannot see that rows of one stride end with the column"
            )]
            // SAFETY: as for `Abreast::block`; the column is borrowed for writing as long as this lives.
            unsafe {
                *self.column.as_mut_ptr().add(lane * self.stride + at).cast() = values;
            }
        }
    }

    /// The whole column.
    pub(crate) const fn column(&self) -> &[f64] {
        self.column
    }
}

/// Where the last block of a row of `len` values begins, when rows `stride` apart end within a column of so many.
fn last_block(column: usize, stride: usize, len: usize) -> usize {
    let ends = stride.checked_mul(ROWS - 1).and_then(|from| from.checked_add(len));
    assert!(ends.is_some_and(|ends| ends <= column), "rows end within their column");
    assert!(len >= 4, "rows have a block");
    len - 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_written_where_they_lie() {
        let values: Vec<f64> = (0..7 * 10 + 9).map(f64::from).collect();
        let rows = Abreast::new(&values, 10, 9);
        assert_eq!(rows.block(5)[7], &[75.0, 76.0, 77.0, 78.0]);
        let mut copy = vec![0.0; values.len()];
        let mut out = AbreastMut::new(&mut copy, 10, 9);
        out.put(5, rows.block(5).map(|block| *block));
        assert_eq!(copy[15..19], values[15..19]);
        assert_eq!(copy.iter().filter(|value| **value != 0.0).count(), 32);
    }

    #[test]
    #[should_panic(expected = "rows end within their column")]
    fn rows_that_end_behind_their_column_are_not_made() {
        Abreast::new(&[0.0; 78], 10, 9);
    }

    #[test]
    #[should_panic(expected = "rows end within their column")]
    fn rows_so_far_apart_that_the_sum_overflows_are_not_made() {
        Abreast::new(&[0.0; 78], usize::MAX / 4, 9);
    }

    #[test]
    #[should_panic(expected = "a block ends within its row")]
    fn a_block_behind_the_row_is_not_read() {
        Abreast::new(&[0.0; 79], 10, 9).block(6);
    }

    #[test]
    #[should_panic(expected = "a block ends within its row")]
    fn a_block_behind_the_row_is_not_written() {
        AbreastMut::new(&mut [0.0; 79], 10, 9).put(6, [[0.0; 4]; 8]);
    }

    #[test]
    fn this_machine_runs_what_it_runs() {
        Cpu::proven().unwrap();
        assert!(BUILD == Build::Baseline || Build::best() == Build::V3);
    }
}
