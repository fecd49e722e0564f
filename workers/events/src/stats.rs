//! What the stream holds, and which types there are.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sluice_http::{Authenticated, Reject, StrictQuery};
use sluice_wire::event::{ALIASES, CATALOGUE};

use crate::access;
use crate::context::{Context, json_response};
use crate::engine::Reader;
use crate::log::Partitions;
use crate::redis::StreamGroup;

/// LIMIT: groups of one answer, as many as there can be.
const GROUPS_MAX: usize = 1_000;

/// Query of the figures.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StatsQuery {
    /// A stream beside the main one.
    stream: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    stream: &'a str,
    stream_length: u64,
    /// Events ever stored, over all partitions.
    last_seq: u64,
    partitions: u8,
    first_entry: Option<String>,
    last_entry: Option<String>,
    consumer_groups: usize,
    groups: Vec<serde_json::Value>,
    /// What clients of Redis keep on the stream itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    redis_groups: Vec<StreamGroup>,
    types: BTreeMap<Box<str>, u64>,
    bytes: u64,
    segments: u64,
    oldest_age_seconds: f64,
    store: &'static str,
}

#[derive(Serialize)]
struct Types {
    event_types: &'static [&'static str],
    aliases: BTreeMap<&'static str, &'static str>,
}

/// `GET /events/stats`
pub(crate) async fn stats(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    StrictQuery(query): StrictQuery<StatsQuery>,
) -> Result<Response, Reject> {
    let readable = access::readable(&caller)?;
    let main = context.settings.stream.as_str();
    let name = query.stream.as_deref().unwrap_or(main);
    let mut stats = context.read_stream(Some(name), Reader::fresh_stats).await?;
    // The names of types are part of what a narrow grant does not show.
    stats.types.retain(|kind, _| readable.admits_type(kind));
    if stats.other_types > 0 && readable.granted.is_none() {
        stats.types.insert("other".into(), stats.other_types);
    }
    let reports = if name == main { context.groups.list(None, GROUPS_MAX).await? } else { Vec::new() };
    let groups: Vec<_> = reports
        .iter()
        .filter(|report| report.settings.filter.is_within(&readable))
        .map(|report| {
            serde_json::json!({
                "name": report.group,
                "consumers": report.consumers.len(),
                "pending": report.pending,
                "last-delivered-id": report.last.map(|id| id.to_string()),
                "lag": report.lag_events,
                "lag_seconds": report.lag_ms as f64 / 1e3,
                "dlq_depth": report.dead,
            })
        })
        .collect();
    // Who reads the stream in Redis itself is given every type.
    let others = match readable.granted {
        None => context.read_stream(Some(name), Reader::stream_groups).await?,
        Some(_) => Vec::new(),
    };
    json_response(&Answer {
        stream: name,
        stream_length: stats.length,
        last_seq: stats.last_seq,
        partitions: context.settings.partitions.map_or(1, Partitions::count),
        first_entry: stats.first_id.map(|id| id.to_string()),
        last_entry: stats.last_id.map(|id| id.to_string()),
        consumer_groups: groups.len(),
        groups,
        redis_groups: others.into_iter().take(GROUPS_MAX).collect(),
        types: stats.types,
        bytes: stats.bytes,
        segments: stats.segments,
        oldest_age_seconds: Context::oldest_age_s(stats.first_id.map(|id| id.ms)),
        store: context.store(),
    })
}

/// `GET /events/types`
pub(crate) async fn types(_: Authenticated) -> Result<Response, Reject> {
    json_response(&Types { event_types: CATALOGUE, aliases: ALIASES.iter().copied().collect() })
}
