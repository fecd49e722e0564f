//! The calls of this worker, and how large their bodies may be.

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Extension, Router};
use sluice_http::{BodyLimit, Direct};

use crate::batch::{self, BATCH_BYTES_MAX};
use crate::context::Context;
use crate::group::api as groups;
use crate::group::dlq;
use crate::incoming::EVENT_BYTES_MAX;
use crate::schemas::SCHEMA_BYTES_MAX;
use crate::{
    admin, archive, cloudevents, openapi, publish, query, replay, schemas, state, stats, stream, ws,
};

/// LIMIT: body of a replay.
const REPLAY_BYTES_MAX: usize = 64 * 1024;

/// Every route.
pub(crate) fn router(context: &Arc<Context>) -> Router {
    let event = Extension(BodyLimit(EVENT_BYTES_MAX));
    Router::new()
        .route("/events", post(cloudevents::posted).layer(event).get(query::list))
        .route("/events/market-data", post(publish::market_data).layer(event))
        .route("/events/trading-signal", post(publish::trading_signal).layer(event))
        .route("/events/portfolio-update", post(publish::portfolio_update).layer(event))
        .route("/events/batch", post(batch::batch).layer(Extension(BodyLimit(BATCH_BYTES_MAX))))
        .route("/events/replay", post(replay::replay).layer(Extension(BodyLimit(REPLAY_BYTES_MAX))))
        .route("/events/replay/{id}", get(replay::told).patch(replay::change).delete(replay::delete))
        .route("/events/replay/{id}/stream", get(replay::watch_session))
        .route("/admin/archive", post(archive::archive))
        .route("/events/stats", get(stats::stats))
        .route("/events/types", get(stats::types))
        .route("/events/stream", get(stream::stream))
        .route("/events/ws", get(ws::open))
        .route("/events/{id}", get(query::one))
        .route("/admin/retention", post(admin::retention))
        .route("/schemas", get(schemas::list))
        .route(
            "/schemas/{event_type}",
            get(schemas::read)
                .put(schemas::set)
                .layer(Extension(BodyLimit(SCHEMA_BYTES_MAX)))
                .delete(schemas::remove),
        )
        .route("/state", get(state::by_query))
        .route("/state/{*symbol}", get(state::by_path))
        .route("/groups", get(groups::list))
        .route("/groups/{group}", get(groups::report).put(groups::put).delete(groups::delete))
        .route("/groups/{group}/lease", post(groups::lease))
        .route("/groups/{group}/ack", post(groups::ack))
        .route("/groups/{group}/nack", post(groups::nack))
        .route("/groups/{group}/extend", post(groups::extend))
        .route("/groups/{group}/dlq", get(dlq::letters).delete(dlq::purge))
        .route("/groups/{group}/dlq/redrive", post(dlq::redrive))
        .route("/openapi.json", get(openapi::served))
        .with_state(Arc::clone(context))
}

/// The calls that are answered without the router.
pub(crate) fn direct(context: &Arc<Context>) -> Arc<dyn Direct> {
    Arc::new(publish::Directly(Arc::clone(context)))
}
