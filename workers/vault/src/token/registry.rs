//! The registry of issued tokens: rows, index, list, sweep.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sluice_identity::caller::Caller;

use super::mint::time;
use crate::access;
use crate::context::Vault;
use crate::error::VaultError;
use crate::feed::RevokedRow;
use crate::quota::Held;
use crate::request::Act;
use crate::store::{Change, KeyBytes, Range, SWEEP_MAX, Table, View};
use crate::v1::{self, Origin};

/// LIMIT: tokens in one page of the list.
const PAGE_MAX: usize = 500;
/// LIMIT: tokens that descend from one: what ends with it ends in one commit.
pub(super) const LINE_MAX: usize = 256;

/// The registry's row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) sub: String,
    pub(crate) issued_s: i64,
    pub(crate) expires_s: i64,
    pub(super) scope: String,
    pub(crate) audience: Vec<String>,
    /// Who asked for it.
    pub(super) by: String,
    pub(super) revoked: bool,
    /// The OAuth client it was issued to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    /// The token it was made of: it ends with that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<Parent>,
    /// Whose quota it counts to, where that is not its subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) payer: Option<String>,
    /// The certificate it is bound to: SHA-256, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bound: Option<String>,
}

/// The token that another was made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parent {
    /// Its id.
    pub(crate) jti: String,
    /// The first of its line.
    pub(crate) root: String,
    /// Its end, unix seconds.
    pub(crate) expires_s: i64,
}

impl Row {
    /// Whose quota it counts to.
    pub(super) fn payer(&self) -> &str {
        self.payer.as_deref().unwrap_or(&self.sub)
    }

    /// How long it was made to live.
    pub(crate) fn life(&self) -> SignedDuration {
        SignedDuration::from_secs(self.expires_s - self.issued_s)
    }

    /// The first of its line, where that is another token.
    pub(crate) fn root(&self) -> Option<&str> {
        self.parent.as_ref().map(|parent| parent.root.as_str())
    }
}

/// A token in the list: everything but the token.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    jti: String,
    service_name: String,
    issued_at: Timestamp,
    expires_at: Timestamp,
    permissions: Vec<String>,
}

/// A page of the list.
#[derive(Debug, Serialize)]
pub(crate) struct TokenPage {
    tokens: Vec<Listed>,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Vault {
    /// The live tokens an administrator or minter may see (all, or one service's), or the caller's own.
    pub(crate) fn list_tokens(
        &self,
        act: &Act,
        service: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<TokenPage, VaultError> {
        let entry = act.entry("token", "list", "tokens");
        let permit = access::known(act.caller.as_ref()).and_then(|caller| {
            let all = caller.grants.covers("tokens:mint");
            match service {
                Some(service) if all || access::is_service(caller, service) => Ok(Some(service.to_owned())),
                Some(_) => Err(VaultError::Lacking("tokens:mint")),
                None if all => Ok(None),
                None => Ok(Some(access::service(caller).unwrap_or_default().to_owned())),
            }
        });
        let subject = match permit {
            Ok(subject) => subject,
            Err(error) => return Err(self.refuse(entry, error)),
        };
        self.read(entry, || self.page(subject.as_deref(), after, limit.clamp(1, PAGE_MAX), act.now))
    }

    /// What was issued under an id, revoked or not.
    pub(crate) fn find_token(&self, jti: &str) -> Result<Option<Row>, VaultError> {
        self.store.snapshot()?.load(Table::Token, jti.as_bytes())
    }

    fn page(
        &self,
        subject: Option<&str>,
        after: Option<&str>,
        limit: usize,
        now: Timestamp,
    ) -> Result<TokenPage, VaultError> {
        let view = self.store.snapshot()?;
        let (table, prefix) = match subject {
            None => (Table::Token, Vec::new()),
            Some(subject) => (Table::TokenIndex, subject_prefix(subject)),
        };
        let mut range = Range::prefix(&prefix, limit);
        if let Some(after) = after {
            range = range.after(&[prefix.as_slice(), after.as_bytes()].concat());
        }
        let keys = view.keys(table, &range)?;
        let next = if keys.len() == limit { keys.last().map(|key| jti_of(key)) } else { None };
        let mut tokens = Vec::new();
        for key in keys {
            let jti = jti_of(&key);
            let row: Row = view.require(Table::Token, jti.as_bytes())?;
            if !row.revoked && row.expires_s > now.as_second() && !is_subject_revoked(&view, &row)? {
                tokens.push(Listed {
                    jti,
                    service_name: row.sub,
                    issued_at: time(row.issued_s),
                    expires_at: time(row.expires_s),
                    permissions: row.scope.split(' ').map(str::to_owned).collect(),
                });
            }
        }
        Ok(TokenPage { count: tokens.len(), tokens, next })
    }
}

/// Whether a subject has tokens.
pub(crate) fn has_any(view: &impl View, subject: &str) -> Result<bool, VaultError> {
    Ok(!view.keys(Table::TokenIndex, &Range::prefix(&subject_prefix(subject), 1))?.is_empty())
}

/// Whether [`sweep`] has so many tokens, or so many revocations of subjects, to remove.
pub(crate) fn have_ended(
    view: &impl View,
    now: Timestamp,
    leeway_s: i64,
    least: usize,
) -> Result<bool, VaultError> {
    let so_many = |range| {
        Ok::<_, VaultError>(view.keys(Table::TokenIndex, &Range { limit: least, ..range })?.len() >= least)
    };
    Ok(so_many(ended(now, leeway_s, least))? || so_many(ended_voids(now))?)
}

fn ended(now: Timestamp, leeway_s: i64, limit: usize) -> Range {
    let end = now.as_second() - leeway_s;
    Range { from: b"x".to_vec(), to: expiry_key(end, ""), limit }
}

/// Removes tokens and revocations that no longer matter; how many rows went.
pub(crate) fn sweep(change: &mut Change<'_>, now: Timestamp, leeway_s: i64) -> Result<usize, VaultError> {
    let range = ended(now, leeway_s, SWEEP_MAX);
    let ended = change.keys(Table::TokenIndex, &range)?;
    let mut swept = ended.len();
    for key in ended {
        let jti = jti_of(&key);
        let row: Row = change.require(Table::Token, jti.as_bytes())?;
        // The mark goes with the row: first goes what lives on only as long as nobody knows of the revocation.
        if row.revoked && !v1::end_born(change, Origin::Token(&jti))? {
            continue;
        }
        for key in index(&row, &jti) {
            change.remove(Table::TokenIndex, &key);
        }
        change.give_back(Held::Tokens, row.payer(), 1)?;
        change.remove(Table::Token, jti.as_bytes());
        change.remove(Table::Revoked, format!("jti/{jti}").as_bytes());
    }
    swept += sweep_voids(change, now)?;
    Ok(swept)
}

/// Removes revocations of subjects whose time is over, after what lives on only as long as nobody knows of them.
fn sweep_voids(change: &mut Change<'_>, now: Timestamp) -> Result<usize, VaultError> {
    let ended = change.keys(Table::TokenIndex, &ended_voids(now))?;
    for key in &ended {
        let subject = String::from_utf8_lossy(&key[9..]).into_owned();
        let until = void_until(change, &subject)?;
        if let Some(until) = until
            && !v1::end_born(change, Origin::Subject(&subject, until))?
        {
            continue;
        }
        change.remove(Table::TokenIndex, key);
        change.remove(Table::Revoked, format!("sub/{subject}").as_bytes());
    }
    Ok(ended.len())
}

fn ended_voids(now: Timestamp) -> Range {
    Range { from: b"e".to_vec(), to: void_key(now.as_second() + 1, ""), limit: SWEEP_MAX }
}

/// Index row by which a subject's revocation is found when its time is over.
fn void_key(until_s: i64, subject: &str) -> KeyBytes {
    [b"e".as_slice(), &u64::try_from(until_s).unwrap_or(0).to_be_bytes(), subject.as_bytes()].concat()
}

/// Writes up to when a subject's tokens are void.
pub(super) fn save_void(change: &mut Change<'_>, subject: &str, row: &RevokedRow) -> Result<(), VaultError> {
    let key = format!("sub/{subject}").into_bytes();
    if let Some(former) = change.load::<RevokedRow>(Table::Revoked, &key)? {
        change.remove(Table::TokenIndex, &void_key(former.until.as_second(), subject));
    }
    change.mark(Table::TokenIndex, &void_key(row.until.as_second(), subject));
    change.save(Table::Revoked, &key, row);
    Ok(())
}

/// Up to when (unix seconds) a subject's tokens were revoked.
pub(crate) fn void_until(view: &impl View, subject: &str) -> Result<Option<i64>, VaultError> {
    let revoked: Option<RevokedRow> = view.load(Table::Revoked, format!("sub/{subject}").as_bytes())?;
    Ok(revoked.and_then(|revoked| revoked.issued_until))
}

/// Whether a token is void because its subject was revoked.
pub(super) fn is_subject_revoked(view: &impl View, row: &Row) -> Result<bool, VaultError> {
    Ok(void_until(view, &row.sub)?.is_some_and(|until| row.issued_s <= until))
}

/// Whether the token or certificate `caller` came with has been revoked since it was verified. `before` is up to when the
/// subject's tokens were void when its request began: a caller whose token was not seen here is void once
/// that has changed.
pub(crate) fn is_caller_void(
    view: &impl View,
    caller: &Caller,
    before: Option<i64>,
) -> Result<bool, VaultError> {
    if caller.as_role().is_some() {
        return Ok(false);
    }
    if let Some(jti) = &caller.jti
        && view.raw(Table::Revoked, format!("jti/{jti}").as_bytes())?.is_some()
    {
        return Ok(true);
    }
    if let Some(serial) = &caller.serial
        && view.raw(Table::Revoked, format!("serial/{serial}").as_bytes())?.is_some()
    {
        return Ok(true);
    }
    let until = void_until(view, &caller.subject)?;
    Ok(match caller.issued_at_s {
        Some(issued_s) => until.is_some_and(|until| issued_s <= until),
        None => until != before,
    })
}

pub(super) fn index(row: &Row, jti: &str) -> Vec<KeyBytes> {
    let mut keys =
        vec![[subject_prefix(&row.sub).as_slice(), jti.as_bytes()].concat(), expiry_key(row.expires_s, jti)];
    keys.extend(row.root().map(|root| [line_prefix(root).as_slice(), jti.as_bytes()].concat()));
    keys
}

pub(super) fn line_prefix(root: &str) -> KeyBytes {
    [b"p", root.as_bytes(), &[0]].concat()
}

/// The tokens that were made of a token, and of those, and so on.
pub(super) fn descendants(view: &impl View, jti: &str, row: &Row) -> Result<Vec<(String, Row)>, VaultError> {
    let line = Range::prefix(&line_prefix(row.root().unwrap_or(jti)), LINE_MAX);
    let mut rest: Vec<(String, Row)> = Vec::new();
    for key in view.keys(Table::TokenIndex, &line)? {
        let jti = jti_of(&key);
        let row = view.require(Table::Token, jti.as_bytes())?;
        rest.push((jti, row));
    }
    let mut found: Vec<(String, Row)> = Vec::new();
    loop {
        let is_child = |row: &Row| {
            let parent = row.parent.as_ref().map(|parent| parent.jti.as_str());
            parent == Some(jti) || found.iter().any(|(known, _)| parent == Some(known))
        };
        let (children, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(|(_, row)| is_child(row));
        if children.is_empty() {
            return Ok(found);
        }
        found.extend(children);
        rest = others;
    }
}

pub(super) fn subject_prefix(subject: &str) -> KeyBytes {
    [b"s", subject.as_bytes(), &[0]].concat()
}

fn expiry_key(expires_s: i64, jti: &str) -> KeyBytes {
    [b"x".as_slice(), &u64::try_from(expires_s).unwrap_or(0).to_be_bytes(), jti.as_bytes()].concat()
}

/// The token id at the end of a key: always a UUID's 36 characters.
pub(super) fn jti_of(key: &[u8]) -> String {
    String::from_utf8_lossy(&key[key.len().saturating_sub(36)..]).into_owned()
}
