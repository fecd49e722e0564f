//! `auth/token/…`: making, looking up, renewing and ending tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::answer::Answer;
use super::call::{Fields, Op};
use super::route::{Ask, unsupported_operation, unsupported_path};
use super::token::{self, Draft, Term};
use super::who::Who;
use super::{denied, fault, logical};
use crate::context::Vault;
use crate::error::VaultError;

/// A role of the token mount: what tokens made by it may be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Role {
    allowed_policies: Vec<String>,
    disallowed_policies: Vec<String>,
    orphan: bool,
    renewable: bool,
    period_s: i64,
    explicit_max_s: i64,
    no_default_policy: bool,
}

/// LIMIT: accessors of one listing.
const ACCESSORS_MAX: usize = 10_000;

impl Vault {
    pub(super) fn v1_token(&self, ask: &Ask, path: &[&str]) -> Result<Answer, VaultError> {
        match (path, ask.call.op) {
            (["create"], Op::Write) => self.v1_create(ask, None, false),
            (["create-orphan"], Op::Write) => self.v1_create(ask, None, true),
            (["create", role], Op::Write) => self.v1_create(ask, Some(role), false),
            (["lookup-self"], Op::Read | Op::Write) => self.v1_lookup_self(ask),
            (["lookup"], Op::Write | Op::Read) => self.v1_lookup(ask),
            (["lookup-accessor"], Op::Write) => self.v1_lookup_accessor(ask),
            (["renew-self"], Op::Write) => self.v1_renew(ask, own_id(ask)?, own_token(ask)),
            (["renew"], Op::Write) => {
                let token = ask.call.fields.needed("token")?;
                self.v1_renew(ask, self.api_keys.digest("token", &token), token)
            }
            (["renew-accessor"], Op::Write) => {
                let id = self.v1_id_of_accessor(ask)?.ok_or_else(|| fault(400, "invalid accessor"))?;
                self.v1_renew(ask, id, String::new())
            }
            (["revoke-self"], Op::Write) => self.v1_revoke(ask, own_id(ask)?, true),
            (["revoke"], Op::Write) => self.v1_revoke(ask, self.v1_named(ask)?, true),
            (["revoke-orphan"], Op::Write) => self.v1_revoke(ask, self.v1_named(ask)?, false),
            (["revoke-accessor"], Op::Write) => match self.v1_id_of_accessor(ask)? {
                Some(id) => self.v1_revoke(ask, id, true),
                None => Ok(Answer::warning("No token found with this accessor")),
            },
            (["accessors"], Op::List) => {
                let found =
                    self.read(ask.entry(), || token::accessors(&self.store.snapshot()?, ACCESSORS_MAX))?;
                Answer::keys(&found)
            }
            (["roles"], Op::List) => self.v1_names(ask, "token-role/"),
            (["roles", name], op) => self.v1_token_role(ask, name, op),
            (["tidy"], Op::Write) => Ok(Answer::warning("Tokens that have ended go by themselves.")),
            (
                [
                    "create" | "create-orphan" | "lookup" | "lookup-self" | "lookup-accessor" | "renew"
                    | "renew-self" | "renew-accessor" | "revoke" | "revoke-self" | "revoke-orphan"
                    | "revoke-accessor" | "accessors" | "roles" | "tidy",
                ]
                | ["create", _],
                _,
            ) => Err(unsupported_operation()),
            _ => Err(unsupported_path()),
        }
    }

    fn v1_create(&self, ask: &Ask, role: Option<&str>, orphan: bool) -> Result<Answer, VaultError> {
        let role = role.map(|name| self.v1_role(name)).transpose();
        let draft = role.and_then(|role| plan(ask, role.as_ref(), orphan));
        let draft = match draft {
            Ok(draft) => draft,
            Err(error) => return Err(self.refuse(ask.entry(), error)),
        };
        let (keys, now) = (Arc::clone(&self.api_keys), ask.call.act.now);
        let maker = match &ask.who {
            Who::Token(held) => Some(held.id.clone()),
            _ => None,
        };
        let (token, row) = self.write(ask.entry(), move |change| {
            // Ended since it was looked at: an orphan would outlive it.
            if let Some(maker) = maker
                && token::live(change, &maker, now)?.is_none()
            {
                return Err(denied());
            }
            token::create(change, &keys, draft, now)
        })?;
        self.figures.tokens.inc();
        Ok(Answer::auth(row.auth(&token, now)))
    }

    fn v1_role(&self, name: &str) -> Result<(String, Role), VaultError> {
        let role = logical::load(&self.store.snapshot()?, &format!("token-role/{name}"))?;
        Ok((name.to_owned(), role.ok_or_else(|| fault(400, format!("unknown role {name}")))?))
    }

    fn v1_lookup_self(&self, ask: &Ask) -> Result<Answer, VaultError> {
        let now = ask.call.act.now;
        let told = match &ask.who {
            Who::Token(held) => held.row.described(&own_token(ask), now),
            other => described_sluice(other),
        };
        let told = self.recorded(ask.entry(), Answer::data(&told));
        Self::v1_later(ask, told.done())
    }

    fn v1_lookup(&self, ask: &Ask) -> Result<Answer, VaultError> {
        let Some(token) = ask.call.fields.text("token")? else { return self.v1_lookup_self(ask) };
        let now = ask.call.act.now;
        let id = self.api_keys.digest("token", &token);
        let row = self.store.snapshot().and_then(|view| token::live(&view, &id, now));
        let row = self.recorded(ask.entry(), row);
        Self::v1_later(ask, async move {
            Answer::data(&row.done().await?.ok_or_else(|| fault(403, "bad token"))?.described(&token, now))
        })
    }

    fn v1_lookup_accessor(&self, ask: &Ask) -> Result<Answer, VaultError> {
        let now = ask.call.act.now;
        let id = self.v1_id_of_accessor(ask)?;
        let row = self.read(ask.entry(), || match &id {
            Some(id) => token::live(&self.store.snapshot()?, id, now),
            None => Ok(None),
        })?;
        let row = row.ok_or_else(|| fault(400, "1 error occurred:\n\t* invalid accessor\n\n"))?;
        Answer::data(&row.described("", now))
    }

    fn v1_renew(&self, ask: &Ask, id: String, token: String) -> Result<Answer, VaultError> {
        let (wanted_s, now) = (ask.call.fields.seconds("increment")?.unwrap_or(0), ask.call.act.now);
        let row = self.write(ask.entry(), move |change| {
            // Below an ended token nothing is renewed.
            token::live(change, &id, now)?.ok_or_else(|| fault(400, "token not found"))?;
            token::renew(change, &id, wanted_s, now)
        })?;
        Ok(Answer::auth(row.auth(&token, now)))
    }

    fn v1_revoke(&self, ask: &Ask, id: String, tree: bool) -> Result<Answer, VaultError> {
        self.write(ask.entry(), move |change| {
            if tree { token::remove_tree(change, &id).map(drop) } else { token::remove_alone(change, &id) }
        })?;
        Ok(Answer::Nothing)
    }

    /// The id of the token in the body.
    fn v1_named(&self, ask: &Ask) -> Result<String, VaultError> {
        Ok(self.api_keys.digest("token", &ask.call.fields.needed("token")?))
    }

    fn v1_id_of_accessor(&self, ask: &Ask) -> Result<Option<String>, VaultError> {
        let accessor = ask.call.fields.needed("accessor")?;
        token::by_accessor(&self.store.snapshot()?, &accessor)
    }

    fn v1_token_role(&self, ask: &Ask, name: &str, op: Op) -> Result<Answer, VaultError> {
        let key = format!("token-role/{}", logical::name(name)?);
        match op {
            Op::Read => {
                let role: Role = self.v1_read(ask, || logical::load(&self.store.snapshot()?, &key))?;
                Answer::data(&role.described(name))
            }
            Op::Write => {
                let fields = &ask.call.fields;
                let role = Role {
                    allowed_policies: fields.words("allowed_policies")?.unwrap_or_default(),
                    disallowed_policies: fields.words("disallowed_policies")?.unwrap_or_default(),
                    orphan: fields.flag("orphan")?.unwrap_or(false),
                    renewable: fields.flag("renewable")?.unwrap_or(true),
                    period_s: first(fields, ["token_period", "period"])?,
                    explicit_max_s: first(fields, ["token_explicit_max_ttl", "explicit_max_ttl"])?,
                    no_default_policy: fields.flag("token_no_default_policy")?.unwrap_or(false),
                };
                for unsupported in
                    ["allowed_policies_glob", "disallowed_policies_glob", "token_bound_cidrs", "path_suffix"]
                {
                    if !fields.words(unsupported)?.unwrap_or_default().is_empty() {
                        return Err(fault(400, format!("{unsupported} is not supported")));
                    }
                }
                self.write(ask.entry(), move |change| logical::save(change, &key, &role))?;
                Ok(Answer::Nothing)
            }
            Op::Delete => self.v1_remove(ask, key),
            _ => Err(unsupported_operation()),
        }
    }
}

impl Role {
    fn described(&self, name: &str) -> serde_json::Value {
        serde_json::json!({
            "allowed_entity_aliases": null,
            "allowed_policies": self.allowed_policies,
            "allowed_policies_glob": [],
            "disallowed_policies": self.disallowed_policies,
            "disallowed_policies_glob": [],
            "explicit_max_ttl": self.explicit_max_s,
            "name": name,
            "orphan": self.orphan,
            "path_suffix": "",
            "period": self.period_s,
            "renewable": self.renewable,
            "token_explicit_max_ttl": self.explicit_max_s,
            "token_no_default_policy": self.no_default_policy,
            "token_period": self.period_s,
            "token_type": "default-service",
        })
    }
}

fn first(fields: &Fields, names: [&str; 2]) -> Result<i64, VaultError> {
    let found = fields.seconds(names[0])?.filter(|seconds| *seconds > 0);
    Ok(found.or(fields.seconds(names[1])?).unwrap_or(0))
}

fn own_id(ask: &Ask) -> Result<String, VaultError> {
    match &ask.who {
        Who::Token(held) => Ok(held.id.clone()),
        _ => Err(fault(400, "only a token of this API can be renewed or revoked here")),
    }
}

fn own_token(ask: &Ask) -> String {
    ask.call.token.as_deref().cloned().unwrap_or_default()
}

/// What a Sluice token is told of itself.
fn described_sluice(who: &Who) -> serde_json::Value {
    let (id, subject, issued_s) = match who {
        Who::Sluice(caller) => {
            (caller.jti.clone().unwrap_or_default(), caller.subject.clone(), caller.issued_at_s.unwrap_or(0))
        }
        _ => (String::new(), String::new(), 0),
    };
    serde_json::json!({
        "accessor": id, "creation_time": issued_s, "creation_ttl": 0, "display_name": subject, "entity_id": "",
        "expire_time": null, "explicit_max_ttl": 0, "id": id, "issue_time": super::at(issued_s).to_string(),
        "meta": null, "num_uses": 0, "orphan": true, "path": "tokens", "policies": who.policies(),
        "renewable": false, "ttl": 0, "type": "service",
    })
}

/// What a token is to be when `ask` asks for it: never more than its maker may give.
fn plan(ask: &Ask, role: Option<&(String, Role)>, orphan: bool) -> Result<Draft, VaultError> {
    let fields = &ask.call.fields;
    if let Who::Token(held) = &ask.who
        && held.row.uses.is_some()
    {
        return Err(fault(400, "restricted use token cannot generate child tokens"));
    }
    for unsupported in ["id", "entity_alias"] {
        if fields.text(unsupported)?.is_some_and(|text| !text.is_empty()) {
            return Err(fault(400, format!("{unsupported} is not supported")));
        }
    }
    if !matches!(fields.text("type")?.as_deref(), None | Some("" | "service" | "default")) {
        return Err(fault(400, "only tokens of type service are made"));
    }
    let sudo = ask.who.is_sudo(&ask.call.path);
    let no_parent = fields.flag("no_parent")?.unwrap_or(false);
    if no_parent && !sudo && role.is_none() {
        return Err(fault(400, "root or sudo privileges required to create orphan token"));
    }
    let period_s = fields.seconds("period")?.unwrap_or(0);
    if period_s > 0 && !sudo && role.is_none() {
        return Err(fault(400, "root or sudo privileges required to create periodic token"));
    }
    let orphan = orphan || no_parent || role.is_some_and(|(_, role)| role.orphan);
    let parent = match &ask.who {
        Who::Token(held) if !orphan => Some(held.id.clone()),
        _ => None,
    };
    let name = fields.text("display_name")?.unwrap_or_default();
    let shown: String =
        name.chars().take(64).map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect();
    let uses = fields.number("num_uses")?.unwrap_or(0);
    let uses = u32::try_from(uses).map_err(|_| fault(400, "number of uses cannot be negative"))?;
    let policies = match role {
        Some((_, role)) => role_policies(fields, role)?,
        None => child_policies(ask, fields, sudo)?,
    };
    let role_period = role.map_or(0, |(_, role)| role.period_s);
    let role_max = role.map_or(0, |(_, role)| role.explicit_max_s);
    let explicit = fields.seconds("explicit_max_ttl")?.unwrap_or(0);
    let explicit_max_s =
        if role_max > 0 && explicit > 0 { role_max.min(explicit) } else { role_max.max(explicit) };
    Ok(Draft {
        policies,
        path: ask.call.path.clone(),
        parent,
        meta: fields.pairs("meta")?,
        display_name: if shown.is_empty() { "token".to_owned() } else { format!("token-{shown}") },
        term: Term {
            ttl_s: fields.seconds("ttl")?.or(fields.seconds("lease")?).unwrap_or(0),
            max_s: 0,
            explicit_max_s,
            period_s: if role_period > 0 { role_period } else { period_s },
        },
        uses,
        renewable: fields.flag("renewable")?.unwrap_or(true) && role.is_none_or(|(_, role)| role.renewable),
        role: role.map(|(name, _)| name.clone()),
        // An orphan outlives a token of its own kind, never the Sluice token that made it.
        born: ask.who.born(ask.call.certified.as_ref(), ask.call.act.now),
        // What an administrator makes is its holder's: no holder takes from the others of that administrator.
        payer: if ask.who.is_root() { String::new() } else { ask.who.payer() },
        ..Draft::default()
    })
}

/// The policies of a token without a role: its maker's, or some of them; with `sudo` any but `root`.
fn child_policies(ask: &Ask, fields: &Fields, sudo: bool) -> Result<Vec<String>, VaultError> {
    let held = ask.who.policies();
    let wanted = match fields.words("policies")? {
        None => held.clone(),
        Some(words) if words.is_empty() => held.clone(),
        Some(words) => words,
    };
    let no_default = fields.flag("no_default_policy")?.unwrap_or(false);
    let wanted = tidy(wanted, !no_default)?;
    if wanted.iter().any(|name| name == "root") && !ask.who.is_root() {
        return Err(fault(400, "root tokens may not be created without parent token being root"));
    }
    let granted = |name: &String| name == "default" || held.contains(name);
    if !sudo && !wanted.iter().all(granted) {
        return Err(fault(400, "child policies must be subset of parent"));
    }
    Ok(wanted)
}

fn role_policies(fields: &Fields, role: &Role) -> Result<Vec<String>, VaultError> {
    let wanted = fields.words("policies")?.filter(|words| !words.is_empty());
    let wanted = wanted.unwrap_or_else(|| role.allowed_policies.clone());
    let wanted = tidy(wanted, !role.no_default_policy)?;
    let allowed = |name: &String| name == "default" || role.allowed_policies.contains(name);
    let open = role.allowed_policies.is_empty() && wanted.iter().all(|name| name == "default");
    if !(open || wanted.iter().all(allowed))
        || wanted.iter().any(|name| role.disallowed_policies.contains(name))
    {
        return Err(fault(400, "token policies must be a subset of the role's allowed policies"));
    }
    if wanted.iter().any(|name| name == "root") {
        return Err(fault(400, "tokens of a role cannot be root"));
    }
    Ok(wanted)
}

/// Sorted, each once, in lower case, with `default`; beside `root` nothing else counts.
pub(super) fn tidy(names: Vec<String>, with_default: bool) -> Result<Vec<String>, VaultError> {
    let mut tidy: BTreeSet<String> = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
    for name in &tidy {
        logical::name(name)?;
    }
    if tidy.contains("root") {
        return Ok(vec!["root".to_owned()]);
    }
    if with_default {
        tidy.insert("default".to_owned());
    }
    if tidy.len() > super::call::WORDS_MAX {
        return Err(fault(400, "a token has at most 64 policies"));
    }
    Ok(tidy.into_iter().collect())
}

impl Vault {
    /// Makes a root token that nobody's request asked for: the first one, or development's. 0: without an end.
    pub(crate) fn mint_root(&self, ttl_s: i64, now: jiff::Timestamp) -> Result<String, VaultError> {
        let act = crate::request::Act::own(now);
        let draft = Draft {
            policies: vec!["root".to_owned()],
            path: "auth/token/root".to_owned(),
            display_name: "root".to_owned(),
            is_last_resort: true,
            term: Term { ttl_s, explicit_max_s: ttl_s, ..Term::default() },
            ..Draft::default()
        };
        let keys = Arc::clone(&self.api_keys);
        let (token, _) = self.write(act.entry("v1", "create", "auth/token/root"), move |change| {
            token::create(change, &keys, draft, now)
        })?;
        Ok(token)
    }
}
