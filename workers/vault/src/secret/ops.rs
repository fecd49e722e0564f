//! What callers do with secrets.

use std::collections::BTreeMap;

use jiff::Timestamp;
use prometheus::IntCounterVec;
use serde::Serialize;
use serde_json::value::RawValue;
use sluice_audit::Entry;
use sluice_wire::code::Code;

use super::body::{NewValue, VersionList};
use super::rows::{self, Cas, Version};
use crate::access::{self, Wish};
use crate::context::Vault;
use crate::error::VaultError;
use crate::external::External;
use crate::path::SecretPath;
use crate::request::Act;
use crate::store::{Change, Table, View};

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

impl Vault {
    /// Writes the next version of a secret.
    pub(crate) fn store_secret(
        &self,
        act: &Act,
        path: &SecretPath,
        value: NewValue,
    ) -> impl Future<Output = Result<Stored, VaultError>> + Send + use<> {
        let (to, now) = (path.clone(), act.now);
        let work = move |change: &mut Change<'_>| {
            let head = rows::write(change, &to, &value, Cas::Lenient, now)?;
            Ok(Stored { status: "success", path: to.to_string(), version: head.current, created_at: now })
        };
        let allowed = self.allowed(act, "write", Some(path), Wish::Write);
        let stored = allowed.map(|entry| self.change(entry, work));
        let ops = self.figures.secret_ops.clone();
        async move { counted(&ops, "write", stored?.done().await) }
    }

    /// Reads a version of a secret, the current one when none is named.
    pub(crate) fn read_secret(
        &self,
        act: &Act,
        path: &SecretPath,
        version: Option<u64>,
    ) -> impl Future<Output = Result<Shown, VaultError>> + Send + use<> {
        let read = || read(&self.store.snapshot()?, path, version, act.now);
        let allowed = self.allowed(act, "read", Some(path), Wish::Read);
        let shown = allowed.map(|entry| self.recorded(entry, read()));
        let ops = self.figures.secret_ops.clone();
        async move { counted(&ops, "read", shown?.done().await) }
    }

    /// [`Vault::store_secret`] where an external vault keeps them; blocks.
    pub(crate) fn store_secret_abroad(
        &self,
        external: &External,
        act: &Act,
        path: &SecretPath,
        value: &NewValue,
    ) -> Result<Stored, VaultError> {
        let entry = self.allowed(act, "write", Some(path), Wish::Write)?;
        let stored = self.abroad(entry, || {
            let (version, created_at) = external.write(path, value)?;
            Ok(Stored { status: "success", path: path.to_string(), version, created_at })
        });
        self.count("write", stored)
    }

    /// [`Vault::read_secret`] where an external vault keeps them; blocks.
    pub(crate) fn read_secret_abroad(
        &self,
        external: &External,
        act: &Act,
        path: &SecretPath,
        version: Option<u64>,
    ) -> Result<Shown, VaultError> {
        let entry = self.allowed(act, "read", Some(path), Wish::Read)?;
        let shown = self.abroad(entry, || {
            let found = external.read(path, version)?.ok_or_else(absent)?;
            Ok(Shown { data: found.data, version: found.version, created_at: found.created_at })
        });
        self.count("read", shown)
    }

    /// The history of a secret.
    pub(crate) fn secret_history(&self, act: &Act, path: &SecretPath) -> Result<History, VaultError> {
        let entry = self.allowed(act, "history", Some(path), Wish::Read)?;
        let history = match &self.settings.external {
            Some(external) => self.abroad(entry, || {
                let found = external.metadata(path)?.ok_or_else(absent)?;
                Ok(History {
                    path: path.to_string(),
                    current_version: found.current_version,
                    created_at: found.created_time,
                    updated_at: found.updated_time,
                    max_versions: found.max_versions,
                    versions: found.versions(),
                })
            }),
            None => self.read(entry, || {
                let view = self.store.snapshot()?;
                let head = rows::head(&view, path)?.ok_or_else(absent)?;
                Ok(History {
                    path: path.to_string(),
                    current_version: head.current,
                    created_at: head.created_at,
                    updated_at: head.updated_at,
                    max_versions: rows::kept(&view, &head)?,
                    versions: head.versions,
                })
            }),
        };
        self.count("history", history)
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
            Fate::Delete if versions.is_some() => "delete_versions",
            Fate::Delete => "delete",
            Fate::Undelete => "undelete",
            Fate::Destroy => "destroy",
        };
        let entry = self.allowed(act, op, Some(path), Wish::Write)?;
        let (path, now) = (path.clone(), act.now);
        if let Some(external) = &self.settings.external {
            let versions = versions.map(|versions| versions.0);
            let reached = self.abroad(entry, || external.change(&path, versions, fate)?.ok_or_else(absent));
            return self.count(op, reached);
        }
        let reached = self.write(entry, move |change| {
            let mut head = rows::head(change, &path)?.ok_or_else(absent)?;
            let versions = versions.map_or_else(|| vec![head.current], |versions| versions.0);
            for version in &versions {
                let known = head.versions.contains_key(version);
                if !rows::decide(change, &path, &mut head, *version, fate, now)? {
                    let destroyed =
                        || VaultError::invalid(Code::Conflict, format!("version {version} was destroyed"));
                    return Err(if known { destroyed() } else { absent() });
                }
            }
            head.updated_at = now;
            rows::save(change, &path, &head);
            Ok(versions)
        });
        self.count(op.trim_end_matches("_versions"), reached)
    }

    /// The names directly below a path; `None`: below the root.
    pub(crate) fn list_secrets(
        &self,
        act: &Act,
        path: Option<&SecretPath>,
        after: Option<&str>,
    ) -> Result<Listing, VaultError> {
        let entry = self.allowed(act, "list", path, Wish::Read)?;
        let found = |names: rows::Names| {
            if names.keys.is_empty() && after.is_none() && path.is_some() {
                return Err(VaultError::NotFound("there is nothing below this path".into()));
            }
            let next = if names.more { names.keys.last().cloned() } else { None };
            Ok(Listing { path: path.map_or_else(String::new, ToString::to_string), keys: names.keys, next })
        };
        let listing = match &self.settings.external {
            Some(external) => self.abroad(entry, || found(page(external.names(path)?, after))),
            None => self.read(entry, || found(rows::list(&self.store.snapshot()?, path, after, PAGE_MAX)?)),
        };
        self.count("list", listing)
    }

    /// The audit entry of an act on a secret, when policy allows it; else the refusal, recorded.
    fn allowed(
        &self,
        act: &Act,
        op: &'static str,
        path: Option<&SecretPath>,
        wish: Wish,
    ) -> Result<Entry, VaultError> {
        let word = op.trim_end_matches("_versions");
        let entry = act.entry("secret", word, path.map_or("", SecretPath::as_str));
        let (entry, verdict) = match &act.api_token {
            Some(token) => {
                let (actor, verdict) = self.v1_at_secrets(act, token.text(), op, path)?;
                (entry.actor(actor), verdict)
            }
            None => (entry, access::secret(act.caller.as_ref(), path, wish)),
        };
        match verdict {
            Ok(()) => Ok(entry),
            Err(error) => self.count(word, Err(self.refuse(entry, error))),
        }
    }

    fn count<T>(&self, op: &str, outcome: Result<T, VaultError>) -> Result<T, VaultError> {
        counted(&self.figures.secret_ops, op, outcome)
    }
}

/// The outcome, counted.
fn counted<T>(ops: &IntCounterVec, op: &str, outcome: Result<T, VaultError>) -> Result<T, VaultError> {
    let decision = match &outcome {
        Ok(_) => "allow",
        Err(error) if error.is_denial() => "deny",
        Err(_) => "error",
    };
    ops.with_label_values(&[op, decision]).inc();
    outcome
}

/// The names after one, as many as a page has.
fn page(names: Vec<String>, after: Option<&str>) -> rows::Names {
    let mut keys: Vec<String> =
        names.into_iter().filter(|name| after.is_none_or(|after| name.as_str() > after)).collect();
    let more = keys.len() > PAGE_MAX;
    keys.truncate(PAGE_MAX);
    rows::Names { keys, more }
}

fn read(
    view: &impl View,
    path: &SecretPath,
    version: Option<u64>,
    now: Timestamp,
) -> Result<Shown, VaultError> {
    let found = rows::read(view, path, version, now)?.ok_or_else(absent)?;
    let Some(value) = found.value else {
        let fate = if found.state.destroyed { "destroyed" } else { "deleted" };
        return Err(VaultError::NotFound(format!("version {} was {fate}", found.version)));
    };
    let damaged = |_| VaultError::Integrity(Table::SecretVersion.name());
    let data = serde_json::from_slice(&value).map_err(damaged)?;
    Ok(Shown { data, version: found.version, created_at: found.state.created_at })
}

fn absent() -> VaultError {
    VaultError::NotFound("there is no such secret or version".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_a_foreign_folder_follow_each_other() {
        let names: Vec<String> = (0..2_500).map(|n| format!("n{n:04}")).collect();
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let mut found = page(names.clone(), after.as_deref());
            assert!(found.keys.len() <= PAGE_MAX);
            after = found.keys.last().cloned();
            seen.append(&mut found.keys);
            if !found.more {
                break;
            }
        }
        assert_eq!(seen, names);
    }
}
