//! Forms and Basic credentials as RFC 6749 has them, strictly: a parameter that stands twice is an error
//! (section 3.2), one that nobody asked for is passed over.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, header};

use super::error::OauthError;

/// LIMIT: a form, bytes; a token has at most 8 KiB and there are two in an exchange.
pub(super) const FORM_BYTES_MAX: usize = 32 * 1024;
/// LIMIT: parameters of a form.
const PARAMETERS_MAX: usize = 32;

/// A form's parameters; those without a value count as left out (RFC 6749, 3.1).
#[derive(Debug, Default)]
pub(super) struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a body of `application/x-www-form-urlencoded`.
    pub(super) fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Self, OauthError> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let essence = kind.split(';').next().unwrap_or("").trim();
        if !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Err(OauthError::request("the body is a form: application/x-www-form-urlencoded"));
        }
        let text = std::str::from_utf8(body).map_err(|_| OauthError::request("the form is not UTF-8"))?;
        let mut form = BTreeMap::new();
        for (count, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
            if count >= PARAMETERS_MAX {
                return Err(OauthError::request("the form has more than 32 parameters"));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = decode(name).zip(decode(value));
            let (name, value) = decoded.ok_or_else(|| OauthError::request("the form is not well encoded"))?;
            if form.insert(name, value).is_some() {
                return Err(OauthError::request("a parameter stands twice"));
            }
        }
        form.retain(|_, value| !value.is_empty());
        Ok(Self(form))
    }

    /// A parameter that was given.
    pub(super) fn find(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A parameter that must be given.
    pub(super) fn need(&self, name: &'static str) -> Result<&str, OauthError> {
        self.find(name).ok_or_else(|| OauthError::request(format!("parameter `{name}` is missing")))
    }
}

/// `+` and `%XX` undone; `None` where an escape is none, or what comes of it is no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                ((digit(rest.next())? << 4) | digit(rest.next())?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

/// What a Basic credential says: a client and its secret.
pub(super) fn basic(headers: &HeaderMap) -> Result<Option<(String, String)>, OauthError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(OauthError::request("more than one Authorization header"));
    }
    let text = value.to_str().ok().and_then(|text| text.split_once(' '));
    let encoded =
        text.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("basic")).map(|(_, rest)| rest.trim());
    let pair = encoded.and_then(|encoded| STANDARD.decode(encoded).ok());
    let pair = pair.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(OauthError::client)?;
    let (id, secret) = pair.split_once(':').ok_or_else(OauthError::client)?;
    // RFC 6749, 2.3.1: both were form-encoded first. Our own ids and secrets look the same either way.
    decode(id).zip(decode(secret)).map(Some).ok_or_else(OauthError::client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn form(body: &str) -> Result<Form, OauthError> {
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8");
        headers.insert(header::CONTENT_TYPE, kind);
        Form::parse(&headers, body.as_bytes())
    }

    fn told(authorization: &[&str]) -> Result<Option<(String, String)>, OauthError> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        basic(&headers)
    }

    #[test]
    fn parameters_stand_once_and_empty_ones_not_at_all() {
        let read = form("grant_type=client_credentials&scope=a+b%3Ac&empty=&&x").unwrap();
        assert_eq!(read.find("scope"), Some("a b:c"));
        assert!(read.find("empty").is_none() && read.find("x").is_none() && read.need("empty").is_err());
        for bad in ["a=1&a=2", "a=&a=2", "a=%", "a=%4", "a=%zz", "a=%+1", "a=%ff", &"a&".repeat(40)] {
            assert!(form(bad).is_err(), "{bad}");
        }
        assert!(Form::parse(&HeaderMap::new(), b"a=1").is_err(), "another content type");
    }

    #[test]
    fn basic_credentials_are_one_pair() {
        let pair = |text: &str| format!("Basic {}", STANDARD.encode(text));
        let bot = Some(("bot".to_owned(), "s:3 c".to_owned()));
        assert_eq!(told(&[&pair("bot:s%3A3+c")]).unwrap(), bot);
        assert_eq!(told(&[&pair("bot:s:3 c").replace("Basic", "bASIC")]).unwrap(), bot);
        assert!(told(&[]).unwrap().is_none());
        for bad in [pair("nocolon"), "Basic !!".into(), "Basic".into(), "Bearer x".into(), pair("a%:b")] {
            assert!(told(&[&bad]).is_err(), "{bad}");
        }
        assert!(told(&[&pair("a:b"), &pair("a:b")]).is_err());
    }

    proptest! {
        #[test]
        fn nothing_panics_and_encoded_text_comes_back(text in "\\PC{0,60}", noise in "[%+a-f0-9&=]{0,80}") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(decode(&encoded), Some(text));
            drop(form(&noise));
        }
    }
}
