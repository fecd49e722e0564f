//! On-balance volume: the running total of volume, added when the close rose, taken off when it
//! fell, left alone when it stood.
//!
//! Lookback 0: the first value is the first volume. Plainly summed, as TA-Lib does, which is exact
//! for whole volumes below 2^53 in total. Where it is exact the order of the additions does not show,
//! and a batch adds eight rows of bars side by side; elsewhere it adds bar after bar.

use crate::dispatch::{Abreast, AbreastMut, LINE, foresee};
use crate::entry::{Entry, SINGLE};
use crate::indicator::{Kernel, Live, Rows, outputs};
use crate::lanes::{BLOCK, Lanes, Wide, load_block, load_each, store_block};
use crate::series::{Bar, Column};
use std::sync::Arc;

pub(super) static OBV: Entry = Entry {
    name: "obv",
    aliases: &[],
    summary: "on-balance volume",
    columns: &[Column::Close, Column::Volume],
    params: &[],
    outputs: SINGLE,
    build: |_| Ok(Arc::new(Obv)),
};

/// Bars of a row: rows do not begin in the same sets of the first-level cache.
const ROW: usize = 136;

/// Bars whose signed volumes are worked out together before they are summed.
const TILE: usize = Wide::WIDTH * ROW;

/// Whole numbers whose sizes come to less than this are summed exactly in any order.
const EXACT: f64 = 4_503_599_627_370_496.0;

#[derive(Clone, Copy, Debug)]
struct Obv;

impl Kernel for Obv {
    fn lookback(&self) -> usize {
        0
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let [out] = outputs(outs);
        let (close, volume) = (rows.column(Column::Close), rows.column(Column::Volume));
        let Some(&first) = volume.first() else { return };
        out[0] = first;
        let mut total = first;
        let mut flows = [0.0; TILE];
        let before = close.chunks(TILE);
        let after = close[1..].chunks(TILE).zip(volume[1..].chunks(TILE));
        for ((before, (after, volume)), out) in before.zip(after).zip(out[1..].chunks_mut(TILE)) {
            total = tile(total, [before, after, volume], &mut flows, out);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(ObvStream { last: None })
    }
}

/// Writes the totals of some bars behind `total`, and returns the last.
fn tile(total: f64, bars: [&[f64]; 3], flows: &mut [f64; TILE], out: &mut [f64]) -> f64 {
    if out.len() == TILE {
        let mut sums = [0.0; Wide::WIDTH];
        let mut size = size(total);
        for (row, sum) in sums.iter_mut().enumerate() {
            let from = row * ROW;
            let bars = bars.map(|column| &column[from..][..ROW]);
            let (flow, more) = row_flows(bars, &mut flows[from..][..ROW]);
            *sum = flow;
            size += more;
        }
        if size < EXACT {
            return side_by_side(total, sums, flows, out);
        }
    }
    let [before, after, volume] = bars;
    let mut total = total;
    for (((out, &before), &after), &volume) in out.iter_mut().zip(before).zip(after).zip(volume) {
        total += flow(before, after, volume);
        *out = total;
    }
    total
}

/// Writes the signed volumes of a row. Their sum and the sum of their sizes.
fn row_flows(bars: [&[f64]; 3], flows: &mut [f64]) -> (f64, f64) {
    // Of nothing the sum is -0: it leaves every number's sign alone.
    let (mut sum, mut sizes) = (Wide::splat(-0.0), Wide::splat(0.0));
    for at in (0..ROW).step_by(Wide::WIDTH) {
        // The same place in the next tile.
        for column in bars {
            foresee(column, at + TILE);
        }
        let [before, after, volume] = load_each(&bars, at);
        let flow = flow(before, after, volume);
        flow.store(&mut flows[at..][..Wide::WIDTH]);
        sum = sum + flow;
        sizes = sizes + size(volume);
    }
    let across = |lanes: Wide| (1..Wide::WIDTH).fold(lanes.lane(0), |sum, lane| sum + lanes.lane(lane));
    (across(sum), across(sizes))
}

/// Totals of a tile whose sums are exact, from `total` and the sum of each row.
fn side_by_side(mut total: f64, sums: [f64; Wide::WIDTH], flows: &[f64; TILE], out: &mut [f64]) -> f64 {
    let mut totals = Wide::gather(|row| {
        let begins = total;
        total += sums[row];
        begins
    });
    let (rows, mut out) = (Abreast::new(flows, ROW, ROW), AbreastMut::new(out, ROW, ROW));
    for at in (0..ROW).step_by(BLOCK) {
        // As much of the next tile as is done of this one, in one piece.
        (0..BLOCK).for_each(|line| foresee(out.column(), TILE + Wide::WIDTH * at + LINE * line));
        let flows = load_block(rows.block(at));
        let first = totals + flows[0];
        let second = first + flows[1];
        let third = second + flows[2];
        totals = third + flows[3];
        out.put(at, store_block([first, second, third, totals]));
    }
    total
}

/// The size of a whole number; of any other infinity.
#[inline(always)]
fn size<V: Lanes>(value: V) -> V {
    let (size, units) = (value.abs(), V::splat(EXACT));
    // So large a number has no digits behind the point: what `size` has of them is rounded off.
    let rounded = (size + units) - units;
    V::select(rounded.le(size) & size.le(rounded), size, V::splat(f64::INFINITY))
}

/// Volume with the sign of the price change. Selections, no branches: the direction of a market is
/// not predictable, and a mispredicted branch costs more than all else here.
#[inline(always)]
fn flow<V: Lanes>(before: V, after: V, volume: V) -> V {
    let rising = V::select(before.lt(after), volume, V::splat(0.0));
    V::select(after.lt(before), V::splat(-0.0) - volume, rising)
}

/// The streaming state: close and total of the last bar.
#[derive(Clone, Copy, Debug)]
struct ObvStream {
    last: Option<(f64, f64)>,
}

impl ObvStream {
    fn total(&self, bar: Bar) -> f64 {
        match self.last {
            None => bar.volume,
            Some((close, total)) => total + flow(close, bar.close, bar.volume),
        }
    }
}

impl Live for ObvStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let total = self.total(bar);
        self.last = Some((bar.close, total));
        outs[0] = total;
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        outs[0] = self.total(bar);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{Bars, Columns};

    #[test]
    fn volume_follows_the_close() {
        let (close, volume) = ([1.0, 2.0, 2.0, 1.0], [5.0, 7.0, 9.0, 2.0]);
        let bars = Bars::new(Columns { close: &close, volume: Some(&volume), ..Columns::default() }).unwrap();
        let mut out = [0.0; 4];
        Obv.batch(&Rows::of(&bars), &mut [&mut out], &mut []);
        assert_eq!(out, [5.0, 12.0, 12.0, 10.0]);
        Obv.batch(&Rows::of(&Bars::from_close(&[])), &mut [&mut []], &mut []);
    }

    /// Closes that rise, fall and stand, and a bar's volume by its place.
    fn assert_rows_are_the_stream(len: usize, volume: impl Fn(usize) -> f64) {
        let close: Vec<f64> = (0..len).map(|at| ((at * 7_919) % 13 / 2) as f64).collect();
        let volume: Vec<f64> = (0..len).map(volume).collect();
        let bars = Bars::new(Columns { close: &close, volume: Some(&volume), ..Columns::default() }).unwrap();
        let mut out = vec![0.0; len];
        Obv.batch(&Rows::of(&bars), &mut [&mut out], &mut []);
        let mut stream = ObvStream { last: None };
        for (row, batch) in out.iter().enumerate() {
            let mut live = [0.0];
            let bar = Bar { open: 0.0, high: 0.0, low: 0.0, close: close[row], volume: volume[row] };
            stream.push(bar, &mut live);
            assert_eq!(batch.to_bits(), live[0].to_bits(), "{len} bars, bar {row}");
        }
    }

    #[test]
    fn rows_side_by_side_have_the_bits_of_the_stream() {
        for len in [1, 2, TILE, TILE + 1, TILE + 2, 5 * TILE + 77] {
            assert_rows_are_the_stream(len, |at| (at * 31 % 977) as f64);
            assert_rows_are_the_stream(len, |at| at as f64 * 0.1);
            assert_rows_are_the_stream(len, |_| -0.0);
            assert_rows_are_the_stream(len, |at| if at % 3_000 == 2_999 { 0.3 } else { 1e3 });
            assert_rows_are_the_stream(len, |at| (at as f64 + 1.0) * 2e12 + 1.0);
            assert_rows_are_the_stream(len, |at| if at % 2_500 == 0 { 1e300 } else { 3.0 });
        }
    }

    #[test]
    fn only_whole_numbers_have_a_size() {
        assert_eq!([0.0, -3.0, 4e15].map(size), [0.0, 3.0, 4e15]);
        assert_eq!([0.5, -1e-300, 1e15 + 0.125, f64::NAN].map(size), [f64::INFINITY; 4]);
    }
}
