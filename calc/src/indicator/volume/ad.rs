//! Accumulation and distribution: the running total of volume, each weighed by where the close
//! stands in its bar, from -1 at the low to 1 at the high; and Chaikin's oscillator, the fast less
//! the slow exponential average of that total.
//!
//! The total has lookback 0; a bar without range adds nothing. It is summed plainly, as TA-Lib does.
//! Both averages of the oscillator begin with the first total, and it is shown from bar
//! `max(fast, slow) - 1` on; the periods are taken as they are named, even where fast is slower.

use crate::entry::{Entry, Param, SINGLE, Value};
use crate::indicator::average::ema::{forgets, smooth, smoothing};
use crate::indicator::{Kernel, Live, Rows, outputs};
use crate::lanes::Lanes;
use crate::params::Span;
use crate::recursion::{Recursion, Recursive, Running, Seed};
use crate::series::{Bar, Column};
use crate::window::Derived;
use std::sync::Arc;

/// The columns of an indicator of ranges and volume.
pub(super) const RANGES_VOLUME: &[Column] = &[Column::High, Column::Low, Column::Close, Column::Volume];

pub(super) static AD: Entry = Entry {
    name: "ad",
    aliases: &[],
    summary: "accumulation and distribution, the running total",
    columns: RANGES_VOLUME,
    params: &[],
    outputs: SINGLE,
    build: |_| Ok(Arc::new(Ad)),
};

pub(super) static ADOSC: Entry = Entry {
    name: "adosc",
    aliases: &[],
    summary: "Chaikin's oscillator of accumulation and distribution",
    columns: RANGES_VOLUME,
    params: &[
        Param::bars("fast", 2, |_| Value::Number(3.0)),
        Param::bars("slow", 2, |_| Value::Number(10.0)),
    ],
    outputs: SINGLE,
    build: |args| {
        let (fast, slow) = (args.window("fast")?, args.window("slow")?);
        Ok(Arc::new(Adosc(Recursion(Oscillator { fast, slow }))))
    },
};

/// Volume weighed by where the close stands in the bar; nothing where the bar has no range.
#[inline(always)]
pub(super) fn money_flow<V: Lanes>([high, low, close, volume]: [V; 4]) -> V {
    let (zero, range) = (V::splat(0.0), high - low);
    let place = ((close - low) - (high - close)) / range;
    V::select(zero.lt(range), place * volume, zero)
}

/// The flow of every bar.
#[derive(Clone, Copy, Debug)]
struct Flow;

impl Derived<4, 1> for Flow {
    const READS: [Column; 4] = [Column::High, Column::Low, Column::Close, Column::Volume];
    const LATE: bool = false;

    #[inline(always)]
    fn of<V: Lanes>(_: [V; 2], now: [V; 4]) -> [V; 1] {
        [money_flow(now)]
    }
}

#[derive(Clone, Copy, Debug)]
struct Ad;

impl Ad {
    /// Writes the total after every bar.
    fn totals(rows: &Rows<'_>, out: &mut [f64]) {
        /// Bars whose flows are worked out together before they are summed.
        const TILE: usize = 1_024;
        let input = Flow::READS.map(|column| rows.column(column));
        let mut total = 0.0;
        for (tile, out) in out.chunks_mut(TILE).enumerate() {
            Flow::fill(input.map(|column| &column[tile * TILE..]), [out]);
            for out in out {
                total += *out;
                *out = total;
            }
        }
    }
}

impl Kernel for Ad {
    fn lookback(&self) -> usize {
        0
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let [out] = outputs(outs);
        Self::totals(rows, out);
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(Total(0.0))
    }
}

/// The total so far.
#[derive(Clone, Copy, Debug)]
struct Total(f64);

impl Total {
    fn with(self, bar: Bar) -> f64 {
        self.0 + money_flow(Flow::READS.map(|column| bar.value(column)))
    }
}

impl Live for Total {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        self.0 = self.with(bar);
        outs[0] = self.0;
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        outs[0] = self.with(bar);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(*self)
    }
}

/// The fast average of the totals less the slow one.
#[derive(Clone, Copy, Debug)]
struct Oscillator {
    fast: Span,
    slow: Span,
}

impl Recursive<1, 2, 2, 1> for Oscillator {
    type Seed = Start;
    const READS: [Column; 1] = [Column::Volume];

    fn lookback(&self) -> usize {
        self.fast.max(self.slow).bars() - 1
    }

    fn coefficients(&self) -> [f64; 2] {
        [smoothing(self.fast), smoothing(self.slow)]
    }

    fn seed(&self) -> Start {
        Start { shares: self.coefficients(), left: self.lookback(), averages: None }
    }

    #[inline(always)]
    fn step<V: Lanes>(k: &[V; 2], [fast, slow]: &mut [V; 2], [total]: [V; 1]) -> [V; 1] {
        (*fast, *slow) = (smooth(k[0], *fast, total), smooth(k[1], *slow, total));
        [*fast - *slow]
    }

    fn guess<V: Lanes>([total]: [V; 1]) -> [V; 2] {
        [total, total]
    }

    fn forgets(&self) -> usize {
        forgets(self.fast.max(self.slow))
    }
}

/// The steps before the first value that is shown.
#[derive(Clone, Copy, Debug)]
struct Start {
    shares: [f64; 2],
    left: usize,
    averages: Option<[f64; 2]>,
}

impl Seed<1, 2, 1> for Start {
    fn push(&mut self, total: [f64; 1]) -> Option<([f64; 2], [f64; 1])> {
        let mut averages = self.averages.unwrap_or([total[0]; 2]);
        let value = Oscillator::step(&self.shares, &mut averages, total);
        self.averages = Some(averages);
        let shown = self.left == 0;
        self.left = self.left.saturating_sub(1);
        shown.then_some((averages, value))
    }
}

#[derive(Clone, Copy, Debug)]
struct Adosc(Recursion<Oscillator, 1, 2, 2, 1>);

impl Kernel for Adosc {
    fn lookback(&self) -> usize {
        self.0.lookback()
    }

    fn scratch_columns(&self) -> usize {
        1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let [totals] = outputs(scratch);
        Ad::totals(rows, totals);
        self.0.run([totals], outputs(outs));
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(AdoscStream { total: Total(0.0), averages: self.0.running() })
    }
}

#[derive(Clone, Debug)]
struct AdoscStream {
    total: Total,
    averages: Running<Oscillator, 1, 2, 2, 1>,
}

impl Live for AdoscStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        self.total = Total(self.total.with(bar));
        outs.copy_from_slice(&self.averages.after([self.total.0]));
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        outs.copy_from_slice(&self.averages.glance([self.total.with(bar)]));
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(high: f64, low: f64, close: f64, volume: f64) -> Bar {
        Bar { open: low, high, low, close, volume }
    }

    #[test]
    fn the_place_of_the_close_weighs_the_volume() {
        let mut stream = Ad.stream();
        let mut out = [0.0];
        for (bar, total) in [
            (bar(4.0, 2.0, 4.0, 10.0), 10.0),
            (bar(4.0, 2.0, 2.0, 4.0), 6.0),
            (bar(4.0, 2.0, 3.0, 9.0), 6.0),
            (bar(3.0, 3.0, 3.0, 9.0), 6.0),
        ] {
            stream.push(bar, &mut out);
            assert_eq!(out, [total]);
        }
    }

    #[test]
    fn the_oscillator_of_a_standing_total_is_0() {
        let mut stream =
            Adosc(Recursion(Oscillator { fast: Span::of::<3>(), slow: Span::of::<2>() })).stream();
        let mut out = [0.0];
        for row in 0..5 {
            stream.push(bar(4.0, 2.0, if row == 0 { 4.0 } else { 3.0 }, 10.0), &mut out);
            assert!(if row < 2 { out[0].is_nan() } else { out[0] == 0.0 });
        }
    }
}
