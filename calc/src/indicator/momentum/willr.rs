//! Williams' %R: how far the close stands below the highest high of `period` bars, -100 at the lowest
//! low, 0 at the top. The stochastic's raw value seen from above.
//!
//! Lookback `period - 1`. A range that is nothing but rounding counts as none and gives 0.

use super::stoch::FLAT;
use crate::entry::{Entry, HIGH_LOW_CLOSE, Param, SINGLE, Value};
use crate::lanes::Lanes;
use crate::params::Period;
use crate::series::Column;
use crate::window::{Between, Channel};
use std::sync::Arc;

pub(super) static WILLR: Entry = Entry {
    name: "willr",
    aliases: &[],
    summary: "Williams' %R, -100 to 0",
    columns: HIGH_LOW_CLOSE,
    params: &[Param::bars("period", 2, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| {
        let period: Period = args.window("period")?;
        Ok(Arc::new(Channel::<Depth, 1>::new(period.bars())))
    },
};

#[derive(Clone, Copy, Debug)]
struct Depth;

impl Between<1> for Depth {
    const READS: [Column; 3] = [Column::High, Column::Low, Column::Close];

    #[inline(always)]
    fn of<V: Lanes>(highest: V, lowest: V, close: V) -> [V; 1] {
        let (zero, range) = (V::splat(0.0), highest - lowest);
        let flat = range.le(V::splat(FLAT) * (highest.abs() + lowest.abs()));
        let divisor = V::select(flat, V::splat(f64::INFINITY), range);
        let depth = (highest - close) / divisor * V::splat(-100.0);
        // A close outside of its own bar must not leave the scale; a zero comes out positive.
        [depth.top(V::splat(-100.0)).bottom(zero) + zero]
    }
}
