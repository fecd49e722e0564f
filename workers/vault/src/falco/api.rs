//! Alerts over HTTP: at the vault's own port alone, from whoever proved to be a host of ours.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{FromRequest as _, FromRequestParts as _, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use http::StatusCode;
use ring::digest;
use sluice_http::{BodyBytes, BodyLimit, Door, MaybeCaller, Peer, Reject, StrictJson};
use sluice_identity::caller::{Caller, Via};
use sluice_wire::code::Code;
use subtle::ConstantTimeEq as _;

use super::alert::{BODY_BYTES_MAX, parse};
use super::watch::Stop;
use crate::api::answer;
use crate::context::Context;
use crate::request::Act;

/// What a certificate must be given in `[auth.roles]`.
const WRITE: &str = "falco:write";
/// The host of alerts that come by the secret path: this machine.
const LOCAL: &str = "localhost";

/// The routes.
pub(crate) fn routes() -> Router<Arc<Context>> {
    let alerts = Router::new()
        .route("/falco/alerts", post(certified))
        .route("/falco/alerts/{secret}", post(local))
        .layer(Extension(BodyLimit(BODY_BYTES_MAX)));
    Router::new()
        .route("/falco/quarantine", get(quarantines))
        .route("/falco/quarantine/{service}/release", post(release))
        .route("/falco/kill-switch", get(kills))
        .route("/falco/kill-switch/release", post(release_kill))
        .merge(alerts)
}

fn nothing_here() -> Reject {
    Reject::new(Code::NotFound, "there is nothing at this path")
}

/// The other end of a connection to the API port; other roles have no alerts, and the edge passes none on.
fn direct(request: &Request) -> Result<SocketAddr, Reject> {
    match request.extensions().get::<Peer>() {
        Some(Peer { door: Door::Api, address: Some(address), .. }) => Ok(*address),
        _ => Err(nothing_here()),
    }
}

/// From a host that shows its certificate: the alerts bear the name in it.
async fn certified(State(context): State<Arc<Context>>, request: Request) -> Result<Response, Reject> {
    direct(&request)?;
    let (mut parts, body) = request.into_parts();
    let MaybeCaller(caller) = MaybeCaller::from_request_parts(&mut parts, &()).await?;
    let mut act = Act::unproved(&parts, context.trusted());
    let host = host(caller.as_ref());
    act.caller = caller;
    let host = match host {
        Ok(host) => host,
        Err(reject) => {
            let entry = act.entry("falco", "alert", "falco/alerts");
            context.run(move |vault| vault.note(entry, true)).await?;
            return Err(reject);
        }
    };
    take(&context, act, host, Request::from_parts(parts, body)).await
}

/// The host a certificate names. A token is no host: it can be carried off.
fn host(caller: Option<&Caller>) -> Result<String, Reject> {
    let caller = caller.ok_or_else(Reject::unauthenticated)?;
    if caller.via != Via::Certificate {
        return Err(Reject::new(Code::Forbidden, "alerts are taken from a client certificate"));
    }
    if !caller.grants.covers(WRITE) {
        return Err(Reject::lacking(WRITE));
    }
    Ok(caller.account.clone())
}

/// From this machine, by a path that is a secret: Falco sends no header of ours.
async fn local(
    State(context): State<Arc<Context>>,
    Path(secret): Path<String>,
    request: Request,
) -> Result<Response, Reject> {
    let address = direct(&request)?;
    let shown = digest::digest(&digest::SHA256, secret.as_bytes());
    let known = context.vault()?.settings.falco.secret;
    let is_it = known.is_some_and(|known| bool::from(known.as_slice().ct_eq(shown.as_ref())));
    if !is_it || !address.ip().to_canonical().is_loopback() {
        return Err(nothing_here());
    }
    let (parts, body) = request.into_parts();
    let act = Act::unproved(&parts, context.trusted());
    take(&context, act, LOCAL.to_owned(), Request::from_parts(parts, body)).await
}

async fn take(context: &Context, act: Act, host: String, request: Request) -> Result<Response, Reject> {
    let BodyBytes(body) = BodyBytes::from_request(request, &()).await?;
    let alerts = parse(&body)?;
    let receipt = context.run(move |vault| vault.take_alerts(&act, &host, alerts)).await?;
    Ok((StatusCode::ACCEPTED, answer(&receipt)).into_response())
}

async fn quarantines(State(context): State<Arc<Context>>, act: Act) -> Result<Response, Reject> {
    Ok(answer(&context.run(move |vault| vault.quarantines(&act)).await?))
}

async fn release(
    State(context): State<Arc<Context>>,
    Path(service): Path<String>,
    act: Act,
) -> Result<Response, Reject> {
    context.run(move |vault| vault.release(&act, &service)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn kills(State(context): State<Arc<Context>>, act: Act) -> Result<Response, Reject> {
    Ok(answer(&context.run(move |vault| vault.kills(&act)).await?))
}

async fn release_kill(
    State(context): State<Arc<Context>>,
    act: Act,
    StrictJson(stop): StrictJson<Stop>,
) -> Result<Response, Reject> {
    context.run(move |vault| vault.release_kill(&act, &stop)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_who_its_certificate_says_and_a_token_is_none() {
        let caller = |via, grants: &str| Caller {
            subject: "spiffe://sluice.internal/service/node-1".into(),
            account: "node-1".into(),
            grants: grants.parse().unwrap(),
            via,
            jti: None,
            serial: None,
            issued_at_s: None,
            expires_at_s: None,
        };
        let status = |caller: Option<&Caller>| host(caller).map_err(|reject| reject.problem().status());
        assert_eq!(status(Some(&caller(Via::Certificate, "falco:write"))), Ok("node-1".to_owned()));
        assert_eq!(status(Some(&caller(Via::Certificate, "read"))), Err(403));
        for via in [Via::Token, Via::LegacyToken, Via::Edge] {
            assert_eq!(status(Some(&caller(via, "falco:write admin"))), Err(403), "{via:?}");
        }
        assert_eq!(status(None), Err(401));
    }
}
