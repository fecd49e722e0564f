//! Copies of requests for a service whose answers nobody waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::HttpPeer;
use sluice_policy::breaker::Outcome;
use sluice_policy::headers::Rules;
use sluice_policy::kill_switch::Ask;
use sluice_policy::mirror::{ANSWER_BYTES_MAX, COPIES_MAX, copies};
use sluice_policy::split::caller;

use crate::ctx::{Exchange, Target};
use crate::due;
use crate::endpoint::Endpoint;
use crate::generation::ServiceRoute;
use crate::headers::{Introduction, connection_names, introduce, strip_request};
use crate::state::Shared;

/// Tells the service that this is a copy. A client's own is dropped like everything `x-internal-`.
const MARK: HeaderName = HeaderName::from_static("x-internal-mirror");

/// How copies reach their services, and how many are under way.
pub(super) struct Mirrors {
    connector: Connector,
    under_way: Arc<AtomicUsize>,
}

/// A copy under way.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Mirrors {
    pub(super) fn new() -> Self {
        let mut options = ConnectorOptions::new(COPIES_MAX);
        // Roots are named by each service: none are loaded here, and a machine without any starts.
        options.ca_file = Some("/dev/null".to_owned());
        Self { connector: Connector::new(Some(options)), under_way: Arc::default() }
    }

    fn slot(&self) -> Option<Slot> {
        let slot = Slot(Arc::clone(&self.under_way));
        (slot.0.fetch_add(1, Ordering::Relaxed) < COPIES_MAX).then_some(slot)
    }
}

/// Sends a copy of an admitted request where its service has a mirror. Nothing of it comes back to the request.
pub(crate) fn copy(shared: &Arc<Shared>, x: &Exchange, asked: &HeaderMap) {
    let Target::Service(route) = &x.target else { return };
    let Some(mirror) = route.shaping.mirror() else { return };
    if x.call || !copies(x.arrival.method, x.arrival.body) {
        return;
    }
    let told = prepare(shared, x, &mirror, asked).is_some();
    if !told {
        shared.meters.mirrored(&mirror.service.name, "dropped");
    }
}

/// Starts the copy; `None` where there is no room, no leave or no instance for it.
fn prepare(shared: &Arc<Shared>, x: &Exchange, mirror: &Arc<ServiceRoute>, asked: &HeaderMap) -> Option<()> {
    if let Some(switches) = shared.kill.switches() {
        let symbols = std::iter::empty::<&[u8]>();
        switches.check(Ask { service: &mirror.service.name, lane: mirror.service.lane, symbols }).ok()?;
    }
    let slot = shared.shaped.mirrors.slot()?;
    // Where it places by a key, a caller's copies stay together.
    let key = caller(x.identity.as_ref().map(|identity| identity.claims.sub.as_str()), x.client);
    let leave = mirror.upstream.acquire().ok()?;
    let (endpoint, flight) = mirror.upstream.pick(key, &[])?;
    let mut peer = endpoint.reach(mirror, &mut Vec::new()).ok()?.peer();
    let timeouts = &mirror.service.timeouts;
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    let head = head(x, mirror, &endpoint, asked).ok()?;
    let (shared, mirror, within) = (Arc::clone(shared), Arc::clone(mirror), timeouts.total);
    tokio::spawn(async move {
        let started = Instant::now();
        let connector = &shared.shaped.mirrors.connector;
        let status =
            tokio::time::timeout(within, ask(connector, &peer, head, within)).await.ok().and_then(Result::ok);
        let outcome = status.map_or(Outcome::Failure, Outcome::of_status);
        let took = started.elapsed();
        leave.record(outcome, took);
        mirror.upstream.judge(&endpoint, outcome, took);
        let result = if status.is_some() { "answered" } else { "failed" };
        shared.meters.mirrored(&mirror.service.name, result);
        drop((flight, slot));
    });
    Some(())
}

/// The head of a copy: the client's, by the rules that hold for every upstream, without a body. Credentials
/// pass where both services take them.
fn head(
    x: &Exchange,
    mirror: &ServiceRoute,
    endpoint: &Endpoint,
    asked: &HeaderMap,
) -> pingora::Result<RequestHeader> {
    let mut parts = http::Request::new(()).into_parts().0;
    parts.method = http::Method::from_bytes(x.arrival.method.as_str().as_bytes()).unwrap_or_default();
    parts.headers = asked.clone();
    let mut head = RequestHeader::from(parts);
    for name in connection_names(asked) {
        head.remove_header(&name);
    }
    let forward_credentials = x.keeps_credentials && mirror.service.forward_authorization;
    strip_request(&mut head, Rules { trusted_peer: x.peer_trusted, forward_credentials })?;
    for name in [CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING] {
        head.remove_header(&name);
    }
    introduce(
        &mut head,
        &Introduction {
            host: &endpoint.host,
            peer: &x.arrival.conn.peer_address,
            scheme: if x.arrival.conn.is_tls() { "https" } else { "http" },
            peer_trusted: x.peer_trusted,
            identity: x.identity.as_deref(),
            request_id: x.request_id.as_str(),
            trace: &x.trace,
            span: x.trace.span(),
        },
    )?;
    due::tell(x, &mut head)?;
    mirror.request_edits.apply(&mut head)?;
    head.insert_header(MARK, HeaderValue::from_static("1"))?;
    let path = x.forward_path.as_deref().unwrap_or(&x.arrival.path);
    let target = sluice_policy::path::target(path, x.arrival.query.as_deref());
    head.set_raw_path(target.as_bytes())?;
    head.set_version(Version::HTTP_11);
    Ok(head)
}

/// Sends a copy and reads its answer to the end, or as much of it as anybody would.
async fn ask(
    connector: &Connector,
    peer: &HttpPeer,
    mut head: RequestHeader,
    within: Duration,
) -> pingora::Result<u16> {
    let (mut session, _) = connector.get_http_session(peer).await?;
    if matches!(session, HttpSession::H2(_)) {
        name_authority(&mut head);
    }
    session.set_read_timeout(Some(within));
    session.set_write_timeout(Some(within));
    session.write_request_header(Box::new(head)).await?;
    session.finish_request_body().await?;
    session.read_response_header().await?;
    let status = session.response_header().map_or(0, |head| head.status.as_u16());
    let mut bytes = 0;
    while let Some(piece) = session.read_response_body().await? {
        bytes += piece.len();
        if bytes > ANSWER_BYTES_MAX {
            session.shutdown().await;
            return Ok(status);
        }
    }
    connector.release_http_session(session, peer, Some(Duration::from_secs(10))).await;
    Ok(status)
}

/// HTTP/2 names the host in its target.
fn name_authority(head: &mut RequestHeader) {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost").to_owned();
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    if let Ok(uri) = format!("http://{host}{target}").parse::<Uri>() {
        head.set_uri(uri);
    }
    head.remove_header(&HOST);
    head.set_version(Version::HTTP_2);
}
