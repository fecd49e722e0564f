//! Certificates over HTTP.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sluice_http::{BodyBytes, Reject, StrictJson, StrictQuery};
use sluice_wire::code::Code;

use super::{answer, optional_json};
use crate::ca::{IssueRequest, RenewRequest};
use crate::context::Context;
use crate::request::Act;
use crate::token::SvidRequest;

pub(super) async fn issue(
    State(context): State<Arc<Context>>,
    act: Act,
    StrictJson(request): StrictJson<IssueRequest>,
) -> Result<Response, Reject> {
    let service = request.service_name.clone();
    let service = service.ok_or_else(|| Reject::new(Code::BadRequest, "service_name is missing"))?;
    make(&context, act, service, request).await
}

pub(super) async fn issue_for(
    State(context): State<Arc<Context>>,
    Path(service): Path<String>,
    act: Act,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    let request: IssueRequest = optional_json(&body)?;
    if request.service_name.as_ref().is_some_and(|named| *named != service) {
        return Err(Reject::new(Code::BadRequest, "service_name differs from the path"));
    }
    make(&context, act, service, request).await
}

async fn make(
    context: &Context,
    act: Act,
    service: String,
    request: IssueRequest,
) -> Result<Response, Reject> {
    let issued = context.run_here(|vault| vault.issue(&act, &service, request)).await?;
    Ok(answer(&issued))
}

pub(super) async fn renew(
    State(context): State<Arc<Context>>,
    Path(service): Path<String>,
    act: Act,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    let request: RenewRequest = optional_json(&body)?;
    let issued = context.run_here(|vault| vault.renew_credential(&act, &service, &request)).await?;
    Ok(answer(&issued))
}

pub(super) async fn jwt_svid(
    State(context): State<Arc<Context>>,
    Path(service): Path<String>,
    act: Act,
    StrictJson(request): StrictJson<SvidRequest>,
) -> Result<Response, Reject> {
    let made = context.run_here(|vault| vault.jwt_svid(&act, &service, &request)).await?;
    Ok(answer(&made))
}

pub(super) async fn read(
    State(context): State<Arc<Context>>,
    Path(service): Path<String>,
    act: Act,
) -> Result<Response, Reject> {
    let credential = context.run(move |vault| vault.credential(&act, &service)).await?;
    Ok(answer(&credential))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    cursor: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(context): State<Arc<Context>>,
    act: Act,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Result<Response, Reject> {
    let page = context
        .run(move |vault| vault.list_credentials(&act, query.cursor.as_deref(), query.limit.unwrap_or(100)))
        .await?;
    Ok(answer(&page))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeBody {
    serial_number: Option<String>,
}

#[derive(Serialize)]
struct RevokeAnswer {
    status: &'static str,
    service_name: String,
    revoked: usize,
}

pub(super) async fn revoke(
    State(context): State<Arc<Context>>,
    Path(service): Path<String>,
    act: Act,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    let RevokeBody { serial_number } = optional_json(&body)?;
    let named = service.clone();
    let revoked = context.run(move |vault| vault.revoke_credentials(&act, &named, serial_number)).await?;
    Ok(answer(&RevokeAnswer { status: "revoked", service_name: service, revoked }))
}
