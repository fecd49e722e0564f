//! Who calls: the token or the API key of a request, or the certificate of its connection.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use sluice_identity::claims::Claims;
use sluice_identity::grants::Grants;
use sluice_identity::token::TokenError;
use sluice_identity::trust::Trust;
use sluice_policy::authorize::Need;
use sluice_policy::reserved::{Credential, Reserved};
use sluice_policy::time::Nanos;
use sluice_schema::Authority;
use sluice_wire::code::Code;
use sluice_wire::problem::Problem;

use crate::admit::{decided, not_sent, preflight};
use crate::clock;
use crate::ctx::{Exchange, Target};
use crate::fields::{Fields, name};
use crate::jwt_cache::{Found, Verified};
use crate::respond::Answer;
use crate::state::Shared;

/// The decision of a request whose credential is missing or not believed.
const UNAUTHENTICATED: &str = "unauthenticated";

/// What tokens of Vault's own kind begin with.
const VAULT_TOKEN_PREFIX: &str = "hvs.";

/// What a request presents as credential.
enum Presented<'a> {
    Nothing,
    Token(&'a str),
    /// A key of `[[auth.api_key]]`.
    Key(&'a [u8]),
    /// Two of them, or one that is no bearer token.
    Malformed,
}

/// Verifies the caller where the route asks for it.
pub(crate) fn authenticate(
    shared: &Shared,
    x: &mut Exchange,
    reserved: Option<&Reserved>,
    headers: &HeaderMap,
) -> Result<(), Answer> {
    let (required, looks) = match (&x.target, reserved.map(|reserved| reserved.credential)) {
        (Target::Service(route), _) => {
            let required = route.access.need(x.arrival.method, preflight(x, headers)) != Need::Nothing;
            x.keeps_credentials = route.service.forward_authorization;
            // A credential meant for the upstream is not ours to judge where none is required.
            (required, x.generation.config.auth.enabled && (required || !x.keeps_credentials))
        }
        (Target::Worker(_), Some(Credential::Edge)) => (true, true),
        (Target::Worker(_), Some(Credential::EdgeIfPresent)) => {
            // The vault decides, and its validate call is there to be asked about bad tokens.
            x.keeps_credentials = true;
            (false, true)
        }
        (Target::Worker(_), Some(Credential::WorkerTells)) => {
            x.keeps_credentials = true;
            // Logins carry theirs in the body; what is read without one is open to everybody.
            if !matches!(token(headers), Presented::Nothing) || !x.arrival.method.is_safe() {
                judge_behind(shared, x)?;
            }
            (false, false)
        }
        (Target::Worker(_), _) => {
            x.keeps_credentials = true;
            (false, false)
        }
        // Pages ask by themselves where they need a caller.
        (Target::Page, _) => (false, false),
    };
    if !looks {
        return Ok(());
    }
    let defers = matches!(reserved.map(|reserved| reserved.credential), Some(Credential::EdgeIfPresent));
    // A token of Vault's kind is none that the edge could know; the vault has the one table of them.
    if defers && matches!(token(headers), Presented::Token(token) if token.starts_with(VAULT_TOKEN_PREFIX)) {
        return judge_behind(shared, x);
    }
    let before = x.decision;
    x.identity = match verify(shared, x, headers) {
        Err(_) if defers && x.decision == UNAUTHENTICATED => {
            x.decision = before;
            None
        }
        verified => verified?,
    };
    if required && x.identity.is_none() {
        shared.meters.auth_failure("missing");
        return Err(decided(x, UNAUTHENTICATED, Answer::unauthenticated()));
    }
    Ok(())
}

/// The verified caller of a request; `None` where it presents nothing.
pub(crate) fn verify(
    shared: &Shared,
    x: &mut Exchange,
    headers: &HeaderMap,
) -> Result<Option<Arc<Verified>>, Answer> {
    let shown = match presented(headers, Keys::of(x)) {
        Presented::Nothing => return Ok(certified(shared, x)),
        shown => shown,
    };
    let now = clock::now();
    throttle(shared, x, now)?;
    let trust = shared.trust.load();
    let verified = match shown {
        Presented::Token(token) => {
            let (rules, last) = (shared.trust.rules(), &x.arrival.conn.token);
            let verified = shared.tokens.verify(token, last, &trust, rules, clock::unix_s());
            verified.and_then(|(verified, found)| {
                match found {
                    Found::Cached => shared.meters.token_hits.inc(),
                    Found::Verified => shared.meters.token_misses.inc(),
                }
                // With each request: the memory of tokens is everybody's, the certificate the connection's.
                let certificate = x.arrival.conn.tls.as_ref().and_then(|session| session.client.as_ref());
                if verified.claims.is_held_by(certificate) {
                    Ok(verified)
                } else {
                    Err(TokenError::OtherCertificate)
                }
            })
        }
        Presented::Key(key) => return of_key(shared, x, key, &trust).map(Some),
        Presented::Nothing | Presented::Malformed => Err(TokenError::Malformed),
    };
    match verified {
        Ok(verified) => Ok(Some(verified)),
        Err(TokenError::NoKeys) => {
            shared.meters.auth_failure(TokenError::NoKeys.reason());
            let problem =
                Problem::new(Code::AuthUnavailable).detail("no verification keys yet").retry_after_s(1);
            let answer = Answer::problem(not_sent(x, problem));
            Err(decided(x, "auth_unavailable", answer))
        }
        Err(error) => {
            shared.meters.auth_failure(error.reason());
            shared.throttle.fail(x.client, now);
            Err(decided(x, UNAUTHENTICATED, Answer::unauthenticated()))
        }
    }
}

/// Refuses an address that has failed too often.
fn throttle(shared: &Shared, x: &mut Exchange, now: Nanos) -> Result<(), Answer> {
    let Some(wait) = shared.throttle.wait(x.client, now) else { return Ok(()) };
    shared.meters.auth_failure("throttled");
    let problem =
        Problem::new(Code::TooManyFailures).detail("too many failed authentications of this address");
    let answer = Answer::problem(problem.retry_after_s(clock::retry_after_s(wait)));
    Err(decided(x, "auth_throttled", answer))
}

/// Leaves a credential to the worker, unless the address has failed too often.
fn judge_behind(shared: &Shared, x: &mut Exchange) -> Result<(), Answer> {
    x.judged_behind = true;
    throttle(shared, x, clock::now())
}

/// Counts a credential that its worker found to be none. A worker's own paths say so by their status; `/v1` has one
/// status for what is none and what may not, so there the worker tells it beside.
pub(crate) fn judged(shared: &Shared, x: &Exchange, status: StatusCode, answer: &impl Fields) {
    if x.judged_behind && (status == StatusCode::UNAUTHORIZED || answer.has(&name::REFUSED)) {
        shared.meters.auth_failure("worker");
        shared.throttle.fail(x.client, clock::now());
    }
}

/// The caller that a key stands for. One whose name the vault has revoked is none.
fn of_key(shared: &Shared, x: &mut Exchange, key: &[u8], trust: &Trust) -> Result<Arc<Verified>, Answer> {
    let known = x.generation.api_keys.find(key).filter(|caller| !trust.is_revoked(&caller.claims));
    if let Some(caller) = known {
        return Ok(Arc::clone(caller));
    }
    shared.meters.auth_failure("api_key");
    shared.throttle.fail(x.client, clock::now());
    Err(decided(x, UNAUTHENTICATED, Answer::unauthenticated()))
}

/// What an `X-API-Key` counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keys {
    /// Nothing: the configuration knows none.
    Ignored,
    /// It is a credential unless there is a token: beside one it is meant for the upstream.
    Aside,
    /// It is a credential.
    Counted,
}

impl Keys {
    fn of(x: &Exchange) -> Self {
        if x.generation.api_keys.is_empty() {
            Self::Ignored
        } else if x.keeps_credentials {
            Self::Aside
        } else {
            Self::Counted
        }
    }
}

/// The caller that the client's certificate stands for. `[auth.roles]` says what it may: under the name of
/// its service in our own trust domain, under the whole SPIFFE id in another; it makes nobody an administrator. Our
/// own has one authority: a name of it that another one has signed is nobody's.
fn certified(shared: &Shared, x: &Exchange) -> Option<Arc<Verified>> {
    let (generation, session) = (&x.generation, x.arrival.conn.tls.as_ref()?);
    let config = &generation.config;
    let (roles, domain) = (&config.auth.roles, &config.vault.trust_domain);
    let identity = shared.identity.current();
    let identity_number = identity.as_ref().map_or(0, |identity| identity.generation);
    session.caller((generation.number, identity_number), |certificate| {
        let id = certificate.spiffe.as_ref()?;
        let strange = config.edge.tls.as_ref().is_some_and(|tls| tls.client_ca != Authority::Auto);
        if id.trust_domain == *domain && strange && !identity.as_ref()?.vouches_for(session, &shared.trust) {
            tracing::warn!(component = "tls", %id, "a strange authority names a caller of our own trust domain");
            return None;
        }
        let own = id.service_in(domain).and_then(|name| roles.get(name));
        let granted = own.or_else(|| roles.get(&id.to_string()));
        let grants: Grants = granted.into_iter().flatten().map(String::as_str).collect();
        let grants = grants.without_admin();
        Verified::of_certificate(Claims::of_certificate(certificate, domain, grants)?, &certificate.serial)
    })
}

/// The credential of a request: one `Authorization: Bearer`, one `X-Vault-Token` or one `X-API-Key`.
fn presented(headers: &HeaderMap, keys: Keys) -> Presented<'_> {
    let token = token(headers);
    if keys == Keys::Ignored {
        return token;
    }
    let mut shown = headers.get_all(&name::API_KEY).iter();
    match (token, shown.next(), shown.next()) {
        (token, None, _) => token,
        (Presented::Nothing, Some(key), None) => Presented::Key(key.as_bytes()),
        (Presented::Token(token), _, _) if keys == Keys::Aside => Presented::Token(token),
        _ => Presented::Malformed,
    }
}

/// The token of a request.
fn token(headers: &HeaderMap) -> Presented<'_> {
    let mut bearers = headers.get_all(AUTHORIZATION).iter();
    let mut tokens = headers.get_all(&name::VAULT_TOKEN).iter();
    match (bearers.next(), bearers.next(), tokens.next(), tokens.next()) {
        (None, _, None, _) => Presented::Nothing,
        (Some(value), None, None, _) => {
            let token = value.to_str().ok().and_then(|text| text.split_once(' '));
            match token {
                Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Presented::Token(token),
                _ => Presented::Malformed,
            }
        }
        (None, _, Some(value), None) => value.to_str().map_or(Presented::Malformed, Presented::Token),
        _ => Presented::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::header_map as headers;

    fn shown(fields: &[(&'static str, &'static str)], keys: Keys) -> String {
        match presented(&headers(fields), keys) {
            Presented::Nothing => "nothing".to_owned(),
            Presented::Token(token) => token.to_owned(),
            Presented::Key(key) => format!("key {}", String::from_utf8_lossy(key)),
            Presented::Malformed => "malformed".to_owned(),
        }
    }

    #[test]
    fn one_credential_counts_and_two_are_none() {
        for keys in [Keys::Ignored, Keys::Aside, Keys::Counted] {
            let token = |fields: &[(&'static str, &'static str)]| shown(fields, keys);
            assert_eq!(token(&[]), "nothing");
            assert_eq!(token(&[("authorization", "Bearer abc")]), "abc");
            assert_eq!(token(&[("authorization", "bearer abc")]), "abc");
            assert_eq!(token(&[("x-vault-token", "abc")]), "abc");
            assert_eq!(token(&[("authorization", "Basic abc")]), "malformed");
            assert_eq!(token(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]), "malformed");
            assert_eq!(token(&[("authorization", "Bearer a"), ("x-vault-token", "b")]), "malformed");
        }
    }

    #[test]
    fn a_key_counts_where_there_are_any_and_beside_a_token_where_it_is_not_the_upstreams() {
        let (key, other) = (("x-api-key", "k"), ("x-api-key", "l"));
        let bearer = ("authorization", "Bearer a");
        for (fields, want) in [
            (&[key][..], ["nothing", "key k", "key k"]),
            (&[key, other], ["nothing", "malformed", "malformed"]),
            (&[bearer, key], ["a", "a", "malformed"]),
            (&[("x-vault-token", "a"), key], ["a", "a", "malformed"]),
            (&[("authorization", "Basic a"), key], ["malformed", "malformed", "malformed"]),
        ] {
            let got = [Keys::Ignored, Keys::Aside, Keys::Counted].map(|keys| shown(fields, keys));
            assert_eq!(got, want, "{fields:?}");
        }
    }
}
