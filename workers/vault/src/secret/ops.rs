//! What callers do with secrets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sluice_audit::Entry;
use sluice_wire::code::Code;

use super::VERSIONS_MAX;
use super::body::{NewValue, VersionList};
use crate::access::{self, Wish};
use crate::context::Vault;
use crate::error::VaultError;
use crate::path::SecretPath;
use crate::request::Act;
use crate::store::{Change, Range, Table, View};

/// LIMIT: secrets.
const SECRETS_MAX: u64 = 1_000_000;
/// LIMIT: names in one page of a listing.
const PAGE_MAX: usize = 1_000;

/// The answer to a write.
#[derive(Debug, Serialize)]
pub(crate) struct Stored {
    status: &'static str,
    path: String,
    pub(crate) version: u64,
    created_at: Timestamp,
}

/// A value with its version. No Debug: it is a secret.
#[derive(Serialize)]
pub(crate) struct Shown {
    data: Box<RawValue>,
    version: u64,
    created_at: Timestamp,
}

/// The history of a secret.
#[derive(Debug, Serialize)]
pub(crate) struct History {
    path: String,
    current_version: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
    max_versions: usize,
    versions: BTreeMap<u64, Version>,
}

/// Names directly below a path; those with something below them end in `/`.
#[derive(Debug, Serialize)]
pub(crate) struct Listing {
    path: String,
    keys: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// What is to become of versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Not readable, can come back.
    Delete,
    /// Readable again.
    Undelete,
    /// Gone for good.
    Destroy,
}

/// A secret's head row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Head {
    current: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
    versions: BTreeMap<u64, Version>,
}

/// The state of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    created_at: Timestamp,
    deleted_at: Option<Timestamp>,
    destroyed: bool,
}

impl Vault {
    /// Writes the next version of a secret.
    pub(crate) fn store_secret(
        &self,
        act: &Act,
        path: &SecretPath,
        value: NewValue,
    ) -> Result<Stored, VaultError> {
        let entry = self.allowed(act, "write", Some(path), Wish::Write)?;
        let (path, now) = (path.clone(), act.now);
        let stored = self.write(entry, move |change| write(change, &path, &value, now));
        self.count("write", &stored);
        stored
    }

    /// Reads a version of a secret, the current one when none is named.
    pub(crate) fn read_secret(
        &self,
        act: &Act,
        path: &SecretPath,
        version: Option<u64>,
    ) -> Result<Shown, VaultError> {
        let entry = self.allowed(act, "read", Some(path), Wish::Read)?;
        let shown = self.read(entry, || read(&self.store.snapshot()?, path, version));
        self.count("read", &shown);
        shown
    }

    /// The history of a secret.
    pub(crate) fn secret_history(&self, act: &Act, path: &SecretPath) -> Result<History, VaultError> {
        let entry = self.allowed(act, "history", Some(path), Wish::Read)?;
        let history = self.read(entry, || {
            let head = head(&self.store.snapshot()?, path)?.ok_or_else(absent)?;
            Ok(History {
                path: path.to_string(),
                current_version: head.current,
                created_at: head.created_at,
                updated_at: head.updated_at,
                max_versions: VERSIONS_MAX,
                versions: head.versions,
            })
        });
        self.count("history", &history);
        history
    }

    /// Deletes, undeletes or destroys versions, the current one when none is named; those it reached.
    pub(crate) fn change_versions(
        &self,
        act: &Act,
        path: &SecretPath,
        versions: Option<VersionList>,
        fate: Fate,
    ) -> Result<Vec<u64>, VaultError> {
        let op = match fate {
            Fate::Delete => "delete",
            Fate::Undelete => "undelete",
            Fate::Destroy => "destroy",
        };
        let entry = self.allowed(act, op, Some(path), Wish::Write)?;
        let (path, now) = (path.clone(), act.now);
        let reached = self.write(entry, move |change| {
            let mut head = head(change, &path)?.ok_or_else(absent)?;
            let versions = versions.map_or_else(|| vec![head.current], |versions| versions.0);
            for version in &versions {
                decide(change, &path, &mut head, *version, fate, now)?;
            }
            head.updated_at = now;
            change.save(Table::SecretHead, path.as_str().as_bytes(), &head);
            Ok(versions)
        });
        self.count(op, &reached);
        reached
    }

    /// The names directly below a path; `None`: below the root.
    pub(crate) fn list_secrets(
        &self,
        act: &Act,
        path: Option<&SecretPath>,
        after: Option<&str>,
    ) -> Result<Listing, VaultError> {
        let entry = self.allowed(act, "list", path, Wish::Read)?;
        let listing = self.read(entry, || list(&self.store.snapshot()?, path, after, PAGE_MAX));
        self.count("list", &listing);
        listing
    }

    /// The audit entry of an act on a secret, when policy allows it; else the refusal, recorded.
    fn allowed(
        &self,
        act: &Act,
        op: &'static str,
        path: Option<&SecretPath>,
        wish: Wish,
    ) -> Result<Entry, VaultError> {
        let entry = act.entry("secret", op, path.map_or("", SecretPath::as_str));
        match access::secret(act.caller.as_ref(), path, wish) {
            Ok(()) => Ok(entry),
            Err(error) => {
                let refused = Err(self.refuse(entry, error));
                self.count(op, &refused);
                refused
            }
        }
    }

    fn count<T>(&self, op: &str, outcome: &Result<T, VaultError>) {
        let decision = match outcome {
            Ok(_) => "allow",
            Err(error) if error.is_denial() => "deny",
            Err(_) => "error",
        };
        self.figures.secret_ops.with_label_values(&[op, decision]).inc();
    }
}

fn write(
    change: &mut Change<'_>,
    path: &SecretPath,
    value: &NewValue,
    now: Timestamp,
) -> Result<Stored, VaultError> {
    let existing = head(change, path)?;
    let current = existing.as_ref().map_or(0, |head| head.current);
    // A secret whose current version is deleted counts as absent for `cas: 0`, as clients expect.
    let live = existing.as_ref().and_then(|head| head.versions.get(&current)).is_some_and(Version::is_live);
    let fits = value.cas.is_none_or(|cas| cas == current || (cas == 0 && !live));
    if !fits {
        let detail = "cas does not match the current version";
        return Err(VaultError::invalid(Code::VersionConflict, detail));
    }
    if existing.is_none() && change.count(Table::SecretHead)? >= SECRETS_MAX {
        return Err(VaultError::invalid(Code::RateLimited, "too many secrets"));
    }
    let mut head =
        existing.unwrap_or(Head { current: 0, created_at: now, updated_at: now, versions: BTreeMap::new() });
    let version = current + 1;
    head.current = version;
    head.updated_at = now;
    head.versions.insert(version, Version { created_at: now, deleted_at: None, destroyed: false });
    while head.versions.len() > VERSIONS_MAX {
        if let Some((oldest, _)) = head.versions.pop_first() {
            change.remove(Table::SecretVersion, &version_key(path, oldest));
        }
    }
    change.put(Table::SecretVersion, &version_key(path, version), &value.data);
    change.save(Table::SecretHead, path.as_str().as_bytes(), &head);
    Ok(Stored { status: "success", path: path.to_string(), version, created_at: now })
}

fn read(view: &impl View, path: &SecretPath, version: Option<u64>) -> Result<Shown, VaultError> {
    let head = head(view, path)?.ok_or_else(absent)?;
    let version = version.unwrap_or(head.current);
    let state = head.versions.get(&version).ok_or_else(absent)?;
    if !state.is_live() {
        let fate = if state.destroyed { "destroyed" } else { "deleted" };
        return Err(VaultError::NotFound(format!("version {version} was {fate}")));
    }
    let damaged = || VaultError::Integrity(Table::SecretVersion.name());
    let plain = view.bytes(Table::SecretVersion, &version_key(path, version))?.ok_or_else(damaged)?;
    let data = serde_json::from_slice(&plain).map_err(|_| damaged())?;
    Ok(Shown { data, version, created_at: state.created_at })
}

fn decide(
    change: &mut Change<'_>,
    path: &SecretPath,
    head: &mut Head,
    version: u64,
    fate: Fate,
    now: Timestamp,
) -> Result<(), VaultError> {
    let state = head.versions.get_mut(&version).ok_or_else(absent)?;
    match fate {
        Fate::Delete if !state.destroyed => state.deleted_at = state.deleted_at.or(Some(now)),
        Fate::Undelete if !state.destroyed => state.deleted_at = None,
        Fate::Delete | Fate::Undelete => {
            return Err(VaultError::invalid(Code::Conflict, format!("version {version} was destroyed")));
        }
        Fate::Destroy => {
            state.destroyed = true;
            change.remove(Table::SecretVersion, &version_key(path, version));
        }
    }
    Ok(())
}

/// Walks from name to name: a folder costs one step, whatever is in it.
fn list(
    view: &impl View,
    path: Option<&SecretPath>,
    after: Option<&str>,
    limit: usize,
) -> Result<Listing, VaultError> {
    let folder = path.map_or_else(String::new, |path| format!("{path}/"));
    let mut range = Range::prefix(folder.as_bytes(), 1);
    if let Some(after) = after.filter(|after| !after.is_empty()) {
        range.from = step_over(&folder, after);
    }
    let mut listing =
        Listing { path: path.map_or_else(String::new, ToString::to_string), keys: Vec::new(), next: None };
    while let Some(key) = view.keys(Table::SecretHead, &range)?.pop() {
        if listing.keys.len() == limit {
            listing.next = listing.keys.last().cloned();
            break;
        }
        let rest = String::from_utf8_lossy(&key[folder.len()..]).into_owned();
        let name = rest.find('/').map_or(rest.as_str(), |slash| &rest[..=slash]).to_owned();
        range.from = step_over(&folder, &name);
        listing.keys.push(name);
    }
    if listing.keys.is_empty() && after.is_none() && path.is_some() {
        return Err(VaultError::NotFound("there is nothing below this path".into()));
    }
    Ok(listing)
}

/// The first key after a name and, for a folder, after everything in it.
fn step_over(folder: &str, name: &str) -> Vec<u8> {
    let mut key = [folder.as_bytes(), name.as_bytes()].concat();
    match key.last_mut() {
        // The byte after `/` ends the folder.
        Some(last @ b'/') => *last += 1,
        _ => key.push(0),
    }
    key
}

/// The head of a path. Versions without a head are damage, not absence.
fn head(view: &impl View, path: &SecretPath) -> Result<Option<Head>, VaultError> {
    let head = view.load(Table::SecretHead, path.as_str().as_bytes())?;
    let orphaned = || {
        let prefix = [path.as_str().as_bytes(), &[0]].concat();
        view.keys(Table::SecretVersion, &Range::prefix(&prefix, 1)).map(|keys| !keys.is_empty())
    };
    if head.is_none() && orphaned()? {
        return Err(VaultError::Integrity(Table::SecretHead.name()));
    }
    Ok(head)
}

fn version_key(path: &SecretPath, version: u64) -> Vec<u8> {
    [path.as_str().as_bytes(), &[0], &version.to_be_bytes()].concat()
}

fn absent() -> VaultError {
    VaultError::NotFound("there is no such secret or version".into())
}

impl Version {
    const fn is_live(&self) -> bool {
        self.deleted_at.is_none() && !self.destroyed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stepping_over_a_name_passes_it_and_nothing_beside_it(
            name in "[a-c.+-]{1,3}", other in "[a-c.+-]{1,3}(/[a-c]{1,2})?", folder in any::<bool>(),
        ) {
            let stepped = if folder { format!("{name}/") } else { name.clone() };
            let next = step_over("f/", &stepped);
            let key = format!("f/{other}").into_bytes();
            let covered = if folder { other.starts_with(&stepped) } else { other == name };
            let before = key.as_slice() < format!("f/{stepped}").as_bytes();
            prop_assert_eq!(key < next, covered || before);
        }
    }
}
