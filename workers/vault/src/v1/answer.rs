//! What is answered, before it is HTTP.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::error::VaultError;

/// An answer.
pub(super) enum Answer {
    /// 204.
    Nothing,
    /// The envelope.
    Data(Box<Reply>),
    /// An object of its own, with its status.
    Bare(u16, Value),
    /// JSON as it was written before.
    Text(Vec<u8>),
    /// Not JSON.
    Raw(&'static str, Vec<u8>),
    /// One of the others, once it may be told. Only what [`Call::is_brief`](super::call::Call::is_brief) comes to this.
    Later(BoxFuture<'static, Result<Answer, VaultError>>),
}

/// What the envelope carries.
#[derive(Default)]
pub(super) struct Reply {
    pub(super) status: Option<u16>,
    pub(super) data: Option<Box<RawValue>>,
    /// Whether the members of `data` stand beside the envelope too, as in the oldest calls.
    pub(super) flat: bool,
    pub(super) auth: Option<Auth>,
    pub(super) wrap_info: Option<WrapInfo>,
    pub(super) warnings: Vec<String>,
}

/// A new or renewed token.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Auth {
    pub(super) client_token: String,
    pub(super) accessor: String,
    pub(super) policies: Vec<String>,
    pub(super) token_policies: Vec<String>,
    pub(super) metadata: Option<BTreeMap<String, String>>,
    pub(super) lease_duration: i64,
    pub(super) renewable: bool,
    pub(super) entity_id: String,
    pub(super) token_type: &'static str,
    pub(super) orphan: bool,
    pub(super) mfa_requirement: Option<()>,
    pub(super) num_uses: u32,
}

/// Where an answer was put aside.
#[derive(Debug, Clone, Serialize)]
pub(super) struct WrapInfo {
    pub(super) token: String,
    pub(super) accessor: String,
    pub(super) ttl: i64,
    pub(super) creation_time: String,
    pub(super) creation_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) wrapped_accessor: Option<String>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    request_id: &'a str,
    lease_id: &'a str,
    renewable: bool,
    lease_duration: i64,
    data: Option<&'a RawValue>,
    wrap_info: Option<&'a WrapInfo>,
    warnings: Option<&'a [String]>,
    auth: Option<&'a Auth>,
}

/// What an answer looks like on the wire: status, type, body.
pub(super) type Wire = (u16, &'static str, Vec<u8>);

impl Answer {
    /// An answer with data.
    pub(super) fn data(data: &impl Serialize) -> Result<Self, VaultError> {
        Ok(Self::Data(Box::new(Reply { data: Some(raw(data)?), ..Reply::default() })))
    }

    /// The same, its members also beside the envelope.
    pub(super) fn flat(data: &impl Serialize) -> Result<Self, VaultError> {
        Ok(Self::Data(Box::new(Reply { data: Some(raw(data)?), flat: true, ..Reply::default() })))
    }

    /// A token.
    pub(super) fn auth(auth: Auth) -> Self {
        Self::Data(Box::new(Reply { auth: Some(auth), ..Reply::default() }))
    }

    /// Nothing but a warning.
    pub(super) fn warning(text: impl Into<String>) -> Self {
        Self::Data(Box::new(Reply { warnings: vec![text.into()], ..Reply::default() }))
    }

    /// Adds a warning.
    pub(super) fn warn(mut self, text: impl Into<String>) -> Self {
        if let Self::Data(reply) = &mut self {
            reply.warnings.push(text.into());
        }
        self
    }

    /// Names of a listing; an empty one is 404.
    pub(super) fn keys(keys: &[String]) -> Result<Self, VaultError> {
        if keys.is_empty() {
            return Err(super::nothing());
        }
        Self::data(&serde_json::json!({ "keys": keys }))
    }

    pub(super) fn wire(self, request_id: &str) -> Wire {
        match self {
            Self::Nothing => (204, JSON, Vec::new()),
            Self::Bare(status, value) => (status, JSON, line(&value)),
            Self::Text(body) => (200, JSON, body),
            Self::Raw(content_type, body) => (200, content_type, body),
            Self::Data(reply) => (reply.status.unwrap_or(200), JSON, reply.body(request_id)),
            // Not reached: it was waited for.
            Self::Later(_) => refusal(500, &["internal error"]),
        }
    }
}

impl Reply {
    /// The envelope's text.
    pub(super) fn body(&self, request_id: &str) -> Vec<u8> {
        let envelope = Envelope {
            request_id: if self.wrap_info.is_some() { "" } else { request_id },
            lease_id: "",
            renewable: false,
            lease_duration: 0,
            data: self.data.as_deref(),
            wrap_info: self.wrap_info.as_ref(),
            warnings: (!self.warnings.is_empty()).then_some(self.warnings.as_slice()),
            auth: self.auth.as_ref(),
        };
        let mut body = line(&envelope);
        if let Some(inner) = self.data.as_deref().filter(|_| self.flat).and_then(|data| inner(data.get())) {
            body.splice(1..1, [inner, b","].concat());
        }
        body
    }
}

const JSON: &str = "application/json";

/// The members of an object's text.
fn inner(object: &str) -> Option<&[u8]> {
    let inner = object.trim().strip_prefix('{')?.strip_suffix('}')?;
    (!inner.trim().is_empty()).then_some(inner.as_bytes())
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut body = serde_json::to_vec(value).expect("answers are plain structs");
    body.push(b'\n');
    body
}

fn raw(data: &impl Serialize) -> Result<Box<RawValue>, VaultError> {
    serde_json::value::to_raw_value(data).map_err(|_| VaultError::Crypto("an answer cannot be written"))
}

/// A refusal on the wire.
pub(super) fn refusal(status: u16, texts: &[&str]) -> Wire {
    let texts: Vec<_> = texts.iter().filter(|text| !text.is_empty()).collect();
    (status, JSON, line(&serde_json::json!({ "errors": texts })))
}
