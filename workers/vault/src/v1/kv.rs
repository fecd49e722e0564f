//! `secret/…`: KV version 2, on the rows of `/secrets/…`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;
use serde_json::value::RawValue;

use super::answer::{Answer, Reply};
use super::call::{Call, Op, go_duration};
use super::route::{Ask, unsupported_operation, unsupported_path};
use super::{fault, nothing};
use crate::context::Vault;
use crate::error::VaultError;
use crate::path::SecretPath;
use crate::secret::rows::{self, Cas, Found, Head, Settings, Version};
use crate::secret::{Fate, NewValue, VERSIONS_MAX};

/// LIMIT: names of one listing; `after` goes on.
const NAMES_MAX: usize = 10_000;
/// LIMIT: versions named by one call.
const VERSIONS_NAMED_MAX: usize = 100;
/// LIMIT: nesting that `subkeys` walks.
const DEPTH_MAX: usize = 64;

type Members = BTreeMap<String, Box<RawValue>>;

impl Vault {
    pub(super) fn v1_kv(&self, ask: &Ask, path: &[&str]) -> Result<Answer, VaultError> {
        let Some((area, rest)) = path.split_first() else { return Err(unsupported_path()) };
        if let Some(external) = &self.settings.external {
            return self.v1_kv_abroad(ask, external, area, rest);
        }
        if *area == "config" && rest.is_empty() {
            return self.v1_kv_config(ask);
        }
        if *area == "metadata" && ask.call.op == Op::List {
            return self.v1_kv_list(ask, rest);
        }
        let secret = SecretPath::parse(&rest.join("/")).map_err(|error| self.refuse(ask.entry(), error))?;
        match (*area, ask.call.op) {
            ("data", Op::Read) => self.v1_kv_read(ask, &secret),
            ("data", Op::Write) => self.v1_kv_write(ask, secret),
            ("data", Op::Patch) => self.v1_kv_patch(ask, secret),
            ("data", Op::Delete) => self.v1_kv_fate(ask, secret, Vec::new(), Fate::Delete),
            ("delete", Op::Write) => self.v1_kv_fate(ask, secret, versions(&ask.call)?, Fate::Delete),
            ("undelete", Op::Write) => self.v1_kv_fate(ask, secret, versions(&ask.call)?, Fate::Undelete),
            ("destroy", Op::Write) => self.v1_kv_fate(ask, secret, versions(&ask.call)?, Fate::Destroy),
            ("subkeys", Op::Read) => self.v1_kv_subkeys(ask, &secret),
            ("metadata", Op::Read) => self.v1_kv_metadata(ask, &secret),
            ("metadata", Op::Write | Op::Patch) => self.v1_kv_note(ask, secret),
            ("metadata", Op::Delete) => {
                self.write(ask.entry(), move |change| rows::forget(change, &secret))?;
                Ok(Answer::Nothing)
            }
            ("data" | "delete" | "undelete" | "destroy" | "subkeys" | "metadata", _) => {
                Err(unsupported_operation())
            }
            _ => Err(unsupported_path()),
        }
    }

    fn v1_kv_found(&self, ask: &Ask, path: &SecretPath) -> Result<Found, VaultError> {
        let (version, now) = (version(&ask.call)?, ask.call.act.now);
        self.v1_read(ask, || rows::read(&self.store.snapshot()?, path, version, now))
    }

    fn v1_kv_read(&self, ask: &Ask, path: &SecretPath) -> Result<Answer, VaultError> {
        let (version, now) = (version(&ask.call)?, ask.call.act.now);
        let read = || rows::read(&self.store.snapshot()?, path, version, now)?.ok_or_else(nothing);
        let found = self.recorded(ask.entry(), read());
        Self::v1_later(ask, async move { shown(&found.done().await?) })
    }
    fn v1_kv_write(&self, ask: &Ask, path: SecretPath) -> Result<Answer, VaultError> {
        let data = ask.call.fields.raw("data").filter(|data| data.get().starts_with('{'));
        let Some(data) = data else {
            return Err(self.refuse(ask.entry(), fault(400, "no data provided")));
        };
        let value = NewValue::of_text(data.get().as_bytes().to_vec(), cas(&ask.call)?);
        let now = ask.call.act.now;
        let head =
            self.change(ask.entry(), move |change| rows::write(change, &path, &value, Cas::Exact, now));
        Self::v1_later(ask, async move { written(&head.done().await?) })
    }

    fn v1_kv_patch(&self, ask: &Ask, path: SecretPath) -> Result<Answer, VaultError> {
        let data = ask.call.fields.raw("data").filter(|data| data.get().starts_with('{'));
        let Some(patch) = data.map(ToOwned::to_owned) else {
            return Err(self.refuse(ask.entry(), fault(400, "no data provided")));
        };
        let (cas, now) = (cas(&ask.call)?, ask.call.act.now);
        let head = self.write(ask.entry(), move |change| {
            let found = rows::read(change, &path, None, now)?.ok_or_else(nothing)?;
            let old = found.value.ok_or_else(nothing)?;
            let merged = merge(Some(object(&old)?), &patch, 0)?;
            // What was merged into is what is replaced: nobody has written in between.
            let cas = cas.or(Some(found.version));
            let value = NewValue::of_text(merged.get().as_bytes().to_vec(), cas);
            rows::write(change, &path, &value, Cas::Exact, now)
        })?;
        written(&head)
    }

    /// Versions that are not there are passed over, as in Vault.
    fn v1_kv_fate(
        &self,
        ask: &Ask,
        path: SecretPath,
        named: Vec<u64>,
        fate: Fate,
    ) -> Result<Answer, VaultError> {
        let now = ask.call.act.now;
        self.write(ask.entry(), move |change| {
            let Some(mut head) = rows::head(change, &path)? else { return Ok(()) };
            let versions = if named.is_empty() { vec![head.current] } else { named };
            let mut reached = false;
            for version in versions {
                reached |= rows::decide(change, &path, &mut head, version, fate, now)?;
            }
            if reached {
                head.updated_at = now;
                rows::save(change, &path, &head);
            }
            Ok(())
        })?;
        Ok(Answer::Nothing)
    }

    fn v1_kv_list(&self, ask: &Ask, rest: &[&str]) -> Result<Answer, VaultError> {
        let folder = if rest.is_empty() { None } else { Some(SecretPath::parse(&rest.join("/"))?) };
        let after = ask.call.query.get("after").map(String::as_str);
        let limit = ask.call.fields.number("limit")?.and_then(|limit| usize::try_from(limit).ok());
        let limit = limit.filter(|limit| *limit > 0).unwrap_or(NAMES_MAX).min(NAMES_MAX);
        let names =
            self.read(ask.entry(), || rows::list(&self.store.snapshot()?, folder.as_ref(), after, limit))?;
        let answer = Answer::keys(&names.keys)?;
        let cut = names.more && limit == NAMES_MAX;
        Ok(if cut { answer.warn("more names follow: ask for those `after` the last one") } else { answer })
    }

    fn v1_kv_metadata(&self, ask: &Ask, path: &SecretPath) -> Result<Answer, VaultError> {
        let head = self.v1_read(ask, || rows::head(&self.store.snapshot()?, path))?;
        let versions: BTreeMap<String, serde_json::Value> = head
            .versions
            .iter()
            .map(|(number, version)| {
                let deleted = deletion(version);
                let told = json!({
                    "created_time": version.created_at.to_string(),
                    "deletion_time": deleted,
                    "destroyed": version.destroyed,
                });
                (number.to_string(), told)
            })
            .collect();
        let oldest = head.versions.keys().next().copied().filter(|oldest| *oldest > 1).unwrap_or(0);
        Answer::data(&json!({
            "cas_required": head.settings.cas_required,
            "created_time": head.created_at.to_string(),
            "current_metadata_version": head.metadata_version,
            "current_version": head.current,
            "custom_metadata": head.custom,
            "delete_version_after": go_duration(head.settings.delete_after_s),
            "max_versions": head.settings.max_versions,
            "metadata_cas_required": false,
            "oldest_version": oldest,
            "updated_time": head.updated_at.to_string(),
            "versions": versions,
        }))
    }

    /// Settings and notes of one secret; a patch leaves what it does not name, `null` takes a note away.
    fn v1_kv_note(&self, ask: &Ask, path: SecretPath) -> Result<Answer, VaultError> {
        let settings = wanted(&ask.call).map_err(|error| self.refuse(ask.entry(), error))?;
        let fields = &ask.call.fields;
        let (patching, now) = (ask.call.op == Op::Patch, ask.call.act.now);
        let custom = if patching { None } else { fields.pairs("custom_metadata")? };
        let patch = match fields.raw("custom_metadata").filter(|_| patching) {
            Some(raw) => serde_json::from_str::<BTreeMap<String, Option<String>>>(raw.get())
                .map_err(|_| fault(400, "custom_metadata is a map of strings"))?,
            None => BTreeMap::new(),
        };
        self.write(ask.entry(), move |change| {
            let mut head = match (patching, rows::head(change, &path)?) {
                (true, None) => return Err(nothing()),
                (_, Some(head)) => head,
                (false, None) => rows::head_or_new(change, &path, now)?,
            };
            settings.apply(&mut head.settings);
            if custom.is_some() {
                head.custom = custom;
            }
            for (name, text) in patch {
                let notes = head.custom.get_or_insert_default();
                match text {
                    Some(text) if name.len() <= 128 && text.len() <= 512 => notes.insert(name, text),
                    Some(_) => {
                        return Err(fault(400, "a note has a name of 128 and a text of 512 bytes at most"));
                    }
                    None => notes.remove(&name),
                };
                if notes.len() > 64 {
                    return Err(fault(400, "a secret has at most 64 notes"));
                }
            }
            head.metadata_version += 1;
            head.updated_at = now;
            rows::save(change, &path, &head);
            Ok(())
        })?;
        Ok(Answer::Nothing)
    }

    fn v1_kv_config(&self, ask: &Ask) -> Result<Answer, VaultError> {
        match ask.call.op {
            Op::Read => {
                let config = self.read(ask.entry(), || rows::config(&self.store.snapshot()?))?;
                Answer::data(&json!({
                    "cas_required": config.cas_required,
                    "delete_version_after": go_duration(config.delete_after_s),
                    "max_versions": config.max_versions,
                    "metadata_cas_required": false,
                }))
            }
            Op::Write => {
                let wanted = wanted(&ask.call).map_err(|error| self.refuse(ask.entry(), error))?;
                self.write(ask.entry(), move |change| {
                    let mut config = rows::config(change)?;
                    wanted.apply(&mut config);
                    rows::save_config(change, &config);
                    Ok(())
                })?;
                Ok(Answer::Nothing)
            }
            _ => Err(unsupported_operation()),
        }
    }

    fn v1_kv_subkeys(&self, ask: &Ask, path: &SecretPath) -> Result<Answer, VaultError> {
        let depth = ask.call.fields.number("depth")?.and_then(|depth| usize::try_from(depth).ok());
        let found = self.v1_kv_found(ask, path)?;
        let metadata = described(found.version, &found.state, found.custom.as_ref());
        let Some(value) = &found.value else {
            let data = json!({ "metadata": metadata, "subkeys": null });
            let Answer::Data(mut reply) = Answer::data(&data)? else { return Err(nothing()) };
            reply.status = Some(404);
            return Ok(Answer::Data(reply));
        };
        let depth = depth.filter(|depth| *depth > 0).unwrap_or(DEPTH_MAX);
        Answer::data(&json!({ "metadata": metadata, "subkeys": subkeys(object(value)?, depth) }))
    }
}

/// Settings that a body names.
struct Wanted {
    max_versions: Option<u64>,
    cas_required: Option<bool>,
    delete_after_s: Option<i64>,
}

impl Wanted {
    fn apply(&self, settings: &mut Settings) {
        settings.max_versions = self.max_versions.unwrap_or(settings.max_versions);
        settings.cas_required = self.cas_required.unwrap_or(settings.cas_required);
        settings.delete_after_s = self.delete_after_s.unwrap_or(settings.delete_after_s);
    }
}

fn wanted(call: &Call) -> Result<Wanted, VaultError> {
    let max_versions = call.fields.number("max_versions")?;
    let max_versions = max_versions.map(|most| u64::try_from(most).ok().filter(|most| *most <= VERSIONS_MAX));
    if max_versions == Some(None) {
        return Err(fault(400, format!("max_versions is at most {VERSIONS_MAX}")));
    }
    Ok(Wanted {
        max_versions: max_versions.flatten(),
        cas_required: call.fields.flag("cas_required")?,
        delete_after_s: call.fields.seconds("delete_version_after")?,
    })
}

/// `?version=`; 0 is the current one.
pub(super) fn version(call: &Call) -> Result<Option<u64>, VaultError> {
    match call.fields.number("version")? {
        None | Some(0) => Ok(None),
        Some(version) => {
            u64::try_from(version).map(Some).map_err(|_| fault(400, "a version is a number from 1"))
        }
    }
}

/// `options.cas`.
fn cas(call: &Call) -> Result<Option<u64>, VaultError> {
    let Some(options) = call.fields.raw("options") else { return Ok(None) };
    let options = super::call::Fields::parse(options.get().as_bytes())?;
    let cas = options.number("cas")?.map(u64::try_from).transpose();
    cas.map_err(|_| fault(400, "cas is a version, 0 for none yet"))
}

fn versions(call: &Call) -> Result<Vec<u64>, VaultError> {
    let bad = || fault(400, "versions are numbers from 1");
    let named = call.fields.words("versions")?.unwrap_or_default();
    if named.is_empty() {
        return Err(fault(400, "No version number provided"));
    }
    if named.len() > VERSIONS_NAMED_MAX {
        return Err(bad());
    }
    named.iter().map(|text| text.parse().ok().filter(|version| *version > 0).ok_or_else(bad)).collect()
}

fn deletion(version: &Version) -> String {
    version.deleted_at.map_or_else(String::new, |at: Timestamp| at.to_string())
}

fn described(number: u64, version: &Version, custom: Option<&BTreeMap<String, String>>) -> serde_json::Value {
    json!({
        "created_time": version.created_at.to_string(),
        "custom_metadata": custom,
        "deletion_time": deletion(version),
        "destroyed": version.destroyed,
        "version": number,
    })
}

/// A version with its metadata.
fn shown(found: &Found) -> Result<Answer, VaultError> {
    let value = found.value.as_ref().map(|value| object(value)).transpose()?;
    let status = value.is_none().then_some(404);
    let told = json!({ "metadata": described(found.version, &found.state, found.custom.as_ref()) });
    // The value goes out as it came in, so its text is put beside what was written here.
    let metadata = told["metadata"].to_string();
    let data = value.map_or("null", RawValue::get);
    let text = format!("{{\"data\":{data},\"metadata\":{metadata}}}");
    let data = RawValue::from_string(text).map_err(|_| VaultError::Crypto("an answer cannot be written"))?;
    Ok(Answer::Data(Box::new(Reply { status, data: Some(data), ..Reply::default() })))
}

fn written(head: &Head) -> Result<Answer, VaultError> {
    let version = head.versions.get(&head.current).ok_or_else(nothing)?;
    Answer::data(&described(head.current, version, head.custom.as_ref()))
}

fn object(value: &[u8]) -> Result<&RawValue, VaultError> {
    serde_json::from_slice(value).map_err(|_| VaultError::Integrity("secret_version"))
}

/// RFC 7396: members of the patch replace, `null` removes, objects are merged.
fn merge(target: Option<&RawValue>, patch: &RawValue, depth: usize) -> Result<Box<RawValue>, VaultError> {
    let whole = |raw: &RawValue| serde_json::from_str::<Members>(raw.get()).ok();
    let Some(patch_members) = whole(patch).filter(|_| depth < DEPTH_MAX) else { return Ok(patch.to_owned()) };
    let mut members = target.and_then(whole).unwrap_or_default();
    for (name, value) in patch_members {
        if value.get() == "null" {
            members.remove(&name);
        } else {
            let merged = merge(members.get(&name).map(AsRef::as_ref), &value, depth + 1)?;
            members.insert(name, merged);
        }
    }
    serde_json::value::to_raw_value(&members).map_err(|_| VaultError::Crypto("an answer cannot be written"))
}

/// The names in a value, without what they name.
fn subkeys(value: &RawValue, depth: usize) -> serde_json::Value {
    match serde_json::from_str::<Members>(value.get()) {
        Ok(members) if depth > 0 && value.get().starts_with('{') => {
            members.iter().map(|(name, value)| (name.clone(), subkeys(value, depth - 1))).collect()
        }
        _ => serde_json::Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_merge_as_the_rfc_says() {
        for (target, patch, expected) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (
                r#"{"a":1.00000000000000000001}"#,
                r#"{"b":{"c":{"d":null}}}"#,
                r#"{"a":1.00000000000000000001,"b":{"c":{}}}"#,
            ),
        ] {
            let target: Box<RawValue> = serde_json::from_str(target).unwrap();
            let patch: Box<RawValue> = serde_json::from_str(patch).unwrap();
            assert_eq!(merge(Some(&target), &patch, 0).unwrap().get(), expected);
        }
    }

    #[test]
    fn subkeys_tell_names_only() {
        let value: Box<RawValue> = serde_json::from_str(r#"{"a":{"b":"hidden","c":[1]},"d":5}"#).unwrap();
        assert_eq!(subkeys(&value, 64), json!({ "a": { "b": null, "c": null }, "d": null }));
        assert_eq!(subkeys(&value, 1), json!({ "a": null, "d": null }));
    }
}
