//! On-balance volume: the running total of volume, added when the close rose, taken off when it
//! fell, left alone when it stood.
//!
//! Lookback 0: the first value is the first volume. Plainly summed, as TA-Lib does, which is exact
//! for whole volumes below 2^53 in total.

use crate::entry::{Entry, SINGLE};
use crate::indicator::{Kernel, Live, Rows, outputs};
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

/// Bars whose signed volumes are worked out together before they are summed.
const BLOCK_BARS: usize = 1_024;

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
        let before = close.chunks(BLOCK_BARS);
        let after = close[1..].chunks(BLOCK_BARS).zip(volume[1..].chunks(BLOCK_BARS));
        for ((before, (after, volume)), out) in before.zip(after).zip(out[1..].chunks_mut(BLOCK_BARS)) {
            for (((out, &before), &after), &volume) in out.iter_mut().zip(before).zip(after).zip(volume) {
                *out = flow(before, after, volume);
            }
            for out in out {
                total += *out;
                *out = total;
            }
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(ObvStream { last: None })
    }
}

/// Volume with the sign of the price change. Selections, no branches: the direction of a market is
/// not predictable, and a mispredicted branch costs more than all else here.
#[inline]
fn flow(before: f64, after: f64, volume: f64) -> f64 {
    let rising = if after > before { volume } else { 0.0 };
    if after < before { -volume } else { rising }
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
}
