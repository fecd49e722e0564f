//! A recursive indicator as batch and as stream.

use super::{Recursive, Seed, drive};
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
    pub(crate) fn run(&self, input: [&[f64]; I], outs: [&mut [f64]; O]) -> Running<R, I, S, K, O> {
        let mut running = self.running();
        let mut outs = outs;
        let mut rows = 0..input[0].len();
        for row in &mut rows {
            let values = running.after(input.map(|column| column[row]));
            for (out, value) in outs.iter_mut().zip(values) {
                out[row] = value;
            }
            if let Phase::Going(state) = &mut running.phase {
                let input = input.map(|column| &column[row + 1..]);
                let outs = outs.map(|out| &mut out[row + 1..]);
                drive::chunked::<R, I, S, K, O>(&self.0, state, input, outs);
                break;
            }
        }
        running
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
