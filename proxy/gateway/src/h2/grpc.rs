//! gRPC's own words: what its calls look like, and how the edge's refusals reach them.
//!
//! A gRPC client reads no status but 200 and no body that is not a message: a refusal of the edge becomes
//! a trailers-only answer, its status in `grpc-status` and what became of the call in `sluice-outcome`.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::ResponseHeader;
use sluice_wire::code::Code;
use sluice_wire::header::SLUICE_OUTCOME;

use crate::respond::Answer;

const KIND: &[u8] = b"application/grpc";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const OUTCOME: HeaderName = HeaderName::from_static(SLUICE_OUTCOME);

/// Whether fields are those of a gRPC call or of an answer to one.
pub(crate) fn is_call(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(is_kind)
}

/// Whether a `Content-Type` is that of gRPC.
pub(crate) fn is_kind(kind: &HeaderValue) -> bool {
    let kind = kind.as_bytes();
    kind.len() >= KIND.len()
        && kind[..KIND.len()].eq_ignore_ascii_case(KIND)
        && matches!(kind.get(KIND.len()), None | Some(b'+' | b';' | b' '))
}

/// Whether an answer ends with its head and has its status in it.
pub(crate) fn is_trailers_only(head: &ResponseHeader) -> bool {
    head.headers.contains_key(STATUS) && is_call(&head.headers)
}

/// A refusal of the edge as a gRPC client reads it; what is no refusal stays as it is.
pub(crate) fn translate(answer: Answer) -> Answer {
    let Some(problem) = answer.as_problem() else { return answer };
    let detail = problem.detail.as_deref().unwrap_or(problem.code.word());
    let message = escape(&format!("{}: {detail}", problem.code.word()));
    let status = HeaderValue::from(status(problem.code));
    let message = HeaderValue::from_str(&message).unwrap_or_else(|_| HeaderValue::from_static(""));
    let outcome = problem.outcome.map(|outcome| (OUTCOME, HeaderValue::from_static(outcome.word())));
    let answer = answer.bare(200, "application/grpc").with(STATUS, status).with(MESSAGE, message);
    answer.with_all(outcome)
}

/// How an answer ends whose call ran out of time behind its head.
pub(crate) fn late_trailers() -> HeaderMap {
    let message = format!("{}: the call did not end in time", Code::UpstreamTimeout.word());
    let message = HeaderValue::from_str(&escape(&message)).unwrap_or_else(|_| HeaderValue::from_static(""));
    HeaderMap::from_iter([(STATUS, HeaderValue::from(status(Code::UpstreamTimeout))), (MESSAGE, message)])
}

/// The status of gRPC for a refusal.
fn status(code: Code) -> u16 {
    match code.status() {
        400 | 411 | 414 | 417 | 422 | 431 => 3,
        401 => 16,
        403 => 7,
        404 | 405 | 501 => 12,
        408 | 504 => 4,
        409 => 10,
        413 | 429 => 8,
        502 | 503 => 14,
        500.. => 13,
        _ => 2,
    }
}

/// Percent-encoding of `grpc-message`: visible ASCII but `%` stays.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_wire::id::RequestId;
    use sluice_wire::problem::{Outcome, Problem};

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn calls_are_told_by_their_content_type() {
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC;x=y"] {
            assert!(is_call(&fields(&[("content-type", kind)])), "{kind}");
        }
        for kind in ["application/grpc-web", "application/json", "text/application/grpc"] {
            assert!(!is_call(&fields(&[("content-type", kind)])), "{kind}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn refusals_become_trailers_only_answers() {
        let id = RequestId::parse("request-1").unwrap();
        for (code, status) in [
            (Code::UpstreamRefused, "14"),
            (Code::BreakerOpen, "14"),
            (Code::UpstreamTimeout, "4"),
            (Code::InvalidToken, "16"),
            (Code::InsufficientScope, "7"),
            (Code::RateLimited, "8"),
            (Code::NoRoute, "12"),
            (Code::BadFraming, "3"),
            (Code::Internal, "13"),
        ] {
            let answer = translate(Answer::refuse(code, "100 % gone\u{e9}"));
            let (http, fields, body) = answer.into_parts("/", &id);
            let field = |name: &str| {
                fields
                    .iter()
                    .find(|(field, _)| field.as_str() == name)
                    .map(|(_, value)| value.to_str().unwrap())
            };
            assert_eq!((http, body.len()), (200, 0));
            assert_eq!(field("grpc-status"), Some(status), "{code:?}");
            assert_eq!(field("content-type"), Some("application/grpc"));
            assert!(field("grpc-message").unwrap().ends_with("100 %25 gone%C3%A9"));
        }
        let unknown = Problem::new(Code::UpstreamRefused).outcome(Outcome::Unknown);
        let (_, fields, _) = translate(Answer::problem(unknown)).into_parts("/", &id);
        assert!(fields.contains(&(OUTCOME, HeaderValue::from_static("unknown"))), "{fields:?}");
        let page = Answer::bytes(200, "text/plain", "ok");
        assert_eq!(translate(page).into_parts("/", &id).2, "ok");
    }
}
