//! Supertrend: a band below the prices while they rise, above while they fall.
//!
//! Both bands stand `multiplier` average true ranges from the middle of the bar. The lower one only
//! rises and the upper one only falls, unless the close before was beyond it. A close beyond the band
//! that is shown turns the trend, which begins upwards. `trend` is 1 or -1.

use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, Value};
use crate::indicator::volatility::atr::ATR;
use crate::indicator::{Kernel, Live, Rows, fill_warm_up, outputs};
use crate::series::{Bar, Column};
use std::sync::Arc;

pub(super) static SUPERTREND: Entry = Entry {
    name: "supertrend",
    aliases: &[],
    summary: "a band of average true ranges that follows the trend, and its direction",
    columns: HIGH_LOW_CLOSE,
    params: &[
        Param::bars("period", 2, |_| Value::Number(10.0)),
        Param::real("multiplier", 0.0, 1e6, |_| Value::Number(3.0)),
        Param::SMOOTHING,
        Param::FIRST_RANGE,
    ],
    outputs: &["value", "trend"],
    // The average takes its parameters by the names that they have here.
    build: |args| {
        Ok(Arc::new(Supertrend { range: (ATR.build)(args)?, multiplier: args.number("multiplier")? }))
    },
};

#[derive(Clone, Debug)]
struct Supertrend {
    /// The average true range.
    range: Arc<dyn Kernel>,
    multiplier: f64,
}

/// The bands after a bar.
#[derive(Clone, Copy, Debug)]
struct Bands {
    upper: f64,
    lower: f64,
    close: f64,
    rising: bool,
}

impl Bands {
    /// The bands after a bar whose bands would stand at `distance` from its middle.
    #[inline]
    fn after(before: Option<Self>, distance: f64, high: f64, low: f64, close: f64) -> Self {
        let middle = (high + low) * 0.5;
        let (upper, lower) = (middle + distance, middle - distance);
        let Some(before) = before else { return Self { upper, lower, close, rising: true } };
        let upper = if upper < before.upper || before.close > before.upper { upper } else { before.upper };
        let lower = if lower > before.lower || before.close < before.lower { lower } else { before.lower };
        let rising = if before.rising { close >= lower } else { close > upper };
        Self { upper, lower, close, rising }
    }

    /// The band that is shown, and the direction.
    #[inline]
    fn shown(self) -> [f64; 2] {
        if self.rising { [self.lower, 1.0] } else { [self.upper, -1.0] }
    }
}

impl Kernel for Supertrend {
    fn lookback(&self) -> usize {
        self.range.lookback()
    }

    fn scratch_columns(&self) -> usize {
        self.range.scratch_columns()
    }

    fn batch(&self, rows: &Rows<'_>, outs: &mut [&mut [f64]], scratch: &mut [&mut [f64]]) {
        let [value, trend] = outputs(outs);
        self.range.batch(rows, &mut [value], scratch);
        fill_warm_up(trend, self.lookback());
        let from = self.lookback().min(value.len());
        let [high, low, close] =
            [Column::High, Column::Low, Column::Close].map(|column| &rows.column(column)[from..]);
        let mut bands = None;
        let outs = value[from..].iter_mut().zip(&mut trend[from..]);
        for ((((value, trend), &high), &low), &close) in outs.zip(high).zip(low).zip(close) {
            let next = Bands::after(bands, self.multiplier * *value, high, low, close);
            [*value, *trend] = next.shown();
            bands = Some(next);
        }
    }

    fn stream(&self) -> Box<dyn Live> {
        Box::new(Following { range: self.range.stream(), multiplier: self.multiplier, bands: None })
    }
}

#[derive(Debug)]
struct Following {
    range: Box<dyn Live>,
    multiplier: f64,
    bands: Option<Bands>,
}

impl Following {
    /// The bands after a bar of that average range, and what is shown; nothing while there is none.
    fn after(&self, bar: Bar, range: f64, outs: &mut [f64]) -> Option<Bands> {
        if range.is_nan() && self.bands.is_none() {
            outs.fill(f64::NAN);
            return None;
        }
        let bands = Bands::after(self.bands, self.multiplier * range, bar.high, bar.low, bar.close);
        outs.copy_from_slice(&bands.shown());
        Some(bands)
    }
}

impl Live for Following {
    fn push(&mut self, bar: Bar, outs: &mut [f64]) {
        let mut range = [0.0];
        self.range.push(bar, &mut range);
        self.bands = self.after(bar, range[0], outs);
    }

    fn peek(&self, bar: Bar, outs: &mut [f64]) {
        let mut range = [0.0];
        self.range.peek(bar, &mut range);
        self.after(bar, range[0], outs);
    }

    fn boxed(&self) -> Box<dyn Live> {
        let (multiplier, bands) = (self.multiplier, self.bands);
        Box::new(Self { range: self.range.boxed(), multiplier, bands })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_beyond_the_band_turns_it() {
        let after = |bands, middle: f64| Bands::after(bands, 3.0, middle + 1.0, middle - 1.0, middle);
        let first = after(None, 10.0);
        assert_eq!(first.shown(), [7.0, 1.0]);
        let higher = after(Some(first), 12.0);
        assert_eq!(higher.shown(), [9.0, 1.0]);
        // The band stays where a lower bar would lower it, until a close is below.
        let lower = after(Some(higher), 11.0);
        assert_eq!(lower.shown(), [9.0, 1.0]);
        assert_eq!(after(Some(lower), 8.0).shown(), [11.0, -1.0]);
    }
}
