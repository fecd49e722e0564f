//! Our own calls in the words of a KV engine, version 2. What is parsed from answers is pure.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Method;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::json;
use serde_json::value::RawValue;
use sluice_wire::code::Code;

use super::server::Told;
use super::{External, errors, unexpected};
use crate::error::VaultError;
use crate::path::SecretPath;
use crate::secret::rows::Version;
use crate::secret::{Fate, NewValue};

/// A value with its version. No Debug: it is a secret.
pub(crate) struct Read {
    pub(crate) data: Box<RawValue>,
    pub(crate) version: u64,
    pub(crate) created_at: Timestamp,
}

/// The history of a secret.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) current_version: u64,
    pub(crate) created_time: Timestamp,
    pub(crate) updated_time: Timestamp,
    /// 0: what the mount says.
    #[serde(default)]
    pub(crate) max_versions: usize,
    #[serde(default)]
    versions: BTreeMap<u64, State>,
}

#[derive(Debug, Deserialize)]
struct State {
    #[serde(default)]
    version: u64,
    created_time: Timestamp,
    #[serde(default, deserialize_with = "time_or_none")]
    deletion_time: Option<Timestamp>,
    #[serde(default)]
    destroyed: bool,
}

#[derive(Deserialize)]
struct Envelope<T> {
    data: Option<T>,
}

#[derive(Deserialize)]
struct Value {
    data: Option<Box<RawValue>>,
    metadata: State,
}

#[derive(Deserialize)]
struct Keys {
    #[serde(default)]
    keys: Vec<String>,
}

impl External {
    /// Writes the next version; its number and time. `cas` means what it means there: 0 is a secret that has no
    /// version at all.
    pub(crate) fn write(&self, path: &SecretPath, value: &NewValue) -> Result<(u64, Timestamp), VaultError> {
        let told = self.ask(Method::POST, &format!("data/{path}"), Some(body_of(value)))?;
        let state: State = data(&told)?.ok_or_else(unexpected)?;
        Ok((state.version, state.created_time))
    }

    /// A version, the current one when none is named; `None`: there is none.
    pub(crate) fn read(&self, path: &SecretPath, version: Option<u64>) -> Result<Option<Read>, VaultError> {
        let query = version.map(|version| format!("?version={version}")).unwrap_or_default();
        read(&self.ask(Method::GET, &format!("data/{path}{query}"), None)?)
    }

    /// What is known of a secret but its values.
    pub(crate) fn metadata(&self, path: &SecretPath) -> Result<Option<Metadata>, VaultError> {
        data(&self.ask(Method::GET, &format!("metadata/{path}"), None)?)
    }

    /// Changes versions, the current one when none is named; those it was. The versions are looked at first and then
    /// named: what is written in between is not touched.
    pub(crate) fn change(
        &self,
        path: &SecretPath,
        versions: Option<Vec<u64>>,
        fate: Fate,
    ) -> Result<Option<Vec<u64>>, VaultError> {
        let Some(metadata) = self.metadata(path)? else { return Ok(None) };
        let versions = versions.unwrap_or_else(|| vec![metadata.current_version]);
        for version in &versions {
            match metadata.versions.get(version) {
                None => return Ok(None),
                Some(state) if state.destroyed && fate != Fate::Destroy => {
                    return Err(VaultError::invalid(
                        Code::Conflict,
                        format!("version {version} was destroyed"),
                    ));
                }
                Some(_) => {}
            }
        }
        let word = match fate {
            Fate::Delete => "delete",
            Fate::Undelete => "undelete",
            Fate::Destroy => "destroy",
        };
        let body = json!({ "versions": versions }).to_string();
        let told = self.ask(Method::POST, &format!("{word}/{path}"), Some(body.into()))?;
        if told.status == 204 { Ok(Some(versions)) } else { Err(refused(&told)) }
    }

    /// Every name directly below a path, in order.
    pub(crate) fn names(&self, path: Option<&SecretPath>) -> Result<Vec<String>, VaultError> {
        let below = path.map_or_else(|| "metadata/".to_owned(), |path| format!("metadata/{path}/"));
        let keys: Option<Keys> = data(&self.ask(Method::GET, &format!("{below}?list=true"), None)?)?;
        let mut names = keys.map(|keys| keys.keys).unwrap_or_default();
        names.sort_unstable();
        Ok(names)
    }
}

impl Metadata {
    /// Its versions as we tell them.
    pub(crate) fn versions(&self) -> BTreeMap<u64, Version> {
        let told = |state: &State| Version {
            created_at: state.created_time,
            deleted_at: state.deletion_time,
            destroyed: state.destroyed,
        };
        self.versions.iter().map(|(number, state)| (*number, told(state))).collect()
    }
}

/// `{"data":…,"options":{"cas":…}}`, the value as the client wrote it.
fn body_of(value: &NewValue) -> Bytes {
    let options = value.cas().map(|cas| format!(",\"options\":{{\"cas\":{cas}}}")).unwrap_or_default();
    [&b"{\"data\":"[..], value.text(), options.as_bytes(), b"}"].concat().into()
}

/// A read's answer. Deleted and destroyed versions are 404 with what is known of them.
fn read(told: &Told) -> Result<Option<Read>, VaultError> {
    let Some(found) = data::<Value>(told)? else { return Ok(None) };
    let State { version, created_time, destroyed, .. } = found.metadata;
    match found.data {
        Some(data) if told.status == 200 => Ok(Some(Read { data, version, created_at: created_time })),
        _ => {
            let fate = if destroyed { "destroyed" } else { "deleted" };
            Err(VaultError::NotFound(format!("version {version} was {fate}")))
        }
    }
}

/// The `data` of an answer; `None`: there is no such thing.
fn data<T: DeserializeOwned>(told: &Told) -> Result<Option<T>, VaultError> {
    match told.status {
        200 | 404 => match serde_json::from_slice::<Envelope<T>>(&told.body) {
            Ok(Envelope { data: Some(data) }) => Ok(Some(data)),
            // Some 404 have no body at all.
            _ if told.status == 404 => Ok(None),
            _ => Err(unexpected()),
        },
        400 => Err(refused(told)),
        _ => Err(unexpected()),
    }
}

/// A 400 in our words; its own text may repeat what was sent and is not handed on.
fn refused(told: &Told) -> VaultError {
    let errors = errors(&told.body);
    let says = |text: &str| errors.iter().any(|error| error.contains(text));
    if says("did not match the current version") {
        VaultError::invalid(Code::VersionConflict, "cas does not match the current version")
    } else if says("check-and-set parameter required") {
        VaultError::invalid(Code::BadRequest, "check-and-set parameter required for this call")
    } else {
        VaultError::invalid(Code::BadRequest, "the external vault refuses this call")
    }
}

fn time_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn told(status: u16, body: &str) -> Told {
        Told { status, body: Zeroizing::new(body.as_bytes().to_vec()) }
    }

    const STATE: &str = r#""metadata":{"created_time":"2026-11-22T10:00:00.123456789Z","custom_metadata":null,"deletion_time":"","destroyed":false,"version":3}"#;

    #[test]
    fn values_come_back_as_they_were_written() {
        let body = format!(r#"{{"request_id":"x","data":{{"data":{{"n":1.50,"e":1e2}},{STATE}}}}}"#);
        let found = read(&told(200, &body)).unwrap().unwrap();
        assert_eq!((found.data.get(), found.version), (r#"{"n":1.50,"e":1e2}"#, 3));
        assert_eq!(found.created_at.to_string(), "2026-11-22T10:00:00.123456789Z");
    }

    #[test]
    fn what_is_not_there_is_told_from_what_went_away() {
        assert!(read(&told(404, r#"{"errors":[]}"#)).unwrap().is_none());
        assert!(read(&told(404, "")).unwrap().is_none());
        for (from, to, fate) in [
            (r#""deletion_time":"""#, r#""deletion_time":"2026-11-22T11:00:00Z""#, "deleted"),
            (r#""destroyed":false"#, r#""destroyed":true"#, "destroyed"),
        ] {
            let body = format!(r#"{{"data":{{"data":null,{}}}}}"#, STATE.replace(from, to));
            let Err(VaultError::NotFound(text)) = read(&told(404, &body)) else { panic!("{body}") };
            assert_eq!(text, format!("version 3 was {fate}"));
        }
        for odd in ["", "{}", "[]", r#"{"data":null}"#, r#"{"data":{"data":{}}}"#, "<html>"] {
            assert!(matches!(read(&told(200, odd)), Err(VaultError::Later(..))), "{odd}");
        }
    }

    #[test]
    fn a_history_is_read_whole() {
        let body = r#"{"data":{"created_time":"2026-11-22T10:00:00Z","updated_time":"2026-11-22T11:00:00Z","current_version":2,
            "max_versions":0,"versions":{"1":{"created_time":"2026-11-22T10:00:00Z","deletion_time":"2026-11-22T10:30:00Z","destroyed":true},
            "2":{"created_time":"2026-11-22T11:00:00Z","deletion_time":"","destroyed":false}}}}"#;
        let metadata: Metadata = data(&told(200, body)).unwrap().unwrap();
        let versions = metadata.versions();
        assert_eq!((metadata.current_version, versions.len()), (2, 2));
        assert!(
            versions[&1].destroyed && versions[&1].deleted_at.is_some() && versions[&2].deleted_at.is_none()
        );
    }

    #[test]
    fn refusals_are_in_our_words() {
        let code = |text: &str| match refused(&told(400, &json!({ "errors": [text] }).to_string())) {
            VaultError::Invalid(code, text) => (code, text),
            other => panic!("{other}"),
        };
        assert_eq!(
            code("check-and-set parameter did not match the current version").0,
            Code::VersionConflict
        );
        assert_eq!(code("check-and-set parameter required for this call").0, Code::BadRequest);
        assert!(!code("cannot parse hunter2").1.contains("hunter2"));
    }
}
