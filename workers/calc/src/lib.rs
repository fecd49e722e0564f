//! The calculation worker: indicators, signals and risk figures over HTTP.
//!
//! Knows: the request and answer shapes of `/calculations/*`, how candles arrive, limits, the pool
//! that computes. Must not know: how a figure is defined; that is sluice-calc.

mod affinity;
mod answers;
pub mod api;
mod arrow;
mod body;
mod bounds;
mod catalog;
mod coalesce;
mod columns;
pub mod config;
pub mod context;
mod csv;
mod data;
mod encode;
pub mod error;
mod figures;
mod inbox;
mod indicators;
mod negotiate;
mod performance;
mod pool;
mod risk;
mod scan;
mod seeds;
mod signals;
mod sweep;
#[doc(hidden)]
pub mod timing;

/// For which processors the calculations were compiled.
pub mod kernels {
    pub use sluice_calc::dispatch::{BUILD, Build};
}

use std::sync::Arc;

use sluice_http::Start;

use crate::config::Settings;
use crate::context::Context;
pub use crate::error::CalcError;

/// Runs the worker until the process is to end.
pub async fn run(start: Start) -> Result<(), CalcError> {
    let settings = Settings::from_config(&start.config.calc);
    let context = Arc::new(Context::new(&start.registry, settings, start.trust.clone())?);
    let health = Arc::clone(&context);
    sluice_http::serve(&start, api::routes(context), health).await?;
    Ok(())
}
