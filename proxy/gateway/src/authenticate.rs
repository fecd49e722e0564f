//! Who calls: the token of a request, or the certificate of its connection.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sluice_identity::claims::Claims;
use sluice_identity::token::TokenError;
use sluice_policy::authorize::Need;
use sluice_policy::reserved::{Credential, Reserved};
use sluice_wire::code::Code;
use sluice_wire::problem::Problem;

use crate::admit::{decided, not_sent, preflight};
use crate::clock;
use crate::ctx::{Exchange, Target};
use crate::fields::name;
use crate::jwt_cache::{Found, Verified};
use crate::respond::Answer;
use crate::state::Shared;

/// The decision of a request whose credential is missing or not believed.
const UNAUTHENTICATED: &str = "unauthenticated";

/// What a request presents as credential.
enum Presented<'a> {
    Nothing,
    Token(&'a str),
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
    let token = match presented(headers) {
        Presented::Nothing => return Ok(certified(x)),
        Presented::Token(token) => Ok(token),
        Presented::Malformed => Err(TokenError::Malformed),
    };
    let now = clock::now();
    if let Some(wait) = shared.throttle.wait(x.client, now) {
        shared.meters.auth_failure("throttled");
        let problem =
            Problem::new(Code::TooManyFailures).detail("too many failed authentications of this address");
        let answer = Answer::problem(problem.retry_after_s(clock::retry_after_s(wait)));
        return Err(decided(x, "auth_throttled", answer));
    }
    let trust = shared.trust.load();
    let (rules, last) = (shared.trust.rules(), &x.arrival.conn.token);
    let verified = token.and_then(|token| shared.tokens.verify(token, last, &trust, rules, clock::unix_s()));
    match verified {
        Ok((verified, found)) => {
            match found {
                Found::Cached => shared.meters.token_hits.inc(),
                Found::Verified => shared.meters.token_misses.inc(),
            }
            Ok(Some(verified))
        }
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

/// The caller that the client's certificate stands for. `[auth.roles]` says what it may: under the name of
/// its service in our own trust domain, under the whole SPIFFE id in another.
fn certified(x: &Exchange) -> Option<Arc<Verified>> {
    let generation = &x.generation;
    let (roles, domain) = (&generation.config.auth.roles, &generation.config.vault.trust_domain);
    x.arrival.conn.tls.as_ref()?.caller(generation.number, |certificate| {
        let id = certificate.spiffe.as_ref()?;
        let own = id.service_in(domain).and_then(|name| roles.get(name));
        let granted = own.or_else(|| roles.get(&id.to_string()));
        let grants = granted.into_iter().flatten().map(String::as_str).collect();
        Verified::new(Claims::of_certificate(certificate, grants)?, "mtls")
    })
}

/// The credential of a request: one `Authorization: Bearer`, or one `X-Vault-Token`.
fn presented(headers: &HeaderMap) -> Presented<'_> {
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

    #[test]
    fn one_credential_counts_and_two_are_none() {
        let token = |fields: &[(&'static str, &'static str)]| match presented(&headers(fields)) {
            Presented::Nothing => "nothing".to_owned(),
            Presented::Token(token) => token.to_owned(),
            Presented::Malformed => "malformed".to_owned(),
        };
        assert_eq!(token(&[]), "nothing");
        assert_eq!(token(&[("authorization", "Bearer abc")]), "abc");
        assert_eq!(token(&[("authorization", "bearer abc")]), "abc");
        assert_eq!(token(&[("x-vault-token", "abc")]), "abc");
        assert_eq!(token(&[("authorization", "Basic abc")]), "malformed");
        assert_eq!(token(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]), "malformed");
        assert_eq!(token(&[("authorization", "Bearer a"), ("x-vault-token", "b")]), "malformed");
    }
}
