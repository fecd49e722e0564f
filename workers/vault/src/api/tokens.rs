//! Tokens over HTTP.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, header};
use serde::{Deserialize, Serialize};
use sluice_http::{BodyBytes, Reject, StrictJson, StrictQuery};
use sluice_wire::code::Code;
use sluice_wire::feed::Jwk;

use super::{answer, optional_json, public};
use crate::context::Context;
use crate::request::Act;
use crate::token::{MintRequest, RevokeRequest, Ttl};

pub(super) async fn generate(
    State(context): State<Arc<Context>>,
    act: Act,
    StrictJson(request): StrictJson<MintRequest>,
) -> Result<Response, Reject> {
    let service = request.service_name.clone();
    let service = service.ok_or_else(|| Reject::new(Code::BadRequest, "service_name is missing"))?;
    mint(&context, act, service, request).await
}

pub(super) async fn generate_for(
    State(context): State<Arc<Context>>,
    Path(service): Path<String>,
    act: Act,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    let request: MintRequest = optional_json(&body)?;
    if request.service_name.as_ref().is_some_and(|named| *named != service) {
        return Err(Reject::new(Code::BadRequest, "service_name differs from the path"));
    }
    mint(&context, act, service, request).await
}

async fn mint(
    context: &Context,
    act: Act,
    service: String,
    request: MintRequest,
) -> Result<Response, Reject> {
    let issued = context.run(move |vault| vault.mint(&act, &service, &request)).await?;
    Ok(answer(&issued))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenBody {
    token: Option<String>,
}

/// The token is the credential: a bad one is an answer here, not a refusal.
pub(super) async fn validate(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    let TokenBody { token } = optional_json(&body)?;
    let token = token.or_else(|| bearer(&headers)).ok_or_else(|| {
        Reject::new(Code::BadRequest, "send the token as Authorization: Bearer or as {\"token\": …}")
    })?;
    // Nothing here waits for the disk: it needs no thread of its own.
    Ok(answer(&context.vault()?.validate(&token)))
}

/// The one bearer token in the headers.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok().filter(|_| values.next().is_none())?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.to_owned())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RefreshBody {
    ttl: Option<Ttl>,
}

pub(super) async fn refresh(
    State(context): State<Arc<Context>>,
    act: Act,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    let RefreshBody { ttl } = optional_json(&body)?;
    let issued = context.run(move |vault| vault.refresh(&act, ttl)).await?;
    Ok(answer(&issued))
}

#[derive(Serialize)]
struct RevokeAnswer {
    status: &'static str,
    revoked: usize,
}

pub(super) async fn revoke(
    State(context): State<Arc<Context>>,
    act: Act,
    StrictJson(request): StrictJson<RevokeRequest>,
) -> Result<Response, Reject> {
    let revoked = context.run(move |vault| vault.revoke_tokens(&act, request)).await?;
    Ok(answer(&RevokeAnswer { status: "revoked", revoked }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    service: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn list(
    State(context): State<Arc<Context>>,
    act: Act,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Result<Response, Reject> {
    let page = context
        .run(move |vault| {
            let limit = query.limit.unwrap_or(100);
            vault.list_tokens(&act, query.service.as_deref(), query.cursor.as_deref(), limit)
        })
        .await?;
    Ok(answer(&page))
}

#[derive(Serialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

pub(super) async fn jwks(State(context): State<Arc<Context>>) -> Result<Response, Reject> {
    let keys = context.vault()?.hub.jwks();
    let body = serde_json::to_vec(&Jwks { keys }).expect("strings always serialise");
    Ok(public("application/json", body, "public, max-age=300"))
}
