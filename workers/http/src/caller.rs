//! Who a request comes from.
//!
//! At an API door: a bearer token, or the same token in `X-Vault-Token`. At an internal door:
//! `x-internal-key` proves a role; only the edge may vouch for a client (`x-user`,
//! `x-permissions`), and only for one, never for itself: its own calls carry `x-internal-self`.
//! At an API door with mutual TLS a role's certificate proves the role as a key does at the internal
//! door; a service's certificate is its identity where it shows no token. A certificate is looked at
//! with every request again: its connection may outlive it.
//! A credential that does not verify is an error, never an anonymous caller.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{HeaderMap, header};
use sluice_identity::caller::{Caller, Via};
use sluice_identity::certificate::{ClientCertificate, SpiffeId};
use sluice_identity::claims::Claims;
use sluice_identity::grants::Grants;
use sluice_identity::token::TokenError;
use sluice_schema::Config;
use sluice_wire::code::Code;
use sluice_wire::header as names;
use sluice_wire::role::Role;

use crate::doors::{Door, Peer};
use crate::keys::InternalKeys;
use crate::reject::Reject;
use crate::standing::{Standing, certified};
use crate::trust::{TrustCell, now_s};
use crate::verified::{Shown, Verified};

/// A caller that was verified; 401 otherwise.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Caller);

/// A caller if the request names one; a bad credential is still 401.
#[derive(Debug, Clone)]
pub struct MaybeCaller(pub Option<Caller>);

/// What the layer found, kept in the request's extensions.
#[derive(Clone)]
pub(crate) enum Resolved {
    Anonymous,
    Caller(Arc<Caller>, Standing),
    Invalid(TokenError),
    /// The internal door without a role's key, or a certificate that is revoked or has ended.
    Unproven,
}

/// By what callers are verified.
pub(crate) struct Known {
    pub(crate) keys: Arc<InternalKeys>,
    pub(crate) trust: TrustCell,
    pub(crate) config: Arc<Config>,
}

/// Whether a role speaks for itself in a request: then it names no client.
pub fn is_role_itself(parts: &Parts) -> bool {
    let resolved = parts.extensions.get::<Resolved>();
    matches!(resolved, Some(Resolved::Caller(caller, _)) if caller.as_role().is_some())
}

/// Refuses a caller that lacks a permission.
pub fn require(caller: &Caller, permission: &str) -> Result<(), Reject> {
    if caller.grants.covers(permission) { Ok(()) } else { Err(Reject::lacking(permission)) }
}

/// Finds out who makes a request. `shown` is the memory of a connection that one client has for itself.
pub(crate) fn resolve(peer: &Peer, headers: &HeaderMap, known: &Known, shown: Option<&Shown>) -> Resolved {
    match (peer.door, &peer.client) {
        (Door::Internal, _) => {
            let role = single(headers, names::X_INTERNAL_KEY).and_then(|key| known.keys.role_of(key));
            role.map_or(Resolved::Unproven, |role| of_role(role, headers, &known.trust))
        }
        (Door::Api, Some(client)) => match of_certificate(client, headers, known) {
            Resolved::Caller(caller, standing) => {
                Resolved::Caller(caller, certified(standing, peer, &known.trust))
            }
            other => other,
        },
        (Door::Api, None) => bearer(headers, &known.trust, None, shown),
    }
}

fn of_certificate(client: &ClientCertificate, headers: &HeaderMap, known: &Known) -> Resolved {
    let trust = known.trust.load();
    if !trust.has_keys() {
        // No snapshot yet: revocations are not known either.
        return Resolved::Invalid(TokenError::NoKeys);
    }
    if trust.is_certificate_revoked(client) || !client.is_valid_at(now_s()) {
        return Resolved::Unproven;
    }
    let domain = &known.config.vault.trust_domain;
    let own = client.spiffe.as_ref().filter(|id| id.trust_domain == *domain);
    if let Some(role) = own.and_then(SpiffeId::role) {
        return of_role(role, headers, &known.trust);
    }
    match (bearer(headers, &known.trust, Some(client), None), own.and_then(SpiffeId::service)) {
        (Resolved::Anonymous, Some(service)) => {
            let grants: Grants = known.config.auth.roles.get(service).into_iter().flatten().collect();
            let grants = grants.without_admin();
            let caller =
                Claims::of_certificate(client, domain, grants).map(|claims| Caller::from_claims(&claims));
            caller.map_or(Resolved::Anonymous, |caller| {
                let serial = Some(client.serial.clone());
                let caller = Caller { via: Via::Certificate, serial, ..caller };
                Resolved::Caller(Arc::new(caller), Standing::default())
            })
        }
        (told, _) => told,
    }
}

fn of_role(role: Role, headers: &HeaderMap, trust: &TrustCell) -> Resolved {
    if role != Role::Edge || headers.contains_key(names::X_INTERNAL_SELF) {
        return Resolved::Caller(Arc::new(Caller::role(role)), Standing::default());
    }
    match single(headers, names::X_USER) {
        Some(user) => {
            let grants: Grants =
                single(headers, names::X_PERMISSIONS).unwrap_or("").parse().unwrap_or_default();
            let account = single(headers, names::X_ACCOUNT).map(str::to_owned);
            let method = single(headers, names::X_AUTH_METHOD);
            let legacy = method == Some(Via::LegacyToken.as_str());
            let mut caller = Caller::forwarded(user.to_owned(), account, grants, legacy);
            for via in [Via::Certificate, Via::ApiKey] {
                if method == Some(via.as_str()) {
                    caller.via = via;
                }
            }
            let proof = single(headers, names::X_INTERNAL_PROOF).and_then(|proof| proof.parse().ok());
            Resolved::Caller(Arc::new(caller.proven(proof)), Standing::default())
        }
        // The edge vouches for whom it verified; of a client's certificate it says nothing here.
        None => bearer(headers, trust, None, None),
    }
}

/// The bearer of a request on a connection with this certificate.
fn bearer(
    headers: &HeaderMap,
    trust: &TrustCell,
    certificate: Option<&ClientCertificate>,
    shown: Option<&Shown>,
) -> Resolved {
    let Some(token) = token_of(headers) else { return Resolved::Anonymous };
    let verified = token.and_then(|token| match shown {
        Some(shown) => trust.recognise_again(token, shown),
        None => trust.recognise(token),
    });
    match verified {
        Ok(Verified { claims, .. }) if !claims.is_held_by(certificate) => {
            Resolved::Invalid(TokenError::OtherCertificate)
        }
        Ok(Verified { claims, caller }) => Resolved::Caller(caller, Standing::of_token(claims, trust)),
        Err(error) => Resolved::Invalid(error),
    }
}

/// The one token of a request, where it shows any.
fn token_of(headers: &HeaderMap) -> Option<Result<&str, TokenError>> {
    let authorization = headers.get_all(header::AUTHORIZATION).iter().count();
    let vault_token = headers.get_all(names::X_VAULT_TOKEN).iter().count();
    let token = match (authorization, vault_token) {
        (0, 0) => return None,
        (1, 0) => single(headers, "authorization").and_then(bearer_token),
        (0, 1) => single(headers, names::X_VAULT_TOKEN),
        _ => None,
    };
    Some(token.ok_or(TokenError::Malformed))
}

/// Whether the token that a request came with would be taken now: what it opened may outlive it. That it is held by
/// its certificate was seen when the request came.
pub fn is_token_good(headers: &HeaderMap, trust: &TrustCell) -> bool {
    token_of(headers).is_some_and(|token| token.is_ok_and(|token| trust.recognise(token).is_ok()))
}

fn bearer_token(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn single<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

impl Resolved {
    /// Nobody has proved anything where a proof is needed.
    pub(crate) fn is_unproven(&self) -> bool {
        matches!(self, Self::Unproven)
    }

    fn caller(&self) -> Result<Option<Caller>, Reject> {
        Ok(self.shared()?.map(|caller| Caller::clone(&caller)))
    }

    /// The caller, where there is one.
    pub(crate) fn shared(&self) -> Result<Option<Arc<Caller>>, Reject> {
        match self {
            Self::Anonymous => Ok(None),
            Self::Caller(caller, _) => Ok(Some(Arc::clone(caller))),
            Self::Invalid(TokenError::NoKeys) => {
                Err(sluice_wire::problem::Problem::new(Code::AuthUnavailable).retry_after_s(1).into())
            }
            Self::Invalid(_) | Self::Unproven => Err(Reject::unauthenticated()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for MaybeCaller {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Reject> {
        parts.extensions.get::<Resolved>().map_or(Ok(None), Resolved::caller).map(Self)
    }
}

impl<S: Sync> FromRequestParts<S> for Authenticated {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Reject> {
        let MaybeCaller(caller) = MaybeCaller::from_request_parts(parts, state).await?;
        caller.map(Self).ok_or_else(Reject::unauthenticated)
    }
}
