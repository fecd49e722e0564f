//! Fractals: bars whose high is above, or low below, those of the bars around.
//!
//! Whether a bar is one is known `right` bars later, and told there: 100 at bar `i` means bar
//! `i - right`, whose high is above every other of the `left + right + 1` bars. One as high does not
//! count, on either side. [`shift`](Kernel::shift) says where the value belongs.

use crate::entry::{Entry, Param, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::lanes::{Lanes, Wide};
use crate::params::Span;
use crate::series::{Bar, Column};
use crate::window::{Highest, Lowest, Ring, Rolling, Side};
use std::sync::Arc;

pub(super) static FRACTAL: Entry = Entry {
    name: "fractal",
    aliases: &[],
    summary: "100 where a bar is above, or below, the bars around it, told when that is certain",
    columns: &[Column::High, Column::Low],
    params: &[
        Param::whole("left", 1, 1_000, |_| Value::Number(2.0)),
        Param::whole("right", 1, 1_000, |_| Value::Number(2.0)),
    ],
    outputs: &["high", "low"],
    build: |args| Ok(Arc::new(Fractal { left: args.window("left")?, right: args.window("right")? })),
};

/// The value of a fractal.
const SEEN: f64 = 100.0;

/// Bars around for which it is cheaper to look at all of them than to keep an extreme.
const FEW: usize = 32;

#[derive(Clone, Copy, Debug)]
struct Fractal {
    left: Span,
    right: Span,
}

impl Fractal {
    /// The verdicts from bar `from` on, one a lane: on the bars `right` earlier, by looking at all the
    /// others. `beats` says whether the first stands out over the second.
    #[inline(always)]
    fn verdicts<V: Lanes>(self, values: &[f64], from: usize, beats: impl Fn(V, V) -> V::Mask) -> V {
        let (left, right) = (self.left.bars(), self.right.bars());
        let first = from - left - right;
        let middle = V::load(&values[first + left..]);
        let others = (0..left).chain(left + 1..=left + right);
        let mut seen = V::splat(0.0).le(V::splat(0.0));
        for at in others {
            seen = seen & beats(middle, V::load(&values[first + at..]));
        }
        V::select(seen, V::splat(SEEN), V::splat(0.0))
    }

    /// Every verdict of one side, where there are few bars around.
    fn look(self, values: &[f64], out: &mut [f64], above: bool) {
        let mut row = self.lookback();
        while row + Wide::WIDTH <= out.len() {
            let seen: Wide =
                self.verdicts(values, row, |a: Wide, b: Wide| if above { b.lt(a) } else { a.lt(b) });
            seen.store(&mut out[row..]);
            row += Wide::WIDTH;
        }
        for (row, out) in out.iter_mut().enumerate().skip(row) {
            *out = self.verdicts(values, row, |a: f64, b: f64| if above { b < a } else { a < b });
        }
    }
}

impl Kernel for Fractal {
    fn lookback(&self) -> usize {
        self.left.bars() + self.right.bars()
    }

    fn shift(&self, _: usize) -> isize {
        -(self.right.bars() as isize)
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let [high_out, low_out] = outputs(outs);
        let [high, low] = [Column::High, Column::Low].map(|column| rows.column(column));
        if self.lookback() <= FEW {
            fill_warm_up(high_out, self.lookback());
            fill_warm_up(low_out, self.lookback());
            self.look(high, high_out, true);
            self.look(low, low_out, false);
            return;
        }
        let (mut highest, mut lowest) = (Standing::<Highest>::new(*self), Standing::<Lowest>::new(*self));
        for ((out, high), (low_out, low)) in high_out.iter_mut().zip(high).zip(low_out.iter_mut().zip(low)) {
            *out = highest.push(*high);
            *low_out = lowest.push(*low);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(FractalStream { highest: Standing::new(*self), lowest: Standing::new(*self) })
    }
}

/// One side's streaming state: the extremes to the left and right of the bar in question.
#[derive(Clone, Debug)]
struct Standing<S> {
    lookback: usize,
    right_bars: usize,
    /// Bars seen, counted up to the lookback.
    seen: usize,
    /// The bar in question, and those after it.
    waiting: Ring,
    left: Rolling<S>,
    /// The extreme of the bars before the one in question.
    behind: f64,
    right: Rolling<S>,
}

impl<S: Side> Standing<S> {
    fn new(rule: Fractal) -> Self {
        let (left, right) = (rule.left.bars(), rule.right.bars());
        let (lookback, waiting) = (rule.lookback(), Ring::new(right));
        let (left, behind, ahead) = (Rolling::new(left), S::WORST, Rolling::new(right));
        Self { lookback, right_bars: right, seen: 0, waiting, left, behind, right: ahead }
    }

    /// The verdict when `ahead` is the extreme of the bars after the one in question.
    fn verdict(&self, ahead: f64) -> f64 {
        if self.seen < self.lookback {
            return f64::NAN;
        }
        let middle = self.waiting.oldest();
        // The more extreme of both is the bar itself, and neither is its equal.
        let beats = |other: f64| S::pick(middle, other) == middle && other != middle;
        if beats(self.behind) && beats(ahead) { SEEN } else { 0.0 }
    }

    fn push(&mut self, value: f64) -> f64 {
        let ahead = self.right.push(value);
        let verdict = self.verdict(ahead);
        if self.seen >= self.right_bars {
            self.behind = self.left.push(self.waiting.oldest());
        }
        self.waiting.push(value);
        self.seen = self.lookback.min(self.seen + 1);
        verdict
    }

    fn peek(&self, value: f64) -> f64 {
        self.verdict(self.right.peek(value))
    }
}

#[derive(Clone, Debug)]
struct FractalStream {
    highest: Standing<Highest>,
    lowest: Standing<Lowest>,
}

impl Live for FractalStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&[self.highest.push(bar.high), self.lowest.push(bar.low)]);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&[self.highest.peek(bar.high), self.lowest.peek(bar.low)]);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}
