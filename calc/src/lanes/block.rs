//! Rows turned into lanes and back, four bars at once.

use super::{Lanes, Wide};
use wide::f64x4;

/// Bars turned at once: what fits in registers between a load and a store.
pub(crate) const BLOCK: usize = 4;

/// The first four bars of each lane's row.
#[inline]
pub(crate) fn load_block<'a>(row: impl Fn(usize) -> &'a [f64]) -> [Wide; BLOCK] {
    let (low, high) = (quarter(|lane| row(lane)), quarter(|lane| row(f64x4::WIDTH + lane)));
    [0, 1, 2, 3].map(|bar| Wide::of(low[bar], high[bar]))
}

#[inline]
fn quarter<'a>(row: impl Fn(usize) -> &'a [f64]) -> [f64x4; BLOCK] {
    f64x4::transpose([0, 1, 2, 3].map(|lane| f64x4::load(&row(lane)[..BLOCK])))
}

/// Writes four bars of every lane to the beginnings of rows that begin `stride` apart.
#[inline]
pub(crate) fn store_block(bars: [Wide; BLOCK], out: &mut [f64], stride: usize) {
    let mut from = 0;
    let quarters = [bars.map(|bar| bar.halves().0), bars.map(|bar| bar.halves().1)];
    for quarter in quarters {
        for values in f64x4::transpose(quarter) {
            values.store(&mut out[from..][..BLOCK]);
            from += stride;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_in_and_come_out() {
        let input: Vec<f64> = (0..8 * 50).map(f64::from).collect();
        let bars = load_block(|lane| &input[lane * 50 + 3..]);
        assert!((0..8).all(|lane| bars[2].lane(lane) == (lane * 50 + 5) as f64));
        let mut out = vec![0.0; 8 * 50];
        store_block(bars, &mut out[3..], 50);
        let copied = |at: &usize| (3..7).contains(&(at % 50));
        assert!((0..8 * 50).filter(copied).all(|at| out[at] == input[at]));
        assert!((0..8 * 50).filter(|at| !copied(at)).all(|at| out[at] == 0.0));
    }
}
