//! Response wrapping: an answer is put aside under a token that opens it once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answer::{Answer, Reply, WrapInfo};
use super::route::Ask;
use super::token::{self, Draft, Kind, Row, Term};
use super::who::Who;
use super::{fault, logical, unproved};
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
        // Who logs in pays as who he is then; whoever shows nothing has nothing put aside.
        let payer = match (&ask.who, &wrapped_accessor) {
            (Who::Nobody, None) => {
                return Err(self.refuse(entry, fault(403, "permission denied")));
            }
            (Who::Nobody, Some(accessor)) => token::payer_of(&self.store.snapshot()?, accessor)?,
            (who, _) => who.payer(),
        };
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
    let gone = || unproved(400, "wrapping token is not valid or does not exist");
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};
    use tempfile::TempDir;
    use zeroize::Zeroizing;

    use super::super::call::Call;
    use super::super::who;
    use super::*;
    use crate::config::Settings;
    use crate::quota::Quotas;
    use crate::request::Act;
    use crate::seal::RootKey;
    use crate::tests::{act, open_with, settings};

    fn small(dir: &TempDir, now: Timestamp) -> Vault {
        let quota = sluice_schema::Quota { vault_tokens: 3, ..sluice_schema::Quota::default() };
        let settings = Settings { quotas: Quotas(quota), ..settings(dir.path()) };
        open_with(settings, &RootKey::random(), now)
    }

    fn call(token: Option<&str>, path: &str, body: &Value, wrap_s: Option<i64>, now: Timestamp) -> Call {
        let nobody = Act { caller: None, ..act("", "", now) };
        let token = token.map(|token| Zeroizing::new(token.to_owned()));
        Call { token, wrap_s, ..Call::write(path, body, nobody) }
    }

    fn told(vault: &Vault, call: Call) -> Result<Value, VaultError> {
        vault.v1(call).map(|answer| serde_json::from_slice(&answer.wire("").2).unwrap_or_default())
    }

    fn made(vault: &Vault, by: &str, now: Timestamp) -> Result<String, VaultError> {
        let body = json!({ "policies": ["default"], "ttl": "1h" });
        let told = told(vault, call(Some(by), "auth/token/create", &body, None, now))?;
        Ok(told["auth"]["client_token"].as_str().unwrap().to_owned())
    }

    #[test]
    fn whoever_was_given_a_token_takes_nothing_from_who_gave_it() {
        let (dir, now) = (TempDir::new().unwrap(), Timestamp::now());
        let vault = small(&dir, now);
        let root = vault.mint_root(0, now).unwrap();
        let given = made(&vault, &root, now).unwrap();
        let wrap = |by: &str| {
            told(&vault, call(Some(by), "sys/wrapping/wrap", &json!({ "a": 1 }), Some(60), now)).map(drop)
        };
        let held = (0..5).filter(|_| wrap(&given).is_ok()).count();
        assert_eq!(held, 2, "it counts itself");
        for _ in 0..4 {
            let other = made(&vault, &root, now).unwrap();
            assert!(wrap(&other).is_ok());
        }
        assert!(vault.mint_root(0, now).is_ok(), "a root token is had whatever others hold");
        let admin = act("ops", "admin", now);
        for _ in 0..5 {
            let create = Call::write("auth/token/create", &json!({}), admin.clone());
            assert!(vault.v1(create).is_ok());
        }
    }

    #[test]
    fn nothing_is_put_aside_for_nobody() {
        let (dir, now) = (TempDir::new().unwrap(), Timestamp::now());
        let vault = small(&dir, now);
        let root = vault.mint_root(0, now).unwrap();
        let put = call(Some(&root), "sys/wrapping/wrap", &json!({ "a": 1 }), Some(60), now);
        let wrapped = told(&vault, put).unwrap()["wrap_info"]["token"].as_str().unwrap().to_owned();
        let look = |wrap_s| call(None, "sys/wrapping/lookup", &json!({ "token": wrapped }), wrap_s, now);
        assert!(told(&vault, look(Some(60))).is_err() && told(&vault, look(None)).is_ok());

        // A login is put aside for who logs in, and counts to him.
        let role = |name: &str| {
            let as_root = |path: &str| told(&vault, call(Some(&root), path, &json!({}), None, now)).unwrap();
            as_root(&format!("auth/approle/role/{name}"));
            let secret = as_root(&format!("auth/approle/role/{name}/secret-id"))["data"]["secret_id"].clone();
            let view = vault.store.snapshot().unwrap();
            let row: Value = logical::load(&view, &format!("approle/role/{name}")).unwrap().unwrap();
            json!({ "role_id": row["role_id"], "secret_id": secret })
        };
        let (one, other) = (role("one"), role("other"));
        let login = |ids: &Value| told(&vault, call(None, "auth/approle/login", ids, Some(60), now));
        assert!(login(&one).unwrap()["wrap_info"]["token"].is_string());
        assert!((0..3).any(|_| login(&one).is_err()) && login(&other).is_ok());
    }

    #[test]
    fn an_orphan_is_not_made_by_a_token_that_ended_meanwhile() {
        let (dir, now) = (TempDir::new().unwrap(), Timestamp::now());
        let vault = small(&dir, now);
        let root = vault.mint_root(0, now).unwrap();
        let id = vault.api_keys.digest("token", &root);
        let ask = || {
            let held = who::held(&vault.store.snapshot().unwrap(), &vault.api_keys.acls, id.clone(), now);
            let who = Who::Token(Box::new(held.unwrap().unwrap()));
            let call = call(Some(&root), "auth/token/create-orphan", &json!({}), None, now);
            Ask { call, who }
        };
        assert!(vault.v1_token(&ask(), &["create-orphan"]).is_ok());
        let late = ask();
        assert!(vault.v1_token(&ask(), &["revoke-self"]).is_ok());
        assert!(vault.v1_token(&late, &["create-orphan"]).is_err());
    }
}
