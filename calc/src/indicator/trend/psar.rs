//! Parabolic stop and reverse: a stop that follows the trend and closes in on it.
//!
//! The stop moves by a share of its distance from the trend's extreme; the share grows by
//! `acceleration` with every new extreme, up to `maximum`. It never enters the range of the last two
//! bars. A bar that reaches it turns the trend: the stop jumps to the extreme and the share starts
//! anew. The direction of bar 1, whose value is the first, is down if it fell further than it rose,
//! else up.
//!
//! A trend is remembered as long as it lasts, so there is nothing to cut into chunks. In a falling
//! one all prices are taken with the other sign, which rounds nothing, so there is one rule.

use crate::entry::{Entry, Param, SINGLE, Value};
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::series::{Bar, Column};
use std::sync::Arc;

pub(super) static PSAR: Entry = Entry {
    name: "psar",
    aliases: &["sar"],
    summary: "parabolic stop and reverse",
    columns: &[Column::High, Column::Low],
    params: &[
        Param::real("acceleration", 0.0, 1e6, |_| Value::Number(0.02)),
        Param::real("maximum", 0.0, 1e6, |_| Value::Number(0.2)),
    ],
    outputs: SINGLE,
    build: |args| {
        let (acceleration, maximum) = (args.number("acceleration")?, args.number("maximum")?);
        Ok(Arc::new(Psar { acceleration: acceleration.min(maximum), maximum }))
    },
};

#[derive(Clone, Copy, Debug)]
struct Psar {
    acceleration: f64,
    maximum: f64,
}

/// The two ends of a bar.
#[derive(Clone, Copy, Debug)]
struct Ends {
    high: f64,
    low: f64,
}

impl Ends {
    /// As a trend of that sign sees them: upside down when it falls.
    #[inline]
    fn seen(self, sign: f64) -> Self {
        if sign > 0.0 { self } else { Self { high: -self.low, low: -self.high } }
    }
}

/// A trend under way; all but `before` as it sees the prices.
#[derive(Clone, Copy, Debug)]
struct Trend {
    /// 1 when it rises, -1 when it falls.
    sign: f64,
    stop: f64,
    extreme: f64,
    share: f64,
    before: Ends,
}

impl Psar {
    /// The trend that bar 1 begins.
    fn begin(self, first: Ends, second: Ends) -> Trend {
        let (rise, fall) = (second.high - first.high, first.low - second.low);
        let sign = if fall > 0.0 && fall > rise { -1.0 } else { 1.0 };
        let (stop, extreme) = (first.seen(sign).low, second.seen(sign).high);
        Trend { sign, stop, extreme, share: self.acceleration, before: second }
    }

    /// Takes a bar and returns its stop.
    #[inline]
    fn after(self, trend: &mut Trend, bar: Ends) -> f64 {
        let (now, before) = (bar.seen(trend.sign), trend.before.seen(trend.sign));
        trend.before = bar;
        if now.low <= trend.stop {
            return self.turn(trend, bar, now.high.max(before.high));
        }
        let value = trend.stop;
        if now.high > trend.extreme {
            trend.extreme = now.high;
            trend.share = (trend.share + self.acceleration).min(self.maximum);
        }
        let stop = (trend.extreme - trend.stop) * trend.share + trend.stop;
        trend.stop = stop.min(before.low.min(now.low));
        value * trend.sign
    }

    /// Turns the trend at `bar`; `beyond` is the old trend's farther end of the last two bars.
    #[inline]
    fn turn(self, trend: &mut Trend, bar: Ends, beyond: f64) -> f64 {
        // What bounded the old trend above bounds the new one below, with the other sign.
        let bound = -beyond;
        let value = (-trend.extreme).min(bound);
        let extreme = bar.seen(-trend.sign).high;
        let stop = (extreme - value) * self.acceleration + value;
        let before = trend.before;
        *trend =
            Trend { sign: -trend.sign, stop: stop.min(bound), extreme, share: self.acceleration, before };
        value * trend.sign
    }
}

impl Kernel for Psar {
    fn lookback(&self) -> usize {
        1
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], _: &mut [&mut [f64]]) {
        let [out] = outputs(outs);
        fill_warm_up(out, 1);
        let [highs, lows] = [Column::High, Column::Low].map(|column| rows.column(column));
        let mut bars = highs.iter().zip(lows).map(|(&high, &low)| Ends { high, low });
        let (Some(first), Some(second)) = (bars.next(), bars.next()) else { return };
        let mut trend = self.begin(first, second);
        out[1] = self.after(&mut trend, second);
        for (out, bar) in out[2..].iter_mut().zip(bars) {
            *out = self.after(&mut trend, bar);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(PsarStream { rule: *self, phase: Phase::Nothing })
    }
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Nothing,
    One(Ends),
    Trend(Trend),
}

#[derive(Clone, Copy, Debug)]
struct PsarStream {
    rule: Psar,
    phase: Phase,
}

impl Live for PsarStream {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let bar = Ends { high: bar.high, low: bar.low };
        let mut trend = match self.phase {
            Phase::Nothing => {
                self.phase = Phase::One(bar);
                return outs.fill(f64::NAN);
            }
            Phase::One(first) => self.rule.begin(first, bar),
            Phase::Trend(trend) => trend,
        };
        outs[0] = self.rule.after(&mut trend, bar);
        self.phase = Phase::Trend(trend);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        { *self }.push(bar, outs);
    }

    fn boxed(&self) -> Box<dyn Live> {
        Box::new(*self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stop_follows_and_turns() {
        let mut stream = Psar { acceleration: 0.5, maximum: 0.5 }.stream();
        let mut out = [0.0];
        let mut push = |high: f64, low: f64| {
            stream.push(Bar { open: low, high, low, close: high, volume: 0.0 }, &mut out);
            out[0]
        };
        assert!(push(10.0, 8.0).is_nan());
        // Half way from the first low to the high, 8 to 12, but no higher than the last two lows.
        assert_eq!((push(12.0, 11.0), push(14.0, 12.0)), (8.0, 10.0));
        // Half way to 14 would be 12, and the lows are 11 and 12; then a bar below turns it.
        assert_eq!((push(12.0, 9.0), push(10.0, 9.0)), (14.0, 14.0));
    }
}
