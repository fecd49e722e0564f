//! Who asks, in which request, when: what every operation and every audit record needs.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use http::request::Parts;
use ipnet::IpNet;
use jiff::Timestamp;
use sluice_audit::{Decision, Entry};
use sluice_http::{Door, MaybeCaller, Peer, Reject, RequestIdExt, is_role_itself, origin};
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;
use sluice_wire::header::X_VAULT_TOKEN;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::v1::TOKEN_PREFIX;

/// One request, as far as operations need it.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    pub(crate) caller: Option<Caller>,
    /// A token of Vault's kind in its place, where those are taken.
    pub(crate) api_token: Option<ApiToken>,
    pub(crate) request_id: String,
    pub(crate) remote: String,
    pub(crate) now: Timestamp,
}

/// A token of Vault's kind as it was shown. Never printed.
#[derive(Clone)]
pub(crate) struct ApiToken(Zeroizing<String>);

impl ApiToken {
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The one credential of a request, where it is such a token: in `X-Vault-Token`, or as a bearer.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let mut shown = headers.get_all(X_VAULT_TOKEN).iter().chain(headers.get_all(AUTHORIZATION));
        let (first, None) = (shown.next()?.to_str().ok()?, shown.next()) else { return None };
        let token = match first.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token,
            Some(_) => return None,
            None => first,
        };
        token.starts_with(TOKEN_PREFIX).then(|| Self(Zeroizing::new(token.to_owned())))
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken")
    }
}

/// A request about secrets: tokens of Vault's kind count too.
pub(crate) struct SecretAct(pub(crate) Act);

impl Act {
    /// The vault's own act.
    pub(crate) fn own(now: Timestamp) -> Self {
        Self {
            caller: Some(Caller::role(sluice_wire::role::Role::Vault)),
            api_token: None,
            request_id: String::new(),
            remote: String::new(),
            now,
        }
    }

    /// A request whose caller is found out later, by what its body says.
    pub(crate) fn unproved(parts: &Parts, trusted: &[IpNet]) -> Self {
        let request_id =
            parts.extensions.get::<RequestIdExt>().map(|id| id.0.to_string()).unwrap_or_default();
        let remote =
            parts.extensions.get::<Peer>().map_or_else(String::new, |peer| remote(peer, parts, trusted));
        Self { caller: None, api_token: None, request_id, remote, now: whole_micros(Timestamp::now()) }
    }

    /// Whether it came to the API port from this machine.
    pub(crate) fn is_local(&self) -> bool {
        let address: Result<std::net::SocketAddr, _> = self.remote.parse();
        address.is_ok_and(|address| address.ip().to_canonical().is_loopback())
    }

    /// Who it is, for records.
    pub(crate) fn actor(&self) -> &str {
        self.caller.as_ref().map_or("anonymous", |caller| &caller.subject)
    }

    /// Whose quota pays what is asked for `holder`, where that is not the holder: whoever asks and is neither the
    /// holder nor an administrator.
    pub(crate) fn payer(&self, holder: &str) -> Option<String> {
        let caller = self.caller.as_ref()?;
        let pays = caller.as_role().is_none() && !caller.grants.is_admin();
        (pays && caller.account != holder && caller.subject != holder).then(|| caller.account.clone())
    }

    /// An audit entry about this act.
    pub(crate) fn entry(
        &self,
        kind: &'static str,
        op: impl Into<Cow<'static, str>>,
        path: impl Into<String>,
    ) -> Entry {
        Entry::new(kind, op)
            .path(path)
            .actor(self.actor())
            .request(self.request_id.clone(), self.remote.clone())
    }
}

/// Where a request comes from, for records: the client's address where the edge has passed it on.
fn remote(peer: &Peer, parts: &Parts, trusted: &[IpNet]) -> String {
    let told = origin(peer, &parts.headers, trusted).filter(|_| !is_role_itself(parts));
    match (peer.address, told) {
        (Some(address), Some(ip)) if ip != address.ip().to_canonical() => ip.to_string(),
        (Some(address), _) => address.to_string(),
        (None, Some(ip)) => ip.to_string(),
        (None, None) if peer.door == Door::Internal => "internal".to_owned(),
        (None, None) => String::new(),
    }
}

/// A service in quarantine is refused here, before any operation can forget to ask. Sealed, nothing is served at all.
fn is_shut_out(context: &Context, caller: &Caller, now: Timestamp) -> bool {
    context.vault().is_ok_and(|vault| vault.is_shut_out(caller, now))
}

/// Times are kept and shown in microseconds.
fn whole_micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

impl FromRequestParts<Arc<Context>> for Act {
    type Rejection = Reject;

    /// A credential that does not verify is recorded before it is refused.
    async fn from_request_parts(parts: &mut Parts, context: &Arc<Context>) -> Result<Self, Reject> {
        let resolved = MaybeCaller::from_request_parts(parts, context).await;
        let act = Self::unproved(parts, context.trusted());
        match resolved {
            Ok(MaybeCaller(Some(caller))) if is_shut_out(context, &caller, act.now) => {
                let op = parts.method.as_str().to_ascii_lowercase();
                let entry = Self { caller: Some(caller), ..act }.entry("auth", op, parts.uri.path());
                context.run(move |vault| vault.note(entry, true)).await?;
                Err(Reject::new(Code::Forbidden, "the service is in quarantine"))
            }
            Ok(MaybeCaller(caller)) => Ok(Self { caller, ..act }),
            Err(reject) => {
                let op = parts.method.as_str().to_ascii_lowercase();
                let entry =
                    act.entry("auth", op, parts.uri.path()).actor("unverified").decision(Decision::Deny);
                context.run(|vault| vault.refuse_unknown(entry)).await?;
                Err(reject)
            }
        }
    }
}

impl FromRequestParts<Arc<Context>> for SecretAct {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, context: &Arc<Context>) -> Result<Self, Reject> {
        match ApiToken::of(&parts.headers) {
            // A certificate beside it is not looked at: what is shown speaks.
            Some(token) => {
                let act = Act::unproved(parts, context.trusted());
                Ok(Self(Act { api_token: Some(token), ..act }))
            }
            None => Act::from_request_parts(parts, context).await.map(Self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_of_this_machine_is_local() {
        let from = |remote: &str| Act { remote: remote.into(), ..Act::own(Timestamp::UNIX_EPOCH) };
        for local in ["127.0.0.1:1", "[::1]:2", "[::ffff:127.0.0.1]:3"] {
            assert!(from(local).is_local(), "{local}");
        }
        for other in ["10.0.0.1:1", "internal", "", "127.0.0.1", "[2001:db8::1]:2"] {
            assert!(!from(other).is_local(), "{other}");
        }
    }
}
