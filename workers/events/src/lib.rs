//! The event worker: events in one order, durable before they are acknowledged, read back by filter, replayed,
//! and streamed to subscribers.
//!
//! Knows: the event log and its format, who may publish and read what, what the data of a type must be, the calls
//! under `/events`, `/state` and `/schemas`.
//! Must not know: how callers are verified (sluice-http), how other workers do their work, the edge.

mod access;
mod admin;
mod api;
mod archive;
mod batch;
mod bell;
mod body;
mod candles;
mod cloudevents;
mod config;
mod context;
mod convenience;
mod engine;
mod error;
mod event;
mod fingerprint;
mod frame;
mod gaps;
mod group;
mod hub;
mod incoming;
mod json;
mod keys;
pub mod log;
mod metrics;
mod notify;
mod openapi;
mod params;
mod publish;
mod query;
mod rate;
mod redis;
mod replay;
mod ring;
mod schemas;
mod series;
mod state;
mod stats;
mod stream;
mod streams;
#[cfg(test)]
mod tests;
mod waiting;
mod ws;

use std::sync::Arc;
use std::time::Duration;

use sluice_http::{Start, serve_with};
use sluice_wire::role::Role;

pub use error::RunError;
pub use keys::KeyError;
pub use openapi::document as openapi;

use config::Settings;
use context::Context;
use engine::{Engine, LeftBehind, Spool};
use group::{Groups, Journal, Limits};
use log::{AtRest, Fatal, Ground, Log, Options, Retention};
use metrics::Metrics;
use redis::Redis;

/// Plays the role: opens the log, serves, and returns when the process is to end or the log has failed.
pub async fn run(start: Start) -> Result<(), RunError> {
    let mut settings = Settings::new(&start);
    let metrics = Arc::new(Metrics::new(&start.registry));
    let Some((engine, at_rest)) = open(&start, &settings, &metrics).await? else { return Ok(()) };
    settings.at_rest = at_rest;
    if settings.redis.is_none() {
        settings.left_behind = left_behind(&settings).await?;
    }
    let own = if engine.group_notes().is_some() { None } else { Some(open_journal(&settings).await?) };
    let journal = own.clone().map(Journal::new).or_else(|| engine.group_notes().map(Journal::shared));
    let (reader, journal) = (engine.reader(), journal.expect("a store without notes has a log for them"));
    let opened =
        tokio::task::spawn_blocking(move || Groups::open(reader, journal, Limits::default())).await?;
    let (groups, told) = opened?;
    let context = Context::new(engine.clone(), groups, settings, metrics, start.stop.clone())?;
    let announced = tokio::spawn(group::announce(Arc::clone(&context), told));
    let own_context = Arc::clone(&context);
    let refreshed = tokio::task::spawn_blocking(move || own_context.schemas.refresh()).await?;
    if let Err(error) = refreshed {
        tracing::warn!(component = "schemas", error = %error, "schemas in Redis are not known yet");
    }
    let gaps = tokio::spawn(gaps::announce(Arc::clone(&context)));
    let called = tokio::spawn(stream::call(Arc::clone(&context), start.trust.clone()));
    let observed = tokio::spawn(Arc::clone(&context).observe());
    let notifier = notify::Notifier::prepare(&context, &start.config.notify).await;
    let notified = notifier.map(|notifier| tokio::spawn(notifier.run()));
    let has_calc = start.sockets.contains_key(&Role::Calc);
    let series = tokio::spawn(series::tidy(Arc::clone(&context), has_calc));
    let candles = context.settings.candles.clone();
    let candles = candles.map(|rules| tokio::spawn(candles::run(Arc::clone(&context), rules)));
    let direct = Some(api::direct(&context));
    let served = tokio::select! {
        served = serve_with(&start, api::router(&context), direct, Arc::clone(&context) as _) => served.map_err(RunError::from),
        // Nothing can be acknowledged any more, and what is on the disk is for the next start to find out.
        fatal = engine.failed() => Err(RunError::Log(fatal)),
        fatal = failed(own.as_ref()) => Err(RunError::Log(fatal)),
    };
    observed.abort();
    announced.abort();
    gaps.abort();
    called.abort();
    series.abort();
    drop(series.await);
    // Cancelled, as asked.
    if let Some(candles) = candles {
        // It stops by itself, and loses nothing: what is not stored is made again.
        candles.abort();
        drop(candles.await);
    }
    if let Some(mut notified) = notified {
        // Asked to end, it gives back what it holds; otherwise leases end by themselves.
        let ended =
            start.stop.is_stopping() && tokio::time::timeout(NOTIFY_DRAIN, &mut notified).await.is_ok();
        if !ended {
            notified.abort();
            drop(notified.await);
        }
    }
    drop((observed.await, announced.await, gaps.await, called.await));
    // Waits for two threads; what is queued is stored.
    tokio::task::spawn_blocking(move || {
        context.close();
        drop((context, engine, own));
    })
    .await?;
    served
}

/// LIMIT: how long alerts that are being sent hold the end up.
const NOTIFY_DRAIN: Duration = Duration::from_secs(5);

/// Waits until the log of the groups fails; forever while it does not, or is not there.
async fn failed(journal: Option<&Log>) -> Fatal {
    match journal {
        Some(journal) => journal.failed().await,
        None => std::future::pending().await,
    }
}

/// LIMIT: a segment of what is kept of the groups, in bytes: small, because space is given back by the segment.
const JOURNAL_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Opens the log of the groups: as durable as the event log; what counts in it is kept, whatever its age.
async fn open_journal(settings: &Settings) -> Result<Log, RunError> {
    let dir = settings.groups_dir.clone();
    let options = Options {
        retention: Retention::default(),
        dedup_window_ms: 0,
        segment_bytes: JOURNAL_SEGMENT_BYTES,
        partitions: None,
        ..settings.log_options
    };
    // What is cleaned away soon is not worth compressing; copies of acks are nothing to keep.
    let at_rest = AtRest { archive: None, compress: false, ..settings.at_rest.clone() };
    let ground = Ground { at_rest, ..Ground::default() };
    Ok(tokio::task::spawn_blocking(move || Log::open(&dir, &options, ground)).await??)
}

/// What an earlier configuration left for a Redis: nobody stores it now, and nobody may believe that it is.
async fn left_behind(settings: &Settings) -> Result<Option<LeftBehind>, RunError> {
    let (dir, options) = (settings.spool_dir.clone(), settings.log_options);
    let ground = Ground { at_rest: settings.at_rest.clone(), ..Ground::default() };
    let left = tokio::task::spawn_blocking(move || Spool::left_behind(&dir, options, ground)).await?;
    if let Some(left) = &left {
        tracing::warn!(component = "spool", "{}", left.told());
    }
    Ok(left)
}

/// The store; `None` when the process is to end before it is open.
async fn open(
    start: &Start,
    settings: &Settings,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Engine, AtRest)>, RunError> {
    let Some(options) = settings.redis.clone() else {
        let opened = waiting::open(start, settings, metrics).await?;
        return Ok(opened.map(|(log, at_rest)| (Engine::Embedded(log), at_rest)));
    };
    let observer = Arc::clone(metrics);
    // What stands beside the stream, in this worker's own files, is encrypted.
    let Some(at_rest) = waiting::keys(start, settings).await? else { return Ok(None) };
    let redis = tokio::task::spawn_blocking(move || Redis::open(options, observer)).await??;
    let (own, ground) = (redis.clone(), Ground { at_rest: at_rest.clone(), ..Ground::default() });
    let (dir, options, takes) = (settings.spool_dir.clone(), settings.log_options, settings.spools);
    let spool = tokio::task::spawn_blocking(move || Spool::open(own, &dir, options, ground, takes)).await??;
    if redis.state() == redis::State::Up {
        let durability = redis.durability().as_str();
        tracing::info!(component = "redis", durability, "events are stored in Redis");
    }
    Ok(Some((Engine::Redis(redis, spool), at_rest)))
}
