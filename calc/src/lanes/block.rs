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

/// Four bars of every lane's row.
#[inline(always)]
pub(crate) fn load_block(rows: [&[f64; BLOCK]; Wide::WIDTH]) -> [Wide; BLOCK] {
    let [low, high] =
        [0, 4].map(|from| f64x4::transpose([0, 1, 2, 3].map(|row| f64x4::new(*rows[from + row]))));
    [0, 1, 2, 3].map(|bar| Wide::of(low[bar], high[bar]))
}

/// The rows of four bars of every lane.
#[inline(always)]
pub(crate) fn store_block(bars: [Wide; BLOCK]) -> [[f64; BLOCK]; Wide::WIDTH] {
    let low = f64x4::transpose(bars.map(|bar| bar.halves().0));
    let high = f64x4::transpose(bars.map(|bar| bar.halves().1));
    [low[0], low[1], low[2], low[3], high[0], high[1], high[2], high[3]].map(f64x4::to_array)
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
