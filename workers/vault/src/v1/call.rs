//! What is asked, whatever method and spelling a client has for it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::fault;
use crate::error::VaultError;
use crate::request::Act;
use crate::user::Source;

/// LIMIT: members of a body's object that are looked at.
const FIELDS_MAX: usize = 256;
/// LIMIT: entries of a list of words, bytes of each.
pub(super) const WORDS_MAX: usize = 64;
pub(super) const WORD_BYTES_MAX: usize = 256;

/// What a method means. PUT is POST, LIST is GET with `?list=true`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Read,
    List,
    Write,
    Patch,
    Delete,
}

/// The certificate of a service of our own trust domain.
#[derive(Debug, Clone)]
pub(super) struct Certified {
    pub(super) service: String,
    pub(super) serial: String,
}

/// A request.
pub(super) struct Call {
    pub(super) act: Act,
    pub(super) op: Op,
    /// Below `/v1/`, without a slash at its end.
    pub(super) path: String,
    pub(super) fields: Fields,
    /// The token as it came, unless another credential did.
    pub(super) token: Option<Zeroizing<String>>,
    /// `X-Vault-Wrap-TTL`, seconds.
    pub(super) wrap_s: Option<i64>,
    /// The client's certificate, where it is a service's.
    pub(super) certified: Option<Certified>,
    /// Where it comes from, for the lockout.
    pub(super) source: Source,
    /// Unseals or not, the query's parameters.
    pub(super) query: BTreeMap<String, String>,
}

#[cfg(test)]
impl Call {
    /// A write, as tests make it.
    pub(super) fn write(path: &str, body: &serde_json::Value, act: Act) -> Self {
        let fields = Fields::parse(body.to_string().as_bytes()).unwrap();
        let (path, source, query) = (path.to_owned(), Source::default(), BTreeMap::new());
        Self { act, op: Op::Write, path, fields, token: None, wrap_s: None, certified: None, source, query }
    }
}

/// The members of a body, as they were written.
#[derive(Clone, Default)]
pub(super) struct Fields(BTreeMap<String, Box<RawValue>>);

impl Call {
    /// Whether it reads or writes a row or two and is asked for often: then it needs no thread of its own.
    pub(super) fn is_brief(&self) -> bool {
        let (path, written) = (self.path.as_str(), self.op == Op::Write);
        let secret = path.starts_with("secret/data/") && (written || self.op == Op::Read);
        let token = ["auth/token/lookup-self", "auth/token/lookup"].contains(&path)
            && (written || self.op == Op::Read);
        let certificate = path.starts_with("pki/issue/") || path.starts_with("pki/sign/");
        self.wrap_s.is_none() && (secret || token || (certificate && written))
    }
}

impl Op {
    /// The verb in audit records.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::List => "list",
            Self::Write => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
        }
    }
}

impl Fields {
    /// Reads a body: an object, `null` or nothing.
    pub(super) fn parse(body: &[u8]) -> Result<Self, VaultError> {
        let body = body.trim_ascii();
        if body.is_empty() || body == b"null" {
            return Ok(Self::default());
        }
        let wrong =
            |error: &dyn std::fmt::Display| fault(400, format!("failed to parse JSON input: {error}"));
        sluice_wire::json::check(body).map_err(|error| wrong(&error))?;
        let members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_slice(body).map_err(|_| wrong(&"an object is expected"))?;
        if members.len() > FIELDS_MAX {
            return Err(fault(400, format!("a body has at most {FIELDS_MAX} members")));
        }
        Ok(Self(members))
    }

    /// Adds a query parameter, where the body does not say it.
    pub(super) fn add(&mut self, name: &str, text: &str) {
        if let Ok(raw) = serde_json::value::to_raw_value(text) {
            self.0.entry(name.to_owned()).or_insert(raw);
        }
    }

    /// A member as it was written; `null` is absence.
    pub(super) fn raw(&self, name: &str) -> Option<&RawValue> {
        self.0.get(name).map(AsRef::as_ref).filter(|raw| raw.get() != "null")
    }

    /// The whole object.
    pub(super) fn whole(&self) -> &BTreeMap<String, Box<RawValue>> {
        &self.0
    }

    /// A text; numbers and `true` stand for their own text.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, VaultError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        match serde_json::from_str::<Scalar>(raw.get()) {
            Ok(scalar) => Ok(Some(scalar.0)),
            Err(_) => Err(wrong(name, "a string")),
        }
    }

    /// A text that must be there.
    pub(super) fn needed(&self, name: &str) -> Result<String, VaultError> {
        let text = self.text(name)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| fault(400, format!("missing {name}")))
    }

    /// A whole number, also as a text.
    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, VaultError> {
        let Some(text) = self.text(name)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| wrong(name, "int"))
    }

    /// A truth, also as a text.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, VaultError> {
        match self.text(name)?.as_deref() {
            None | Some("") => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(wrong(name, "bool")),
        }
    }

    /// A time span in seconds: a number, or `1h30m`, `90s`, `7d`.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<i64>, VaultError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        seconds(&text).map(Some).ok_or_else(|| wrong(name, "a duration"))
    }

    /// Words: a list, or one text with commas.
    pub(super) fn words(&self, name: &str) -> Result<Option<Vec<String>>, VaultError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let words: Vec<String> = if let Ok(words) = serde_json::from_str::<Vec<Scalar>>(raw.get()) {
            words.into_iter().map(|word| word.0).collect()
        } else {
            let text = self.text(name)?.unwrap_or_default();
            text.split(',').map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
        };
        if words.len() > WORDS_MAX || words.iter().any(|word| word.len() > WORD_BYTES_MAX) {
            let bound = format!("a list of at most {WORDS_MAX} words of {WORD_BYTES_MAX} bytes");
            return Err(wrong(name, &bound));
        }
        Ok(Some(words))
    }

    /// Names and texts: an object, or its JSON as a text.
    pub(super) fn pairs(&self, name: &str) -> Result<Option<BTreeMap<String, String>>, VaultError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let inner = serde_json::from_str::<String>(raw.get());
        let text = inner.as_deref().unwrap_or_else(|_| raw.get());
        if text.is_empty() {
            return Ok(None);
        }
        sluice_wire::json::check(text.as_bytes()).map_err(|_| wrong(name, "a map"))?;
        let pairs: BTreeMap<String, Scalar> = serde_json::from_str(text).map_err(|_| wrong(name, "a map"))?;
        let long = |(key, value): (&String, &Scalar)| {
            key.len() > WORD_BYTES_MAX || value.0.len() > 2 * WORD_BYTES_MAX
        };
        if pairs.len() > WORDS_MAX || pairs.iter().any(long) {
            return Err(wrong(name, "a map of at most 64 keys of 256 bytes and values of 512"));
        }
        Ok(Some(pairs.into_iter().map(|(key, value)| (key, value.0)).collect()))
    }
}

fn wrong(name: &str, wanted: &str) -> VaultError {
    fault(
        400,
        format!("Field validation failed: error converting input for field \"{name}\": expected {wanted}"),
    )
}

/// A text, number or truth, as text.
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        if raw.starts_with('"') {
            return serde_json::from_str(raw).map(Self).map_err(serde::de::Error::custom);
        }
        if raw.starts_with(['{', '[']) || raw == "null" {
            return Err(serde::de::Error::custom("a scalar"));
        }
        Ok(Self(raw.to_owned()))
    }
}

/// Reads a time span: digits (seconds), or numbers with `s`, `m`, `h`, `d`; at most a hundred years.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let most = 100 * 365 * 86_400;
    let text = text.trim();
    if text.is_empty() {
        return Some(0);
    }
    let mut total: i64 = 0;
    let mut number: Option<i64> = None;
    for sign in text.chars() {
        if let Some(digit) = sign.to_digit(10) {
            number = Some(number.unwrap_or(0).checked_mul(10)?.checked_add(i64::from(digit))?);
            continue;
        }
        let unit = match sign {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    // A bare number is seconds; a number after a unit lacks its own.
    let total = if total == 0 {
        number.unwrap_or(0)
    } else if number.is_some() {
        return None;
    } else {
        total
    };
    (total <= most).then_some(total)
}

/// Seconds as Go writes a duration: `1h0m0s`.
pub(super) fn go_duration(seconds: i64) -> String {
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_clients_write_them() {
        for (text, expected) in [
            ("90", Some(90)),
            ("1h30m", Some(5_400)),
            ("10s", Some(10)),
            ("7d", Some(604_800)),
            ("", Some(0)),
            ("0s", Some(0)),
            ("1h5", None),
            ("h", None),
            ("-1", None),
            ("1.5h", None),
            ("99999999999999999999", None),
            ("40000d", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        assert_eq!(
            (go_duration(0), go_duration(90), go_duration(3_600)),
            ("0s".into(), "1m30s".into(), "1h0m0s".into())
        );
    }

    #[test]
    fn fields_take_what_both_clients_send_and_no_more() {
        let fields = Fields::parse(
            br#"{"n":"5","m":7,"w":"a, b","l":["x",1],"p":{"k":1},"q":"{\"k\":\"v\"}","f":"true","z":null}"#,
        )
        .unwrap();
        assert_eq!((fields.number("n").unwrap(), fields.number("m").unwrap()), (Some(5), Some(7)));
        assert_eq!(fields.words("w").unwrap().unwrap(), ["a", "b"]);
        assert_eq!(fields.words("l").unwrap().unwrap(), ["x", "1"]);
        assert_eq!(fields.pairs("p").unwrap().unwrap()["k"], "1");
        assert_eq!(fields.pairs("q").unwrap().unwrap()["k"], "v");
        assert_eq!((fields.flag("f").unwrap(), fields.text("z").unwrap()), (Some(true), None));
        assert!(fields.number("w").is_err() && fields.text("p").is_err() && fields.flag("m").is_err());
        for bad in ["[]", "1", "{", r#"{"a":1,"a":2}"#, r#"{"a":1}{}"#] {
            assert!(Fields::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        let many: Vec<_> = (0..65).collect();
        let long = serde_json::to_string(&BTreeMap::from([("l", many)])).unwrap();
        assert!(Fields::parse(long.as_bytes()).unwrap().words("l").is_err());
    }
}
