//! Rows turned into lanes and back, four bars at once: always inlined, so that they stay in registers.

use super::{Lanes, Wide};
use crate::dispatch::Abreast;
use wide::f64x4;

/// Bars turned at once: what fits in registers between a load and a store.
pub(crate) const BLOCK: usize = 4;

/// Four bars of every lane's row, for each column.
#[inline(always)]
pub(crate) fn load_blocks<const I: usize>(columns: &[Abreast<'_>; I], at: usize) -> [[Wide; BLOCK]; I] {
    let mut blocks = [[Wide::splat(0.0); BLOCK]; I];
    // Not `map`: the compiler would make it a call, and its arrays lie in memory.
    for (block, rows) in blocks.iter_mut().zip(columns) {
        *block = load_block(rows.block(at));
    }
    blocks
}

/// Four bars of every lane's row. Written out: a loop over an array of vectors keeps it in memory.
#[inline(always)]
pub(crate) fn load_block(rows: [&[f64; BLOCK]; Wide::WIDTH]) -> [Wide; BLOCK] {
    let row = |at: usize| f64x4::new(*rows[at]);
    let low = f64x4::transpose([row(0), row(1), row(2), row(3)]);
    let high = f64x4::transpose([row(4), row(5), row(6), row(7)]);
    let bar = |at: usize| Wide::of(low[at], high[at]);
    [bar(0), bar(1), bar(2), bar(3)]
}

/// The rows of four bars of every lane.
#[inline(always)]
pub(crate) fn store_block(bars: [Wide; BLOCK]) -> [[f64; BLOCK]; Wide::WIDTH] {
    let half = |at: usize| bars[at].halves();
    let low = f64x4::transpose([half(0).0, half(1).0, half(2).0, half(3).0]);
    let high = f64x4::transpose([half(0).1, half(1).1, half(2).1, half(3).1]);
    let (row, other) = (|at: usize| low[at].to_array(), |at: usize| high[at].to_array());
    [row(0), row(1), row(2), row(3), other(0), other(1), other(2), other(3)]
}

/// One bar of a block of each column.
#[inline(always)]
pub(crate) fn bar<const I: usize>(blocks: &[[Wide; BLOCK]; I], at: usize) -> [Wide; I] {
    let mut bar = [Wide::splat(0.0); I];
    for (value, block) in bar.iter_mut().zip(blocks) {
        *value = block[at];
    }
    bar
}

/// The block of one output.
#[inline(always)]
pub(crate) fn output<const O: usize>(bars: &[[Wide; O]; BLOCK], output: usize) -> [Wide; BLOCK] {
    [bars[0][output], bars[1][output], bars[2][output], bars[3][output]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::array::from_fn;

    #[test]
    fn rows_go_in_and_come_out() {
        let rows: [[f64; 4]; 8] = from_fn(|lane| from_fn(|bar| (lane * 50 + bar) as f64));
        let bars = load_block(rows.each_ref());
        assert!((0..8).all(|lane| bars[2].lane(lane) == (lane * 50 + 2) as f64));
        assert_eq!(store_block(bars), rows);
    }
}
