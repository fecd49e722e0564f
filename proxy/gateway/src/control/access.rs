//! Who reads and who changes.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use jiff::Timestamp;
use sluice_audit::{Decision, Entry};
use sluice_http::{MaybeCaller, Peer, Reject, RequestIdExt, require};
use sluice_identity::caller::{Caller, Via};
use sluice_wire::code::Code;

use super::Control;
use crate::conn::is_within;
use crate::kill::Author;

/// Grants of somebody near who shows no token: reading, and calculations, which change nothing.
const NEAR_GRANTS: &str = "control:read events:read read";

/// A request and what is known about who sent it.
pub(super) struct Access {
    control: Arc<Control>,
    caller: Option<Caller>,
    near: bool,
    remote: String,
    request_id: String,
}

impl FromRequestParts<Arc<Control>> for Access {
    type Rejection = Reject;

    async fn from_request_parts(parts: &mut Parts, control: &Arc<Control>) -> Result<Self, Reject> {
        let MaybeCaller(caller) = MaybeCaller::from_request_parts(parts, control).await?;
        // Tokens of the older platforms open services, not the control port.
        let caller = caller.filter(|caller| caller.via != Via::LegacyToken);
        let address = parts.extensions.get::<Peer>().and_then(|peer| peer.address);
        let generation = control.shared.generation();
        let allow = &generation.config.control.read_allow;
        let near = address.is_some_and(|from| is_within(from.ip(), allow));
        let request_id =
            parts.extensions.get::<RequestIdExt>().map(|id| id.0.to_string()).unwrap_or_default();
        let remote = address.map(|from| from.ip().to_string()).unwrap_or_default();
        Ok(Self { control: Arc::clone(control), caller, near, remote, request_id })
    }
}

impl Access {
    /// The request's id.
    pub(super) fn request_id(&self) -> &str {
        &self.request_id
    }

    /// Who changes something, where he may; nothing is written about it.
    pub(super) fn author(&self) -> Option<Author> {
        let caller = self.caller.as_ref().filter(|caller| require(caller, "control:write").is_ok())?;
        let (request_id, remote) = (self.request_id.clone(), self.remote.clone());
        Some(Author { subject: caller.subject.clone(), request_id, remote })
    }

    /// May read: by grant, or by address.
    pub(super) fn read(&self) -> Result<(), Reject> {
        match &self.caller {
            Some(caller) => require(caller, "control:read"),
            None if self.near => Ok(()),
            None => Err(Reject::unauthenticated()),
        }
    }

    /// May read what always takes a token.
    pub(super) fn read_with_token(&self) -> Result<(), Reject> {
        require(self.caller.as_ref().ok_or_else(Reject::unauthenticated)?, "control:read")
    }

    /// Subject and grants with which a worker is asked.
    pub(super) fn viewer(&self) -> Result<(String, String), Reject> {
        self.read()?;
        Ok(match &self.caller {
            Some(caller) => (caller.subject.clone(), caller.grants.to_header()),
            None => ("dashboard".to_owned(), NEAR_GRANTS.to_owned()),
        })
    }

    /// May change `path` by `op`; the audit chain has it on disk when this returns.
    pub(super) async fn change(&self, op: &'static str, path: &str) -> Result<&Caller, Reject> {
        let allowed = match &self.caller {
            Some(caller) => require(caller, "control:write").map(|()| caller),
            None => Err(Reject::unauthenticated()),
        };
        let decision = if allowed.is_ok() { Decision::Allow } else { Decision::Deny };
        self.audit(op, path, decision).await?;
        allowed
    }

    /// Writes one record about this request.
    pub(super) async fn audit(&self, op: &'static str, path: &str, decision: Decision) -> Result<(), Reject> {
        let actor = self.caller.as_ref().map_or("anonymous", |caller| caller.subject.as_str());
        let entry = Entry::new("control", op)
            .path(path)
            .actor(actor)
            .decision(decision)
            .request(self.request_id.as_str(), self.remote.as_str());
        match self.control.audit.submit(entry, Timestamp::now()).await {
            Ok(_) => Ok(()),
            Err(error) => {
                tracing::error!(
                    component = "audit",
                    error = &error as &dyn std::error::Error,
                    "audit record not written"
                );
                Err(Reject::new(
                    Code::AuditUnavailable,
                    "the audit log cannot be written; nothing was changed",
                ))
            }
        }
    }
}
