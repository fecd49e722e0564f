//! Keltner channels: an exponential average, and bands so many average true ranges from it.
//!
//! Average and range are seeded by the bars that end at the first output, whichever of the two needs
//! more of them; with the average seeded by the first value (`seed` first) it begins at bar 0.

use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, Value};
use crate::indicator::average::ema::Ema;
use crate::indicator::volatility::atr::average_range;
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::lanes::Lanes;
use crate::params::{FirstRange, Seed, Span};
use crate::series::{Bar, Column};
use std::sync::Arc;

pub(super) static KELTNER: Entry = Entry {
    name: "keltner",
    aliases: &[],
    summary: "an exponential average, and bands so many average true ranges above and below it",
    columns: HIGH_LOW_CLOSE,
    params: &[
        Param::bars("period", 2, |_| Value::Number(20.0)),
        Param::bars("atr_period", 2, |_| Value::Number(10.0)),
        Param::real("multiplier", 0.0, 1e3, |_| Value::Number(2.0)),
        Param::words("source", &["typical", "close"], |compat| Value::Word(compat.keltner_source())),
        Param::SEED,
        Param::SMOOTHING,
        Param::FIRST_RANGE,
    ],
    outputs: &["upper", "middle", "lower"],
    build: |args| {
        let (period, ranges): (Span, Span) = (args.window("period")?, args.window("atr_period")?);
        let (seed, smoothing, first_range) = (args.seed()?, args.smoothing()?, args.first_range()?);
        let average = Ema::new(period, seed);
        let own = average_range(ranges, smoothing, first_range);
        let lookback = average.lookback().max(own.lookback());
        // Where bars stand before its first range, that range knows the close before it.
        let late = average_range(ranges, smoothing, FirstRange::Skip);
        let (range, from) = match lookback.checked_sub(late.lookback()) {
            Some(from) => (late, from),
            None => (own, 0),
        };
        let begins = if seed == Seed::First { 0 } else { lookback - average.lookback() };
        let (multiplier, typical) = (args.number("multiplier")?, args.word("source")? == "typical");
        Ok(Arc::new(Keltner { average, begins, range, from, lookback, multiplier, typical }))
    },
};

#[derive(Clone, Debug)]
struct Keltner {
    average: Ema,
    /// The bar at which the average's seed begins.
    begins: usize,
    range: Arc<dyn Kernel>,
    /// The bar at which the range's seed begins.
    from: usize,
    lookback: usize,
    multiplier: f64,
    typical: bool,
}

/// The price that is averaged.
#[inline(always)]
fn source<V: Lanes>(typical: bool, high: V, low: V, close: V) -> V {
    if typical { (high + low + close) / V::splat(3.0) } else { close }
}

impl Kernel for Keltner {
    fn lookback(&self) -> usize {
        self.lookback
    }

    fn scratch_columns(&self) -> usize {
        1 + self.range.scratch_columns()
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let [upper, middle, lower] = outputs(outs);
        let count = rows.len();
        let (begins, from, first) = (self.begins.min(count), self.from.min(count), self.lookback.min(count));
        let Some((prices, scratch)) = scratch.split_first_mut() else { return };
        let [high, low, close] = [Column::High, Column::Low, Column::Close].map(|column| rows.column(column));
        for ((price, close), (high, low)) in prices.iter_mut().zip(close).zip(high.iter().zip(low)) {
            *price = source(self.typical, *high, *low, *close);
        }
        self.average.run([&prices[begins..]], [&mut middle[begins..]]);
        let (later, ranges) = (rows.from(from), &mut upper[from..]);
        match scratch.first_mut() {
            Some(column) => self.range.batch(&later, &mut [ranges], &mut [&mut column[from..]]),
            None => self.range.batch(&later, &mut [ranges], &mut []),
        }
        for ((upper, middle), lower) in
            upper[first..].iter_mut().zip(&middle[first..]).zip(&mut lower[first..])
        {
            let away = self.multiplier * *upper;
            (*upper, *lower) = (middle + away, middle - away);
        }
        for out in [upper, middle, lower] {
            fill_warm_up(out, first);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(Channel {
            kernel: self.clone(),
            average: self.average.stream(),
            range: self.range.stream(),
            bar: 0,
        })
    }
}

#[derive(Debug)]
struct Channel {
    kernel: Keltner,
    average: Box<dyn Live>,
    range: Box<dyn Live>,
    /// Bars taken.
    bar: usize,
}

impl Channel {
    /// The bar as the average sees it.
    fn priced(&self, bar: Bar) -> Bar {
        Bar { close: source(self.kernel.typical, bar.high, bar.low, bar.close), ..bar }
    }

    /// The bands, when both have their values.
    fn show(&self, middle: f64, range: f64, outs: &mut [f64]) {
        if self.bar < self.kernel.lookback {
            outs.fill(f64::NAN);
        } else {
            let away = self.kernel.multiplier * range;
            outs.copy_from_slice(&[middle + away, middle, middle - away]);
        }
    }
}

impl Live for Channel {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let (mut middle, mut range) = ([f64::NAN], [f64::NAN]);
        if self.bar >= self.kernel.begins {
            self.average.push(self.priced(bar), &mut middle);
        }
        if self.bar >= self.kernel.from {
            self.range.push(bar, &mut range);
        }
        self.show(middle[0], range[0], outs);
        self.bar += 1;
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let (mut middle, mut range) = ([f64::NAN], [f64::NAN]);
        if self.bar >= self.kernel.begins {
            self.average.peek(self.priced(bar), &mut middle);
        }
        if self.bar >= self.kernel.from {
            self.range.peek(bar, &mut range);
        }
        self.show(middle[0], range[0], outs);
    }

    fn boxed(&self) -> Box<dyn Live> {
        let (average, range) = (self.average.boxed(), self.range.boxed());
        Box::new(Self { kernel: self.kernel.clone(), average, range, bar: self.bar })
    }
}
