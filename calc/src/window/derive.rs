//! Windows over what is made of a bar and the one before: money flows, buying pressure, ranges.

use super::rolling::{Sliding, Window, Windowed};
use super::segment_bars;
use crate::dispatch::foresee;
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::lanes::{Lanes, Wide, load_each};
use crate::series::{Bar, Column};
use std::fmt::Debug;
use std::marker::PhantomData;

/// `I` columns made of `C`.
pub(crate) trait Derived<const C: usize, const I: usize>:
    Copy + Debug + Send + Sync + 'static
{
    /// The columns it reads.
    const READS: [Column; C];

    /// It needs the bar before, so bar 0 has none.
    const LATE: bool;

    /// What this bar and the next both need of this one, so that it is worked out once.
    fn kept<V: Lanes>(_: [V; C]) -> V {
        V::splat(0.0)
    }

    /// The derived values of a bar, by what was kept of the bar before and what is kept of this one.
    fn of<V: Lanes>(kept: [V; 2], now: [V; C]) -> [V; I];

    /// Writes the derived values of every bar that has them: one fewer than the input's bars where
    /// it needs the bar before.
    fn fill(input: [&[f64]; C], mut outs: [&mut [f64]; I]) {
        let (len, late) = (outs[0].len(), usize::from(Self::LATE));
        let mut kept = [0.0; TILE + 1];
        for from in (0..len).step_by(TILE) {
            let bars = TILE.min(len - from);
            let input = input.map(|column| &column[from..][..bars + late]);
            if Self::LATE {
                keep::<Self, C, I>(input, &mut kept[..=bars]);
            }
            let kept = [&kept[..bars], &kept[late..][..bars]];
            let outs = outs.each_mut().map(|out| &mut out[from..][..bars]);
            derive::<Self, C, I>(kept, input.map(|column| &column[late..]), outs);
        }
    }
}

/// Bars whose kept values lie side by side before they are used.
const TILE: usize = 256;

/// Bars between those that are derived and those whose lines are asked for: columns are read in bursts, too
/// short for a processor to foresee the next.
const AHEAD: usize = 4 * TILE;

/// Writes what is kept of every bar.
fn keep<D: Derived<C, I>, const C: usize, const I: usize>(input: [&[f64]; C], kept: &mut [f64]) {
    let whole = kept.len() / Wide::WIDTH * Wide::WIDTH;
    for at in (0..whole).step_by(Wide::WIDTH) {
        D::kept(load_each(&input, at)).store(&mut kept[at..][..Wide::WIDTH]);
    }
    for at in whole..kept.len() {
        kept[at] = D::kept(input.map(|column| column[at]));
    }
}

/// Writes the derived values of every bar of `now`.
fn derive<D: Derived<C, I>, const C: usize, const I: usize>(
    kept: [&[f64]; 2],
    now: [&[f64]; C],
    mut outs: [&mut [f64]; I],
) {
    let len = outs[0].len();
    let whole = len / Wide::WIDTH * Wide::WIDTH;
    for at in (0..whole).step_by(Wide::WIDTH) {
        for column in now {
            foresee(column, at + AHEAD);
        }
        let values = D::of(load_each(&kept, at), load_each(&now, at));
        for (out, value) in outs.iter_mut().zip(values) {
            value.store(&mut out[at..][..Wide::WIDTH]);
        }
    }
    for at in whole..len {
        let values = D::of(kept.map(|column| column[at]), now.map(|column| column[at]));
        for (out, value) in outs.iter_mut().zip(values) {
            out[at] = value;
        }
    }
}

/// What a stream keeps to derive the next bar's values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deriving<D, const C: usize, const I: usize> {
    /// Kept of the bar before. One number: bars that were stored whole were loaded in halves again,
    /// and a load across two stores waits until both have left the processor.
    before: Option<f64>,
    of: PhantomData<D>,
}

impl<D: Derived<C, I>, const C: usize, const I: usize> Deriving<D, C, I> {
    pub(crate) const fn new() -> Self {
        Self { before: if D::LATE { None } else { Some(0.0) }, of: PhantomData }
    }

    /// What is kept of a bar, and its derived values if it has them.
    #[inline]
    fn next(&self, bar: Bar) -> (f64, Option<[f64; I]>) {
        let now = D::READS.map(|column| bar.value(column));
        let kept = D::kept(now);
        (kept, self.before.map(|before| D::of([before, kept], now)))
    }

    /// The derived values of a bar, if it has them; the state stays.
    #[inline]
    pub(crate) fn glance(&self, bar: Bar) -> Option<[f64; I]> {
        self.next(bar).1
    }

    /// The derived values of a bar, which becomes the one before.
    #[inline]
    pub(crate) fn after(&mut self, bar: Bar) -> Option<[f64; I]> {
        let (kept, values) = self.next(bar);
        self.before = Some(kept);
        values
    }
}

/// The sums `W` over what `D` derives, as an indicator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over<D, W, const C: usize, const I: usize, const S: usize, const O: usize> {
    sums: Windowed<W, I, S, O>,
    of: PhantomData<D>,
}

impl<D, W, const C: usize, const I: usize, const S: usize, const O: usize> Over<D, W, C, I, S, O> {
    pub(crate) const fn new(sums: W) -> Self {
        Self { sums: Windowed(sums), of: PhantomData }
    }
}

impl<D, W, const C: usize, const I: usize, const S: usize, const O: usize> Kernel for Over<D, W, C, I, S, O>
where
    D: Derived<C, I>,
    W: Sliding<I, S, O>,
{
    fn lookback(&self) -> usize {
        usize::from(D::LATE) + self.sums.0.window() - 1
    }

    fn scratch_columns(&self) -> usize {
        I
    }

    /// In tiles that the sums take in one go and that stay in the cache in between.
    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let (mut outs, mut derived): ([_; O], [_; I]) = (outputs(outs), outputs(scratch));
        let input = D::READS.map(|column| rows.column(column));
        let (window, lookback) = (self.sums.0.window(), self.lookback());
        for out in &mut outs {
            fill_warm_up(out, lookback);
        }
        let tile = Wide::WIDTH * segment_bars(window);
        for from in (lookback..rows.len()).step_by(tile) {
            let bars = tile.min(rows.len() - from);
            let first = from - lookback;
            let input = input.map(|column| &column[first..from + bars]);
            D::fill(input, derived.each_mut().map(|column| &mut column[..bars + window - 1]));
            let derived = derived.each_ref().map(|column| &column[..bars + window - 1]);
            self.sums.full(derived, outs.each_mut().map(|out| &mut out[from..][..bars]));
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(OverStream::<D, W, C, I, S, O> { deriving: Deriving::new(), sums: self.sums.running() })
    }
}

#[derive(Clone, Debug)]
struct OverStream<D, W, const C: usize, const I: usize, const S: usize, const O: usize> {
    deriving: Deriving<D, C, I>,
    sums: Window<W, I, S, O>,
}

impl<D, W, const C: usize, const I: usize, const S: usize, const O: usize> Live
    for OverStream<D, W, C, I, S, O>
where
    D: Derived<C, I>,
    W: Sliding<I, S, O>,
{
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let values = self.deriving.after(bar);
        outs.copy_from_slice(&values.map_or([f64::NAN; O], |values| self.sums.after(values)));
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let values = self.deriving.glance(bar);
        outs.copy_from_slice(&values.map_or([f64::NAN; O], |values| self.sums.glance(values)));
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
