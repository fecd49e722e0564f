//! Several segments side by side: one lane of a vector each.
//!
//! A running sum is a chain in which every bar waits for the one before. Segments do not wait for
//! each other, so eight chains advance together. Each lane does the very operations of the plain
//! loop, in the same order: the bits are the same.

use std::array::from_fn;
use wide::f64x8;

/// Segments side by side.
pub(super) const LANES: usize = 8;

/// Bars read and written together.
const BLOCK: usize = 4;

/// Advances [`LANES`] segments together from their second bar on. `input` begins with the first
/// window of the first segment, `out` with its first bar; `step` takes the oldest and the newest
/// value of every lane and returns what goes to `out`.
pub(super) fn each_bar(
    input: &[f64],
    window: usize,
    out: &mut [f64],
    mut step: impl FnMut(f64x8, f64x8) -> f64x8,
) {
    let segment = out.len() / LANES;
    let mut rows = out.chunks_exact_mut(segment);
    let mut outs: [&mut [[f64; BLOCK]]; LANES] =
        from_fn(|_| rows.next().map_or(&mut [][..], |row| row[1..].as_chunks_mut().0));
    let rows = |from: usize| -> [&[[f64; BLOCK]]; LANES] {
        from_fn(|lane| input[from + lane * segment..][..segment - 1].as_chunks().0)
    };
    let (oldest, newest) = (rows(0), rows(window));
    for block in 0..segment / BLOCK {
        let oldest: [&[f64; BLOCK]; LANES] = from_fn(|lane| &oldest[lane][block]);
        let newest: [&[f64; BLOCK]; LANES] = from_fn(|lane| &newest[lane][block]);
        let values: [[f64; LANES]; BLOCK] = from_fn(|bar| {
            let oldest = f64x8::new(from_fn(|lane| oldest[lane][bar]));
            let newest = f64x8::new(from_fn(|lane| newest[lane][bar]));
            step(oldest, newest).to_array()
        });
        for (lane, out) in outs.iter_mut().enumerate() {
            out[block] = from_fn(|bar| values[bar][lane]);
        }
    }
}
