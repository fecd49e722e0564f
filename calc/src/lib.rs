//! Technical indicators, trading signals and risk figures as pure functions.
//!
//! Knows: series of `f64` bars, checked parameters, the indicators with their batch and
//! streaming forms, the signal rules with their validation, the risk figures of a return series, and
//! sizes of positions with their limits, and scores of strategies.
//!
//! Must not know: files, sockets, clocks, threads, JSON, or who is asking. Everything goes in as a
//! slice and comes out in the caller's buffer; a kernel never allocates, a streaming state only
//! when it is made.
//!
//! Three promises hold for every indicator:
//! - an output is as long as its input, `NaN` for the first `lookback()` bars;
//! - the streaming state returns bit for bit what the batch writes for the same bar;
//! - the bits are the same on every build: no fused multiply-add, no reassociation.
//!
//! ```
//! use sluice_calc::{Bar, Bars, Compat, Cpu, Indicator, Value, Workspace};
//!
//! let close = [1.0, 2.0, 3.0, 4.0];
//! let sma = Indicator::parse("sma", Compat::TaLib, &[("period", Value::Number(2.0))])?;
//! let mut out = [0.0; 4];
//! let mut work = Workspace::new(Cpu::proven()?);
//! sma.compute(&mut work, &Bars::from_close(&close), &mut [&mut out])?;
//! assert_eq!(out[1..], [1.5, 2.5, 3.5]);
//!
//! let bar = |close| Bar { open: close, high: close, low: close, close, volume: 0.0 };
//! let mut live = sma.stream();
//! assert!(live.push(bar(1.0)).as_slice()[0].is_nan());
//! assert_eq!(live.peek(bar(9.0)).as_slice(), [5.0]); // the forming bar, not committed
//! assert_eq!(live.push(bar(2.0)).as_slice(), [1.5]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![allow(
    clippy::inline_always,
    reason = "what is written over lanes must stay in registers: a call costs more than what it does"
)]

pub mod catalog;
pub mod compat;
pub mod dispatch;
mod entry;
mod indicator;
mod lanes;
pub mod params;
mod recursion;
pub mod risk;
pub mod score;
pub mod search;
pub mod series;
pub mod signal;
pub mod size;
mod window;

pub use catalog::{ComputeError, Indicator, IndicatorStream, Job, Outputs, Workspace, compute_all};
pub use compat::Compat;
pub use dispatch::Cpu;
pub use entry::{CatalogError, Entry, Param, Range, Value};
pub use params::{Ddof, Deviations, FirstRange, Period, RangeError, Seed, Smoothing, Span};
pub use series::{Bar, Bars, Column, Columns, RowFault, RowFaultKind, ShapeError};
