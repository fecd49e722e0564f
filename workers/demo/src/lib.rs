//! The demo: stand-in services behind the edge, and a market tape from real price history.
//!
//! Knows: the shipped bars, what the platforms' data, backtesting and trading-bot services answer
//! to their documented example calls, how to publish events and ask for calculations, where its
//! certificate comes from. Must not know: how events are stored or indicators computed; it asks the workers for both.

pub mod api;
pub mod backtest;
pub mod config;
pub mod context;
pub mod error;
pub mod history;
pub mod identity;
pub mod pipeline;
pub mod tape;

use std::sync::Arc;

use sluice_http::Start;

use crate::config::Settings;
use crate::context::Context;
pub use crate::error::DemoError;

/// Runs the demo until the process is to end.
pub async fn run(start: Start) -> Result<(), DemoError> {
    let settings = Settings::from_config(&start.config.demo);
    let context = Arc::new(Context::new(&start, settings)?);
    let tape = tokio::spawn(tape::run(Arc::clone(&context), start.stop.clone()));
    let pipeline = tokio::spawn(pipeline::run(Arc::clone(&context), start.stop.clone()));
    let served = api::serve(&start, context, identity::start(&start)).await;
    tape.abort();
    pipeline.abort();
    served
}
