//! What is made of the highest and the lowest value of a window.

use super::extreme::{Runs, Tile, tiled};
use super::{Highest, Lowest, Rolling, extremes};
use crate::dispatch::foresee;
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::lanes::{Lanes, Wide};
use crate::series::{Bar, Column};
use std::fmt::Debug;
use std::marker::PhantomData;

/// `O` outputs made of a channel.
pub(crate) trait Between<const O: usize>: Copy + Debug + Send + Sync + 'static {
    /// The column whose highest is sought, the one whose lowest is, and the one that stands between.
    const READS: [Column; 3];

    /// The outputs; a zero among the extremes may have either sign.
    fn of<V: Lanes>(highest: V, lowest: V, now: V) -> [V; O];
}

/// The channel of so many bars, and what `F` makes of it, as an indicator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Channel<F, const O: usize> {
    window: usize,
    of: PhantomData<F>,
}

impl<F: Between<O>, const O: usize> Channel<F, O> {
    pub(crate) const fn new(window: usize) -> Self {
        Self { window, of: PhantomData }
    }

    /// The state before the first bar.
    pub(crate) fn running(self) -> ChannelStream<F, O> {
        let (highest, lowest) = (Rolling::new(self.window), Rolling::new(self.window));
        ChannelStream { missing: self.window - 1, highest, lowest, of: PhantomData }
    }

    /// Writes the outputs of every full window; `outs` begin where the first one ends. `scratch` is
    /// as long as the input.
    pub(crate) fn full(self, input: [&[f64]; 3], mut outs: [&mut [f64]; O], scratch: [&mut [f64]; 2]) {
        let len = outs[0].len();
        if !tiled(self.window, len) {
            return self.plain(input, outs, scratch);
        }
        let (mut above, mut below) = ([Tile::EMPTY; 2], [Tile::EMPTY; 2]);
        let step = Tile::windows(self.window);
        for from in (0..len).step_by(step) {
            let bars = step.min(len - from);
            let input = input.map(|column| &column[from..]);
            let highest = Runs::<Highest>::of(input[0], self.window, bars, &mut above);
            let lowest = Runs::<Lowest>::of(input[1], self.window, bars, &mut below);
            let now = &input[2][self.window - 1..][..bars];
            let next = input.map(|column| column.get(step + self.window..).unwrap_or_default());
            Self::tile(
                [highest.looks(bars), lowest.looks(bars)],
                now,
                outs.each_mut().map(|out| &mut out[from..][..bars]),
                next,
            );
        }
    }

    /// The last look for both extremes, and what is made of them before either is written. What comes
    /// `next` is asked for meanwhile.
    fn tile([highest, lowest]: [[&[f64]; 2]; 2], now: &[f64], mut outs: [&mut [f64]; O], next: [&[f64]; 3]) {
        let len = now.len();
        let whole = len / Wide::WIDTH * Wide::WIDTH;
        for at in (0..whole).step_by(Wide::WIDTH) {
            for column in next {
                foresee(column, at);
            }
            let now = Wide::load(&now[at..][..Wide::WIDTH]);
            let values = F::of(Runs::<Highest>::most(highest, at), Runs::<Lowest>::most(lowest, at), now);
            for (out, value) in outs.iter_mut().zip(values) {
                value.store(&mut out[at..][..Wide::WIDTH]);
            }
        }
        for at in whole..len {
            let values = F::of(Runs::<Highest>::most(highest, at), Runs::<Lowest>::most(lowest, at), now[at]);
            for (out, value) in outs.iter_mut().zip(values) {
                out[at] = value;
            }
        }
    }

    /// The same one after the other, where tiles do not pay.
    fn plain(self, [high, low, now]: [&[f64]; 3], mut outs: [&mut [f64]; O], scratch: [&mut [f64]; 2]) {
        let len = outs[0].len();
        let [highest, lowest] = scratch.map(|column| &mut column[..len]);
        extremes::<Highest>(high, self.window, highest);
        extremes::<Lowest>(low, self.window, lowest);
        for (at, now) in now[self.window - 1..].iter().enumerate() {
            for (out, value) in outs.iter_mut().zip(F::of(highest[at], lowest[at], *now)) {
                out[at] = value;
            }
        }
    }
}

impl<F: Between<O>, const O: usize> Kernel for Channel<F, O> {
    fn lookback(&self) -> usize {
        self.window - 1
    }

    fn scratch_columns(&self) -> usize {
        2
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let mut outs: [_; O] = outputs(outs);
        for out in &mut outs {
            fill_warm_up(out, self.lookback());
        }
        if rows.len() >= self.window {
            let outs = outs.map(|out| &mut out[self.window - 1..]);
            self.full(F::READS.map(|column| rows.column(column)), outs, outputs(scratch));
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(self.running())
    }
}

/// The streaming state.
#[derive(Clone, Debug)]
pub(crate) struct ChannelStream<F, const O: usize> {
    /// Bars until the window is full.
    missing: usize,
    highest: Rolling<Highest>,
    lowest: Rolling<Lowest>,
    of: PhantomData<F>,
}

impl<F: Between<O>, const O: usize> ChannelStream<F, O> {
    /// Takes a bar and returns its outputs, once the window is full.
    #[inline]
    pub(crate) fn after(&mut self, bar: Bar) -> Option<[f64; O]> {
        let [high, low, now] = F::READS.map(|column| bar.value(column));
        let (highest, lowest) = (self.highest.push(high), self.lowest.push(low));
        if self.missing > 0 {
            self.missing -= 1;
            return None;
        }
        Some(F::of(highest, lowest, now))
    }

    /// The outputs that [`after`](Self::after) would return; the state stays.
    #[inline]
    pub(crate) fn glance(&self, bar: Bar) -> Option<[f64; O]> {
        let [high, low, now] = F::READS.map(|column| bar.value(column));
        (self.missing == 0).then(|| F::of(self.highest.peek(high), self.lowest.peek(low), now))
    }
}

impl<F: Between<O>, const O: usize> Live for ChannelStream<F, O> {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&self.after(bar).unwrap_or([f64::NAN; O]));
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&self.glance(bar).unwrap_or([f64::NAN; O]));
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
