//! Calls of `/v1/secret/…` as they are handed on: the same KV engine stands at both ends.

use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{External, unexpected};
use crate::error::VaultError;
use crate::path::SecretPath;

/// A call, checked and written anew: nothing of the client's spelling goes out.
pub(crate) struct Pass {
    pub(crate) method: Method,
    /// Below the mount, without query.
    pub(crate) below: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Option<Vec<u8>>,
}

/// What came back.
pub(crate) struct Passed {
    pub(crate) status: u16,
    pub(crate) data: Option<Box<RawValue>>,
    pub(crate) warnings: Vec<String>,
    pub(crate) errors: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Envelope {
    data: Option<Box<RawValue>>,
    warnings: Option<Vec<String>>,
    errors: Option<Vec<String>>,
}

impl External {
    /// Hands a call on.
    pub(crate) fn pass(&self, pass: Pass) -> Result<Passed, VaultError> {
        let query: Vec<String> =
            pass.query.iter().map(|(name, text)| format!("{name}={}", escaped(text))).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let below = format!("{}{mark}{}", pass.below, query.join("&"));
        let told = self.ask(pass.method, &below, pass.body.map(Into::into))?;
        let Envelope { data, warnings, errors } = if told.body.trim_ascii().is_empty() {
            Envelope::default()
        } else {
            serde_json::from_slice(&told.body).map_err(|_| unexpected())?
        };
        let (warnings, errors) = (warnings.unwrap_or_default(), errors.unwrap_or_default());
        let data = data.filter(|data| data.get() != "null");
        Ok(Passed { status: told.status, data, warnings, errors })
    }

    /// Whether there is anything at a path: whether a write would change it.
    pub(crate) fn exists(&self, path: &SecretPath) -> Result<bool, VaultError> {
        Ok(self.metadata(path)?.is_some())
    }
}

/// Percent-escapes every byte that is not a letter, a digit or one of `-._~`.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_query_makes_another_call_of_it() {
        assert_eq!(escaped("a-b_c.d~9"), "a-b_c.d~9");
        assert_eq!(escaped("a&list=true#/../ ä\r\n"), "a%26list%3Dtrue%23%2F..%2F%20%C3%A4%0D%0A");
    }
}
