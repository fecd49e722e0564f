//! Users over HTTP.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use sluice_http::{BodyBytes, BodyLimit, Reject, StrictJson, StrictQuery};
use sluice_wire::code::Code;

use super::attempt::Source;
use super::first::First;
use super::ops::{Login, NewPassword, Wish};
use crate::api::{answer, bearer, optional_json};
use crate::context::Context;
use crate::error::VaultError;
use crate::request::Act;
use crate::token::Ttl;

/// LIMIT: bytes of a body with a password.
const BODY_BYTES_MAX: usize = 8 * 1_024;

/// The routes.
pub(crate) fn routes() -> Router<Arc<Context>> {
    Router::new()
        .route("/auth/login", post(login))
        .route("/auth/bootstrap", post(bootstrap))
        .route("/auth/verify", get(verify).post(verify))
        .route("/auth/refresh", post(refresh))
        .route("/auth/password", post(password))
        .route("/auth/users", get(list))
        .route("/auth/users/{name}", get(read).put(put).delete(remove))
        .layer(Extension(BodyLimit(BODY_BYTES_MAX)))
}

/// A request whose credential is in its body: what else it shows is not looked at.
struct Open {
    act: Act,
    source: Source,
}

impl FromRequestParts<Arc<Context>> for Open {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, context: &Arc<Context>) -> Result<Self, Reject> {
        let source = Source::of(parts, &context.vault()?.settings.trusted);
        Ok(Self { act: Act::unproved(parts, context.trusted()), source })
    }
}

/// Who is asked for a name and a password is told that they are wrong, and not which of them.
fn wrong(error: VaultError) -> Reject {
    match error {
        VaultError::Anonymous => Reject::new(Code::InvalidToken, "the name or the password is wrong")
            .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\"")),
        error => error.into(),
    }
}

async fn login(
    State(context): State<Arc<Context>>,
    Open { act, source }: Open,
    StrictJson(login): StrictJson<Login>,
) -> Result<Response, Reject> {
    let session = context.run_bare(move |vault| vault.login(&act, &login, &source)).await?.map_err(wrong)?;
    Ok(answer(&session))
}

async fn bootstrap(
    State(context): State<Arc<Context>>,
    Open { act, .. }: Open,
    StrictJson(first): StrictJson<First>,
) -> Result<Response, Reject> {
    let session = context.run(move |vault| vault.bootstrap(&act, &first)).await?;
    Ok(answer(&session))
}

/// For whoever forwards requests and asks about each: 200 with what the token says, or 401.
async fn verify(State(context): State<Arc<Context>>, headers: HeaderMap, _: Act) -> Result<Response, Reject> {
    let token = bearer(&headers).ok_or_else(Reject::unauthenticated)?;
    let verdict = context.run(move |vault| Ok(vault.validate(&token))).await?;
    if verdict.valid { Ok(answer(&verdict)) } else { Err(Reject::unauthenticated()) }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshBody {
    ttl: Option<Ttl>,
}

async fn refresh(
    State(context): State<Arc<Context>>,
    act: Act,
    BodyBytes(body): BodyBytes,
) -> Result<Response, Reject> {
    let RefreshBody { ttl } = optional_json(&body)?;
    let session = context.run(move |vault| vault.refresh_session(&act, ttl)).await?;
    Ok(answer(&session))
}

async fn password(
    State(context): State<Arc<Context>>,
    Open { act, source }: Open,
    StrictJson(wish): StrictJson<NewPassword>,
) -> Result<Response, Reject> {
    let changed = context.run_bare(move |vault| vault.change_password(&act, &wish, &source)).await?;
    let shown = changed.map_err(wrong)?;
    Ok(answer(&shown))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    cursor: Option<String>,
    limit: Option<usize>,
}

async fn list(
    State(context): State<Arc<Context>>,
    act: Act,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Result<Response, Reject> {
    let page = context
        .run(move |vault| vault.users(&act, query.cursor.as_deref(), query.limit.unwrap_or(100)))
        .await?;
    Ok(answer(&page))
}

async fn read(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    act: Act,
) -> Result<Response, Reject> {
    let shown = context.run(move |vault| vault.user(&act, &name)).await?;
    Ok(answer(&shown))
}

async fn put(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    act: Act,
    StrictJson(wish): StrictJson<Wish>,
) -> Result<Response, Reject> {
    let (shown, is_new) = context.run(move |vault| vault.put_user(&act, &name, wish)).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, answer(&shown)).into_response())
}

async fn remove(
    State(context): State<Arc<Context>>,
    Path(name): Path<String>,
    act: Act,
) -> Result<Response, Reject> {
    context.run(move |vault| vault.remove_user(&act, &name)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
