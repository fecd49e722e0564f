//! The audit log over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use sluice_audit::{Query, Record, Since};
use sluice_http::{Reject, StrictQuery};
use sluice_wire::code::Code;
use sluice_wire::event::parse_time;

use super::answer;
use crate::access;
use crate::context::Context;
use crate::error::VaultError;
use crate::request::Act;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    since: Option<String>,
    actor: Option<String>,
    path: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct Page {
    records: Vec<Record>,
    count: usize,
    /// Give it as `since` to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// `since` is a sequence number (records after it) or a time (records from it on).
pub(super) async fn read(
    State(context): State<Arc<Context>>,
    act: Act,
    StrictQuery(query): StrictQuery<AuditQuery>,
) -> Result<Response, Reject> {
    let since = match query.since.as_deref() {
        None => Since::Seq(0),
        Some(text) if text.len() < 19 && text.bytes().all(|b| b.is_ascii_digit()) => {
            Since::Seq(text.parse().unwrap_or(0))
        }
        Some(text) => Since::Time(
            parse_time(text)
                .ok_or_else(|| Reject::new(Code::BadQuery, "since is a sequence number or a time"))?,
        ),
    };
    let query = Query { since, actor: query.actor, path: query.path, limit: query.limit.unwrap_or(100) };
    let page = context
        .run(move |vault| {
            let entry = act.entry("audit", "read", "audit");
            if let Err(error) = may_read(&act) {
                return Err(vault.refuse(entry, error));
            }
            vault.read(entry, || {
                query
                    .read(vault.audit.path())
                    .map_err(|error| VaultError::Store(Box::new(redb::Error::Io(error))))
            })
        })
        .await?;
    Ok(answer(&Page { count: page.records.len(), records: page.records, next: page.next }))
}

/// The key that signs the log's checkpoints; to be kept where the log's writers cannot change it.
pub(super) async fn key(State(context): State<Arc<Context>>, act: Act) -> Result<Response, Reject> {
    let key = context
        .run(move |vault| {
            let entry = act.entry("audit", "read", "audit/key");
            match may_read(&act) {
                Ok(()) => vault.read(entry, || Ok(vault.audit_key.clone())),
                Err(error) => Err(vault.refuse(entry, error)),
            }
        })
        .await?;
    Ok(answer(&key))
}

fn may_read(act: &Act) -> Result<(), VaultError> {
    let caller = access::known(act.caller.as_ref())?;
    if caller.grants.covers("audit:read") { Ok(()) } else { Err(VaultError::Lacking("audit:read")) }
}
