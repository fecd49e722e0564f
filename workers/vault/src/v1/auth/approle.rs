//! `auth/approle/…`: programs log in with a role's id and a secret of their own.
//!
//! A secret id is known by its HMAC and lies under its role, so removing a role's rows ends all of them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sluice_wire::code::Code;

use super::super::answer::Answer;
use super::super::call::{Fields, Op};
use super::super::route::{Ask, unsupported_operation, unsupported_path};
use super::super::{Keys, at, fault, logical, nothing, token, unproved};
use super::Tokens;
use crate::context::Vault;
use crate::error::VaultError;
use crate::outbox::security_event;
use crate::store::{Change, Range, Table, View};

/// LIMIT: bytes of a secret id that its maker chose: what is shorter can be guessed.
const SECRET_BYTES: RangeInclusive<usize> = 16..=256;
/// LIMIT: secret ids of one role.
const SECRETS_MAX: usize = 10_000;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Role {
    #[serde(rename = "role_id")]
    id: String,
    bind_secret_id: bool,
    secret_ttl_s: i64,
    secret_uses: u32,
    tokens: Tokens,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Secret {
    accessor: String,
    created: Timestamp,
    updated: Timestamp,
    ttl_s: i64,
    /// Unix seconds; `None`: without an end.
    end_s: Option<i64>,
    /// Uses left; 0: any number.
    uses: u32,
    /// Whether uses are counted.
    counted: bool,
    meta: BTreeMap<String, String>,
}

impl Role {
    /// One that nothing was said of.
    fn new() -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            bind_secret_id: true,
            secret_ttl_s: 0,
            secret_uses: 0,
            tokens: Tokens::default(),
        }
    }

    /// Takes from a body what it names.
    fn take(&mut self, fields: &Fields) -> Result<(), VaultError> {
        self.tokens.take(fields)?;
        if fields.flag("bind_secret_id")? == Some(false) {
            return Err(fault(400, "a role without a secret id would let anybody in"));
        }
        self.secret_ttl_s = fields.seconds("secret_id_ttl")?.unwrap_or(self.secret_ttl_s);
        if let Some(uses) = fields.number("secret_id_num_uses")? {
            self.secret_uses =
                u32::try_from(uses).map_err(|_| fault(400, "secret_id_num_uses cannot be negative"))?;
        }
        Ok(())
    }
}

fn role_key(name: &str) -> String {
    format!("approle/role/{name}")
}

fn id_key(keys: &Keys, role_id: &str) -> String {
    format!("approle/id/{}", keys.digest("role-id", role_id))
}

fn secret_folder(name: &str) -> String {
    format!("approle/secret/{name}/")
}

fn secret_key(keys: &Keys, name: &str, secret: &str) -> String {
    format!("{}{}", secret_folder(name), keys.digest("secret-id", secret))
}

fn put(change: &mut Change<'_>, key: &str, secret: &Secret) -> Result<(), VaultError> {
    match secret.end_s {
        Some(end_s) => logical::save_until(change, key, secret, end_s),
        None => logical::save(change, key, secret),
    }
}

fn drop_secret(change: &mut Change<'_>, key: &str, secret: &Secret) {
    match secret.end_s {
        Some(end_s) => logical::remove_ending(change, key, end_s),
        None => logical::remove(change, key),
    }
}

impl Vault {
    pub(super) fn v1_approle(&self, ask: &Ask, path: &[&str]) -> Result<Answer, VaultError> {
        match (path, ask.call.op) {
            (["role"], Op::List) => self.v1_names(ask, "approle/role/"),
            (["role", name, rest @ ..], op) => {
                logical::name(name)?;
                match (rest, op) {
                    ([], Op::Read) => self.v1_role_read(ask, name),
                    ([], Op::Write) => self.v1_role_write(ask, name),
                    ([], Op::Delete) => self.v1_role_delete(ask, name),
                    (["role-id"], Op::Read) => {
                        let role = self.v1_role_of(ask, name)?;
                        Answer::data(&json!({ "role_id": role.id }))
                    }
                    (["role-id"], Op::Write) => self.v1_role_id(ask, name),
                    (["secret-id"], Op::Write) => self.v1_secret_make(ask, name, None),
                    (["custom-secret-id"], Op::Write) => {
                        let secret = ask.call.fields.needed("secret_id")?;
                        self.v1_secret_make(ask, name, Some(secret))
                    }
                    (["secret-id"], Op::List) => self.v1_secret_list(ask, name),
                    ([kind @ ("secret-id" | "secret-id-accessor"), "lookup"], Op::Write) => {
                        self.v1_secret_lookup(ask, name, kind)
                    }
                    ([kind @ ("secret-id" | "secret-id-accessor"), "destroy"], Op::Write | Op::Delete) => {
                        self.v1_secret_destroy(ask, name, kind)
                    }
                    (["role-id" | "secret-id" | "custom-secret-id"] | [], _) => Err(unsupported_operation()),
                    _ => Err(unsupported_path()),
                }
            }
            _ => Err(unsupported_path()),
        }
    }

    fn v1_role_of(&self, ask: &Ask, name: &str) -> Result<Role, VaultError> {
        self.v1_read(ask, || logical::load(&self.store.snapshot()?, &role_key(name)))
    }

    fn v1_role_read(&self, ask: &Ask, name: &str) -> Result<Answer, VaultError> {
        let role = self.v1_role_of(ask, name)?;
        let mut told = role.tokens.described();
        told["bind_secret_id"] = role.bind_secret_id.into();
        told["local_secret_ids"] = false.into();
        told["secret_id_bound_cidrs"] = serde_json::Value::Null;
        told["secret_id_num_uses"] = role.secret_uses.into();
        told["secret_id_ttl"] = role.secret_ttl_s.into();
        Answer::data(&told)
    }

    fn v1_role_write(&self, ask: &Ask, name: &str) -> Result<Answer, VaultError> {
        // Without a row to change: what is wrong in itself takes no place in the writer's queue.
        Role::new().take(&ask.call.fields).map_err(|error| self.refuse(ask.entry(), error))?;
        let (keys, name, fields) = (Arc::clone(&self.api_keys), name.to_owned(), ask.call.fields.clone());
        self.write(ask.entry(), move |change| {
            // Here, so that of two changes at a time none is lost, and none brings a removed role back.
            let known: Option<Role> = logical::load(change, &role_key(&name))?;
            let mut role = known.unwrap_or_else(Role::new);
            role.take(&fields)?;
            logical::save(change, &role_key(&name), &role)?;
            logical::save(change, &id_key(&keys, &role.id), &name)
        })?;
        Ok(Answer::Nothing)
    }

    fn v1_role_id(&self, ask: &Ask, name: &str) -> Result<Answer, VaultError> {
        let role_id = ask.call.fields.needed("role_id")?;
        if role_id.len() > 128 {
            return Err(self.refuse(ask.entry(), fault(400, "a role_id has at most 128 bytes")));
        }
        let (keys, name) = (Arc::clone(&self.api_keys), name.to_owned());
        self.write(ask.entry(), move |change| {
            let mut role: Role = logical::load(change, &role_key(&name))?.ok_or_else(nothing)?;
            let taken: Option<String> = logical::load(change, &id_key(&keys, &role_id))?;
            if taken.is_some_and(|taken| taken != name) {
                return Err(fault(400, "this role_id belongs to another role"));
            }
            logical::remove(change, &id_key(&keys, &role.id));
            role.id = role_id;
            logical::save(change, &id_key(&keys, &role.id), &name)?;
            logical::save(change, &role_key(&name), &role)
        })?;
        Ok(Answer::Nothing)
    }

    fn v1_role_delete(&self, ask: &Ask, name: &str) -> Result<Answer, VaultError> {
        let (keys, name) = (Arc::clone(&self.api_keys), name.to_owned());
        self.write(ask.entry(), move |change| {
            if let Some(role) = logical::load::<Role>(change, &role_key(&name))? {
                logical::remove(change, &id_key(&keys, &role.id));
            }
            for (key, secret) in secrets(change, &name)? {
                drop_secret(change, &key, &secret);
            }
            logical::remove(change, &role_key(&name));
            Ok(())
        })?;
        Ok(Answer::Nothing)
    }

    fn v1_secret_make(&self, ask: &Ask, name: &str, custom: Option<String>) -> Result<Answer, VaultError> {
        let fields = &ask.call.fields;
        let meta = fields.pairs("metadata")?.unwrap_or_default();
        let (ttl_s, uses) = (fields.seconds("ttl")?, fields.number("num_uses")?);
        let fits = |secret: &String| SECRET_BYTES.contains(&secret.len());
        if !custom.as_ref().is_none_or(fits) {
            let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
            let text = format!("a secret_id has at least {least} and at most {most} bytes");
            return Err(self.refuse(ask.entry(), fault(400, text)));
        }
        let secret_id = custom.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let (keys, name, now) = (Arc::clone(&self.api_keys), name.to_owned(), ask.call.act.now);
        let shown = secret_id.clone();
        let secret = self.write(ask.entry(), move |change| {
            let role: Role = logical::load(change, &role_key(&name))?
                .ok_or_else(|| fault(404, format!("role \"{name}\" does not exist")))?;
            // A secret id lives no longer and opens no more often than its role says.
            let least = |wanted: i64, bound: i64| {
                if bound > 0 && (wanted <= 0 || wanted > bound) { bound } else { wanted }
            };
            let ttl_s = least(ttl_s.unwrap_or(0), role.secret_ttl_s);
            let uses = least(uses.unwrap_or(0), i64::from(role.secret_uses));
            let uses = u32::try_from(uses).map_err(|_| fault(400, "num_uses cannot be negative"))?;
            if change
                .keys(Table::Logical, &Range::prefix(secret_folder(&name).as_bytes(), SECRETS_MAX))?
                .len()
                >= SECRETS_MAX
            {
                return Err(fault(429, "this role has too many secret ids"));
            }
            let secret = Secret {
                accessor: uuid::Uuid::new_v4().to_string(),
                created: now,
                updated: now,
                ttl_s,
                end_s: (ttl_s > 0).then(|| now.as_second() + ttl_s),
                uses,
                counted: uses > 0,
                meta,
            };
            let key = secret_key(&keys, &name, &secret_id);
            if change.raw(Table::Logical, key.as_bytes())?.is_some() {
                return Err(fault(400, "SecretID is already registered"));
            }
            put(change, &key, &secret)?;
            Ok(secret)
        })?;
        Answer::data(&json!({
            "secret_id": shown, "secret_id_accessor": secret.accessor, "secret_id_num_uses": secret.uses,
            "secret_id_ttl": secret.ttl_s,
        }))
    }

    fn v1_secret_list(&self, ask: &Ask, name: &str) -> Result<Answer, VaultError> {
        let found = self.read(ask.entry(), || secrets(&self.store.snapshot()?, name))?;
        let accessors: Vec<String> = found.into_iter().map(|(_, secret)| secret.accessor).collect();
        Answer::keys(&accessors)
    }

    /// The row that a body names by secret id or accessor.
    fn v1_secret_of(
        &self,
        view: &impl View,
        ask: &Ask,
        name: &str,
        kind: &str,
    ) -> Result<Option<(String, Secret)>, VaultError> {
        if kind == "secret-id" {
            let key = secret_key(&self.api_keys, name, &ask.call.fields.needed("secret_id")?);
            return Ok(logical::load(view, &key)?.map(|secret| (key, secret)));
        }
        let accessor = ask.call.fields.needed("secret_id_accessor")?;
        Ok(secrets(view, name)?.into_iter().find(|(_, secret)| secret.accessor == accessor))
    }

    fn v1_secret_lookup(&self, ask: &Ask, name: &str, kind: &str) -> Result<Answer, VaultError> {
        let now_s = ask.call.act.now.as_second();
        let found = self.read(ask.entry(), || self.v1_secret_of(&self.store.snapshot()?, ask, name, kind))?;
        let Some((_, secret)) = found.filter(|(_, secret)| secret.end_s.is_none_or(|end| end > now_s)) else {
            return Ok(Answer::Nothing);
        };
        Answer::data(&json!({
            "cidr_list": [],
            "creation_time": secret.created.to_string(),
            "expiration_time": secret.end_s.map_or_else(|| "0001-01-01T00:00:00Z".to_owned(), |end| at(end).to_string()),
            "last_updated_time": secret.updated.to_string(),
            "metadata": secret.meta,
            "secret_id_accessor": secret.accessor,
            "secret_id_num_uses": secret.uses,
            "secret_id_ttl": secret.ttl_s,
            "token_bound_cidrs": [],
        }))
    }

    fn v1_secret_destroy(&self, ask: &Ask, name: &str, kind: &str) -> Result<Answer, VaultError> {
        let found = self.v1_secret_of(&self.store.snapshot()?, ask, name, kind)?;
        self.write(ask.entry(), move |change| {
            if let Some((key, secret)) = found {
                drop_secret(change, &key, &secret);
            }
            Ok(())
        })?;
        Ok(Answer::Nothing)
    }

    /// A role's id and a secret id become a token. One use of the secret goes in the same change, so of many at
    /// once no more get in than it has uses.
    pub(super) fn v1_approle_login(&self, ask: &Ask) -> Result<Answer, VaultError> {
        let fields = &ask.call.fields;
        let (role_id, secret_id) = match (fields.needed("role_id"), fields.needed("secret_id")) {
            (Ok(role_id), Ok(secret_id)) => (role_id, secret_id),
            (Err(error), _) | (_, Err(error)) => return Err(self.refuse(ask.entry(), error)),
        };
        let (keys, now, source) = (Arc::clone(&self.api_keys), ask.call.act.now, ask.call.source.text());
        let judge = || {
            // What is wrong takes no place in the writer's queue.
            find(&self.store.snapshot()?, &keys, &role_id, &secret_id, now)?;
            let (keys, role_id) = (Arc::clone(&keys), role_id.clone());
            self.write(ask.entry(), move |change| login(change, &keys, &role_id, &secret_id, now))
        };
        let (judged, shuts) = self.guard.judge(&format!("approle/{role_id}"), &source, judge, is_wrong);
        if shuts {
            let role: Option<String> = logical::load(&self.store.snapshot()?, &id_key(&keys, &role_id))?;
            let shown = role.unwrap_or_else(|| "?".to_owned());
            let event = security_event("login_locked_out", now, &[("role", &shown), ("source", &source)]);
            let entry = ask.entry().path(format!("auth/approle/role/{shown}"));
            self.write(entry, move |change| change.emit(&event))?;
        }
        let (token, row) = match judged {
            Ok(made) => made,
            Err(error) if is_wrong(&error) || is_shut(&error) => {
                return Err(self.refuse(ask.entry(), error));
            }
            Err(error) => return Err(error),
        };
        self.figures.tokens.inc();
        Ok(Answer::auth(row.auth(&token, now)))
    }
}

const WRONG: &str = "invalid role or secret ID";

fn is_wrong(error: &VaultError) -> bool {
    matches!(error, VaultError::Unproved(400, text) if text == WRONG)
}

/// Whether it was refused before it was judged.
fn is_shut(error: &VaultError) -> bool {
    matches!(error, VaultError::Later(Code::TooManyFailures | Code::Overloaded, ..))
}

/// The role's name and the secret that two ids name, with the key of its row. One text and the same steps for every
/// reason; rows are found by HMAC, so nothing is compared.
fn find(
    view: &impl View,
    keys: &Keys,
    role_id: &str,
    secret_id: &str,
    now: Timestamp,
) -> Result<(String, String, Secret), VaultError> {
    let refused = || unproved(400, WRONG);
    let name: Option<String> = logical::load(view, &id_key(keys, role_id))?;
    let key = secret_key(keys, name.as_deref().unwrap_or("-"), secret_id);
    let secret: Option<Secret> = logical::load(view, &key)?;
    let (name, secret) = name.zip(secret).ok_or_else(refused)?;
    if secret.end_s.is_some_and(|end| end <= now.as_second()) {
        return Err(refused());
    }
    Ok((name, key, secret))
}

fn secrets(view: &impl View, name: &str) -> Result<Vec<(String, Secret)>, VaultError> {
    let keys = view.keys(Table::Logical, &Range::prefix(secret_folder(name).as_bytes(), SECRETS_MAX))?;
    keys.into_iter()
        .map(|key| {
            let secret = view.require(Table::Logical, &key)?;
            Ok((String::from_utf8_lossy(&key).into_owned(), secret))
        })
        .collect()
}

fn login(
    change: &mut Change<'_>,
    keys: &Keys,
    role_id: &str,
    secret_id: &str,
    now: Timestamp,
) -> Result<(String, token::Row), VaultError> {
    let (name, key, mut secret) = find(change, keys, role_id, secret_id, now)?;
    let role: Role = logical::load(change, &role_key(&name))?.ok_or_else(|| unproved(400, WRONG))?;
    if secret.counted {
        secret.uses -= 1;
        secret.updated = now;
        if secret.uses == 0 {
            drop_secret(change, &key, &secret);
        } else {
            change.save(Table::Logical, key.as_bytes(), &secret);
        }
    }
    let mut meta = secret.meta.clone();
    meta.insert("role_name".to_owned(), name.clone());
    let draft = role.tokens.draft("auth/approle/login", format!("approle-{name}"), meta)?;
    token::create(change, keys, draft, now)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;
    use tempfile::TempDir;

    use super::super::super::call::Call;
    use super::*;
    use crate::seal::RootKey;
    use crate::tests::{act, open};

    #[test]
    fn of_two_changes_of_a_role_at_a_time_none_is_lost() {
        const ROUNDS: i64 = 100;
        let (dir, now) = (TempDir::new().unwrap(), Timestamp::now());
        let vault = open(&dir, &RootKey::random(), now);
        let set = |body: serde_json::Value| {
            vault.v1(Call::write("auth/approle/role/r", &body, act("root", "admin", now))).unwrap();
        };
        set(json!({}));
        for round in 1..=ROUNDS {
            std::thread::scope(|scope| {
                scope.spawn(|| set(json!({ "secret_id_ttl": round })));
                scope.spawn(|| set(json!({ "token_ttl": round })));
            });
            let role: Role =
                logical::load(&vault.store.snapshot().unwrap(), &role_key("r")).unwrap().unwrap();
            assert_eq!((role.secret_ttl_s, role.tokens.ttl_s), (round, round));
        }
    }
}
