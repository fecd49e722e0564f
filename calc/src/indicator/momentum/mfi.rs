//! Money flow index: the share of rising bars in the money that changed hands over `period` bars, 0
//! to 100; 0 where none did.
//!
//! A bar's money is its typical price times its volume, and counts where that price moved: a change
//! within 1e-14 of the prices themselves is rounding. Lookback `period`.

use crate::entry::{Entry, Param, SINGLE, Value};
use crate::lanes::Lanes;
use crate::params::Period;
use crate::series::Column;
use crate::window::{Derived, Over, Ratio, Shown};
use std::sync::Arc;

pub(super) static MFI: Entry = Entry {
    name: "mfi",
    aliases: &[],
    summary: "money flow index, 0 to 100",
    columns: &[Column::High, Column::Low, Column::Close, Column::Volume],
    params: &[Param::bars("period", 2, |_| Value::Number(14.0))],
    outputs: SINGLE,
    build: |args| {
        let period: Period = args.window("period")?;
        Ok(Arc::new(Over::<Money, _, 4, 2, 3, 1>::new(Ratio::<Percent>::new(period.bars()))))
    },
};

/// A change up to this share of the prices is rounding, not movement.
const FLAT: f64 = 1e-14;

/// The money of a bar where it rose, and where it moved.
#[derive(Clone, Copy, Debug)]
struct Money;

impl Derived<4, 2> for Money {
    const READS: [Column; 4] = [Column::High, Column::Low, Column::Close, Column::Volume];
    const LATE: bool = true;

    /// The typical price.
    #[inline(always)]
    fn kept<V: Lanes>([high, low, close, _]: [V; 4]) -> V {
        (high + low + close) / V::splat(3.0)
    }

    #[inline(always)]
    fn of<V: Lanes>([before, price]: [V; 2], [.., volume]: [V; 4]) -> [V; 2] {
        let (zero, change) = (V::splat(0.0), price - before);
        let moved = (V::splat(FLAT) * (price.abs() + before.abs())).lt(change.abs());
        let money = V::select(moved, price * volume, zero);
        [V::select(zero.lt(change), money, zero), money]
    }
}

/// The share in percent. What rounding leaves of it must not be negative or more than the whole.
#[derive(Clone, Copy, Debug)]
struct Percent;

impl Shown for Percent {
    #[inline(always)]
    fn of<V: Lanes>(share: V) -> V {
        let (share, one) = (share.positive(), V::splat(1.0));
        V::splat(100.0) * V::select(one.lt(share), one, share)
    }
}
