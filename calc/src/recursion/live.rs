//! A recursive indicator as batch and as stream.

use super::{Recursive, Seed, drive, together};
use crate::catalog::Job;
use crate::indicator::{Kernel, Live, Rows, outputs};
use crate::series::Bar;
use std::marker::PhantomData;

/// The indicator `R` as a kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recursion<R, const I: usize, const S: usize, const K: usize, const O: usize>(pub(crate) R);

impl<R: Recursive<I, S, K, O>, const I: usize, const S: usize, const K: usize, const O: usize>
    Recursion<R, I, S, K, O>
{
    /// The state before the first bar.
    pub(crate) fn running(&self) -> Running<R, I, S, K, O> {
        Running { k: self.0.coefficients(), phase: Phase::Seeding(self.0.seed()), rule: PhantomData }
    }

    /// Writes every bar's outputs, `NaN` while seeding, and returns the state after the last.
    pub(crate) fn run(&self, input: [&[f64]; I], mut outs: [&mut [f64]; O]) -> Running<R, I, S, K, O> {
        let mut running = self.running();
        let from = running.seed(input, outs.each_mut().map(|out| &mut **out));
        if let Phase::Going(state) = &mut running.phase {
            let (input, outs) = (input.map(|column| &column[from..]), outs.map(|out| &mut out[from..]));
            drive::chunked::<R, I, S, K, O>(&self.0, state, input, outs);
        }
        running
    }

    /// Writes the outputs of the bars up to the first that has some; how many bars, and the state after them, which
    /// is none where the series ends before.
    pub(super) fn seeded(&self, input: [&[f64]; I], outs: [&mut [f64]; O]) -> (usize, Option<[f64; S]>) {
        let mut running = self.running();
        let bars = running.seed(input, outs);
        match running.phase {
            Phase::Going(state) => (bars, Some(state)),
            Phase::Seeding(_) => (bars, None),
        }
    }
}

impl<R: Recursive<I, S, K, O>, const I: usize, const S: usize, const K: usize, const O: usize> Kernel
    for Recursion<R, I, S, K, O>
{
    fn lookback(&self) -> usize {
        self.0.lookback()
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        self.run(R::READS.map(|column| rows.column(column)), outputs(outs));
    }

    fn together(&self, jobs: &mut [Job<'_, '_>]) -> usize {
        together::compute(self, jobs)
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(self.running())
    }
}

/// The streaming state of a recursive indicator.
#[derive(Clone, Debug)]
pub(crate) struct Running<
    R: Recursive<I, S, K, O>,
    const I: usize,
    const S: usize,
    const K: usize,
    const O: usize,
> {
    k: [f64; K],
    phase: Phase<R::Seed, S>,
    rule: PhantomData<R>,
}

#[derive(Clone, Debug)]
enum Phase<P, const S: usize> {
    Seeding(P),
    Going([f64; S]),
}

impl<R: Recursive<I, S, K, O>, const I: usize, const S: usize, const K: usize, const O: usize>
    Running<R, I, S, K, O>
{
    /// Takes the bars up to the first that has outputs, and says how many.
    fn seed(&mut self, input: [&[f64]; I], mut outs: [&mut [f64]; O]) -> usize {
        for row in 0..input[0].len() {
            let values = self.after(input.map(|column| column[row]));
            for (out, value) in outs.iter_mut().zip(values) {
                out[row] = value;
            }
            if matches!(self.phase, Phase::Going(_)) {
                return row + 1;
            }
        }
        input[0].len()
    }

    /// Takes a bar and returns its outputs.
    #[inline(always)]
    pub(crate) fn after(&mut self, bar: [f64; I]) -> [f64; O] {
        match &mut self.phase {
            Phase::Going(state) => R::step(&self.k, state, bar),
            Phase::Seeding(seed) => {
                let Some((state, values)) = seed.push(bar) else { return [f64::NAN; O] };
                self.phase = Phase::Going(state);
                values
            }
        }
    }

    /// The outputs that [`after`](Self::after) would return; the state stays.
    #[inline]
    pub(crate) fn glance(&self, bar: [f64; I]) -> [f64; O] {
        match &self.phase {
            Phase::Going(state) => R::step(&self.k, &mut { *state }, bar),
            Phase::Seeding(seed) => seed.clone().push(bar).map_or([f64::NAN; O], |(_, values)| values),
        }
    }
}

impl<R: Recursive<I, S, K, O>, const I: usize, const S: usize, const K: usize, const O: usize> Live
    for Running<R, I, S, K, O>
{
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&self.after(R::READS.map(|column| bar.value(column))));
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&self.glance(R::READS.map(|column| bar.value(column))));
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
