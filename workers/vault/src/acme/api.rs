//! ACME over HTTP: routes, and what every answer carries.

use std::sync::Arc;

use axum::Extension;
use axum::Router;
use axum::extract::{FromRequest as _, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_http::{BodyBytes, BodyLimit, Reject, StrictJson, StrictQuery};
use sluice_wire::problem;

use super::ordering::Job;
use super::problem::{Refusal, Word, malformed, not_found};
use super::request::{Posted, worded};
use super::{eab, probe};
use crate::api::{answer, public};
use crate::context::{Context, Vault};
use crate::error::VaultError;
use crate::request::Act;

/// LIMIT: bytes of a signed request: a certificate request of 16 KiB in base64, twice.
const BODY_BYTES_MAX: usize = 64 * 1024;
const NONCE: HeaderName = HeaderName::from_static("replay-nonce");
/// How long a client that asks too much waits, seconds.
const RETRY_S: u64 = 30;

type Shared = State<Arc<Context>>;

/// The routes.
pub(crate) fn routes() -> Router<Arc<Context>> {
    let signed = Router::new()
        .route("/acme/new-account", post(|state, request| sign(state, request, Vault::acme_new_account)))
        .route("/acme/key-change", post(|state, request| sign(state, request, Vault::acme_change_key)))
        .route("/acme/new-order", post(|state, request| sign(state, request, Vault::acme_new_order)))
        .route("/acme/revoke-certificate", post(|state, request| sign(state, request, Vault::acme_revoke)))
        .route("/acme/account/{id}", post(update_account))
        .route("/acme/account/{id}/orders", post(orders))
        .route("/acme/order/{id}", post(order))
        .route("/acme/order/{id}/finalize", post(finalize))
        .route("/acme/authorization/{id}/{at}", post(authorization))
        .route("/acme/challenge/{id}/{at}", post(challenge))
        .route("/acme/certificate/{serial}", post(certificate))
        .layer(Extension(BodyLimit(BODY_BYTES_MAX)));
    Router::new()
        .route("/acme/directory", get(directory))
        .route("/acme/new-nonce", get(nonce))
        .route("/acme/renewal-info/{id}", get(renewal_info))
        .route("/acme/external-accounts", post(make_eab).get(list_eabs))
        .route("/acme/external-accounts/{kid}", delete(remove_eab))
        .merge(signed)
}

/// An answer to a client of ACME.
pub(super) struct Answer {
    status: u16,
    body: Body,
    location: Option<String>,
    up: Option<String>,
    again_s: Option<u64>,
}

enum Body {
    Json(Value),
    Chain(String),
    Nothing,
}

impl Answer {
    const fn new(status: u16, body: Body) -> Self {
        Self { status, body, location: None, up: None, again_s: None }
    }

    pub(super) const fn json(status: u16, told: Value) -> Self {
        Self::new(status, Body::Json(told))
    }

    /// A certificate and what leads to the root.
    pub(super) const fn chain(pem: String) -> Self {
        Self::new(200, Body::Chain(pem))
    }

    pub(super) const fn nothing() -> Self {
        Self::new(200, Body::Nothing)
    }

    /// Where what it shows is found.
    pub(super) fn at(self, url: String) -> Self {
        Self { location: Some(url), ..self }
    }

    /// What it is a part of.
    pub(super) fn up(self, url: String) -> Self {
        Self { up: Some(url), ..self }
    }

    /// When to ask again.
    pub(super) fn again_in(self, seconds: u64) -> Self {
        Self { again_s: Some(seconds), ..self }
    }

    /// What it says.
    #[cfg(test)]
    pub(super) fn told(self) -> Value {
        match self.body {
            Body::Json(told) => told,
            Body::Chain(_) | Body::Nothing => Value::Null,
        }
    }

    fn into_response(self, vault: Option<&Vault>) -> Response {
        let (kind, bytes) = match self.body {
            Body::Json(told) => ("application/json", told.to_string()),
            Body::Chain(pem) => ("application/pem-certificate-chain", pem),
            Body::Nothing => ("", String::new()),
        };
        let mut response = plain(self.status, kind, bytes, vault);
        let headers = response.headers_mut();
        put(headers, header::LOCATION, self.location);
        put(headers, header::RETRY_AFTER, self.again_s.map(|seconds| seconds.to_string()));
        if let Some(Ok(link)) = self.up.map(|url| HeaderValue::try_from(format!("<{url}>;rel=\"up\""))) {
            headers.append(header::LINK, link);
        }
        response
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: Option<String>) {
    if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
        headers.insert(name, value);
    }
}

/// An answer with what every answer has: a fresh nonce and the way back to the directory.
fn plain(status: u16, kind: &'static str, bytes: String, vault: Option<&Vault>) -> Response {
    let mut response = Response::new(bytes.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !kind.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(vault) = vault {
        put(headers, NONCE, Some(vault.acme.nonces.issue()));
        put(headers, header::LINK, Some(format!("<{}>;rel=\"index\"", vault.acme_url("/acme/directory"))));
    }
    response
}

/// A refusal in the words of ACME; the vault's own trouble (sealed, no audit log) as every worker words it.
fn refusal(refusal: &Refusal, vault: Option<&Vault>) -> Response {
    let body = serde_json::to_string(&refusal.problem()).expect("strings and numbers");
    let mut response = plain(refusal.status(), problem::CONTENT_TYPE, body, vault);
    put(response.headers_mut(), header::LOCATION, refusal.location.clone());
    if refusal.status() == 429 {
        put(response.headers_mut(), header::RETRY_AFTER, Some(RETRY_S.to_string()));
    }
    response
}

fn told(error: VaultError, vault: Option<&Vault>) -> Response {
    match worded(&error) {
        Some(known) => refusal(&known, vault),
        None => Reject::from(error).into_response(),
    }
}

/// Reads a signed request, runs it where it may block and answers.
async fn sign<T>(
    state: Shared,
    request: Request,
    work: impl FnOnce(&Vault, &Posted) -> Result<T, VaultError> + Send + 'static,
) -> Response
where
    T: Into<(Answer, Option<Job>)> + Send + 'static,
{
    let State(context) = state;
    let vault = match context.vault() {
        Ok(vault) => vault,
        Err(reject) => return reject.into_response(),
    };
    let posted = match posted(request, context.trusted()).await {
        Ok(posted) => posted,
        Err(response) => return response.unwrap_or_else(|error| told(error, Some(&vault))),
    };
    match context.run_bare(move |vault| work(vault, &posted).map(Into::into)).await {
        Ok(Ok((answer, job))) => {
            if let Some(job) = job {
                tokio::spawn(settle(Arc::clone(&context), job));
            }
            answer.into_response(Some(&vault))
        }
        Ok(Err(error)) => told(error, Some(&vault)),
        Err(reject) => reject.into_response(),
    }
}

impl From<Answer> for (Answer, Option<Job>) {
    fn from(answer: Answer) -> Self {
        (answer, None)
    }
}

/// The request, or what refuses it: ours to word, or the outer layers' own.
async fn posted(request: Request, trusted: &[IpNet]) -> Result<Posted, Result<Response, VaultError>> {
    let (parts, body) = request.into_parts();
    let kinds: Vec<&[u8]> =
        parts.headers.get_all(header::CONTENT_TYPE).iter().map(HeaderValue::as_bytes).collect();
    if kinds != [b"application/jose+json"] {
        let detail = "a request is of type application/jose+json";
        let wrong = Refusal { status: Some(415), ..Refusal::new(Word::Malformed, detail) };
        return Err(Err(wrong.into()));
    }
    let (act, path) = (Act::unproved(&parts, trusted), parts.uri.path().to_owned());
    if parts.uri.query().is_some() {
        return Err(Err(malformed("no address here has a query")));
    }
    let body = BodyBytes::from_request(Request::from_parts(parts, body), &()).await;
    let BodyBytes(body) = body.map_err(|reject| Ok(reject.into_response()))?;
    Ok(Posted { act, path, body: body.to_vec() })
}

/// Looks a challenge up and keeps what was found; when the vault closes meanwhile, the attempt is lost and can be
/// begun again.
async fn settle(context: Arc<Context>, job: Job) {
    let Ok((ending, reach)) = context.vault().map(|vault| (vault.ending(), vault.settings.acme.clone()))
    else {
        return;
    };
    let outcome = tokio::select! {
        biased;
        () = ending.cancelled() => return,
        outcome = probe::look_up(&job, &reach) => outcome,
    };
    let kept = context
        .run(move |vault| vault.acme_settle(&job.order, job.at, job.since, outcome, jiff::Timestamp::now()));
    if kept.await.is_err() {
        tracing::warn!(component = "acme", "what was found at a challenge could not be kept");
    }
}

async fn directory(State(context): Shared) -> Result<Response, Reject> {
    let vault = context.vault()?;
    let at = |path: &str| vault.acme_url(path);
    let told = json!({
        "newNonce": at("/acme/new-nonce"),
        "newAccount": at("/acme/new-account"),
        "newOrder": at("/acme/new-order"),
        "revokeCert": at("/acme/revoke-certificate"),
        "keyChange": at("/acme/key-change"),
        "renewalInfo": at("/acme/renewal-info"),
        "meta": { "externalAccountRequired": true },
    });
    Ok(public("application/json", told.to_string(), "public, max-age=300"))
}

/// 204, and 200 to HEAD (RFC 8555, section 7.2).
async fn nonce(State(context): Shared, method: http::Method) -> Result<Response, Reject> {
    let status = if method == http::Method::HEAD { 200 } else { 204 };
    Ok(plain(status, "", String::new(), Some(context.vault()?.as_ref())))
}

async fn renewal_info(State(context): Shared, Path(id): Path<String>) -> Response {
    let now = jiff::Timestamp::now();
    match context.run_bare(move |vault| vault.acme_renewal_info(&id, now)).await {
        Ok(Ok(answer)) => answer.into_response(None),
        Ok(Err(error)) => told(error, None),
        Err(reject) => reject.into_response(),
    }
}

async fn update_account(state: Shared, Path(id): Path<String>, request: Request) -> Response {
    sign(state, request, move |vault, posted| vault.acme_update_account(posted, &id)).await
}

async fn orders(state: Shared, Path(id): Path<String>, request: Request) -> Response {
    sign(state, request, move |vault, posted| vault.acme_orders(posted, &id)).await
}

async fn order(state: Shared, Path(id): Path<String>, request: Request) -> Response {
    sign(state, request, move |vault, posted| vault.acme_order(posted, &id)).await
}

async fn finalize(state: Shared, Path(id): Path<String>, request: Request) -> Response {
    sign(state, request, move |vault, posted| vault.acme_finalize(posted, &id)).await
}

/// A place in an order, in its one spelling.
fn place(text: &str) -> Result<usize, VaultError> {
    let at: Option<usize> = text.parse().ok();
    at.filter(|at| at.to_string() == text).ok_or_else(not_found)
}

async fn authorization(state: Shared, Path((id, at)): Path<(String, String)>, request: Request) -> Response {
    sign(state, request, move |vault, posted| vault.acme_authorization(posted, &id, place(&at)?)).await
}

async fn challenge(state: Shared, Path((id, at)): Path<(String, String)>, request: Request) -> Response {
    sign(state, request, move |vault, posted| vault.acme_challenge(posted, &id, place(&at)?)).await
}

async fn certificate(state: Shared, Path(serial): Path<String>, request: Request) -> Response {
    sign(state, request, move |vault, posted| vault.acme_certificate(posted, &serial)).await
}

async fn make_eab(
    State(context): Shared,
    act: Act,
    StrictJson(wish): StrictJson<eab::Wish>,
) -> Result<Response, Reject> {
    let made = context.run(move |vault| vault.make_eab(&act, &wish)).await?;
    Ok((StatusCode::CREATED, answer(&made)).into_response())
}

/// Which keys are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    service: Option<String>,
}

async fn list_eabs(
    State(context): Shared,
    act: Act,
    StrictQuery(filter): StrictQuery<Filter>,
) -> Result<Response, Reject> {
    Ok(answer(&context.run(move |vault| vault.list_eabs(&act, filter.service.as_deref())).await?))
}

async fn remove_eab(State(context): Shared, Path(kid): Path<String>, act: Act) -> Result<Response, Reject> {
    context.run(move |vault| vault.remove_eab(&act, &kid)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
