//! The calls about schemas.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_http::{Authenticated, BodyBytes, Reject, StrictQuery};
use sluice_wire::code::Code;
use sluice_wire::event::EventType;
use sluice_wire::problem::{Outcome, Problem};

use super::store::Version;
use super::{Entry, Figures, Mode, SetError};
use crate::access;
use crate::body::document;
use crate::context::{Context, json_response};
use crate::log::is_full;

/// LIMIT: body of a schema.
pub(crate) const SCHEMA_BYTES_MAX: usize = 64 * 1024;

/// What is set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    /// JSON Schema of `data`; absent: the one there is.
    #[serde(default)]
    schema: Option<Value>,
    /// Absent: the one there is, `enforce` at first.
    #[serde(default)]
    mode: Option<Mode>,
}

/// Query of a read.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    /// Absent: the newest one.
    version: Option<u64>,
}

#[derive(Serialize)]
struct Short<'a> {
    event_type: &'a str,
    version: u64,
    mode: Mode,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    short: Short<'a>,
    schema: &'a Value,
    versions: Vec<Dated<'a>>,
}

#[derive(Serialize)]
struct Dated<'a> {
    version: u64,
    at: Timestamp,
    by: &'a str,
}

/// `GET /schemas`
pub(crate) async fn list(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
) -> Result<Response, Reject> {
    access::not_legacy(&caller)?;
    let readable = access::readable(&caller)?;
    let table = context.schemas.table.load_full();
    let schemas: Vec<Short<'_>> = table
        .iter()
        .filter(|(kind, _)| readable.admits_type(kind))
        .filter_map(|(_, entry)| Some(entry.short(entry.stored.newest()?)))
        .collect();
    json_response(&serde_json::json!({ "count": schemas.len(), "schemas": schemas }))
}

/// `GET /schemas/{event_type}`
pub(crate) async fn read(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(kind): Path<String>,
    StrictQuery(query): StrictQuery<Query>,
) -> Result<Response, Reject> {
    access::not_legacy(&caller)?;
    let readable = access::readable(&caller)?;
    let kind = event_type(&kind)?;
    let entry = context.schemas.entry(kind.as_str()).filter(|_| readable.admits_type(kind.as_str()));
    let entry = entry.ok_or_else(unknown)?;
    let wanted = |version: &&Version| query.version.is_none_or(|wanted| version.number == wanted);
    match entry.stored.versions.iter().rev().find(wanted) {
        Some(version) => json_response(&entry.told(version)),
        None => Err(Reject::new(Code::NotFound, "this version of the schema is not kept")),
    }
}

/// `PUT /schemas/{event_type}`
pub(crate) async fn set(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(kind): Path<String>,
    headers: HeaderMap,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    access::may_administer(&caller)?;
    let kind = settable(&kind)?;
    let change: Change = document(&headers, &body)?;
    let entry = blocking(&context, move |context| {
        context.schemas.set(kind.as_str(), change.schema, change.mode, &caller.subject)
    })
    .await?
    .map_err(|error| problem(&error))?;
    let newest = entry.stored.newest().ok_or_else(unknown)?;
    json_response(&entry.told(newest))
}

/// `DELETE /schemas/{event_type}`
pub(crate) async fn remove(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(kind): Path<String>,
) -> Result<Response, Reject> {
    access::may_administer(&caller)?;
    let kind = event_type(&kind)?;
    let removed = blocking(&context, move |context| context.schemas.remove(kind.as_str())).await?;
    match removed {
        Ok(true) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(false) => Err(unknown()),
        Err(error) => Err(problem(&error)),
    }
}

async fn blocking<T: Send + 'static>(
    context: &Arc<Context>,
    work: impl FnOnce(&Context) -> T + Send + 'static,
) -> Result<T, Reject> {
    let context = Arc::clone(context);
    let done = tokio::task::spawn_blocking(move || work(&context)).await;
    done.map_err(|_| Reject::new(Code::Internal, "setting the schema broke off"))
}

fn event_type(text: &str) -> Result<EventType, Reject> {
    EventType::parse(text).map_err(|error| Reject::new(Code::BadRequest, error.to_string()))
}

fn settable(text: &str) -> Result<EventType, Reject> {
    let kind = event_type(text)?;
    if kind.is_reserved() {
        return Err(Reject::new(Code::ReservedType, "types of Sluice's own roles have no schemas"));
    }
    Ok(kind)
}

fn unknown() -> Reject {
    Reject::new(Code::NotFound, "this event type has no schema")
}

fn problem(error: &SetError) -> Reject {
    let problem = match error {
        SetError::Shape(wrong) => {
            let pointer = format!("/schema{}", wrong.pointer);
            Problem::new(Code::Unprocessable).detail(wrong.what.clone()).pointer(pointer)
        }
        SetError::Redis(trouble) => {
            let outcome = if trouble.is_not_done() { Outcome::NotSent } else { Outcome::Unknown };
            let problem =
                Problem::new(Code::StoreUnavailable).detail("Redis, where schemas are kept, did not answer");
            return problem.outcome(outcome).retry_after_s(1).into();
        }
        SetError::Raced => Problem::new(Code::Conflict).detail(error.to_string()),
        SetError::TooMany => Problem::new(Code::Unprocessable).detail(error.to_string()),
        SetError::Nothing => Problem::new(Code::NotFound).detail(error.to_string()),
        SetError::Store(cause) => {
            let error = cause as &dyn std::error::Error;
            tracing::error!(component = "schemas", error, "a schema could not be stored");
            let code = if is_full(cause) { Code::StoreFull } else { Code::Internal };
            return Problem::new(code)
                .detail("the schema could not be stored; the one before is in force")
                .outcome(Outcome::Unknown)
                .into();
        }
    };
    problem.outcome(Outcome::NotSent).into()
}

impl Entry {
    fn short(&self, version: &Version) -> Short<'_> {
        Short {
            event_type: &self.stored.event_type,
            version: version.number,
            mode: self.stored.mode,
            figures: self.figures(),
        }
    }

    fn told<'a>(&'a self, version: &'a Version) -> Told<'a> {
        let dated = |version: &'a Version| Dated { version: version.number, at: version.at, by: &version.by };
        Told {
            short: self.short(version),
            schema: &version.schema,
            versions: self.stored.versions.iter().map(dated).collect(),
        }
    }
}
