//! Drivers: the plain loop, and chunks of a long series side by side.

use super::Recursive;
use crate::dispatch::{Abreast, AbreastMut, Ahead, LINE};
use crate::lanes::{BLOCK, Lanes, Wide, bar, load_blocks, output, store_block};
use std::array::from_fn;
use std::ops::Range;

/// Chunks side by side.
const LANES: usize = Wide::WIDTH;

/// Shortest chunk worth its warm-up.
const CHUNK_MIN: usize = 320;

/// Whether a series of so many bars goes in chunks.
pub(super) fn is_chunked(len: usize, forgets: usize) -> bool {
    chunk_bars(len) >= CHUNK_MIN.max(2 * warm_up(forgets))
}

/// Bars that a chunk begins early, in whole blocks.
fn warm_up(forgets: usize) -> usize {
    forgets.max(1).next_multiple_of(BLOCK)
}

/// The plain loop: every bar from the state before it.
pub(super) fn serial<R, const I: usize, const S: usize, const K: usize, const O: usize>(
    k: &[f64; K],
    state: &mut [f64; S],
    input: [&[f64]; I],
    outs: &mut [&mut [f64]; O],
) where
    R: Recursive<I, S, K, O>,
{
    let len = input[0].len();
    // Equal lengths in plain sight spare a comparison a bar and slice.
    let input = input.map(|column| &column[..len]);
    let mut outs = outs.each_mut().map(|out| &mut out[..len]);
    let mut now = *state;
    for row in 0..len {
        let values = R::step(k, &mut now, from_fn(|i| input[i][row]));
        for (out, value) in outs.iter_mut().zip(values) {
            out[row] = value;
        }
    }
    *state = now;
}

/// What [`serial`] does, in chunks side by side where the series is long enough for that to pay.
pub(super) fn chunked<R, const I: usize, const S: usize, const K: usize, const O: usize>(
    rule: &R,
    state: &mut [f64; S],
    input: [&[f64]; I],
    mut outs: [&mut [f64]; O],
) where
    R: Recursive<I, S, K, O>,
{
    let k = rule.coefficients();
    let (chunk, warm_up) = (chunk_bars(input[0].len()), warm_up(rule.forgets()));
    if !is_chunked(input[0].len(), rule.forgets()) {
        return serial::<R, I, S, K, O>(&k, state, input, &mut outs);
    }
    let wide = k.map(Wide::splat);
    let begun = warmed::<R, I, S, K, O>(&wide, input, chunk, warm_up, state);
    let mut ends = abreast::<R, I, S, K, O>(&wide, begun, input, &mut outs, chunk);
    for lane in 1..LANES {
        let truth = from_fn(|word| ends[word].lane(lane - 1));
        let guess = from_fn(|word| begun[word].lane(lane));
        let span = lane * chunk..(lane + 1) * chunk;
        if let Some(end) = repair::<R, I, S, K, O>(&k, truth, guess, span, input, &mut outs) {
            for (word, end) in ends.iter_mut().zip(end) {
                *word = Wide::gather(|other| if other == lane { end } else { word.lane(other) });
            }
        }
    }
    *state = from_fn(|word| ends[word].lane(LANES - 1));
    let rest = LANES * chunk;
    let (input, mut outs) = (input.map(|column| &column[rest..]), outs.map(|out| &mut out[rest..]));
    serial::<R, I, S, K, O>(&k, state, input, &mut outs);
}

/// The chunks side by side, from the states before them to those behind them.
fn abreast<R, const I: usize, const S: usize, const K: usize, const O: usize>(
    k: &[Wide; K],
    mut state: [Wide; S],
    input: [&[f64]; I],
    outs: &mut [&mut [f64]; O],
    chunk: usize,
) -> [Wide; S]
where
    R: Recursive<I, S, K, O>,
{
    let mut ahead = Ahead::new(&input, outs, chunk);
    let rows = input.map(|column| Abreast::new(column, chunk, chunk));
    let mut outs = outs.each_mut().map(|out| AbreastMut::new(out, chunk, chunk));
    for from in (0..chunk).step_by(BLOCK) {
        if Ahead::<I, O>::NEEDED && from % LINE == 0 {
            ahead.ask();
        }
        let values = advance::<R, I, S, K, O>(k, &mut state, &rows, from);
        for (at, out) in outs.iter_mut().enumerate() {
            out.put(from, store_block(output(&values, at)));
        }
    }
    state
}

/// Bars a chunk: its share in whole blocks, less what would bring the rows close to one another in
/// the first-level cache, whose sets repeat every 4 KiB.
fn chunk_bars(len: usize) -> usize {
    let mut chunk = len / LANES / BLOCK * BLOCK;
    while chunk > CHUNK_MIN && !(256..=3840).contains(&(chunk * size_of::<f64>() % 4096)) {
        chunk -= BLOCK;
    }
    chunk
}

/// The state before each chunk: the true one before the first, for the others what `bars` bars make
/// of a guess.
fn warmed<R, const I: usize, const S: usize, const K: usize, const O: usize>(
    k: &[Wide; K],
    input: [&[f64]; I],
    chunk: usize,
    bars: usize,
    first: &[f64; S],
) -> [Wide; S]
where
    R: Recursive<I, S, K, O>,
{
    // The bars before the second chunk, the third and so on: what the last lane finds is not wanted.
    let rows = input.map(|column| Abreast::new(&column[chunk - bars..], chunk, bars));
    let mut state = R::guess(input.map(|column| Wide::gather(|lane| column[(lane + 1) * chunk - bars - 1])));
    for from in (0..bars).step_by(BLOCK) {
        advance::<R, I, S, K, O>(k, &mut state, &rows, from);
    }
    from_fn(|word| Wide::gather(|lane| if lane == 0 { first[word] } else { state[word].lane(lane - 1) }))
}

/// Steps over four bars of every lane's row, from `from` on.
#[inline(always)]
fn advance<R, const I: usize, const S: usize, const K: usize, const O: usize>(
    k: &[Wide; K],
    state: &mut [Wide; S],
    rows: &[Abreast<'_>; I],
    from: usize,
) -> [[Wide; O]; BLOCK]
where
    R: Recursive<I, S, K, O>,
{
    let rows = load_blocks(rows, from);
    let mut now = *state;
    // Not a loop: an array that is indexed lies in memory, and is copied there in halves.
    let values = [
        R::step(k, &mut now, bar(&rows, 0)),
        R::step(k, &mut now, bar(&rows, 1)),
        R::step(k, &mut now, bar(&rows, 2)),
        R::step(k, &mut now, bar(&rows, 3)),
    ];
    *state = now;
    values
}

/// Goes over `span` from its true state while the state that was guessed for it still differs.
/// The true state at the end when it differed to the last; else what was computed stands.
fn repair<R, const I: usize, const S: usize, const K: usize, const O: usize>(
    k: &[f64; K],
    mut truth: [f64; S],
    mut guess: [f64; S],
    span: Range<usize>,
    input: [&[f64]; I],
    outs: &mut [&mut [f64]; O],
) -> Option<[f64; S]>
where
    R: Recursive<I, S, K, O>,
{
    for row in span {
        // A step depends on state and bar alone: from equal bits on, all is equal.
        if truth.map(f64::to_bits) == guess.map(f64::to_bits) {
            return None;
        }
        let bar = from_fn(|i| input[i][row]);
        R::step(k, &mut guess, bar);
        for (out, value) in outs.iter_mut().zip(R::step(k, &mut truth, bar)) {
            out[row] = value;
        }
    }
    Some(truth)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recursion::Seed;
    use crate::series::Column;
    use proptest::prelude::*;

    /// A running total that starts anew after each zero: what it forgets is for the series to say,
    /// and nothing at all unless it has a zero.
    #[derive(Clone, Copy, Debug)]
    struct Total;

    #[derive(Clone, Debug)]
    struct Nothing;

    impl Seed<1, 1, 1> for Nothing {
        fn push(&mut self, [input]: [f64; 1]) -> Option<([f64; 1], [f64; 1])> {
            Some(([input], [input]))
        }
    }

    impl Recursive<1, 1, 1, 1> for Total {
        type Seed = Nothing;
        const READS: [Column; 1] = [Column::Close];

        fn lookback(&self) -> usize {
            0
        }

        fn coefficients(&self) -> [f64; 1] {
            [1.0]
        }

        fn seed(&self) -> Nothing {
            Nothing
        }

        fn step<V: Lanes>(_: &[V; 1], [total]: &mut [V; 1], [input]: [V; 1]) -> [V; 1] {
            let zero = V::splat(0.0);
            *total = V::select(input.le(zero) & zero.le(input), zero, *total + input);
            [*total]
        }

        fn guess<V: Lanes>(bar: [V; 1]) -> [V; 1] {
            bar
        }

        fn forgets(&self) -> usize {
            64
        }
    }

    fn assert_same(input: &[f64]) {
        let (mut plain, mut wide) = (vec![0.0; input.len()], vec![0.0; input.len()]);
        let (mut plain_end, mut wide_end) = ([7.0], [7.0]);
        serial::<Total, 1, 1, 1, 1>(&[1.0], &mut plain_end, [input], &mut [&mut plain]);
        chunked::<Total, 1, 1, 1, 1>(&Total, &mut wide_end, [input], [&mut wide]);
        let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&plain), bits(&wide));
        assert_eq!(bits(&plain_end), bits(&wide_end));
    }

    #[test]
    fn a_state_that_is_never_forgotten_is_carried_through_every_chunk() {
        for len in [0, 1, 2_559, 2_560, 2_561, 4_096, 9_000, 32_768 + 511] {
            let input: Vec<f64> = (0..len).map(|at| 0.1 + f64::from(at)).collect();
            assert_same(&input);
        }
    }

    #[test]
    fn values_that_are_not_numbers_are_carried_too() {
        let mut input: Vec<f64> = (0..9_000).map(f64::from).collect();
        input[3_000] = f64::NAN;
        assert_same(&input);
    }

    proptest! {
        #[test]
        fn chunks_are_the_plain_loop(len in 2_000_usize..9_000, every in 1_usize..3_000, shift in 0_usize..3_000) {
            let input: Vec<f64> =
                (0..len).map(|at| if (at + shift) % every == 0 { 0.0 } else { 0.1 * at as f64 }).collect();
            assert_same(&input);
        }
    }
}
