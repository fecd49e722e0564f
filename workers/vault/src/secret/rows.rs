//! How secrets lie in the store, and what becomes of them: the part that both doors, `/secrets/…` and the mount
//! `secret/` of Vault's API, share.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sluice_wire::code::Code;
use zeroize::Zeroizing;

use super::ops::Fate;
use super::{VERSIONS_DEFAULT, body::NewValue};
use crate::error::VaultError;
use crate::path::SecretPath;
use crate::quota::Held;
use crate::store::{Change, Range, Table, View};

/// LIMIT: secrets.
const SECRETS_MAX: u64 = 1_000_000;
/// LIMIT: bytes of a secret's value, as one request can carry; merging reaches no further.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;
/// Key of the mount's own settings.
const CONFIG: &[u8] = b"kv/config";

/// A secret's head row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// 0 before the first version.
    pub(crate) current: u64,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) versions: BTreeMap<u64, Version>,
    #[serde(default)]
    pub(crate) settings: Settings,
    /// What users note about it.
    #[serde(default)]
    pub(crate) custom: Option<BTreeMap<String, String>>,
    /// How often settings or notes were changed.
    #[serde(default)]
    pub(crate) metadata_version: u64,
}

/// The state of one version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) created_at: Timestamp,
    /// May lie ahead: then it is deleted by itself.
    pub(crate) deleted_at: Option<Timestamp>,
    pub(crate) destroyed: bool,
}

/// What holds for a secret, or for all that say nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Versions kept; 0: not said.
    pub(crate) max_versions: u64,
    /// Whether a write must name the version it replaces.
    pub(crate) cas_required: bool,
    /// After how many seconds a version is deleted by itself; 0: never.
    pub(crate) delete_after_s: i64,
}

/// A version as it was found: its state, and its value where it is live.
pub(crate) struct Found {
    pub(crate) version: u64,
    pub(crate) state: Version,
    pub(crate) custom: Option<BTreeMap<String, String>>,
    /// JSON text of an object. `None`: deleted or destroyed.
    pub(crate) value: Option<Zeroizing<Vec<u8>>>,
}

/// How strictly `cas: 0` is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cas {
    /// 0 also fits when the current version is deleted.
    Lenient,
    /// The number, whatever the state: as Vault has it.
    Exact,
}

impl Settings {
    /// A secret's own words before the mount's.
    fn over(self, mount: Self) -> Self {
        let choose = |own: i64, mounted: i64| if own > 0 { own } else { mounted };
        Self {
            max_versions: if self.max_versions > 0 { self.max_versions } else { mount.max_versions },
            cas_required: self.cas_required || mount.cas_required,
            delete_after_s: choose(self.delete_after_s, mount.delete_after_s),
        }
    }

    fn kept(self) -> usize {
        if self.max_versions > 0 { self.max_versions as usize } else { VERSIONS_DEFAULT }
    }
}

impl Head {
    /// A secret of which nothing was said yet.
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            current: 0,
            created_at: now,
            updated_at: now,
            versions: BTreeMap::new(),
            settings: Settings::default(),
            custom: None,
            metadata_version: 0,
        }
    }
}

impl Version {
    /// Whether it can be read.
    pub(crate) fn is_live(&self, now: Timestamp) -> bool {
        !self.destroyed && self.deleted_at.is_none_or(|at| at > now)
    }
}

/// The mount's settings.
pub(crate) fn config(view: &impl View) -> Result<Settings, VaultError> {
    Ok(view.load(Table::Logical, CONFIG)?.unwrap_or_default())
}

/// How many versions of a secret are kept.
pub(crate) fn kept(view: &impl View, head: &Head) -> Result<usize, VaultError> {
    Ok(head.settings.over(config(view)?).kept())
}

/// Changes the mount's settings.
pub(crate) fn save_config(change: &mut Change<'_>, config: &Settings) {
    change.save(Table::Logical, CONFIG, config);
}

/// Writes a head.
pub(crate) fn save(change: &mut Change<'_>, path: &SecretPath, head: &Head) {
    change.save(Table::SecretHead, path.as_str().as_bytes(), head);
}

/// The head of a path, or a new one if there is room for another secret.
pub(crate) fn head_or_new(
    change: &mut Change<'_>,
    path: &SecretPath,
    now: Timestamp,
) -> Result<Head, VaultError> {
    match head(change, path)? {
        Some(head) => Ok(head),
        None if change.count(Table::SecretHead)? >= SECRETS_MAX => {
            Err(VaultError::invalid(Code::RateLimited, "too many secrets"))
        }
        None => {
            change.charge(Held::Secrets, payer(path), 1)?;
            Ok(Head::new(now))
        }
    }
}

/// Whose quota a secret counts to: the service's whose part of the tree it is in, else that of its first folder.
fn payer(path: &SecretPath) -> &str {
    path.tenant().unwrap_or_else(|| path.as_str().split('/').next().unwrap_or_default())
}

/// Removes a version's value.
fn remove_value(change: &mut Change<'_>, path: &SecretPath, version: u64) -> Result<(), VaultError> {
    let key = version_key(path, version);
    let bytes = change.stored_bytes(Table::SecretVersion, &key)?;
    change.give_back(Held::SecretBytes, payer(path), bytes)?;
    change.remove(Table::SecretVersion, &key);
    Ok(())
}

/// Writes the next version; its head.
pub(crate) fn write(
    change: &mut Change<'_>,
    path: &SecretPath,
    value: &NewValue,
    rule: Cas,
    now: Timestamp,
) -> Result<Head, VaultError> {
    if value.data.len() > VALUE_BYTES_MAX {
        let detail =
            format!("the secret would have {} bytes; at most {VALUE_BYTES_MAX} are kept", value.data.len());
        return Err(VaultError::invalid(Code::BodyTooLarge, detail));
    }
    let mut head = head_or_new(change, path, now)?;
    let settings = head.settings.over(config(change)?);
    // A secret whose current version is deleted counts as absent for `cas: 0`, as clients expect.
    let live = head.versions.get(&head.current).is_some_and(|version| version.is_live(now));
    let fits = |cas| cas == head.current || (rule == Cas::Lenient && cas == 0 && !live);
    if !value.cas.map_or(!settings.cas_required, fits) {
        let missing = "check-and-set parameter required for this call";
        return Err(match value.cas {
            None => VaultError::invalid(Code::BadRequest, missing),
            Some(_) => VaultError::invalid(Code::VersionConflict, "cas does not match the current version"),
        });
    }
    let version = head.current + 1;
    let ends = settings.delete_after_s;
    let deleted_at = (ends > 0).then(|| now.checked_add(SignedDuration::from_secs(ends)).ok()).flatten();
    head.current = version;
    head.updated_at = now;
    head.versions.insert(version, Version { created_at: now, deleted_at, destroyed: false });
    trim(change, path, &mut head, settings.kept())?;
    let key = version_key(path, version);
    change.put(Table::SecretVersion, &key, &value.data);
    let bytes = change.stored_bytes(Table::SecretVersion, &key)?;
    change.charge(Held::SecretBytes, payer(path), bytes)?;
    save(change, path, &head);
    Ok(head)
}

fn trim(change: &mut Change<'_>, path: &SecretPath, head: &mut Head, kept: usize) -> Result<(), VaultError> {
    while head.versions.len() > kept {
        if let Some((oldest, _)) = head.versions.pop_first() {
            remove_value(change, path, oldest)?;
        }
    }
    Ok(())
}

/// A version, the current one when none is named; `None`: there is none.
pub(crate) fn read(
    view: &impl View,
    path: &SecretPath,
    version: Option<u64>,
    now: Timestamp,
) -> Result<Option<Found>, VaultError> {
    let Some(mut head) = head(view, path)? else { return Ok(None) };
    let version = version.unwrap_or(head.current);
    let Some(state) = head.versions.remove(&version) else { return Ok(None) };
    let value = if state.is_live(now) {
        let damaged = || VaultError::Integrity(Table::SecretVersion.name());
        Some(view.bytes(Table::SecretVersion, &version_key(path, version))?.ok_or_else(damaged)?)
    } else {
        None
    };
    Ok(Some(Found { version, state, custom: head.custom, value }))
}

/// Lets a version that is there become what is wanted; whether it could.
pub(crate) fn decide(
    change: &mut Change<'_>,
    path: &SecretPath,
    head: &mut Head,
    version: u64,
    fate: Fate,
    now: Timestamp,
) -> Result<bool, VaultError> {
    let Some(state) = head.versions.get_mut(&version) else { return Ok(false) };
    match fate {
        Fate::Delete if !state.destroyed => {
            state.deleted_at = Some(state.deleted_at.map_or(now, |at| at.min(now)));
        }
        Fate::Undelete if !state.destroyed => state.deleted_at = None,
        Fate::Delete | Fate::Undelete => return Ok(false),
        Fate::Destroy => {
            state.destroyed = true;
            remove_value(change, path, version)?;
        }
    }
    Ok(true)
}

/// Removes a secret with everything that is known of it.
pub(crate) fn forget(change: &mut Change<'_>, path: &SecretPath) -> Result<(), VaultError> {
    if let Some(head) = head(change, path)? {
        for version in head.versions.keys() {
            remove_value(change, path, *version)?;
        }
        change.give_back(Held::Secrets, payer(path), 1)?;
        change.remove(Table::SecretHead, path.as_str().as_bytes());
    }
    Ok(())
}

/// Names directly below a path; those with something below them end in `/`.
pub(crate) struct Names {
    pub(crate) keys: Vec<String>,
    /// Whether more follow.
    pub(crate) more: bool,
}

/// Walks from name to name: a folder costs one step, whatever is in it.
pub(crate) fn list(
    view: &impl View,
    path: Option<&SecretPath>,
    after: Option<&str>,
    limit: usize,
) -> Result<Names, VaultError> {
    let folder = path.map_or_else(String::new, |path| format!("{path}/"));
    let mut range = Range::prefix(folder.as_bytes(), 1);
    if let Some(after) = after.filter(|after| !after.is_empty()) {
        range.from = step_over(&folder, after);
    }
    let mut names = Names { keys: Vec::new(), more: false };
    while let Some(key) = view.keys(Table::SecretHead, &range)?.pop() {
        if names.keys.len() == limit {
            names.more = true;
            break;
        }
        let rest = String::from_utf8_lossy(&key[folder.len()..]).into_owned();
        let name = rest.find('/').map_or(rest.as_str(), |slash| &rest[..=slash]).to_owned();
        range.from = step_over(&folder, &name);
        names.keys.push(name);
    }
    Ok(names)
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
pub(crate) fn head(view: &impl View, path: &SecretPath) -> Result<Option<Head>, VaultError> {
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
