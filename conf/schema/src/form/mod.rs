//! The form of every text value: names, prefixes, hosts, headers, addresses, references.

mod http;
mod name;
mod net;
mod shape;
mod tls;
mod worker;

use thiserror::Error;

pub(crate) use http::{
    HASH_ON, HEADER_NAME, HEADER_VALUE, HEALTH_PATH, HEDGE, MATCH_NAME, MATCH_VALUE, METHOD, RATE_KEY,
    RETRY_CAUSE, SYMBOL_HEADER,
};
pub(crate) use name::{HOST, NAME, PERMISSION, PREFIX, ROLE_NAME, SERVICE_NAME, WILD_HOST, ZONE};
pub(crate) use net::{ADDRESS, COLLECTOR, EVENTS_URL, NETWORK, REDIS_URL, URL, VAULT_URL};
pub(crate) use shape::{BODY, MIRROR, ORIGIN, PATTERN, REPLACEMENT};
pub(crate) use tls::{AUTHORITY, CERTIFICATE_FILE, SERVER_NAME, TLS_NAME};
pub(crate) use worker::{
    ACCESS, AUDIENCE, FSYNC, ISSUER, MOUNT, NOTIFY_URL, NotifyUrl, PATH, SEAL, SECRET, STREAM, SecretRef,
    TIMEFRAME, TRUST_DOMAIN,
};

use crate::kind::Text;

/// A text from outside the files, such as a registration's name, that has not the form its key asks for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct FormError {
    /// Stable number, such as `E0210`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// A service name, `[A-Za-z0-9][A-Za-z0-9_.-]{0,63}`.
///
/// # Errors
/// The text has not that form.
pub fn service_name(text: &str) -> Result<String, FormError> {
    checked(&SERVICE_NAME, text)
}

/// A path prefix a service may have: absolute, normal, not reserved.
///
/// # Errors
/// The text has not that form, or lies at or below a reserved prefix.
pub fn service_prefix(text: &str) -> Result<String, FormError> {
    // Only a file can leave it out, for a service that another one names.
    checked(&PREFIX, if text.is_empty() { " " } else { text })
}

/// The path of a health probe: absolute, without query.
///
/// # Errors
/// The text has not that form.
pub fn health_path(text: &str) -> Result<String, FormError> {
    checked(&HEALTH_PATH, text)
}

/// A duration such as `250ms`, `60s` or `1h30m`.
///
/// # Errors
/// The text is none.
pub fn duration(text: &str) -> Result<std::time::Duration, FormError> {
    crate::kind::parse_duration(text).ok_or_else(|| FormError {
        code: crate::Code::Duration.number(),
        message: format!("{} is not a duration", crate::report::quote(text)),
        help: Some("write a number with its unit, such as \"60s\"".to_owned()),
    })
}

fn checked<T>(form: &Text<T>, text: &str) -> Result<T, FormError> {
    (form.parse)(text).map_err(|wrong| FormError {
        code: wrong.code.unwrap_or(form.code).number(),
        message: wrong.message,
        help: wrong.help,
    })
}
