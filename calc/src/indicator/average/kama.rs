//! Kaufman's adaptive moving average: quick where prices go somewhere, slow where they only shake.
//!
//! Of the way that the close has gone over `period` bars, step by step, the efficiency is the share by
//! which it got farther. The average starts at the close of bar `period - 1`; from bar `period` (the
//! lookback) on it goes `((x - y) * share) + y` with the square of a share between those of exponential
//! averages over 2 and 30 bars. A close that has not moved at all is taken as wholly efficient. A period
//! of 1 copies its input.

use super::COPY;
use super::ema::smooth;
use crate::entry::{CLOSE, Entry, Param, SINGLE, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::lanes::Lanes;
use crate::params::Span;
use crate::recursion::{Recursion, Recursive, Seed};
use crate::series::{Bar, Column};
use crate::window::{Derived, Mass, Over, Ring, Sliding, Window, Windowed};
use std::sync::Arc;

pub(super) static KAMA: Entry = Entry {
    name: "kama",
    aliases: &[],
    summary: "Kaufman's adaptive moving average",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(30.0))],
    outputs: SINGLE,
    build: |args| {
        let period: Span = args.window("period")?;
        Ok(match period.bars() {
            1 => Arc::new(COPY),
            _ => Arc::new(Kaufman { period }),
        })
    },
};

/// The shares of the newest value where nothing is efficient and where all is.
const SLOWEST: f64 = 2.0 / 31.0;
const QUICKEST: f64 = 2.0 / 3.0;

#[derive(Clone, Copy, Debug)]
struct Kaufman {
    period: Span,
}

/// The share of the newest value, given how far and which way prices went.
#[inline(always)]
fn share<V: Lanes>(far: V, way: V) -> V {
    let one = V::splat(1.0);
    // Farther than the way is rounding.
    let whole = way.le(far);
    let efficiency = V::select(whole, one, far / V::select(whole, one, way));
    let share = efficiency * V::splat(QUICKEST - SLOWEST) + V::splat(SLOWEST);
    share * share
}

/// The step from one close to the next, without its sign.
#[derive(Clone, Copy, Debug)]
struct Steps;

impl Derived<1, 1> for Steps {
    const READS: [Column; 1] = [Column::Close];
    const LATE: bool = true;

    #[inline(always)]
    fn kept<V: Lanes>([close]: [V; 1]) -> V {
        close
    }

    #[inline(always)]
    fn of<V: Lanes>([before, now]: [V; 2], _: [V; 1]) -> [V; 1] {
        [(now - before).abs()]
    }
}

/// The sum of the steps; exactly 0 where there is none.
#[derive(Clone, Copy, Debug)]
struct Way {
    window: usize,
}

impl Sliding<1, 2, 1> for Way {
    /// It is run over steps; this stands for the type's sake.
    const READS: [Column; 1] = [Column::Close];

    fn window(&self) -> usize {
        self.window
    }

    #[inline(always)]
    fn open<V: Lanes>(&self, [oldest]: [V; 1]) -> [V; 2] {
        Mass::open(oldest)
    }

    #[inline(always)]
    fn add<V: Lanes>(&self, sums: &mut [V; 2], [next]: [V; 1]) {
        Mass::add(sums, next);
    }

    #[inline(always)]
    fn slide<V: Lanes>(&self, sums: &mut [V; 2], [oldest]: [V; 1], [newest]: [V; 1]) {
        Mass::slide(sums, oldest, newest);
    }

    #[inline(always)]
    fn distrusts<V: Lanes>(&self, sums: &[V; 2]) -> Option<V::Mask> {
        Some(Mass::distrusts(sums))
    }

    #[inline(always)]
    fn value<V: Lanes>(&self, [way, _]: &[V; 2], _: [V; 1]) -> [V; 1] {
        [*way]
    }
}

/// An exponential average whose share is an input: the close, then the share.
#[derive(Clone, Copy, Debug)]
struct Adaptive {
    period: Span,
}

impl Recursive<2, 1, 0, 1> for Adaptive {
    type Seed = FirstClose;
    /// The second is a derived column; this stands for the type's sake.
    const READS: [Column; 2] = [Column::Close, Column::Volume];

    fn lookback(&self) -> usize {
        0
    }

    fn coefficients(&self) -> [f64; 0] {
        []
    }

    fn seed(&self) -> FirstClose {
        FirstClose
    }

    #[inline(always)]
    fn step<V: Lanes>(_: &[V; 0], [average]: &mut [V; 1], [close, share]: [V; 2]) -> [V; 1] {
        *average = smooth(share, *average, close);
        [*average]
    }

    fn guess<V: Lanes>([close, _]: [V; 2]) -> [V; 1] {
        [close]
    }

    /// By the efficiency of a random walk, the reciprocal of the window's root.
    fn forgets(&self) -> usize {
        (40.0 / share(1.0, self.period.count().sqrt())) as usize
    }
}

#[derive(Clone, Copy, Debug)]
struct FirstClose;

impl Seed<2, 1, 1> for FirstClose {
    fn push(&mut self, [close, _]: [f64; 2]) -> Option<([f64; 1], [f64; 1])> {
        Some(([close], [close]))
    }
}

impl Kaufman {
    const fn way(self) -> Way {
        Way { window: self.period.bars() }
    }
}

impl Kernel for Kaufman {
    fn lookback(&self) -> usize {
        self.period.bars()
    }

    fn scratch_columns(&self) -> usize {
        2
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let ([out], (way, steps)) = (outputs(outs), scratch.split_at_mut(1));
        let (close, lookback) = (rows.column(Column::Close), self.lookback());
        Over::<Steps, _, 1, 1, 2, 1>::new(self.way()).batch(rows, way, steps);
        let [shares] = outputs(way);
        let first = lookback.min(rows.len());
        for (way, (&before, &close)) in shares[first..].iter_mut().zip(close.iter().zip(&close[first..])) {
            *way = share((close - before).abs(), *way);
        }
        let start = (lookback - 1).min(rows.len());
        Recursion(Adaptive { period: self.period })
            .run([&close[start..], &shares[start..]], [&mut out[start..]]);
        fill_warm_up(out, lookback);
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(KaufmanStream {
            left: self.lookback(),
            before: None,
            way: Windowed(self.way()).running(),
            closes: Ring::new(self.period.bars()),
            average: 0.0,
        })
    }
}

#[derive(Clone, Debug)]
struct KaufmanStream {
    /// Bars before the first value.
    left: usize,
    before: Option<f64>,
    way: Window<Way, 1, 2, 1>,
    closes: Ring,
    average: f64,
}

impl KaufmanStream {
    /// The average after a close, given the way to it.
    fn next(&self, close: f64, way: f64) -> f64 {
        if self.left > 0 {
            return close;
        }
        let far = (close - self.closes.oldest()).abs();
        smooth(share(far, way), self.average, close)
    }

    fn shown(&self, average: f64) -> f64 {
        if self.left > 0 { f64::NAN } else { average }
    }
}

impl Live for KaufmanStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let step = self.before.map(|before| Steps::of([before, bar.close], [bar.close]));
        let way = step.map_or(0.0, |step| self.way.after(step)[0]);
        self.average = self.next(bar.close, way);
        outs[0] = self.shown(self.average);
        self.before = Some(bar.close);
        self.closes.push(bar.close);
        self.left = self.left.saturating_sub(1);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let step = self.before.map(|before| Steps::of([before, bar.close], [bar.close]));
        let way = step.map_or(0.0, |step| self.way.glance(step)[0]);
        outs[0] = self.shown(self.next(bar.close, way));
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_straight_is_followed_quickest_and_what_shakes_slowest() {
        assert!((share(2.0, 2.0) - QUICKEST * QUICKEST).abs() < 1e-15);
        assert_eq!(share(0.0, 2.0), SLOWEST * SLOWEST);
        assert_eq!(share(0.0, 0.0), share(2.0, 2.0));
    }
}
