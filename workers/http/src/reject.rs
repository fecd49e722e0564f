//! Answers that refuse.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use sluice_wire::code::Code;
use sluice_wire::problem::{self, Problem};

/// A problem on its way out, with headers that belong to it. The outer layer adds path and
/// request id.
#[derive(Debug, Clone)]
pub struct Reject {
    problem: Box<Problem>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Reject {
    /// Refuses with a code and a public text.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Problem::new(code).detail(detail).into()
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// 401 as RFC 6750 words it. The text is the same for every reason: it tells no attacker how
    /// close a guess was.
    pub fn unauthenticated() -> Self {
        Self::new(Code::InvalidToken, "a valid bearer token is required")
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""))
    }

    /// 403 as RFC 6750 words it.
    pub fn lacking(permission: &str) -> Self {
        let reject = Self::new(Code::InsufficientScope, format!("permission `{permission}` is required"));
        match HeaderValue::from_str(&format!("Bearer error=\"insufficient_scope\", scope=\"{permission}\"")) {
            Ok(value) => reject.header(header::WWW_AUTHENTICATE, value),
            Err(_) => reject,
        }
    }

    /// The problem.
    pub fn problem(&self) -> &Problem {
        &self.problem
    }
}

impl From<Problem> for Reject {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), headers: Vec::new() }
    }
}

impl IntoResponse for Reject {
    fn into_response(self) -> Response {
        let mut response = render(&self.problem);
        for (name, value) in self.headers {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(self.problem);
        response
    }
}

/// The answer of a problem as it stands.
pub(crate) fn render(problem: &Problem) -> Response {
    let mut response = Response::new(Body::from(problem.to_json()));
    *response.status_mut() =
        StatusCode::from_u16(problem.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(problem::CONTENT_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(seconds) = problem.retry_after_s {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
    }
    response
}
