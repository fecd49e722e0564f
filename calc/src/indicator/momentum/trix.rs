//! Rate of change, in percent, of an exponential average thrice smoothed.
//!
//! Lookback `3 * (period - 1) + 1`, or 1 where the averages start from the first value. Over one bar it
//! is the rate of change of the close itself. Where the average before is 0 there is no rate, and it
//! is 0.

use super::change::Change;
use crate::entry::{CLOSE, Entry, Param, SINGLE, Value};
use crate::indicator::average::cascade::{Blend, Cascade};
use crate::lanes::Lanes;
use crate::params::Span;
use std::sync::Arc;

pub(super) static TRIX: Entry = Entry {
    name: "trix",
    aliases: &[],
    summary: "rate of change of a triple exponential average in percent",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(30.0)), Param::SEED],
    outputs: SINGLE,
    build: |args| {
        let period: Span = args.window("period")?;
        let start = args.seed()?;
        Ok(match period.bars() {
            1 => Arc::new(Change::<true> { period }),
            _ => Arc::new(Cascade::of(period, start, Rate)),
        })
    },
};

#[derive(Clone, Copy, Debug)]
struct Rate;

impl Blend<3, 1> for Rate {
    const BARS_MORE: usize = 1;

    fn coefficients(&self, share: f64) -> [f64; 1] {
        [share]
    }

    #[inline(always)]
    fn blend<V: Lanes>(_: &[V; 1], [.., before]: &[V; 3], [.., now]: &[V; 3]) -> V {
        let (zero, one) = (V::splat(0.0), V::splat(1.0));
        let none = before.abs().le(zero);
        let ratio = *now / V::select(none, one, *before);
        V::select(none, zero, (ratio - one) * V::splat(100.0))
    }
}
