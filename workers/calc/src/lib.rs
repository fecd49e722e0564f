//! The calculation worker: indicators, signals and risk figures over HTTP.
//!
//! Knows: the request and answer shapes of `/calculations/*` and `/series`, how candles arrive and are
//! stored, limits, the pool that computes. Must not know: how a figure is defined; that is sluice-calc.

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
mod discover;
mod encode;
pub mod error;
mod feed;
mod figures;
mod inbox;
mod indicators;
mod jobs;
mod negotiate;
mod openapi;
mod performance;
mod pool;
mod risk;
mod scan;
mod score;
mod search;
mod seeds;
mod series;
mod signals;
mod size;
mod strategies;
mod sweep;
#[doc(hidden)]
pub mod timing;
mod universe;
mod whole;

/// For which processors the calculations were compiled.
pub mod kernels {
    pub use sluice_calc::dispatch::{BUILD, Build};
}

use std::sync::Arc;
use std::time::Duration;

use sluice_client::Client;
use sluice_http::Start;
use sluice_telemetry::metric::{self, Name};
use sluice_wire::role::Role;

use crate::bounds::{SERIES_CHECKPOINT_S, SERIES_JOURNAL_BYTES, SERIES_MAX};
use crate::config::Settings;
use crate::context::Context;
use crate::discover::Publisher;
pub use crate::error::CalcError;
pub use crate::feed::SeatError;
use crate::feed::{Feed, Seat};
pub use crate::openapi::document as openapi;
pub use crate::series::OpenError;
use crate::series::{Counts, Limits, Store};
#[doc(hidden)]
pub use crate::series::{Disk, Medium};
use crate::universe::Kept;
pub use crate::universe::UniverseError;

/// Runs the worker until the process is to end.
pub async fn run(start: Start) -> Result<(), CalcError> {
    run_on(start, Arc::new(Disk)).await
}

/// Runs the worker with stored series on a disk that tests can let fail.
#[doc(hidden)]
pub async fn run_on(start: Start, medium: Arc<dyn Medium>) -> Result<(), CalcError> {
    let settings = Settings::from_config(&start.config.calc);
    let store = open_series(&start, medium, settings.series_bytes).await?;
    let folder = start.role_dir();
    let universe = tokio::task::spawn_blocking(move || Kept::open(&folder)).await??;
    let context = Arc::new(Context::new(&start, settings, store, universe)?);
    let health = Arc::clone(&context);
    let feed = feed(&start, &context).await?;
    let publisher = publisher(&start, &context)?;
    let served = sluice_http::serve(&start, api::routes(Arc::clone(&context)), health).await;
    if let Some(feed) = feed {
        feed.end().await;
    }
    if let Some(publisher) = publisher {
        publisher.end().await;
    }
    context.jobs.close();
    // Waits for the thread that writes: what is queued is stored.
    tokio::task::spawn_blocking(move || context.series.close()).await?;
    Ok(served?)
}

/// What follows the event worker; nothing where there is none.
async fn feed(start: &Start, context: &Arc<Context>) -> Result<Option<Feed>, CalcError> {
    let Some(client) = events(start)? else { return Ok(None) };
    let folder = start.role_dir();
    let seat = tokio::task::spawn_blocking(move || Seat::open(&folder)).await??;
    Ok(Some(Feed::start(&client, context, seat, start.stop.clone())))
}

/// What tells the event worker of discovered strategies; nothing where there is none.
fn publisher(start: &Start, context: &Arc<Context>) -> Result<Option<Publisher>, CalcError> {
    Ok(events(start)?.map(|client| Publisher::start(client, Arc::clone(&context.jobs))))
}

/// The event worker: the configured one, else the one beside this worker.
fn events(start: &Start) -> Result<Option<Client>, CalcError> {
    let calc = &start.config.calc;
    if let Some(url) = &calc.events_url {
        let base = format!("http://{}", url.authority());
        return Ok(Some(Client::api_with_file(&base, calc.events_token_file.clone())?));
    }
    let socket = start.sockets.get(&Role::Events);
    Ok(socket.map(|socket| Client::internal(socket.clone(), start.keys.own())))
}

async fn open_series(start: &Start, medium: Arc<dyn Medium>, bytes: u64) -> Result<Arc<Store>, CalcError> {
    let folder = start.role_dir();
    let limits = Limits {
        series: SERIES_MAX,
        bytes,
        journal_bytes: SERIES_JOURNAL_BYTES,
        checkpoint_every: Duration::from_secs(SERIES_CHECKPOINT_S),
    };
    let counts = Counts {
        series: metric::gauge(&start.registry, Name::CalcSeries),
        candles: metric::counters(&start.registry, Name::CalcCandles),
    };
    let opened = tokio::task::spawn_blocking(move || Store::open(&folder, medium, limits, counts)).await?;
    Ok(Arc::new(opened?))
}
