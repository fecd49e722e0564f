//! A stream's head: judged, and turned into the request that Pingora runs.

use std::sync::Arc;

use bytes::Bytes;
use h2::server::SendResponse;
use http::header::{CONTENT_LENGTH, COOKIE, HOST};
use http::uri::PathAndQuery;
use http::{HeaderValue, Response, Uri, Version, request};
use sluice_policy::framing::{self, BodyFraming, Http2Head, Transport};
use sluice_policy::method::Method;
use sluice_schema::Limits;
use sluice_wire::id::RequestId;
use tokio::time::Instant;

use super::grpc;
use crate::clock;
use crate::conn::{Conn, Protocol};
use crate::ctx::Arrival;
use crate::head::{Refusal, resolve};
use crate::link::Link;

/// Judges a head. `ends`: the stream ends with it.
pub(super) fn accept(
    parts: &request::Parts,
    ends: bool,
    conn: &Arc<Conn>,
    transport: Transport,
    limits: &Limits,
) -> Result<Arrival, Refusal> {
    let started = Instant::now();
    let read = Http2Head {
        method: parts.method.as_str().as_bytes(),
        scheme: parts.uri.scheme_str().map(str::as_bytes),
        authority: parts.uri.authority().map(|authority| authority.as_str().as_bytes()),
        path: parts.uri.path_and_query().map_or(&b""[..], |target| target.as_str().as_bytes()),
        ends,
    };
    let fields = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let refuse = |(code, reason)| Refusal { code, reason, started };
    let head = framing::check_http2(&read, fields, transport, limits)
        .map_err(|fault| refuse((fault.code, fault.reason)))?;
    let (path, query, host) = resolve(&head).map_err(refuse)?;
    Ok(Arrival {
        conn: Arc::clone(conn),
        started,
        headed: started,
        arrived: clock::now(),
        method: head.method,
        path,
        query,
        host,
        protocol: Protocol::Http2,
        websocket: false,
        body: head.body,
        link: Arc::new(Link::new()),
        route: None,
    })
}

/// The request's head as HTTP/1 would have it: `Host` from the authority, one cookie field, a length where the body is
/// empty though its method has one.
pub(super) fn translate(mut parts: request::Parts, arrival: &Arrival) -> request::Parts {
    let uri = std::mem::take(&mut parts.uri).into_parts();
    // It was judged, so it is a header value.
    if let Some(host) = uri.authority.and_then(|authority| HeaderValue::from_str(authority.as_str()).ok()) {
        parts.headers.insert(HOST, host);
    }
    parts.uri = Uri::from(uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")));
    join_cookies(&mut parts);
    let has_body = matches!(arrival.method, Method::Post | Method::Put | Method::Patch);
    if has_body && arrival.body == BodyFraming::None {
        parts.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    parts.version = Version::HTTP_2;
    parts
}

/// Cookie crumbs become one field again (RFC 9113 section 8.2.3).
fn join_cookies(parts: &mut request::Parts) {
    let crumbs: Vec<&[u8]> = parts.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        parts.headers.insert(COOKIE, whole);
    }
}

/// Answers a refused head. The rest of the stream is not read.
pub(super) fn refuse(
    mut respond: SendResponse<Bytes>,
    parts: &request::Parts,
    refusal: &Refusal,
    id: &RequestId,
) {
    let answer = refusal.answer();
    let answer = if grpc::is_call(&parts.headers) { grpc::translate(answer) } else { answer };
    let (status, fields, body) = answer.into_parts("/", id);
    let mut response = Response::new(());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_REQUEST);
    response.headers_mut().extend(fields);
    let head_only = parts.method == http::Method::HEAD || body.is_empty();
    // The client may have reset it meanwhile.
    if let Ok(mut stream) = respond.send_response(response, head_only)
        && !head_only
    {
        drop(stream.send_data(body, true));
    }
}
