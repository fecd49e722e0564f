//! Donchian's channel: the highest high and the lowest low of `period` bars, and the middle of both.
//!
//! Lookback `period - 1`.

use crate::entry::{Entry, Param, Value};
use crate::lanes::Lanes;
use crate::params::Period;
use crate::series::Column;
use crate::window::{Between, Channel};
use std::sync::Arc;

pub(super) static DONCHIAN: Entry = Entry {
    name: "donchian",
    aliases: &[],
    summary: "Donchian channel of highest high and lowest low",
    columns: &[Column::High, Column::Low],
    params: &[Param::bars("period", 2, |_| Value::Number(20.0))],
    outputs: &["upper", "middle", "lower"],
    build: |args| {
        let period: Period = args.window("period")?;
        Ok(Arc::new(Channel::<Bounds, 3>::new(period.bars())))
    },
};

#[derive(Clone, Copy, Debug)]
struct Bounds;

impl Between<3> for Bounds {
    const READS: [Column; 3] = [Column::High, Column::Low, Column::High];

    #[inline(always)]
    fn of<V: Lanes>(highest: V, lowest: V, _: V) -> [V; 3] {
        let zero = V::splat(0.0);
        let (upper, lower) = (highest + zero, lowest + zero);
        [upper, (upper + lower) / V::splat(2.0), lower]
    }
}
