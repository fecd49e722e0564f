//! The configuration in force, reload and rollback.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_audit::Decision;
use sluice_http::{BodyBytes, Reject};
use sluice_schema::{Effective, settings};
use sluice_wire::code::Code;
use sluice_wire::problem::{self, Problem};

use super::Control;
use super::access::Access;
use super::admin::Answer;
use crate::kept::KeptError;
use crate::reload::ReloadError;

pub(super) async fn show(State(control): State<Arc<Control>>, access: Access) -> Answer {
    access.read_with_token()?;
    access.audit("config_read", "config", Decision::Allow).await?;
    let generation = control.shared.generation();
    let reload = &control.shared.reload;
    Ok(Json(json!({
        "generation": generation.number,
        "hash": generation.hash,
        "loaded_at": generation.loaded_at,
        "path": reload.path(),
        "dev": control.shared.dev,
        "port_offset": reload.port_offset(),
        "environment": reload.environment(),
        "settings": settings(&generation.config),
        "effective": Effective::of(&generation.config),
        "history": reload.history(),
        "kept": reload.kept(),
    })))
}

pub(super) async fn reload(State(control): State<Arc<Control>>, access: Access) -> Result<Response, Reject> {
    access.change("reload", "config").await?;
    match control.shared.reload("admin").await {
        Ok(done) => Ok(said("reloaded", &done)),
        Err(error) => {
            access.audit("reload", "config", Decision::Error).await?;
            Ok(refused(&error, "/admin/reload", &access))
        }
    }
}

/// The body of a rollback; none at all asks for the one before.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    generation: Option<u64>,
}

pub(super) async fn rollback(
    State(control): State<Arc<Control>>,
    access: Access,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    let asked: Rollback = if body.is_empty() {
        Rollback::default()
    } else {
        sluice_wire::json::from_slice(&body).map_err(|error| Reject::from(Problem::from(error)))?
    };
    let about = match asked.generation {
        Some(number) => format!("config: generation {number}"),
        None => "config: the one before".to_owned(),
    };
    access.change("rollback", &about).await?;
    match control.shared.roll_back(asked.generation).await {
        Ok(done) => Ok(said("rolled_back", &done)),
        Err(error) => {
            access.audit("rollback", &about, Decision::Error).await?;
            Ok(refused(&error, "/admin/rollback", &access))
        }
    }
}

/// What was done, under its word.
fn said(status: &str, done: &impl serde::Serialize) -> Response {
    let mut body = serde_json::to_value(done).unwrap_or_default();
    if let Some(members) = body.as_object_mut() {
        members.insert("status".to_owned(), status.into());
    }
    Json(body).into_response()
}

/// A problem with the whole report: `report` as a compiler prints it, `findings` for programs.
fn refused(error: &ReloadError, path: &str, access: &Access) -> Response {
    let code = match error {
        ReloadError::Invalid(_) | ReloadError::Ports(_) | ReloadError::Routes(_) | ReloadError::Tls(_) => {
            Code::Unprocessable
        }
        ReloadError::Kept(KeptError::Missing(_)) => Code::NotFound,
        ReloadError::NoEarlier | ReloadError::Restore(_) => Code::Conflict,
        ReloadError::Kept(_) => Code::Internal,
    };
    let problem = Problem::new(code).detail(error.to_string()).instance(path).request_id(access.request_id());
    let mut body: Value = serde_json::from_slice(&problem.to_json()).unwrap_or_default();
    if let (Some(members), Some(report)) = (body.as_object_mut(), error.report()) {
        members.insert("report".to_owned(), report.into());
        members.insert("findings".to_owned(), serde_json::to_value(error.findings()).unwrap_or_default());
    }
    let status = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = HeaderValue::from_static(problem::CONTENT_TYPE);
    (status, [(CONTENT_TYPE, kind)], body.to_string()).into_response()
}
