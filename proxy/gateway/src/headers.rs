//! Header fields on the way through: what clients may not say, what upstreams get to know.
//!
//! Names are compared in lower case, as the header map keeps them. Fields that only the edge may set
//! are removed first and set after verification, so a client's copy never survives.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, FORWARDED, HOST, SERVER, STRICT_TRANSPORT_SECURITY, TRAILER,
    TRANSFER_ENCODING, VIA,
};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use pingora::http::RequestHeader;
use sluice_policy::headers::{Rules, is_hop_by_hop, judge, may_be_nominated, nominated};
use sluice_schema::HeaderEdits;
use sluice_wire::header::{GRPC_TIMEOUT, TRACEPARENT, TRACESTATE, X_REQUEST_DEADLINE_MS, X_REQUEST_ID};

use crate::fields::{Fields, name};
use crate::ids::Trace;
use crate::jwt_cache::Verified;

/// Whether a request came through a proxy, by its own account.
pub(crate) fn is_proxied(headers: &HeaderMap) -> bool {
    headers.contains_key(FORWARDED) || headers.contains_key(&name::FORWARDED_FOR) || headers.contains_key(VIA)
}

/// Removes what clients may not send and what ends at the edge.
pub(crate) fn strip_request(request: &mut impl Fields, rules: Rules) -> pingora::Result<()> {
    // The edge has answered 100 already where it was asked for.
    request.drop_where(|name| *name == EXPECT || judge(name.as_str(), rules).is_some());
    plain_length(request)
}

/// Fields that say how a request is to be read, where it goes, or which one it is.
const IN_HEADS_ALONE: [&str; 16] = [
    "host",
    "cookie",
    "expect",
    "range",
    "max-forwards",
    "cache-control",
    "content-length",
    "content-type",
    "content-encoding",
    "content-range",
    "idempotency-key",
    X_REQUEST_ID,
    X_REQUEST_DEADLINE_MS,
    GRPC_TIMEOUT,
    TRACEPARENT,
    TRACESTATE,
];

/// Leaves of what a client sends behind its body the fields that change nothing of the request before it.
pub(crate) fn clean_trailers(mut trailers: HeaderMap) -> HeaderMap {
    let names: Vec<HeaderName> = trailers.keys().cloned().collect();
    for name in names {
        if judge(name.as_str(), Rules::default()).is_some() || IN_HEADS_ALONE.contains(&name.as_str()) {
            trailers.remove(&name);
        }
    }
    trailers
}

/// Writes a length without leading zeros: some readers take those for another base.
fn plain_length(request: &mut impl Fields) -> pingora::Result<()> {
    let Some(value) = request.first(&CONTENT_LENGTH).map(HeaderValue::as_bytes) else { return Ok(()) };
    let zeros = value.iter().take_while(|digit| **digit == b'0').count().min(value.len().saturating_sub(1));
    if zeros == 0 {
        return Ok(());
    }
    let Ok(plain) = HeaderValue::from_bytes(&value[zeros..]) else { return Ok(()) };
    request.set(CONTENT_LENGTH, plain)
}

/// Keeps a client from naming fields in `Connection` that the edge relies on: the framework removes
/// whatever is named there.
pub(crate) fn check_nominations(request: &mut RequestHeader) -> pingora::Result<()> {
    if !request.headers.contains_key(CONNECTION) {
        return Ok(());
    }
    let values = request.headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let (kept, refused): (Vec<&str>, Vec<&str>) =
        values.flat_map(nominated).partition(|name| may_be_nominated(name));
    if refused.is_empty() {
        return Ok(());
    }
    let kept = kept.join(", ");
    request.insert_header(CONNECTION, kept)
}

/// What the edge tells an upstream about a request.
pub(crate) struct Introduction<'a> {
    /// `Host` of the upstream.
    pub(crate) host: &'a HeaderValue,
    /// The peer's address, appended to `X-Forwarded-For`.
    pub(crate) peer: &'a HeaderValue,
    /// `http` or `https`, as the client spoke to the edge.
    pub(crate) scheme: &'static str,
    /// Whether the peer's own forwarding fields were believed.
    pub(crate) peer_trusted: bool,
    /// The verified caller.
    pub(crate) identity: Option<&'a Verified>,
    /// Its request id.
    pub(crate) request_id: &'a str,
    /// Its trace.
    pub(crate) trace: &'a Trace,
    /// Our span that makes this call.
    pub(crate) span: u64,
}

/// Sets identity, forwarding and correlation fields.
pub(crate) fn introduce(request: &mut impl Fields, with: &Introduction<'_>) -> pingora::Result<()> {
    if let Some(identity) = with.identity {
        request.set(name::USER, identity.user.clone())?;
        request.set(name::PERMISSIONS, identity.permissions.clone())?;
        request.set(name::AUTH_METHOD, HeaderValue::from_static(identity.method))?;
        if let Some(account) = &identity.account {
            request.set(name::ACCOUNT, account.clone())?;
        }
    }
    let chain = if with.peer_trusted { continued(request, with.peer) } else { None };
    request.set(name::FORWARDED_FOR, chain.unwrap_or_else(|| with.peer.clone()))?;
    if !(with.peer_trusted && request.has(&name::FORWARDED_PROTO)) {
        request.set(name::FORWARDED_PROTO, HeaderValue::from_static(with.scheme))?;
    }
    if !(with.peer_trusted && request.has(&name::FORWARDED_HOST))
        && let Some(host) = request.first(&HOST).cloned()
    {
        request.set(name::FORWARDED_HOST, host)?;
    }
    request.set(HOST, with.host.clone())?;
    if let Ok(id) = HeaderValue::from_str(with.request_id) {
        request.set(name::REQUEST_ID, id)?;
    }
    keep_state(request, with.trace)?;
    request.set(name::TRACEPARENT, with.trace.header(with.span))
}

/// What a trusted peer says of the client's way, and the peer behind it.
fn continued(request: &impl Fields, peer: &HeaderValue) -> Option<HeaderValue> {
    let name = name::FORWARDED_FOR;
    let earlier: Vec<&str> = request.all(&name).filter_map(|value| value.to_str().ok()).collect();
    if earlier.is_empty() {
        return None;
    }
    HeaderValue::from_str(&format!("{}, {}", earlier.join(", "), peer.to_str().ok()?)).ok()
}

/// Leaves of the client's `tracestate` what may be passed on: none of it where the trace began here.
fn keep_state(request: &mut impl Fields, trace: &Trace) -> pingora::Result<()> {
    let name = name::TRACESTATE;
    if !request.has(&name) {
        return Ok(());
    }
    let sent = request.all(&name).map(HeaderValue::as_bytes);
    let state = trace.parent().and_then(|_| sluice_policy::trace::state(sent));
    request.drop_all(&name);
    let state = state.and_then(|state| HeaderValue::from_str(&state).ok());
    state.map_or(Ok(()), |state| request.set(name, state))
}

/// The `tracestate` of a request, as it is passed on.
pub(crate) fn trace_state(headers: &HeaderMap) -> Option<String> {
    sluice_policy::trace::state(headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes))
}

/// Header changes of a service, names and values checked once a generation.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    remove: Vec<HeaderName>,
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
}

impl Edits {
    /// The changes of the configuration, which has checked names and values.
    pub(crate) fn new(edits: &HeaderEdits) -> Self {
        let pair = |(name, value): (&String, &String)| {
            Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
        };
        Self {
            remove: edits.remove.iter().filter_map(|name| HeaderName::try_from(name).ok()).collect(),
            set: edits.set.iter().filter_map(pair).collect(),
            add: edits.add.iter().filter_map(pair).collect(),
        }
    }

    /// Applies them to a head.
    pub(crate) fn apply(&self, head: &mut impl Fields) -> pingora::Result<()> {
        for name in &self.remove {
            head.drop_all(name);
        }
        for (name, value) in &self.set {
            head.set(name.clone(), value.clone())?;
        }
        for (name, value) in &self.add {
            head.add(name.clone(), value.clone())?;
        }
        Ok(())
    }
}

/// Tells a client that came over TLS to stay there.
pub(crate) const STAY_ENCRYPTED: (HeaderName, HeaderValue) =
    (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));

/// The names that `Connection` holds.
pub(crate) fn connection_names(fields: &impl Fields) -> Vec<HeaderName> {
    let values = fields.all(&CONNECTION).filter_map(|value| value.to_str().ok());
    values.flat_map(nominated).filter_map(|name| name.parse().ok()).collect()
}

/// Removes what of an answer's head belongs to the upstream's connection, but for the framing of its body. An
/// announcement of trailers stays where they are passed on: behind an answer in HTTP/2.
pub(crate) fn drop_hop_by_hop(answer: &mut impl Fields, version: Version) {
    let trailers = version == Version::HTTP_2;
    let stays = |name: &HeaderName| {
        *name == TRANSFER_ENCODING || *name == CONTENT_LENGTH || (*name == TRAILER && trailers)
    };
    let named = connection_names(answer);
    answer.drop_where(|name| (named.contains(name) || is_hop_by_hop(name.as_str())) && !stays(name));
}

/// Removes from an upstream's answer what clients are not to see, and adds what every answer has.
pub(crate) fn clean_response(response: &mut impl Fields, request_id: &str) -> pingora::Result<()> {
    response.drop_where(|name| {
        *name == SERVER || *name == name::POWERED_BY || name.as_str().starts_with("x-internal-")
    });
    if !response.has(&name::CONTENT_TYPE_OPTIONS) {
        response.set(name::CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))?;
    }
    HeaderValue::from_str(request_id).map_or(Ok(()), |id| response.set(name::REQUEST_ID, id))
}

/// Fields of a test.
#[cfg(test)]
pub(crate) fn header_map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    #[test]
    fn strips_identity_and_forwarding() {
        let mut sent = request(&[
            ("X-User", "root"),
            ("x_user", "root"),
            ("X-Forwarded-For", "10.0.0.1"),
            ("Forwarded", "for=10.0.0.1"),
            ("Expect", "100-continue"),
            ("Accept", "*/*"),
        ]);
        strip_request(&mut sent, Rules::default()).unwrap();
        let left: Vec<&str> = sent.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["accept"]);
    }

    #[test]
    fn a_length_is_written_plainly() {
        for (sent, plain) in [("5", "5"), ("05", "5"), ("0", "0"), ("000", "0"), ("100", "100")] {
            let mut request = request(&[("Content-Length", sent)]);
            plain_length(&mut request).unwrap();
            assert_eq!(request.headers.get(CONTENT_LENGTH).unwrap(), plain);
        }
    }

    #[test]
    fn connection_names_nothing_the_edge_relies_on() {
        let mut sent = request(&[("Connection", "close, X-User, Content-Length"), ("Connection", "foo")]);
        check_nominations(&mut sent).unwrap();
        assert_eq!(sent.headers.get(CONNECTION).unwrap(), "close, foo");
    }

    #[test]
    fn an_upstream_learns_host_client_and_trace() {
        let mut sent = request(&[("Host", "shop.example"), ("X-Forwarded-For", "203.0.113.9")]);
        let trace = Trace::of(&HeaderMap::new(), false);
        let with = Introduction {
            host: &HeaderValue::from_static("127.0.0.1:8001"),
            peer: &HeaderValue::from_static("10.0.0.1"),
            scheme: "http",
            peer_trusted: true,
            identity: None,
            request_id: "request-1",
            trace: &trace,
            span: trace.span(),
        };
        introduce(&mut sent, &with).unwrap();
        let field = |name: &str| sent.headers.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(field("host"), "127.0.0.1:8001");
        assert_eq!(field("x-forwarded-host"), "shop.example");
        assert_eq!(field("x-forwarded-for"), "203.0.113.9, 10.0.0.1");
        assert_eq!(field("x-forwarded-proto"), "http");
        assert_eq!(field("x-request-id"), "request-1");
        assert_eq!(field("traceparent"), trace.header(trace.span()).to_str().unwrap());
    }
}
