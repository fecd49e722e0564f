//! Paths and methods. Both generations of names are the same handlers.

mod audit;
mod authority;
mod credentials;
mod internal;
mod secrets;
mod tokens;

pub(crate) use tokens::bearer;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sluice_http::Reject;
use sluice_wire::problem::Problem;

use crate::context::Context;

/// Every route of the vault.
pub(crate) fn router(context: Arc<Context>) -> Router {
    Router::new()
        .route("/security/tokens/generate", post(tokens::generate))
        .route("/security/tokens/validate", post(tokens::validate))
        .route("/tokens/generate", post(tokens::generate))
        .route("/tokens/validate", post(tokens::validate))
        .route("/tokens/refresh", post(tokens::refresh))
        .route("/tokens/revoke", post(tokens::revoke))
        .route("/tokens/{service}", post(tokens::generate_for))
        .route("/tokens", get(tokens::list))
        .route("/.well-known/jwks.json", get(tokens::jwks))
        .route("/security/credentials/issue", post(credentials::issue))
        .route("/credentials/issue", post(credentials::issue))
        .route("/credentials/{service}", post(credentials::issue_for).get(credentials::read))
        .route("/credentials/{service}/renew", post(credentials::renew))
        .route("/credentials/{service}/jwt-svid", post(credentials::jwt_svid))
        .route("/credentials/{service}/revoke", post(credentials::revoke))
        .route("/credentials", get(credentials::list))
        .route("/ca/certificate", get(authority::certificate))
        .route("/ca/chain", get(authority::chain))
        .route("/ca/crl", get(authority::crl))
        .route("/ca/bundle", get(authority::bundle))
        .route("/security/secrets/store", post(secrets::store))
        .route("/security/secrets/retrieve", get(secrets::retrieve))
        .route("/security/secrets/retrieve/{*path}", get(secrets::retrieve_path))
        .route("/secrets", any(secrets::root))
        .route("/secrets/", any(secrets::root))
        .route("/secrets/{*path}", any(secrets::at))
        .route("/audit", get(audit::read))
        .route("/audit/key", get(audit::key))
        .route("/internal/feed", get(internal::feed))
        .route("/internal/keys/{role}", get(internal::store_keys))
        .route("/internal/certificates", get(internal::certificates).post(internal::issue))
        .merge(crate::oauth::routes())
        .merge(crate::falco::routes())
        .merge(crate::acme::routes())
        .merge(crate::user::routes())
        .route_layer(from_fn_with_state(Arc::clone(&context), refuse_while_sealed))
        .route("/v1/{*path}", any(crate::v1::handle))
        .route("/openapi.json", get(crate::openapi::served))
        .with_state(context)
}

/// Sealed, nothing else about a request matters.
async fn refuse_while_sealed(
    State(context): State<Arc<Context>>,
    request: Request,
    next: Next,
) -> Result<Response, Reject> {
    context.vault()?;
    Ok(next.run(request).await)
}

/// A JSON answer that no cache may keep.
pub(crate) fn answer(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("answers are plain structs");
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, body).into_response()
}

/// A public answer of another type, which caches may keep for a while.
pub(crate) fn public(content_type: &'static str, body: impl Into<Bytes>, max_age: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 2] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, HeaderValue::from_static(max_age)),
    ];
    (headers, body.into()).into_response()
}

/// A JSON body that may be left out: then it is `{}`.
pub(crate) fn optional_json<T: DeserializeOwned>(body: &Bytes) -> Result<T, Reject> {
    let text: &[u8] = if body.trim_ascii().is_empty() { b"{}" } else { body };
    sluice_wire::json::from_slice(text).map_err(|error| Problem::from(error).into())
}

/// The last segments of a request target after `prefix`, still escaped.
fn raw_rest<'a>(uri: &'a http::Uri, prefix: &str) -> &'a str {
    uri.path().strip_prefix(prefix).unwrap_or_default()
}
