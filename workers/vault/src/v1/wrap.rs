//! Response wrapping: an answer is put aside under a token that opens it once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answer::{Answer, Reply, WrapInfo};
use super::route::Ask;
use super::token::{self, Draft, Kind, Row, Term};
use super::who::Who;
use super::{fault, logical};
use crate::context::Vault;
use crate::error::VaultError;
use crate::quota::Held;
use crate::store::{Change, Table, View};

/// LIMIT: longest time an answer is kept, seconds.
const WRAP_MAX_S: i64 = 7 * 86_400;

/// An answer that was put aside.
#[derive(Serialize, Deserialize)]
struct Wrapped {
    body: String,
    ttl_s: i64,
}

impl Vault {
    /// Puts an answer aside.
    pub(super) fn v1_wrap(&self, ask: &Ask, reply: Reply, ttl_s: i64) -> Result<Answer, VaultError> {
        let entry = ask.call.act.entry("v1", "wrap", ask.call.path.clone()).actor(ask.who.actor());
        if ttl_s > WRAP_MAX_S {
            return Err(self.refuse(entry, fault(400, "an answer is kept for at most 7 days")));
        }
        let wrapped_accessor = reply.auth.as_ref().map(|auth| auth.accessor.clone());
        let body = String::from_utf8_lossy(&reply.body(&ask.call.act.request_id)).into_owned();
        let (keys, now, path) = (Arc::clone(&self.api_keys), ask.call.act.now, ask.call.path.clone());
        let born = ask.who.born(ask.call.certified.as_ref(), now);
        let payer = ask.who.payer();
        let info = self.write(entry, move |change| {
            let draft = Draft {
                path: path.clone(),
                display_name: "wrapping".to_owned(),
                term: Term { ttl_s, explicit_max_s: ttl_s, ..Term::default() },
                uses: 1,
                born,
                wrapping: true,
                payer: payer.clone(),
                ..Draft::default()
            };
            let (token, row) = token::create(change, &keys, draft, now)?;
            let id = keys.digest("token", &token);
            let end_s = row.expires_s.unwrap_or_default();
            let key = format!("wrap/{id}");
            logical::save_until(change, &key, &Wrapped { body, ttl_s }, end_s)?;
            let bytes = change.stored_bytes(Table::Logical, key.as_bytes())?;
            change.charge(Held::WrappedBytes, &payer, bytes)?;
            Ok(WrapInfo {
                token,
                accessor: row.accessor,
                ttl: ttl_s,
                creation_time: row.issued.to_string(),
                creation_path: path,
                wrapped_accessor,
            })
        })?;
        Ok(Answer::Data(Box::new(Reply { wrap_info: Some(info), ..Reply::default() })))
    }

    /// Opens what was put aside, once.
    pub(super) fn v1_unwrap(&self, ask: &Ask) -> Result<Answer, VaultError> {
        let id = self.v1_wrapping(ask)?;
        let now = ask.call.act.now;
        let found = self.write(ask.entry(), move |change| take(change, id.as_deref(), now))?;
        Ok(Answer::Text(found.into_bytes()))
    }

    /// What was put aside, without opening it.
    pub(super) fn v1_wrapped(&self, ask: &Ask) -> Result<Answer, VaultError> {
        let id = self.v1_wrapping(ask)?;
        let now = ask.call.act.now;
        let (row, ttl_s) = self.read(ask.entry(), || {
            let view = self.store.snapshot()?;
            let (_, row, wrapped) = found(&view, id.as_deref(), now)?;
            Ok((row, wrapped.ttl_s))
        })?;
        Answer::data(&serde_json::json!({
            "creation_path": row.path, "creation_time": row.issued.to_string(), "creation_ttl": ttl_s,
        }))
    }

    /// The wrapping token: named in the body, or the caller's own.
    fn v1_wrapping(&self, ask: &Ask) -> Result<Option<String>, VaultError> {
        if let Some(token) = ask.call.fields.text("token")?.filter(|token| !token.is_empty()) {
            return Ok(Some(self.api_keys.digest("token", &token)));
        }
        Ok(match &ask.who {
            Who::Token(held) => Some(held.id.clone()),
            _ => None,
        })
    }
}

fn found(
    view: &impl View,
    id: Option<&str>,
    now: jiff::Timestamp,
) -> Result<(String, Row, Wrapped), VaultError> {
    let gone = || fault(400, "wrapping token is not valid or does not exist");
    let id = id.ok_or_else(gone)?;
    let row = token::live(view, id, now)?.filter(|row| row.kind == Kind::Wrapping).ok_or_else(gone)?;
    let wrapped = logical::load(view, &format!("wrap/{id}"))?;
    let damaged = VaultError::Integrity(Table::Logical.name());
    Ok((id.to_owned(), row, wrapped.ok_or(damaged)?))
}

/// Inside one change, so that of many at once one gets it.
fn take(change: &mut Change<'_>, id: Option<&str>, now: jiff::Timestamp) -> Result<String, VaultError> {
    let (id, _, wrapped) = found(change, id, now)?;
    token::remove_tree(change, &id)?;
    Ok(wrapped.body)
}
