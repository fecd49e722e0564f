//! What a write brings and which versions a query means.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use sluice_wire::code::Code;
use sluice_wire::json;
use zeroize::Zeroizing;

use super::VERSIONS_DEFAULT;
use crate::error::VaultError;

/// What a write brings: the value as the client wrote it, and the version it expects to replace.
pub(crate) struct NewValue {
    pub(super) data: Zeroizing<Vec<u8>>,
    pub(super) cas: Option<u64>,
}

/// Version numbers in a query: `1` or `1,2,3`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionList(pub(super) Vec<u64>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    cas: Option<u64>,
}

/// Reads the body of a write: `{"data":{…}}` with an optional `cas` (also as `options.cas`), or the bare
/// object. An object that could be both is refused.
pub(crate) fn parse_body(body: &[u8]) -> Result<NewValue, VaultError> {
    let bad = |detail: &str| VaultError::invalid(Code::InvalidJson, detail);
    json::check(body).map_err(|error| bad(&error.to_string()))?;
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_slice(body).map_err(|_| bad("a secret is a JSON object"))?;
    let wrapped = members.get("data").filter(|data| is_object(data));
    let Some(data) = wrapped else {
        return Ok(NewValue { data: Zeroizing::new(body.trim_ascii().to_vec()), cas: None });
    };
    if members.keys().any(|name| !["data", "cas", "options"].contains(&name.as_str())) {
        return Err(bad(
            "an object with a `data` object has only `cas` and `options` beside it; wrap it in `data`",
        ));
    }
    let wrong_cas = |_| bad("`cas` is a version number, 0 for none yet");
    let beside = members.get("cas").map(|cas| serde_json::from_str::<u64>(cas.get())).transpose();
    let within =
        members.get("options").map(|options| serde_json::from_str::<Options>(options.get())).transpose();
    let within = within.map_err(wrong_cas)?.and_then(|options| options.cas);
    let cas = beside.map_err(wrong_cas)?.or(within);
    Ok(NewValue { data: Zeroizing::new(data.get().as_bytes().to_vec()), cas })
}

impl NewValue {
    /// The value's JSON text.
    pub(crate) fn text(&self) -> &[u8] {
        &self.data
    }

    /// The version it expects to replace.
    pub(crate) const fn cas(&self) -> Option<u64> {
        self.cas
    }

    /// An object's JSON text that was checked already.
    pub(crate) fn of_text(data: Vec<u8>, cas: Option<u64>) -> Self {
        Self { data: Zeroizing::new(data), cas }
    }

    /// The value of a call that names the path in its body.
    pub(crate) fn of_object(data: &RawValue, cas: Option<u64>) -> Result<Self, VaultError> {
        if !is_object(&data) {
            return Err(VaultError::invalid(Code::InvalidJson, "`data` is a JSON object"));
        }
        Ok(Self { data: Zeroizing::new(data.get().as_bytes().to_vec()), cas })
    }
}

fn is_object(value: &&RawValue) -> bool {
    value.get().starts_with('{')
}

impl VersionList {
    /// Reads a query's value: digits and commas only, no zero.
    pub(crate) fn parse(text: &str) -> Result<Self, VaultError> {
        let number = |digits: &str| {
            let plain = (1..=18).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
            if plain { digits.parse().ok().filter(|number| *number > 0) } else { None }
        };
        let versions: Option<Vec<u64>> = text.split(',').map(number).collect();
        versions.filter(|versions| versions.len() <= VERSIONS_DEFAULT).map(Self).ok_or_else(|| {
            VaultError::invalid(Code::BadQuery, "versions are numbers from 1, separated by commas")
        })
    }

    /// The one version of a read.
    pub(crate) fn one(text: &str) -> Result<u64, VaultError> {
        match Self::parse(text)?.0.as_slice() {
            [version] => Ok(*version),
            _ => Err(VaultError::invalid(Code::BadQuery, "version is one number from 1")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &str) -> Option<(String, Option<u64>)> {
        let value = parse_body(body.as_bytes()).ok()?;
        Some((String::from_utf8(value.data.to_vec()).unwrap(), value.cas))
    }

    #[test]
    fn body_is_wrapped_or_bare_and_never_ambiguous() {
        assert_eq!(parsed(r#"{"data":{"a":1}}"#), Some((r#"{"a":1}"#.into(), None)));
        assert_eq!(parsed(r#"{"data":{"a":1},"cas":3}"#), Some((r#"{"a":1}"#.into(), Some(3))));
        assert_eq!(parsed(r#"{"options":{"cas":0},"data":{}}"#), Some(("{}".into(), Some(0))));
        assert_eq!(parsed(r#"{"data":"text"}"#), Some((r#"{"data":"text"}"#.into(), None)));
        assert_eq!(parsed(r#" {"user":"u","pass":"p"} "#), Some((r#"{"user":"u","pass":"p"}"#.into(), None)));
        for bad in [
            r#"{"data":{"a":1},"user":"u"}"#,
            r#"{"data":{},"cas":-1}"#,
            r#"{"data":{},"cas":"1"}"#,
            r#"{"data":{},"options":{"cas":1,"x":2}}"#,
            r#"{"data":{},"data":{}}"#,
            r#"{"a":1,"a":2}"#,
            "[1]",
            "1",
            "",
            "{",
            "{}{}",
            r#"{"a":1e999}"#,
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn versions_are_plain_numbers_from_one() {
        assert_eq!(VersionList::parse("1,22").unwrap(), VersionList(vec![1, 22]));
        for bad in [
            "",
            "0",
            "-1",
            "+1",
            "1e3",
            "1,",
            ",1",
            "1 2",
            "9223372036854775808",
            "99999999999999999999",
            "1,2,3,4,5,6,7,8,9,10,11",
        ] {
            assert!(VersionList::parse(bad).is_err(), "{bad}");
        }
        assert!(VersionList::one("1,2").is_err());
    }
}
