//! Simple moving average: the mean of the last `period` values.
//!
//! Lookback `period - 1`. TA-Lib's order of operations (off with the oldest, on with the newest,
//! then divide) within a segment; see the `window` module for the restarts.

use crate::entry::{CLOSE, Entry, Param, SINGLE, Value};
use crate::params::Span;
use crate::window::Means;
use std::sync::Arc;

pub(super) static SMA: Entry = Entry {
    name: "sma",
    aliases: &[],
    summary: "simple moving average",
    columns: CLOSE,
    params: &[Param::bars("period", 1, |_| Value::Number(30.0))],
    outputs: SINGLE,
    build: |args| {
        let period: Span = args.window("period")?;
        Ok(Arc::new(Means::new(period.bars())))
    },
};
