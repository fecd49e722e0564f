//! Metric names and log lines: what operators see of a process.
//!
//! Knows: the catalogue of metrics, how a log line looks, how many lines were dropped. Must not
//! know: HTTP, roles' state, what a metric's value means to anyone.

pub mod log;
pub mod metric;
