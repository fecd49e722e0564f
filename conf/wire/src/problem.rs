//! Error bodies: `application/problem+json` (RFC 9457).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::code::Code;

/// Content type of a problem body.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What stands below it in a path is a secret: Falco sends no header, so its alerts come by a path that nobody guesses,
/// and show it to the edge where they are sent to the wrong port.
const SECRET_BELOW: &str = "/falco/alerts/";

/// A path as it may be shown and logged: Falco's secret in it is `***`.
pub fn without_secret(path: &str) -> Cow<'_, str> {
    match path.strip_prefix(SECRET_BELOW) {
        Some(secret) if !secret.is_empty() => Cow::Owned(format!("{SECRET_BELOW}***")),
        _ => Cow::Borrowed(path),
    }
}

/// What became of a request that is not idempotent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// No byte reached an upstream.
    NotSent,
    /// An upstream refused it.
    Rejected,
    /// It may or may not have been executed.
    Unknown,
}

impl Outcome {
    /// The word on the wire.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotSent => "not_sent",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
        }
    }
}

/// One error answer. `detail` is public text: no addresses, no paths of files, no causes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Machine word, status and title.
    pub code: Code,
    /// What was wrong with this request, for the client's eyes.
    pub detail: Option<String>,
    /// The request path.
    pub instance: Option<String>,
    /// Correlates the answer with the logs.
    pub request_id: Option<String>,
    /// For methods that are not idempotent: whether anything was executed.
    pub outcome: Option<Outcome>,
    /// Zero-based index of the faulty element of a batch or series.
    pub index: Option<usize>,
    /// JSON pointer to the faulty member.
    pub pointer: Option<String>,
    /// Seconds after which a repeat makes sense.
    pub retry_after_s: Option<u64>,
    /// The status, where it is not that of the code.
    told_status: Option<u16>,
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
}

impl Problem {
    /// A problem with nothing but its code.
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            detail: None,
            instance: None,
            request_id: None,
            outcome: None,
            index: None,
            pointer: None,
            retry_after_s: None,
            told_status: None,
        }
    }

    /// Says what was wrong; at most 512 characters are kept.
    #[must_use]
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        let mut text = text.into();
        if text.chars().count() > 512 {
            text = text.chars().take(512).collect();
        }
        self.detail = Some(text);
        self
    }

    /// Names the request path, without what is a secret in it: who logs the answer has not got it then.
    #[must_use]
    pub fn instance(mut self, path: &str) -> Self {
        self.instance = Some(without_secret(path).into_owned());
        self
    }

    /// Names the request.
    #[must_use]
    pub fn request_id(mut self, id: impl Into<String>) -> Self {
        self.request_id = Some(id.into());
        self
    }

    /// Says what became of a request that is not idempotent.
    #[must_use]
    pub const fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
        self
    }

    /// Points at the faulty element of a batch or series.
    #[must_use]
    pub const fn index(mut self, index: usize) -> Self {
        self.index = Some(index);
        self
    }

    /// Points at the faulty member.
    #[must_use]
    pub fn pointer(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// Says when a repeat makes sense; becomes the `Retry-After` header.
    #[must_use]
    pub const fn retry_after_s(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// With another status than that of its code: the one an earlier request was answered with.
    #[must_use]
    pub const fn with_status(mut self, status: u16) -> Self {
        self.told_status = Some(status);
        self
    }

    /// The HTTP status.
    pub const fn status(&self) -> u16 {
        match self.told_status {
            Some(status) => status,
            None => self.code.status(),
        }
    }

    /// The body.
    pub fn to_json(&self) -> Vec<u8> {
        let body = Body {
            r#type: format!("urn:sluice:problem:{}", self.code.word()),
            title: self.code.title(),
            status: self.status(),
            code: self.code.word(),
            detail: self.detail.as_deref(),
            instance: self.instance.as_deref(),
            request_id: self.request_id.as_deref(),
            outcome: self.outcome,
            index: self.index,
            pointer: self.pointer.as_deref(),
        };
        serde_json::to_vec(&body).expect("a struct of strings and numbers always serializes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_carries_code_status_and_request() {
        let body = Problem::new(Code::BreakerOpen).detail("x\"y").request_id("r1").outcome(Outcome::NotSent);
        let value: serde_json::Value = serde_json::from_slice(&body.to_json()).unwrap();
        assert_eq!(value["type"], "urn:sluice:problem:breaker_open");
        assert_eq!(value["status"], 503);
        assert_eq!(value["code"], "breaker_open");
        assert_eq!(value["detail"], "x\"y");
        assert_eq!(value["outcome"], "not_sent");
        for outcome in [Outcome::NotSent, Outcome::Rejected, Outcome::Unknown] {
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.word());
        }
        assert!(value.get("index").is_none());
    }

    #[test]
    fn detail_is_bounded() {
        let body = Problem::new(Code::BadRequest).detail("é".repeat(10_000));
        assert_eq!(body.detail.unwrap().chars().count(), 512);
    }
}
