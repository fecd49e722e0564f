//! Administration: index, configuration, reload.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use sluice_audit::Decision;
use sluice_http::Reject;
use sluice_schema::settings;
use sluice_wire::code::Code;

use super::Control;
use super::access::Access;

type Answer = Result<Json<Value>, Reject>;

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
            endpoint("GET", "/admin/config", "effective configuration; takes a token"),
            endpoint("POST", "/admin/reload", "reads the configuration again"),
            endpoint("GET", "/events", "relayed to the event worker, also /events/stream"),
            endpoint("POST", "/calculations/indicators", "relayed to the calculation worker"),
            endpoint("GET", "/series/{symbol}", "relayed to the calculation worker"),
        ],
    })))
}

pub(super) async fn config(State(control): State<Arc<Control>>, access: Access) -> Answer {
    access.read_with_token()?;
    access.audit("config_read", "config", Decision::Allow).await?;
    let generation = control.shared.generation();
    Ok(Json(json!({
        "generation": generation.number,
        "hash": generation.hash,
        "loaded_at": generation.loaded_at,
        "settings": settings(&generation.config),
    })))
}

pub(super) async fn reload(State(control): State<Arc<Control>>, access: Access) -> Answer {
    access.change("reload", "config").await?;
    match control.shared.reload("admin").await {
        Ok(done) => Ok(Json(json!({
            "status": "reloaded",
            "generation": done.generation,
            "hash": done.hash,
            "changes": done.changes,
            "restart": done.restart,
        }))),
        Err(error) => {
            access.audit("reload", "config", Decision::Error).await?;
            Err(Reject::new(Code::Unprocessable, error.to_string()))
        }
    }
}
