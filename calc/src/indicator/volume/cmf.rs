//! Chaikin's money flow: of the volume of the last `period` bars, the share that flowed in less the
//! share that flowed out, -1 to 1; 0 where nothing was traded.
//!
//! Lookback `period - 1`. A bar's flow is that of accumulation and distribution.

use super::ad::{RANGES_VOLUME, money_flow};
use crate::entry::{Entry, Param, SINGLE, Value};
use crate::lanes::Lanes;
use crate::params::Period;
use crate::series::Column;
use crate::window::{Derived, Itself, Over, Ratio};
use std::sync::Arc;

pub(super) static CMF: Entry = Entry {
    name: "cmf",
    aliases: &[],
    summary: "Chaikin's money flow, -1 to 1",
    columns: RANGES_VOLUME,
    params: &[Param::bars("period", 2, |_| Value::Number(20.0))],
    outputs: SINGLE,
    build: |args| {
        let period: Period = args.window("period")?;
        Ok(Arc::new(Over::<Flows, _, 4, 2, 3, 1>::new(Ratio::<Itself>::new(period.bars()))))
    },
};

/// The flow of a bar, and its volume.
#[derive(Clone, Copy, Debug)]
struct Flows;

impl Derived<4, 2> for Flows {
    const READS: [Column; 4] = [Column::High, Column::Low, Column::Close, Column::Volume];
    const LATE: bool = false;

    #[inline(always)]
    fn of<V: Lanes>(_: [V; 2], now: [V; 4]) -> [V; 2] {
        [money_flow(now), now[3]]
    }
}
