//! Who asks, in which request, when: what every operation and every audit record needs.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use jiff::Timestamp;
use sluice_audit::{Decision, Entry};
use sluice_http::{Door, MaybeCaller, Peer, Reject, RequestIdExt};
use sluice_identity::caller::Caller;

use crate::context::Context;

/// One request, as far as operations need it.
#[derive(Debug, Clone)]
pub(crate) struct Act {
    pub(crate) caller: Option<Caller>,
    pub(crate) request_id: String,
    pub(crate) remote: String,
    pub(crate) now: Timestamp,
}

impl Act {
    /// The vault's own act.
    pub(crate) fn own(now: Timestamp) -> Self {
        Self {
            caller: Some(Caller::role(sluice_wire::role::Role::Vault)),
            request_id: String::new(),
            remote: String::new(),
            now,
        }
    }

    /// A request whose caller is found out later, by what its body says.
    pub(crate) fn unproved(parts: &Parts) -> Self {
        let request_id =
            parts.extensions.get::<RequestIdExt>().map(|id| id.0.to_string()).unwrap_or_default();
        let remote = match parts.extensions.get::<Peer>() {
            Some(Peer { address: Some(address), .. }) => address.to_string(),
            Some(Peer { door: Door::Internal, .. }) => "internal".to_owned(),
            _ => String::new(),
        };
        Self { caller: None, request_id, remote, now: whole_micros(Timestamp::now()) }
    }

    /// Who it is, for records.
    pub(crate) fn actor(&self) -> &str {
        self.caller.as_ref().map_or("anonymous", |caller| &caller.subject)
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

/// Times are kept and shown in microseconds.
fn whole_micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at)
}

impl FromRequestParts<Arc<Context>> for Act {
    type Rejection = Reject;

    /// A credential that does not verify is recorded before it is refused.
    async fn from_request_parts(parts: &mut Parts, context: &Arc<Context>) -> Result<Self, Reject> {
        let resolved = MaybeCaller::from_request_parts(parts, context).await;
        let act = Self::unproved(parts);
        match resolved {
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
