//! Technical indicators, trading signals and risk figures as pure functions.
//!
//! Knows: series of `f64` bars, checked parameters, the nine indicators with their batch and
//! streaming forms, three signal rules with their validation, and the risk figures of a return
//! series.
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
//! use sluice_calc::{Sma, Span, Stream};
//!
//! let close = [1.0, 2.0, 3.0, 4.0];
//! let sma = Sma::new(Span::of::<2>());
//! let mut out = [0.0; 4];
//! sma.batch(&close, &mut out)?;
//! assert_eq!(out[1..], [1.5, 2.5, 3.5]);
//!
//! let mut live = sma.stream();
//! assert!(live.push(1.0).is_nan());
//! assert_eq!(live.peek(9.0), 5.0); // the forming bar, not committed
//! assert_eq!(live.push(2.0), 1.5);
//! # Ok::<(), sluice_calc::ShapeError>(())
//! ```

pub mod catalog;
pub mod compat;
pub mod indicator;
pub mod params;
pub mod risk;
pub mod series;
pub mod signal;
mod window;

pub use catalog::{
    CatalogError, ComputeError, Entry, Indicator, IndicatorStream, Outputs, Param, Range, Value,
};
pub use compat::Compat;
pub use indicator::{
    Adx, AdxStream, Atr, AtrStream, Bands, Bbands, BbandsStream, Ema, EmaStream, Macd, MacdPoint, MacdStream,
    Obv, ObvStream, Rsi, RsiStream, Sma, SmaStream, Stoch, StochPoint, StochStream, Stream,
};
pub use params::{Ddof, Deviations, FirstRange, Period, RangeError, Seed, Smoothing, Span};
pub use series::{Bar, Bars, Column, Columns, RowFault, RowFaultKind, ShapeError};
