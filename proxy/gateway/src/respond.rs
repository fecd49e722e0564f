//! Answers that the edge makes itself: problems, pages, JSON.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, RETRY_AFTER, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use pingora::Error;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;
use serde::Serialize;
use sluice_policy::framing::BodyFraming;
use sluice_policy::method::{Method, MethodSet};
use sluice_wire::code::Code;
use sluice_wire::header::X_REQUEST_ID;
use sluice_wire::id::RequestId;
use sluice_wire::problem::{self, Problem};

use crate::conn::Protocol;
use crate::h2::grpc;

const X_CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");
const REQUEST_ID: HeaderName = HeaderName::from_static(X_REQUEST_ID);

/// LIMIT: an unread body up to this is read and dropped so that the connection can stay open; above it
/// the connection closes.
pub(crate) const DRAIN_BYTES: u64 = 64 << 10;
/// How long that may take.
pub(crate) const DRAIN_TIME: std::time::Duration = std::time::Duration::from_secs(1);

/// One answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// Whether the connection ends with it.
    pub(crate) close: bool,
    body: Body,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Clone, Debug)]
enum Body {
    Nothing,
    Problem(Box<Problem>),
    Bytes(HeaderValue, Bytes),
    /// None, not even its length.
    Bare(HeaderValue),
    /// An upstream's; its type is among the fields.
    Kept(Bytes),
}

impl Answer {
    /// A refusal. Path and request id are added when it is sent.
    pub(crate) fn problem(problem: Problem) -> Self {
        let mut headers = Vec::new();
        if let Some(seconds) = problem.retry_after_s {
            headers.push((RETRY_AFTER, HeaderValue::from(seconds.max(1))));
        }
        Self { status: problem.status(), close: false, body: Body::Problem(Box::new(problem)), headers }
    }

    /// A refusal with a public text.
    pub(crate) fn refuse(code: Code, detail: impl Into<String>) -> Self {
        Self::problem(Problem::new(code).detail(detail))
    }

    /// 401 as RFC 6750 words it; the same text for every reason, so that it is no oracle.
    pub(crate) fn unauthenticated() -> Self {
        Self::refuse(Code::InvalidToken, "a valid bearer token is required")
            .with(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer error=\"invalid_token\""))
    }

    /// 403 as RFC 6750 words it.
    pub(crate) fn lacking(permission: &str) -> Self {
        let answer = Self::refuse(Code::InsufficientScope, format!("permission `{permission}` is required"));
        match HeaderValue::from_str(&format!("Bearer error=\"insufficient_scope\", scope=\"{permission}\"")) {
            Ok(value) => answer.with(WWW_AUTHENTICATE, value),
            Err(_) => answer,
        }
    }

    /// 405 with the methods that work.
    pub(crate) fn wrong_method(allowed: MethodSet) -> Self {
        let answer = Self::refuse(Code::MethodNotAllowed, "this path does not take this method");
        match HeaderValue::from_str(&allowed.allow()) {
            Ok(value) => answer.with(ALLOW, value),
            Err(_) => answer,
        }
    }

    /// A JSON answer.
    pub(crate) fn json(status: u16, value: &impl Serialize) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self::bytes(status, "application/json", body),
            Err(_) => Self::refuse(Code::Internal, "the answer could not be written"),
        }
    }

    /// An answer of a fixed type.
    pub(crate) fn bytes(status: u16, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            status,
            close: false,
            body: Body::Bytes(HeaderValue::from_static(content_type), body.into()),
            headers: Vec::new(),
        }
    }

    /// An upstream's answer, as it was kept.
    pub(crate) fn kept(status: u16, headers: Vec<(HeaderName, HeaderValue)>, body: Bytes) -> Self {
        let body = if matches!(status, 204 | 304) { Body::Nothing } else { Body::Kept(body) };
        Self { status, close: false, body, headers }
    }

    /// 204 with the methods that work.
    pub(crate) fn no_content(allowed: MethodSet) -> Self {
        let answer = Self::nothing();
        match HeaderValue::from_str(&allowed.allow()) {
            Ok(value) => answer.with(ALLOW, value),
            Err(_) => answer,
        }
    }

    /// 200 as another server gave it once; fields of one name are joined.
    pub(crate) fn given(fields: &HeaderMap, body: Bytes) -> Self {
        let kind = fields.get(CONTENT_TYPE).cloned();
        let kind = kind.unwrap_or_else(|| HeaderValue::from_static("application/octet-stream"));
        let mut headers = Vec::with_capacity(fields.keys_len());
        for name in fields.keys().filter(|name| **name != CONTENT_TYPE) {
            let values: Vec<&[u8]> = fields.get_all(name).iter().map(HeaderValue::as_bytes).collect();
            if let Ok(value) = HeaderValue::from_bytes(&values.join(&b", "[..])) {
                headers.push((name.clone(), value));
            }
        }
        Self { status: 200, close: false, body: Body::Bytes(kind, body), headers }
    }

    /// This answer where `refused` was to be sent: it ends the connection where that did.
    pub(crate) fn in_place_of(self, refused: Self) -> Self {
        let waits =
            refused.headers.into_iter().filter(|(name, _)| *name == RETRY_AFTER && self.status >= 500);
        let close = self.close || refused.close;
        Self { close, ..self }.with_all(waits.collect::<Vec<_>>())
    }

    /// 204 with nothing more to say.
    pub(crate) fn nothing() -> Self {
        Self { status: 204, close: false, body: Body::Nothing, headers: Vec::new() }
    }

    /// The problem of a refusal.
    pub(crate) fn as_problem(&self) -> Option<&Problem> {
        match &self.body {
            Body::Problem(problem) => Some(problem),
            Body::Nothing | Body::Bytes(..) | Body::Bare(_) | Body::Kept(_) => None,
        }
    }

    /// Its fields alone, without a body.
    pub(crate) fn bare(self, status: u16, content_type: &'static str) -> Self {
        Self { status, body: Body::Bare(HeaderValue::from_static(content_type)), ..self }
    }

    /// With this header.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// With these headers.
    pub(crate) fn with_all(mut self, headers: impl IntoIterator<Item = (HeaderName, HeaderValue)>) -> Self {
        self.headers.extend(headers);
        self
    }

    /// Ends the connection.
    pub(crate) fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Status, fields and body.
    pub(crate) fn into_parts(
        self,
        path: &str,
        id: &RequestId,
    ) -> (u16, Vec<(HeaderName, HeaderValue)>, Bytes) {
        let (content_type, body) = match self.body {
            // An answer without content has neither type nor length (RFC 9110 section 8.6).
            Body::Nothing => (None, None),
            Body::Bytes(content_type, bytes) => (Some(content_type), Some(bytes)),
            Body::Bare(content_type) => (Some(content_type), None),
            Body::Kept(bytes) => (None, Some(bytes)),
            Body::Problem(problem) => {
                let problem = problem.instance(path).request_id(id.as_str());
                (Some(HeaderValue::from_static(problem::CONTENT_TYPE)), Some(problem.to_json().into()))
            }
        };
        let mut fields = Vec::with_capacity(5 + self.headers.len());
        fields.extend(content_type.map(|kind| (CONTENT_TYPE, kind)));
        fields.extend(body.as_ref().map(|body| (CONTENT_LENGTH, HeaderValue::from(body.len()))));
        fields.push((CACHE_CONTROL, HeaderValue::from_static("no-store")));
        fields.push((X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")));
        // An id is letters, digits and a few marks.
        fields.extend(HeaderValue::from_str(id.as_str()).ok().map(|id| (REQUEST_ID, id)));
        fields.extend(self.headers);
        (self.status, fields, body.unwrap_or_default())
    }

    /// The whole answer as bytes with `Connection: close`, for requests that never reach Pingora.
    pub(crate) fn into_wire(self, path: &str, id: &RequestId, head_only: bool) -> Vec<u8> {
        let status = self.status;
        let reason = http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
        let (_, fields, body) = self.into_parts(path, id);
        let mut wire =
            format!("HTTP/1.1 {status} {}\r\nconnection: close\r\n", reason.unwrap_or("Error")).into_bytes();
        for (name, value) in fields {
            wire.extend_from_slice(name.as_str().as_bytes());
            wire.extend_from_slice(b": ");
            wire.extend_from_slice(value.as_bytes());
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b"\r\n");
        if !head_only {
            wire.extend_from_slice(&body);
        }
        wire
    }
}

/// Sends an answer on a session, whose failure to take it is the client's; `body_left` is what the client has announced and not sent yet (`None`:
/// not known). Returns the bytes of the body.
///
/// A client that asked first may now send its body or leave it out: what it sends next could be either, so
/// the connection ends.
pub(crate) async fn send(
    session: &mut Session,
    answer: Answer,
    path: &str,
    id: &RequestId,
    method: Method,
    body_left: Option<u64>,
) -> pingora::Result<u64> {
    let asked = body_left != Some(0) && session.req_header().headers.contains_key(EXPECT);
    if answer.close || asked {
        session.set_keepalive(None);
    } else if body_left.is_some_and(|bytes| bytes <= DRAIN_BYTES) {
        // A refused client with a small body need not connect again.
        session.set_close_on_response_before_downstream_finish(false);
        session.set_total_drain_timeout(Some(DRAIN_TIME));
    }
    let request = session.req_header();
    let call = request.version == Version::HTTP_2 && grpc::is_call(&request.headers);
    let answer = if call { grpc::translate(answer) } else { answer };
    let (status, fields, body) = answer.into_parts(path, id);
    let mut head = ResponseHeader::build_no_case(status, Some(fields.len()))?;
    for (name, value) in fields {
        if name == VARY {
            head.append_header(name, value)?;
        } else {
            head.insert_header(name, value)?;
        }
    }
    let bytes = body.len() as u64;
    let head_only = method == Method::Head || body.is_empty();
    session.write_response_header(Box::new(head), head_only).await.map_err(Error::into_down)?;
    if !head_only {
        session.write_response_body(Some(body), true).await.map_err(Error::into_down)?;
    }
    Ok(bytes)
}

/// HTTP/1.0 knows neither interim answers nor connections that stay open.
pub(crate) fn suit_version(session: &mut Session, protocol: Protocol) {
    if protocol == Protocol::Http10 {
        session.set_keepalive(None);
        session.as_mut().set_ignore_info_resp(true);
    }
}

/// Whether a client waits with its body until it is told to go on.
pub(crate) fn waits_to_go_on(headers: &HeaderMap, body: BodyFraming) -> bool {
    headers.contains_key(EXPECT) && !matches!(body, BodyFraming::None | BodyFraming::Length(0))
}

/// Says `100 Continue` to a client that waits with its body, and to no other.
pub(crate) async fn go_on(session: &mut Session, body: BodyFraming) -> pingora::Result<()> {
    if !waits_to_go_on(&session.req_header().headers, body) {
        return Ok(());
    }
    // It comes before the body and yet is no early answer, which would end the connection.
    session.set_close_on_response_before_downstream_finish(false);
    let written = session.write_continue_response().await;
    session.set_close_on_response_before_downstream_finish(true);
    written.map_err(Error::into_down)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wire_answer_carries_its_problem_and_closes() {
        let id = RequestId::parse("request-1").unwrap();
        let wire = Answer::refuse(Code::HeaderTooLarge, "too large").into_wire("/x", &id, false);
        let text = String::from_utf8(wire).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n"));
        assert!(head.contains("\r\ncontent-type: application/problem+json"));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (body["code"].as_str(), body["request_id"].as_str()),
            (Some("header_too_large"), Some("request-1"))
        );
        assert!(head.contains(&format!("content-length: {}", text.len() - head.len() - 4)));
    }

    #[test]
    fn a_head_answer_has_no_body() {
        let id = RequestId::parse("request-1").unwrap();
        let wire = Answer::refuse(Code::BadPath, "no").into_wire("/x", &id, true);
        assert!(wire.ends_with(b"\r\n\r\n"));
    }
}
