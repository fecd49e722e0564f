//! What an OAuth client is told: `{"error", "error_description"}` with the statuses of the RFCs.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use sluice_http::Reject;
use sluice_wire::code::Code;

use crate::error::VaultError;

/// A refused or failed OAuth request.
#[derive(Debug)]
pub(super) enum OauthError {
    /// One of the RFCs' words, and a text.
    Told(Word, String),
    /// The vault's own trouble.
    Vault(VaultError),
    /// The outer layers' refusal: too large, too slow, too many.
    Refused(Reject),
}

/// The words of RFC 6749, section 5.2, and RFC 8693, section 2.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    InvalidRequest,
    InvalidClient,
    InvalidGrant,
    UnauthorizedClient,
    UnsupportedGrantType,
    InvalidScope,
    InvalidTarget,
}

impl Word {
    const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::InvalidGrant => "invalid_grant",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    error_description: &'a str,
}

impl OauthError {
    pub(super) fn new(word: Word, text: impl Into<String>) -> Self {
        Self::Told(word, text.into())
    }

    pub(super) fn request(text: impl Into<String>) -> Self {
        Self::new(Word::InvalidRequest, text)
    }

    /// One text for every reason: it tells no attacker how close a guess was.
    pub(super) fn client() -> Self {
        Self::new(Word::InvalidClient, "client authentication failed")
    }

    /// Whether policy, not circumstance, stopped it.
    pub(super) fn is_denial(&self) -> bool {
        match self {
            Self::Told(word, _) => *word != Word::InvalidRequest,
            Self::Vault(error) => error.is_denial(),
            Self::Refused(_) => false,
        }
    }
}

impl From<VaultError> for OauthError {
    fn from(error: VaultError) -> Self {
        Self::Vault(error)
    }
}

impl From<Reject> for OauthError {
    fn from(reject: Reject) -> Self {
        Self::Refused(reject)
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let (status, word, text, retry) = match self {
            // RFC 6749, 5.2: 401 and a challenge where the client failed to say who it is.
            Self::Told(word @ Word::InvalidClient, text) => (401, word.as_str(), text, None),
            Self::Told(word, text) => (400, word.as_str(), text, None),
            Self::Vault(error) => told(Reject::from(error)),
            Self::Refused(reject) => told(reject),
        };
        let body = Body { error: word, error_description: &printable(&text) };
        let body = serde_json::to_vec(&body).expect("two strings always serialise");
        let mut response = Response::new(body.into());
        *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == 401 {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"sluice\""));
        }
        if let Some(seconds) = retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A problem of the vault in the words of OAuth; its status stays.
fn told(reject: Reject) -> (u16, &'static str, String, Option<u64>) {
    let problem = reject.problem();
    // What was good when it was looked at and is not any more: the grant, in OAuth's words.
    if matches!(problem.code, Code::Conflict | Code::InvalidToken) {
        let text = problem.detail.clone().unwrap_or_default();
        return (400, Word::InvalidGrant.as_str(), text, None);
    }
    if problem.code == Code::Forbidden {
        let text = problem.detail.clone().unwrap_or_default();
        return (400, Word::UnauthorizedClient.as_str(), text, None);
    }
    let word = match problem.status() {
        429 | 500.. => "temporarily_unavailable",
        _ => "invalid_request",
    };
    let text = problem.detail.clone().unwrap_or_else(|| problem.code.title().to_owned());
    (problem.status(), word, text, problem.retry_after_s)
}

/// RFC 6749, 5.2: a description is printable ASCII without quote and backslash.
fn printable(text: &str) -> String {
    let plain = |c: char| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '\'' };
    text.chars().take(256).map(plain).collect()
}
