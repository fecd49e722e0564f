//! Tokens of Vault's kind: what a row says, how long it lives, and the tree that tokens make.
//!
//! A token is known by its HMAC; what it was can be read nowhere. A token is good only while every token above it
//! is: revoking one ends its whole tree at once, whatever number of rows is then still to be removed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::answer::Auth;
use super::born::Born;
use super::{Keys, TTL_MAX_S, at, fault, random_word};
use crate::error::VaultError;
use crate::quota::Held;
use crate::store::{Change, Range, Table, View};

/// What tokens begin with.
pub(super) const PREFIX: &str = "hvs.";
/// LIMIT: tokens.
const TOKENS_MAX: u64 = 200_000;
/// LIMIT: tokens above a token.
const DEPTH_MAX: usize = 32;
/// LIMIT: rows removed with one token; what lies below is void in any case.
const TREE_MAX: usize = 10_000;
/// Hex digits of a token's id.
const ID_BYTES: usize = 64;

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Service,
    /// Opens one wrapped answer, once.
    Wrapping,
}

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) accessor: String,
    pub(super) kind: Kind,
    pub(super) parent: Option<String>,
    pub(super) policies: Vec<String>,
    pub(super) path: String,
    pub(super) meta: Option<BTreeMap<String, String>>,
    pub(super) display_name: String,
    pub(super) issued: Timestamp,
    pub(super) renewed_s: Option<i64>,
    pub(super) expires_s: Option<i64>,
    pub(super) uses: Option<u32>,
    pub(super) renewable: bool,
    pub(super) term: Term,
    pub(super) role: Option<String>,
    pub(super) born: Option<Born>,
    /// Whose quota it counts to.
    #[serde(default)]
    pub(super) payer: String,
}

/// How long a token lives. All in seconds; 0 is nothing said.
#[allow(clippy::struct_field_names, reason = "they end in their unit")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Term {
    pub(super) ttl_s: i64,
    pub(super) max_s: i64,
    pub(super) explicit_max_s: i64,
    pub(super) period_s: i64,
}

/// A token that is to be.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) policies: Vec<String>,
    pub(super) path: String,
    pub(super) parent: Option<String>,
    pub(super) meta: Option<BTreeMap<String, String>>,
    pub(super) display_name: String,
    pub(super) term: Term,
    pub(super) uses: u32,
    pub(super) renewable: bool,
    pub(super) role: Option<String>,
    pub(super) born: Option<Born>,
    pub(super) wrapping: bool,
    /// Whose quota it counts to; nobody named: its own, with all that it will make.
    pub(super) payer: String,
    /// Whether it is had also when others took all there is: a root token for who lost every other one.
    pub(super) is_last_resort: bool,
}

impl Term {
    /// How long a life is that begins at `now` of a token issued at `issued_s`, when `wanted` was asked for (0:
    /// nothing). A periodic token is bound by its explicit maximum only.
    pub(super) fn life(&self, issued_s: i64, now_s: i64, wanted_s: i64) -> i64 {
        let or = |one: i64, other: i64| if one > 0 { one } else { other };
        let explicit_end = if self.explicit_max_s > 0 { issued_s + self.explicit_max_s } else { i64::MAX };
        if self.period_s > 0 {
            return self.period_s.min(explicit_end - now_s).max(0);
        }
        let most = or(self.max_s, TTL_MAX_S).min(TTL_MAX_S);
        let life = or(wanted_s, or(self.ttl_s, TTL_MAX_S));
        life.min(issued_s + most - now_s).min(explicit_end - now_s).max(0)
    }
}

impl Row {
    pub(super) fn is_root(&self) -> bool {
        self.policies.iter().any(|policy| policy == "root")
    }

    pub(super) fn has_ended(&self, now: Timestamp) -> bool {
        self.expires_s.is_some_and(|end| end <= now.as_second())
    }

    /// Seconds left; 0 for a token without an end.
    pub(super) fn left_s(&self, now: Timestamp) -> i64 {
        self.expires_s.map_or(0, |end| (end - now.as_second()).max(0))
    }

    /// What the client is told of it, beside the token.
    pub(super) fn auth(&self, token: &str, now: Timestamp) -> Auth {
        Auth {
            client_token: token.to_owned(),
            accessor: self.accessor.clone(),
            policies: self.policies.clone(),
            token_policies: self.policies.clone(),
            metadata: self.meta.clone(),
            lease_duration: self.left_s(now),
            renewable: self.renewable,
            entity_id: String::new(),
            token_type: "service",
            orphan: self.parent.is_none(),
            mfa_requirement: None,
            num_uses: self.uses.unwrap_or(0),
        }
    }

    /// What a lookup tells. `id` is the token where the asker has it.
    pub(super) fn described(&self, id: &str, now: Timestamp) -> serde_json::Value {
        let mut told = serde_json::json!({
            "accessor": self.accessor,
            "creation_time": self.issued.as_second(),
            "creation_ttl": self.term.life(self.issued.as_second(), self.issued.as_second(), 0) * i64::from(self.expires_s.is_some()),
            "display_name": self.display_name,
            "entity_id": "",
            "expire_time": self.expires_s.map(|end| at(end).to_string()),
            "explicit_max_ttl": self.term.explicit_max_s,
            "id": id,
            "issue_time": self.issued.to_string(),
            "meta": self.meta,
            "num_uses": self.uses.unwrap_or(0),
            "orphan": self.parent.is_none(),
            "path": self.path,
            "policies": self.policies,
            "renewable": self.renewable,
            "ttl": self.left_s(now),
            "type": "service",
        });
        if self.term.period_s > 0 {
            told["period"] = self.term.period_s.into();
        }
        if let Some(role) = &self.role {
            told["role"] = role.clone().into();
        }
        if let Some(renewed_s) = self.renewed_s {
            told["last_renewal"] = at(renewed_s).to_string().into();
            told["last_renewal_time"] = renewed_s.into();
        }
        told
    }
}

/// Makes a token; the token itself and its row.
pub(super) fn create(
    change: &mut Change<'_>,
    keys: &Keys,
    draft: Draft,
    now: Timestamp,
) -> Result<(String, Row), VaultError> {
    if change.count(Table::ApiToken)? >= TOKENS_MAX && !draft.is_last_resort {
        return Err(fault(429, "too many tokens"));
    }
    let accessor = random_word()?;
    let payer = if draft.payer.is_empty() { format!("token/{accessor}") } else { draft.payer };
    change.charge(Held::VaultTokens, &payer, 1)?;
    let token = format!("{PREFIX}{}", random_word()?);
    let id = keys.digest("token", &token);
    let now_s = now.as_second();
    let endless = draft.policies == ["root"]
        && draft.term == Term { max_s: draft.term.max_s, ..Term::default() }
        && !draft.wrapping;
    let row = Row {
        accessor,
        kind: if draft.wrapping { Kind::Wrapping } else { Kind::Service },
        parent: draft.parent,
        policies: draft.policies,
        path: draft.path,
        meta: draft.meta,
        display_name: draft.display_name,
        issued: now,
        renewed_s: None,
        expires_s: (!endless).then(|| now_s + draft.term.life(now_s, now_s, 0)),
        uses: (draft.uses > 0).then_some(draft.uses),
        renewable: draft.renewable && !endless,
        term: draft.term,
        role: draft.role,
        born: draft.born,
        payer,
    };
    if let Some(parent) = &row.parent {
        if above(change, parent)?.is_none_or(|above| above.len() >= DEPTH_MAX) {
            return Err(fault(400, "too many tokens above this one, or one of them has ended"));
        }
        change.mark(Table::ApiTokenIndex, index("p", parent, &id).as_bytes());
    }
    change.mark(Table::ApiTokenIndex, index("a", &row.accessor, &id).as_bytes());
    mark_end(change, &row, &id);
    for key in row.born.iter().flat_map(|born| born.keys(&id)) {
        change.mark(Table::ApiTokenIndex, &key);
    }
    change.save(Table::ApiToken, id.as_bytes(), &row);
    Ok((token, row))
}

/// Renews a token; how long it lives now.
pub(super) fn renew(
    change: &mut Change<'_>,
    id: &str,
    wanted_s: i64,
    now: Timestamp,
) -> Result<Row, VaultError> {
    let mut row: Row =
        change.load(Table::ApiToken, id.as_bytes())?.ok_or_else(|| fault(400, "token not found"))?;
    if !row.renewable || row.expires_s.is_none() || row.has_ended(now) {
        return Err(fault(400, "lease is not renewable"));
    }
    unmark_end(change, &row, id);
    let (issued_s, now_s) = (row.issued.as_second(), now.as_second());
    row.expires_s = Some(now_s + row.term.life(issued_s, now_s, wanted_s));
    row.renewed_s = Some(now_s);
    mark_end(change, &row, id);
    change.save(Table::ApiToken, id.as_bytes(), &row);
    Ok(row)
}

/// A token's row while it and all above it are good.
pub(super) fn live(view: &impl View, id: &str, now: Timestamp) -> Result<Option<Row>, VaultError> {
    let Some(row) = view.load::<Row>(Table::ApiToken, id.as_bytes())? else { return Ok(None) };
    let above = match &row.parent {
        None => Vec::new(),
        Some(parent) => match above(view, parent)? {
            Some(above) => above,
            None => return Ok(None),
        },
    };
    let dead = |row: &Row| row.has_ended(now);
    if dead(&row) || above.iter().any(dead) {
        return Ok(None);
    }
    for born in above.iter().chain([&row]).filter_map(|row| row.born.as_ref()) {
        if born.is_void(view)? {
            return Ok(None);
        }
    }
    Ok(Some(row))
}

/// The rows from a token upwards; `None`: one is missing, or they are too many.
fn above(view: &impl View, id: &str) -> Result<Option<Vec<Row>>, VaultError> {
    let mut rows = Vec::new();
    let mut next = Some(id.to_owned());
    while let Some(id) = next.take() {
        let Some(row) = view.load::<Row>(Table::ApiToken, id.as_bytes())? else { return Ok(None) };
        next.clone_from(&row.parent);
        rows.push(row);
        if rows.len() > DEPTH_MAX {
            return Ok(None);
        }
    }
    Ok(Some(rows))
}

/// The id of the token with an accessor.
pub(super) fn by_accessor(view: &impl View, accessor: &str) -> Result<Option<String>, VaultError> {
    if accessor.is_empty() || accessor.contains('/') {
        return Ok(None);
    }
    let found = view.keys(Table::ApiTokenIndex, &Range::prefix(format!("a/{accessor}/").as_bytes(), 1))?;
    Ok(found.first().map(|key| id_of(key)))
}

/// Whose quota the token with an accessor counts to.
pub(super) fn payer_of(view: &impl View, accessor: &str) -> Result<String, VaultError> {
    let row: Option<Row> = match by_accessor(view, accessor)? {
        Some(id) => view.load(Table::ApiToken, id.as_bytes())?,
        None => None,
    };
    Ok(row.map(|row| row.payer).unwrap_or_default())
}

/// Accessors of tokens, as many as are asked for.
pub(super) fn accessors(view: &impl View, limit: usize) -> Result<Vec<String>, VaultError> {
    let keys = view.keys(Table::ApiTokenIndex, &Range::prefix(b"a/", limit))?;
    let middle = |key: &Vec<u8>| String::from_utf8_lossy(&key[2..key.len() - ID_BYTES - 1]).into_owned();
    Ok(keys.iter().map(middle).collect())
}

/// Tokens whose time is over.
pub(super) fn ended(view: &impl View, now: Timestamp, limit: usize) -> Result<Vec<String>, VaultError> {
    let range = Range { from: b"x/".to_vec(), to: end_key(now.as_second() + 1, "").into_bytes(), limit };
    Ok(view.keys(Table::ApiTokenIndex, &range)?.iter().map(|key| id_of(key)).collect())
}

/// Removes a token and what lies below it; how many tokens.
pub(super) fn remove_tree(change: &mut Change<'_>, id: &str) -> Result<usize, VaultError> {
    let mut waiting = vec![id.to_owned()];
    let mut removed = 0;
    while let Some(id) = waiting.pop() {
        if removed == TREE_MAX {
            break;
        }
        removed += 1;
        waiting.extend(children(change, &id, TREE_MAX)?);
        remove(change, &id)?;
    }
    Ok(removed)
}

/// Removes a token alone; what lay below it has no parent from now on.
pub(super) fn remove_alone(change: &mut Change<'_>, id: &str) -> Result<(), VaultError> {
    for child in children(change, id, TREE_MAX)? {
        if let Some(mut row) = change.load::<Row>(Table::ApiToken, child.as_bytes())? {
            change.remove(Table::ApiTokenIndex, index("p", id, &child).as_bytes());
            row.parent = None;
            change.save(Table::ApiToken, child.as_bytes(), &row);
        }
    }
    remove(change, id)
}

fn children(view: &impl View, id: &str, limit: usize) -> Result<Vec<String>, VaultError> {
    let keys = view.keys(Table::ApiTokenIndex, &Range::prefix(format!("p/{id}/").as_bytes(), limit))?;
    Ok(keys.iter().map(|key| id_of(key)).collect())
}

fn remove(change: &mut Change<'_>, id: &str) -> Result<(), VaultError> {
    let Some(row) = change.load::<Row>(Table::ApiToken, id.as_bytes())? else { return Ok(()) };
    if let Some(parent) = &row.parent {
        change.remove(Table::ApiTokenIndex, index("p", parent, id).as_bytes());
    }
    change.remove(Table::ApiTokenIndex, index("a", &row.accessor, id).as_bytes());
    unmark_end(change, &row, id);
    for key in row.born.iter().flat_map(|born| born.keys(id)) {
        change.remove(Table::ApiTokenIndex, &key);
    }
    change.give_back(Held::VaultTokens, &row.payer, 1)?;
    if row.kind == Kind::Wrapping {
        let bytes = change.stored_bytes(Table::Logical, format!("wrap/{id}").as_bytes())?;
        change.give_back(Held::WrappedBytes, &row.payer, bytes)?;
        super::logical::remove_ending(change, &format!("wrap/{id}"), row.expires_s.unwrap_or_default());
    }
    change.remove(Table::ApiToken, id.as_bytes());
    Ok(())
}

/// Takes one use of a token that has so many; it goes with its last one.
pub(super) fn spend(change: &mut Change<'_>, id: &str) -> Result<(), VaultError> {
    let row = change.load::<Row>(Table::ApiToken, id.as_bytes())?;
    let mut row = row.ok_or_else(|| fault(403, "permission denied"))?;
    match row.uses {
        Some(0 | 1) => remove_tree(change, id).map(drop),
        Some(uses) => {
            row.uses = Some(uses - 1);
            change.save(Table::ApiToken, id.as_bytes(), &row);
            Ok(())
        }
        None => Ok(()),
    }
}

fn mark_end(change: &mut Change<'_>, row: &Row, id: &str) {
    if let Some(end_s) = row.expires_s {
        change.mark(Table::ApiTokenIndex, end_key(end_s, id).as_bytes());
    }
}

fn unmark_end(change: &mut Change<'_>, row: &Row, id: &str) {
    if let Some(end_s) = row.expires_s {
        change.remove(Table::ApiTokenIndex, end_key(end_s, id).as_bytes());
    }
}

fn end_key(end_s: i64, id: &str) -> String {
    index("x", &format!("{:016x}", end_s.max(0)), id)
}

fn index(kind: &str, key: &str, id: &str) -> String {
    format!("{kind}/{key}/{id}")
}

pub(super) fn id_of(key: &[u8]) -> String {
    String::from_utf8_lossy(&key[key.len().saturating_sub(ID_BYTES)..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However often it is renewed, a token ends by every bound that was set.
        #[test]
        fn no_renewal_passes_a_bound(
            ttl_s in 0i64..4_000_000, max_s in 0i64..4_000_000, explicit_max_s in 0i64..4_000_000, period_s in 0i64..100_000,
            steps in proptest::collection::vec((0i64..400_000, 0i64..4_000_000), 0..20),
        ) {
            let term = Term { ttl_s, max_s, explicit_max_s, period_s };
            let mut now = 1_000_000;
            let issued = now;
            let mut end = now + term.life(issued, now, 0);
            for (step, wanted) in steps {
                now += step;
                if now >= end {
                    break;
                }
                end = now + term.life(issued, now, wanted);
                prop_assert!(end >= now);
                if explicit_max_s > 0 {
                    prop_assert!(end <= issued + explicit_max_s);
                }
                if period_s > 0 {
                    prop_assert!(end <= now + period_s);
                } else {
                    prop_assert!(end <= issued + TTL_MAX_S);
                    prop_assert!(max_s == 0 || end <= issued + max_s);
                    prop_assert!(wanted == 0 || end <= now + wanted);
                }
            }
        }
    }
}
