//! Several series, or several sets of parameters over one, a lane each.
//!
//! A lane does what [`serial`](super::drive::serial) does for its series, so the bits are those of each alone. What is
//! left of the longer ones when the shortest ends goes on alone.

use super::{Recursion, Recursive, drive};
use crate::catalog::Job;
use crate::indicator::outputs;
use crate::lanes::{BLOCK, Lanes, Wide, bar, load_block, output, store_block};
use std::any::Any;
use std::array::from_fn;

/// Series side by side: two vectors, whose steps do not wait for each other.
const LANES: usize = 2 * Wide::WIDTH;

/// Blocks that are put aside before they are written, a row after the other: buffers of one length often lie so that
/// their lines compete for the same places of the nearest cache.
const TILE: usize = 8;

/// Fewest that are worth the lanes left empty.
const LANES_MIN: usize = 3;

/// One of them on its way.
struct Lane<'a, 'b, const I: usize, const S: usize, const K: usize, const O: usize> {
    k: [f64; K],
    state: [f64; S],
    /// What it has still to read, and to write.
    input: [&'a [f64]; I],
    outs: [&'b mut [f64]; O],
}

/// Computes the first jobs that are of one kind with the very first; how many.
pub(super) fn compute<R, const I: usize, const S: usize, const K: usize, const O: usize>(
    first: &Recursion<R, I, S, K, O>,
    jobs: &mut [Job<'_, '_>],
) -> usize
where
    R: Recursive<I, S, K, O>,
{
    let alike = |job: &&Job<'_, '_>| {
        let rule: &dyn Any = job.kernel;
        rule.is::<Recursion<R, I, S, K, O>>()
    };
    let alike = jobs.iter().take(LANES).take_while(alike).count();
    let jobs = &mut jobs[..alike];
    let shared = jobs
        .iter()
        .all(|job| is_same(&columns_of::<R, I, S, K, O>(job), &columns_of::<R, I, S, K, O>(&jobs[0])));
    let shortest = jobs.iter().map(|job| job.rows.len()).min().unwrap_or_default();
    if alike < LANES_MIN || drive::is_chunked(shortest, first.0.forgets()) {
        return 0;
    }
    let mut lanes: [Option<Lane<'_, '_, I, S, K, O>>; LANES] = from_fn(|_| None);
    for (lane, job) in lanes.iter_mut().zip(&mut *jobs) {
        let rule: &dyn Any = job.kernel;
        let Some(rule) = rule.downcast_ref::<Recursion<R, I, S, K, O>>() else { continue };
        let (input, mut outs): (_, [_; O]) = (columns_of::<R, I, S, K, O>(job), outputs(job.outs));
        let (bars, state) = rule.seeded(input, outs.each_mut().map(|out| &mut **out));
        let Some(state) = state else { continue };
        let (input, outs) = (input.map(|column| &column[bars..]), outs.map(|out| &mut out[bars..]));
        *lane = Some(Lane { k: rule.0.coefficients(), state, input, outs });
    }
    if shared {
        align::<R, I, S, K, O>(&mut lanes);
        abreast::<R, I, S, K, O, true>(&mut lanes);
    } else {
        abreast::<R, I, S, K, O, false>(&mut lanes);
    }
    for lane in lanes.iter_mut().flatten() {
        drive::serial::<R, I, S, K, O>(&lane.k, &mut lane.state, lane.input, &mut lane.outs);
    }
    alike
}

fn columns_of<'a, R, const I: usize, const S: usize, const K: usize, const O: usize>(
    job: &Job<'a, '_>,
) -> [&'a [f64]; I]
where
    R: Recursive<I, S, K, O>,
{
    R::READS.map(|column| job.rows.column(column))
}

/// Whether both are the very same memory.
fn is_same<const I: usize>(one: &[&[f64]; I], other: &[&[f64]; I]) -> bool {
    one.iter().zip(other).all(|(one, other)| std::ptr::eq(*one, *other))
}

/// Brings lanes over one series to the same bar: the longest lookback decides.
fn align<R, const I: usize, const S: usize, const K: usize, const O: usize>(
    lanes: &mut [Option<Lane<'_, '_, I, S, K, O>>; LANES],
) where
    R: Recursive<I, S, K, O>,
{
    let left = lanes.iter().flatten().map(|lane| lane.input[0].len()).min().unwrap_or_default();
    for lane in lanes.iter_mut().flatten() {
        let bars = lane.input[0].len() - left;
        let (input, mut outs) = lane.split(bars);
        drive::serial::<R, I, S, K, O>(&lane.k, &mut lane.state, input, &mut outs);
    }
}

impl<'a, 'b, const I: usize, const S: usize, const K: usize, const O: usize> Lane<'a, 'b, I, S, K, O> {
    /// Takes so many bars off its beginning.
    fn split(&mut self, bars: usize) -> ([&'a [f64]; I], [&'b mut [f64]; O]) {
        let input = self.input.map(|column| &column[..bars]);
        self.input = self.input.map(|column| &column[bars..]);
        let outs = self.outs.each_mut().map(|out| {
            let (taken, rest) = std::mem::take(out).split_at_mut(bars);
            *out = rest;
            taken
        });
        (input, outs)
    }
}

/// Goes as far as the shortest lane reaches, in whole blocks.
fn abreast<R, const I: usize, const S: usize, const K: usize, const O: usize, const SHARED: bool>(
    lanes: &mut [Option<Lane<'_, '_, I, S, K, O>>; LANES],
) where
    R: Recursive<I, S, K, O>,
{
    let blocks = lanes.iter().flatten().map(|lane| lane.input[0].len()).min().unwrap_or_default() / BLOCK;
    // A lane that is not there reads what another does, and writes nowhere.
    let Some(some) = lanes.iter().flatten().next() else { return };
    let (spare, spare_k, spare_state) = (some.input, some.k, some.state);
    let ks: [[Wide; K]; 2] = from_fn(|half| {
        from_fn(|word| gathered(lanes, half, |lane| lane.map_or(spare_k[word], |lane| lane.k[word])))
    });
    let states: [[Wide; S]; 2] = from_fn(|half| {
        from_fn(|word| gathered(lanes, half, |lane| lane.map_or(spare_state[word], |lane| lane.state[word])))
    });
    let mut inputs: [[&[[f64; BLOCK]]; LANES]; I] = [[&[]; LANES]; I];
    let mut outs: [[&mut [[f64; BLOCK]]; LANES]; O] = from_fn(|_| from_fn(|_| &mut [][..]));
    for (at, lane) in lanes.iter_mut().enumerate() {
        let (input, written) = match lane {
            Some(lane) => {
                let (input, outs) = lane.split(blocks * BLOCK);
                (input, Some(outs))
            }
            None => (spare, None),
        };
        for (column, input) in inputs.iter_mut().zip(input) {
            column[at] = &input.as_chunks().0[..blocks];
        }
        for (rows, out) in outs.iter_mut().zip(written.into_iter().flatten()) {
            rows[at] = out.as_chunks_mut().0;
        }
    }
    let [low_k, high_k] = ks;
    let [mut low, mut high] = states;
    let mut tile = [[[[0.0; BLOCK]; TILE]; LANES]; O];
    for from in (0..blocks).step_by(TILE) {
        let until = blocks.min(from + TILE);
        for block in from..until {
            let place = block - from;
            four_bars::<R, I, S, K, O, SHARED>(&low_k, &mut low, &inputs, block, &mut tile, (0, place));
            four_bars::<R, I, S, K, O, SHARED>(
                &high_k,
                &mut high,
                &inputs,
                block,
                &mut tile,
                (Wide::WIDTH, place),
            );
        }
        for (row, values) in outs.as_flattened_mut().iter_mut().zip(tile.as_flattened()) {
            if let Some(row) = row.get_mut(from..until) {
                row.copy_from_slice(&values[..until - from]);
            }
        }
    }
    for (half, states) in [low, high].iter().enumerate() {
        let mut words = [[0.0; Wide::WIDTH]; S];
        for (word, state) in words.iter_mut().zip(states) {
            state.store(word);
        }
        for (at, lane) in lanes[half * Wide::WIDTH..].iter_mut().take(Wide::WIDTH).enumerate() {
            if let Some(lane) = lane {
                lane.state = from_fn(|word| words[word][at]);
            }
        }
    }
}

/// Four bars of the eight lanes from `first` on.
#[inline(always)]
fn four_bars<R, const I: usize, const S: usize, const K: usize, const O: usize, const SHARED: bool>(
    k: &[Wide; K],
    state: &mut [Wide; S],
    inputs: &[[&[[f64; BLOCK]]; LANES]; I],
    block: usize,
    tile: &mut [[[[f64; BLOCK]; TILE]; LANES]; O],
    (first, place): (usize, usize),
) where
    R: Recursive<I, S, K, O>,
{
    let mut bars = [[Wide::splat(0.0); BLOCK]; I];
    for (bars, rows) in bars.iter_mut().zip(inputs) {
        *bars = if SHARED {
            let bar = |at: usize| Wide::splat(rows[0][block][at]);
            [bar(0), bar(1), bar(2), bar(3)]
        } else {
            let row = |lane: usize| &rows[first + lane][block];
            load_block([row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)])
        };
    }
    let mut now = *state;
    let values = [
        R::step(k, &mut now, bar(&bars, 0)),
        R::step(k, &mut now, bar(&bars, 1)),
        R::step(k, &mut now, bar(&bars, 2)),
        R::step(k, &mut now, bar(&bars, 3)),
    ];
    *state = now;
    for (at, rows) in tile.iter_mut().enumerate() {
        let turned = store_block(output(&values, at));
        for (row, values) in rows[first..].iter_mut().zip(turned) {
            row[place] = values;
        }
    }
}

/// A number of each lane of one half.
fn gathered<const I: usize, const S: usize, const K: usize, const O: usize>(
    lanes: &[Option<Lane<'_, '_, I, S, K, O>>; LANES],
    half: usize,
    number: impl Fn(Option<&Lane<'_, '_, I, S, K, O>>) -> f64,
) -> Wide {
    Wide::gather(|lane| number(lanes[half * Wide::WIDTH + lane].as_ref()))
}
