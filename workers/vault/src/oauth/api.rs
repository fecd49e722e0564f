//! OAuth over HTTP.

use std::sync::Arc;

use axum::extract::{FromRequest as _, FromRequestParts as _, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use ipnet::IpNet;
use serde::Serialize;
use sluice_http::{BodyBytes, BodyLimit, MaybeCaller, Reject, StrictJson};

use super::client::{Method, Registration};
use super::error::OauthError;
use super::form::{FORM_BYTES_MAX, Form};
use super::grant::{CLIENT_CREDENTIALS, TOKEN_EXCHANGE};
use super::proof::Proof;
use crate::api::{answer, public};
use crate::context::{Context, Vault};
use crate::request::Act;

/// The routes.
pub(crate) fn routes() -> Router<Arc<Context>> {
    let forms = Router::new()
        .route("/oauth2/token", post(token))
        .route("/oauth2/introspect", post(introspect))
        .route("/oauth2/revoke", post(revoke))
        .layer(Extension(BodyLimit(FORM_BYTES_MAX)));
    Router::new()
        .route("/.well-known/openid-configuration", get(metadata))
        .route("/.well-known/oauth-authorization-server", get(metadata))
        .route("/oauth2/clients", post(register).get(list))
        .route("/oauth2/clients/{id}", get(read).delete(remove))
        .route("/oauth2/clients/{id}/secret", post(renew))
        .merge(forms)
}

/// RFC 8414 and OpenID Connect Discovery: the same document.
#[derive(Serialize)]
struct Metadata<'a> {
    issuer: &'a str,
    jwks_uri: String,
    token_endpoint: String,
    introspection_endpoint: String,
    revocation_endpoint: String,
    grant_types_supported: [&'a str; 2],
    response_types_supported: [&'a str; 0],
    subject_types_supported: [&'a str; 1],
    id_token_signing_alg_values_supported: [&'a str; 1],
    token_endpoint_auth_methods_supported: [Method; 4],
    token_endpoint_auth_signing_alg_values_supported: [&'a str; 1],
    introspection_endpoint_auth_methods_supported: [Method; 4],
    introspection_endpoint_auth_signing_alg_values_supported: [&'a str; 1],
    revocation_endpoint_auth_methods_supported: [Method; 4],
    revocation_endpoint_auth_signing_alg_values_supported: [&'a str; 1],
    scopes_supported: [&'a str; 7],
    tls_client_certificate_bound_access_tokens: bool,
}

/// An address below the issuer's.
pub(crate) fn at(issuer: &str, path: &str) -> String {
    format!("{}{path}", issuer.trim_end_matches('/'))
}

/// The addresses are the issuer's: what a request calls this host proves nothing.
async fn metadata(State(context): State<Arc<Context>>) -> Result<Response, Reject> {
    let vault = context.vault()?;
    let issuer = vault.settings.issuer.as_str();
    let document = Metadata {
        issuer,
        jwks_uri: at(issuer, "/.well-known/jwks.json"),
        token_endpoint: at(issuer, "/oauth2/token"),
        introspection_endpoint: at(issuer, "/oauth2/introspect"),
        revocation_endpoint: at(issuer, "/oauth2/revoke"),
        grant_types_supported: [CLIENT_CREDENTIALS, TOKEN_EXCHANGE],
        response_types_supported: [],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: ["ES256"],
        token_endpoint_auth_methods_supported: Method::ALL,
        token_endpoint_auth_signing_alg_values_supported: ["ES256"],
        introspection_endpoint_auth_methods_supported: Method::ALL,
        introspection_endpoint_auth_signing_alg_values_supported: ["ES256"],
        revocation_endpoint_auth_methods_supported: Method::ALL,
        revocation_endpoint_auth_signing_alg_values_supported: ["ES256"],
        scopes_supported: [
            "read",
            "write",
            "trade",
            "events:publish",
            "events:read",
            "metrics:read",
            "tokens:exchange",
        ],
        tls_client_certificate_bound_access_tokens: true,
    };
    let body = serde_json::to_vec(&document).expect("strings always serialise");
    Ok(public("application/json", body, "public, max-age=300"))
}

/// A form, who sends it and by what it is proved.
struct Asked {
    act: Act,
    proof: Proof,
    form: Form,
}

impl Asked {
    async fn of(request: Request, trusted: &[IpNet]) -> Result<Self, OauthError> {
        let (mut parts, body) = request.into_parts();
        let act = Act::unproved(&parts, trusted);
        let caller = certified(&mut parts).await;
        let headers = parts.headers.clone();
        let BodyBytes(body) = BodyBytes::from_request(Request::from_parts(parts, body), &()).await?;
        let form = Form::parse(&headers, &body)?;
        let proof = Proof::read(&headers, &form, caller.as_ref())?;
        Ok(Self { act, proof, form })
    }
}

/// Whom the connection's certificate proves; other credentials are no business of OAuth's endpoints.
async fn certified(parts: &mut Parts) -> Option<sluice_identity::caller::Caller> {
    MaybeCaller::from_request_parts(parts, &()).await.ok().and_then(|MaybeCaller(caller)| caller)
}

/// Runs an operation where it may block. The vault's own trouble is logged on the way.
async fn run<T: Send + 'static>(
    context: &Context,
    request: Request,
    work: impl FnOnce(&Vault, &Asked) -> Result<T, OauthError> + Send + 'static,
) -> Result<T, OauthError> {
    let asked = Asked::of(request, context.trusted()).await?;
    let done = context.run(move |vault| match work(vault, &asked) {
        Err(OauthError::Vault(error)) => Err(error),
        done => Ok(done),
    });
    done.await?
}

async fn token(State(context): State<Arc<Context>>, request: Request) -> Result<Response, OauthError> {
    let issued =
        run(&context, request, |vault, asked| vault.oauth_token(&asked.act, &asked.proof, &asked.form));
    let mut response = answer(&issued.await?);
    // RFC 6749, 5.1, for caches that are older still.
    response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
    Ok(response)
}

async fn introspect(State(context): State<Arc<Context>>, request: Request) -> Result<Response, OauthError> {
    let found =
        run(&context, request, |vault, asked| vault.oauth_introspect(&asked.act, &asked.proof, &asked.form));
    Ok(answer(&found.await?))
}

async fn revoke(State(context): State<Arc<Context>>, request: Request) -> Result<Response, OauthError> {
    run(&context, request, |vault, asked| vault.oauth_revoke(&asked.act, &asked.proof, &asked.form)).await?;
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], ()).into_response())
}

async fn register(
    State(context): State<Arc<Context>>,
    act: Act,
    StrictJson(wish): StrictJson<Registration>,
) -> Result<Response, Reject> {
    let client = context.run(move |vault| vault.register_client(&act, wish)).await?;
    Ok((StatusCode::CREATED, answer(&client)).into_response())
}

async fn list(State(context): State<Arc<Context>>, act: Act) -> Result<Response, Reject> {
    Ok(answer(&context.run(move |vault| vault.list_clients(&act, None)).await?))
}

async fn read(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    act: Act,
) -> Result<Response, Reject> {
    Ok(answer(&context.run(move |vault| vault.list_clients(&act, Some(&id))).await?))
}

async fn remove(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    act: Act,
) -> Result<Response, Reject> {
    context.run(move |vault| vault.remove_client(&act, &id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn renew(
    State(context): State<Arc<Context>>,
    Path(id): Path<String>,
    act: Act,
) -> Result<Response, Reject> {
    Ok(answer(&context.run(move |vault| vault.renew_client_secret(&act, &id)).await?))
}
