//! Administration: index, log level.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_http::{Reject, StrictJson};
use sluice_schema::LogLevel;
use sluice_wire::code::Code;

use super::Control;
use super::access::Access;

/// The levels that can be asked for.
const LEVELS: [LogLevel; 5] =
    [LogLevel::Trace, LogLevel::Debug, LogLevel::Info, LogLevel::Warn, LogLevel::Error];

pub(super) type Answer = Result<Json<Value>, Reject>;

pub(super) async fn index(State(control): State<Arc<Control>>, access: Access) -> Answer {
    access.read()?;
    let generation = control.shared.generation();
    let endpoint =
        |method: &str, path: &str, about: &str| json!({ "method": method, "path": path, "about": about });
    Ok(Json(json!({
        "service": "edge",
        "version": env!("CARGO_PKG_VERSION"),
        "generation": generation.number,
        "endpoints": [
            endpoint("GET", "/dashboard", "figures; the console for browsers"),
            endpoint("GET", "/dashboard/stream", "figures as they change, server-sent events"),
            endpoint("GET", "/alerts", "what needs somebody"),
            endpoint("GET", "/circuit-breakers", "all breakers"),
            endpoint("GET", "/circuit-breakers/{name}", "one breaker, also /metrics and /state"),
            endpoint("POST", "/circuit-breakers/{name}/reset", "closes a breaker"),
            endpoint("POST", "/circuit-breakers/{name}/force", "holds a breaker: {state, reason}"),
            endpoint("PUT", "/circuit-breakers/{name}/config", "settings of a breaker"),
            endpoint("POST", "/circuit-breakers/reset-all", "closes every breaker"),
            endpoint("GET", "/admin/config", "effective configuration and its history; takes a token"),
            endpoint("POST", "/admin/reload", "reads the configuration again"),
            endpoint("POST", "/admin/rollback", "puts an earlier configuration back: {generation}"),
            endpoint("GET", "/admin/kill-switch", "what is stopped by hand"),
            endpoint("POST", "/admin/kill-switch", "stops or lets go: {scope, target, on, reason}"),
            endpoint("GET", "/admin/tap", "requests as they end, server-sent events; takes a token"),
            endpoint("GET", "/admin/upstreams", "all instances and what operators hold back"),
            endpoint("POST", "/admin/upstreams/{service}/{instance}/drain", "no new callers; also /maint and /ready: {reason}"),
            endpoint("PUT", "/admin/log-level", "level of the process log: {level}"),
            endpoint("GET", "/events", "relayed to the event worker, also /events/stream"),
            endpoint("POST", "/calculations/indicators", "relayed to the calculation worker"),
            endpoint("GET", "/series/{symbol}", "relayed to the calculation worker"),
        ],
    })))
}

/// The body of a change of the log level.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LevelChange {
    level: String,
}

pub(super) async fn log_level(
    State(control): State<Arc<Control>>,
    access: Access,
    StrictJson(change): StrictJson<LevelChange>,
) -> Answer {
    let Some(level) = LEVELS.into_iter().find(|level| level.as_str() == change.level) else {
        let words = LEVELS.map(LogLevel::as_str).join(", ");
        return Err(Reject::new(Code::Unprocessable, format!("`level` is one of {words}")));
    };
    access.change("log_level", level.as_str()).await?;
    control.shared.reload.set_log_level(level);
    tracing::info!(component = "control", log_level = level.as_str(), "log level changed");
    Ok(Json(json!({
        "status": "success",
        "level": level.as_str(),
        "configured": control.shared.generation().config.log.level.as_str(),
    })))
}
