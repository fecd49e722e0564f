//! Sums over a sliding window, as batch and as stream.

use super::{Clock, Ring, segment_bars};
use crate::dispatch::{Abreast, AbreastMut, LINE, foresee};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::lanes::{BLOCK, Lanes, Wide, bar, load_blocks, output, store_block};
use crate::series::{Bar, Column};
use std::array::from_fn;
use std::fmt::Debug;

type WideMask = <Wide as Lanes>::Mask;

/// Segments side by side.
const LANES: usize = Wide::WIDTH;

/// What a window of `I` columns is summed up to: `S` words, of which `O` outputs are made.
pub(crate) trait Sliding<const I: usize, const S: usize, const O: usize>:
    Copy + Debug + Send + Sync + 'static
{
    /// The columns it reads when it is an indicator of its own.
    const READS: [Column; I];

    /// Bars in the window.
    fn window(&self) -> usize;

    /// The sums of a window's oldest bar alone.
    fn open<V: Lanes>(&self, oldest: [V; I]) -> [V; S];

    /// Takes the next bar of a window that is summed afresh.
    fn add<V: Lanes>(&self, sums: &mut [V; S], next: [V; I]);

    /// Takes the newest bar in and the oldest out.
    fn slide<V: Lanes>(&self, sums: &mut [V; S], oldest: [V; I], newest: [V; I]);

    /// Where too few digits are left: such a window is summed again.
    fn distrusts<V: Lanes>(&self, _: &[V; S]) -> Option<V::Mask> {
        None
    }

    /// What stands after a window was summed again.
    fn renewed(&self, _distrusted: [f64; S], again: [f64; S]) -> [f64; S] {
        again
    }

    /// The outputs of the window that ends with `newest`.
    fn value<V: Lanes>(&self, sums: &[V; S], newest: [V; I]) -> [V; O];
}

/// The sums `W` as an indicator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windowed<W, const I: usize, const S: usize, const O: usize>(pub(crate) W);

impl<W: Sliding<I, S, O>, const I: usize, const S: usize, const O: usize> Windowed<W, I, S, O> {
    /// The state before the first bar.
    pub(crate) fn running(&self) -> Window<W, I, S, O> {
        let window = self.0.window();
        Window {
            sums: self.0,
            rings: from_fn(|_| Ring::new(window)),
            clock: Clock::new(window),
            running: [0.0; S],
            fresh: [0.0; S],
        }
    }

    /// Writes the outputs of every full window, `NaN` before the first.
    pub(crate) fn run(&self, input: [&[f64]; I], mut outs: [&mut [f64]; O]) {
        let (window, len) = (self.0.window(), input[0].len());
        for out in &mut outs {
            fill_warm_up(out, window - 1);
        }
        if len >= window {
            self.full(input, outs.map(|out| &mut out[window - 1..]));
        }
    }

    /// How many of so many full windows a batch in pieces may take before more of them are known.
    pub(crate) fn whole(&self, windows: usize) -> usize {
        let group = LANES * segment_bars(self.0.window());
        windows / group * group
    }

    /// Writes the outputs of the full windows alone; `outs` begin where the first one ends.
    pub(crate) fn full(&self, input: [&[f64]; I], mut outs: [&mut [f64]; O]) {
        let (window, len) = (self.0.window(), outs[0].len());
        let segment = segment_bars(window);
        let mut from = 0;
        // Bar `from` is the oldest of the first window of a segment, or of several side by side.
        while from < len {
            let left = len - from;
            let bars = if left >= LANES * segment { LANES * segment } else { left.min(segment) };
            let input = input.map(|column| &column[from..from + bars + window - 1]);
            let outs = outs.each_mut().map(|out| &mut out[from..][..bars]);
            if bars == LANES * segment {
                self.group(input, outs);
            } else {
                self.segment(input, outs);
            }
            from += bars;
        }
    }

    /// The sums of the window whose bars `bar` gives, oldest first.
    #[inline(always)]
    fn over<V: Lanes>(&self, bar: impl Fn(usize) -> [V; I]) -> [V; S] {
        let oldest = bar(0);
        let mut sums = self.0.open(oldest);
        (1..self.0.window()).for_each(|at| self.0.add(&mut sums, bar(at)));
        sums
    }

    /// One segment: `input` begins with its first window, `outs` with that window's last bar.
    fn segment(&self, input: [&[f64]; I], mut outs: [&mut [f64]; O]) {
        let window = self.0.window();
        let bar = |at: usize| from_fn(|i| input[i][at]);
        let mut sums = self.over(bar);
        for at in 0..outs[0].len() {
            let newest = bar(at + window - 1);
            if at > 0 {
                self.0.slide(&mut sums, bar(at - 1), newest);
                if self.0.distrusts(&sums) == Some(true) {
                    sums = self.0.renewed(sums, self.over(|next| bar(at + next)));
                }
            }
            for (out, value) in outs.iter_mut().zip(self.0.value(&sums, newest)) {
                out[at] = value;
            }
        }
    }

    /// One bar of the lanes.
    #[inline(always)]
    fn step(
        &self,
        sums: &mut [Wide; S],
        distrusted: &mut WideMask,
        oldest: [Wide; I],
        newest: [Wide; I],
    ) -> [Wide; O] {
        self.0.slide(sums, oldest, newest);
        if let Some(mask) = self.0.distrusts(sums) {
            *distrusted = *distrusted | mask;
        }
        self.0.value(sums, newest)
    }

    /// [`LANES`] segments side by side; a lane that would have to be summed again goes alone.
    fn group(&self, input: [&[f64]; I], mut outs: [&mut [f64]; O]) {
        let (window, segment) = (self.0.window(), outs[0].len() / LANES);
        let distrusted = self.abreast(input, outs.each_mut().map(|out| &mut **out), segment);
        for lane in (0..LANES).filter(|lane| distrusted >> lane & 1 == 1) {
            let input = input.map(|column| &column[lane * segment..][..segment + window - 1]);
            self.segment(input, outs.each_mut().map(|out| &mut out[lane * segment..][..segment]));
        }
    }

    /// The segments of a group side by side; a bit for each that would have to be summed again.
    fn abreast(&self, input: [&[f64]; I], mut outs: [&mut [f64]; O], segment: usize) -> u32 {
        let window = self.0.window();
        let gather =
            |at: usize| -> [Wide; I] { from_fn(|i| Wide::gather(|lane| input[i][lane * segment + at])) };
        let mut sums = self.over(gather);
        let first = self.0.value(&sums, gather(window - 1));
        for (out, value) in outs.iter_mut().zip(first) {
            (0..LANES).for_each(|lane| out[lane * segment] = value.lane(lane));
        }
        let never = Wide::splat(1.0).lt(Wide::splat(0.0));
        let mut distrusted = never;
        let rows = input.map(|column| Abreast::new(column, segment, segment + window - 1));
        let mut outs = outs.map(|out| AbreastMut::new(out, segment, segment));
        for from in (1..segment).step_by(BLOCK) {
            if from % LINE == 1 {
                // As much of the next group as is done of this one, in one piece.
                let next = LANES * (segment + from) + window;
                for column in input.into_iter().chain(outs.iter().map(AbreastMut::column)) {
                    (0..LANES).for_each(|line| foresee(column, next + line * LINE));
                }
            }
            let oldest = load_blocks(&rows, from - 1);
            let newest = load_blocks(&rows, from + window - 1);
            // Not a loop: an array that is indexed lies in memory, and is copied there in halves.
            let values = [
                self.step(&mut sums, &mut distrusted, bar(&oldest, 0), bar(&newest, 0)),
                self.step(&mut sums, &mut distrusted, bar(&oldest, 1), bar(&newest, 1)),
                self.step(&mut sums, &mut distrusted, bar(&oldest, 2), bar(&newest, 2)),
                self.step(&mut sums, &mut distrusted, bar(&oldest, 3), bar(&newest, 3)),
            ];
            for (at, out) in outs.iter_mut().enumerate() {
                out.put(from, store_block(output(&values, at)));
            }
        }
        Wide::bits(distrusted)
    }
}

impl<W: Sliding<I, S, O>, const I: usize, const S: usize, const O: usize> Kernel for Windowed<W, I, S, O> {
    fn lookback(&self) -> usize {
        self.0.window() - 1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        self.run(W::READS.map(|column| rows.column(column)), outputs(outs));
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(self.running())
    }
}

/// The streaming state; no push costs more than another but where a window is summed again.
#[derive(Clone, Debug)]
pub(crate) struct Window<W, const I: usize, const S: usize, const O: usize> {
    sums: W,
    rings: [Ring; I],
    clock: Clock,
    running: [f64; S],
    /// The next segment's first window as it is gathered.
    fresh: [f64; S],
}

impl<W: Sliding<I, S, O>, const I: usize, const S: usize, const O: usize> Window<W, I, S, O> {
    /// The running and the fresh sums after a bar, and its outputs.
    #[inline(always)]
    fn next(&self, newest: [f64; I]) -> ([[f64; S]; 2], [f64; O]) {
        let mut fresh = self.fresh;
        if self.clock.opens() {
            fresh = self.sums.open(newest);
        } else {
            self.sums.add(&mut fresh, newest);
        }
        if !self.clock.full() {
            return ([self.running, fresh], [f64::NAN; O]);
        }
        let mut running = self.running;
        if self.clock.restarts() {
            running = fresh;
        } else {
            self.sums.slide(&mut running, from_fn(|i| self.rings[i].oldest()), newest);
            if self.sums.distrusts(&running) == Some(true) {
                running = self.sums.renewed(running, self.again(newest));
            }
        }
        ([running, fresh], self.sums.value(&running, newest))
    }

    /// The whole window that ends with `newest`, summed again.
    #[cold]
    #[inline(never)]
    fn again(&self, newest: [f64; I]) -> [f64; S] {
        let mut windows = self.rings.each_ref().map(|ring| ring.window_with(0.0));
        let mut at = 0;
        let mut bar = || {
            at += 1;
            let older = windows.each_mut().map(|window| window.next().unwrap_or_default());
            if at == self.sums.window() { newest } else { older }
        };
        let mut sums = self.sums.open(bar());
        (1..self.sums.window()).for_each(|_| self.sums.add(&mut sums, bar()));
        sums
    }

    /// Takes a bar and returns its outputs.
    #[inline(always)]
    pub(crate) fn after(&mut self, newest: [f64; I]) -> [f64; O] {
        let (sums, values) = self.next(newest);
        [self.running, self.fresh] = sums;
        for (ring, value) in self.rings.iter_mut().zip(newest) {
            ring.push(value);
        }
        self.clock.tick();
        values
    }

    /// The outputs that [`after`](Self::after) would return; the state stays.
    #[inline]
    pub(crate) fn glance(&self, newest: [f64; I]) -> [f64; O] {
        self.next(newest).1
    }
}

impl<W: Sliding<I, S, O>, const I: usize, const S: usize, const O: usize> Live for Window<W, I, S, O> {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&self.after(W::READS.map(|column| bar.value(column))));
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&self.glance(W::READS.map(|column| bar.value(column))));
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
