//! One instance as the edge reaches it: its addresses, what a connection to it takes, what its probes said.
//!
//! It is built anew with each generation and takes over what its predecessor knew. Names and the vault's
//! identity are put in from outside (`names.rs`); a request only reads.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::protocols::tls::SslDigest;
use pingora::upstreams::peer::{H1UpgradePolicy, HttpPeer};
use sluice_http::TrustCell;
use sluice_policy::addresses::Addresses;
use sluice_policy::balance::{Hold, Instance};
use sluice_policy::time::Nanos;
use sluice_schema::{InstanceUrl, Scheme, Service, Timeouts};
use tokio::sync::watch;

use crate::clock;
use crate::generation::ServiceRoute;
use crate::upstream_tls::{OwnIdentity, UpstreamTls};

/// Streams on one HTTP/2 connection to an instance.
const H2_STREAMS: usize = 128;
/// What an instance may send ahead on one stream. All streams together fit into the connection's window, so a
/// client that reads slowly never stalls the others.
const H2_STREAM_WINDOW: u32 = 256 << 10;
/// Between two looks whether the other end of an HTTP/2 connection is still there.
const H2_PING: Duration = Duration::from_secs(15);

/// What TLS to the instances of a service takes.
pub(crate) struct Secure<'a> {
    /// The service's own settings; `None` where no instance speaks TLS.
    pub(crate) tls: Option<&'a Arc<UpstreamTls>>,
    /// The edge's identity, where the vault has given one.
    pub(crate) own: Option<&'a OwnIdentity>,
}

/// Where one instance is reached, and what its probes said.
pub(crate) struct Endpoint {
    /// Its state, kept over reloads.
    pub(crate) instance: Arc<Instance>,
    /// Its address as it is shown.
    pub(crate) label: String,
    /// `Host` for it.
    pub(crate) host: HeaderValue,
    /// A connection to it but for address and key material.
    bare: HttpPeer,
    /// How it is called over TLS; `None` in clear text.
    tls: Option<Arc<UpstreamTls>>,
    /// A connection to it but for the address; `None` until the vault has given what it takes.
    template: ArcSwapOption<HttpPeer>,
    /// Its addresses; `None` until its name is resolved, and when none of them is allowed.
    addresses: ArcSwapOption<Addresses>,
    /// Whether what it takes to reach it was looked up at all.
    looked_up: watch::Sender<bool>,
    last_probe: ArcSwapOption<Probe>,
    /// How often a certificate of it turned out to be revoked. Keeps apart what connections were made before.
    era: AtomicU64,
    /// It was offered HTTP/2 and chose HTTP/1, or could not do what it chose.
    declined_http2: AtomicBool,
}

/// How an instance, or a worker, is reached in one try.
pub(crate) struct Reached {
    template: Arc<HttpPeer>,
    /// Where, unless the template says it.
    address: Option<SocketAddr>,
    era: u64,
}

impl Reached {
    /// As a template says it.
    pub(crate) const fn by(template: Arc<HttpPeer>) -> Self {
        Self { template, address: None, era: 0 }
    }

    /// The address that a connection goes to.
    pub(crate) fn address(&self) -> PeerAddress {
        self.address.map_or_else(|| self.template._address.clone(), PeerAddress::Inet)
    }

    /// All that the framework asks for to connect.
    pub(crate) fn peer(&self) -> HttpPeer {
        let mut peer = HttpPeer::clone(&self.template);
        if let Some(address) = self.address {
            peer._address = PeerAddress::Inet(address);
        }
        peer.group_key ^= self.era;
        peer
    }
}

/// Why an endpoint cannot be connected to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreachable {
    /// Its name stands for no address.
    #[error("its name does not resolve to an allowed address")]
    Unresolved,
    /// Its addresses may not be reached.
    #[error("its address is not allowed")]
    NotAllowed,
    /// The authority that its certificate is verified against is not there yet.
    #[error("the vault has not given the authority yet")]
    NoAuthority,
}

/// The last active probe of an instance.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// When it began.
    pub(crate) began: Nanos,
    /// When it ended.
    pub(crate) at: Nanos,
    /// Whether it answered well.
    pub(crate) ok: bool,
    /// Time to its answer; `None` when nothing answered.
    pub(crate) took: Option<Duration>,
    /// Status or what failed.
    pub(crate) detail: String,
}

impl Endpoint {
    /// An instance of a service; `known` is the same one in the generation before.
    pub(crate) fn new(
        instance: Arc<Instance>,
        service: &Service,
        secure: &Secure<'_>,
        known: Option<&Self>,
    ) -> Self {
        let url = &instance.url;
        let written = url.ip().map(|ip| SocketAddr::new(ip, url.port));
        let (addresses, resolved) = match (written, known) {
            (Some(address), _) => (Addresses::new(&[address]).map(Arc::new), true),
            // A name resolved before stays resolved until the resolver says otherwise.
            (None, Some(known)) => (known.addresses(), *known.looked_up.borrow()),
            (None, None) => (None, url.scheme == Scheme::Unix),
        };
        let host = HeaderValue::from_str(&url.authority());
        let endpoint = Self {
            label: url.to_string(),
            host: host.unwrap_or_else(|_| HeaderValue::from_static("localhost")),
            bare: bare_peer(url, &service.timeouts),
            tls: secure.tls.filter(|_| url.scheme == Scheme::Https).map(Arc::clone),
            template: ArcSwapOption::empty(),
            addresses: ArcSwapOption::from(addresses),
            looked_up: watch::Sender::new(false),
            last_probe: ArcSwapOption::new(known.and_then(|known| known.last_probe.load_full())),
            era: AtomicU64::new(known.map_or(0, |known| known.era.load(Ordering::Relaxed))),
            declined_http2: AtomicBool::new(false),
            instance,
        };
        endpoint.dress(secure.own);
        // Built anew while requests wait: they wait on, until it is dressed.
        let waits = known.is_none_or(|known| !*known.looked_up.borrow());
        let awaits_vault = endpoint.follows_vault() && secure.own.is_none() && waits;
        endpoint.looked_up.send_replace(resolved && !awaits_vault);
        endpoint
    }

    /// Whether it speaks HTTP/2, as far as is known.
    pub(crate) fn speaks_http2(&self) -> bool {
        self.bare.options.alpn.get_max_http_version() == 2 && !self.declined_http2.load(Ordering::Relaxed)
    }

    /// It does not, whatever it was taken for; believed until the configuration is built anew.
    pub(crate) fn declined_http2(&self) {
        self.declined_http2.store(true, Ordering::Relaxed);
    }

    /// Takes the vault's present identity. Without one there is no template where it is needed.
    pub(crate) fn dress(&self, own: Option<&OwnIdentity>) {
        let mut peer = self.bare.clone();
        let dressed = self.tls.as_ref().is_none_or(|tls| tls.dress(&mut peer, own));
        self.template.store(dressed.then(|| Arc::new(peer)));
    }

    /// Its addresses now; `None` until its name is resolved, and when none of them is allowed.
    pub(crate) fn addresses(&self) -> Option<Arc<Addresses>> {
        self.addresses.load_full()
    }

    /// Takes what a lookup of its name led to.
    pub(crate) fn keep_addresses(&self, addresses: Option<Addresses>) {
        self.addresses.store(addresses.map(Arc::new));
        self.looked_up.send_replace(true);
    }

    /// Whether the vault's identity changes how it is called.
    pub(crate) fn follows_vault(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.follows_vault())
    }

    /// Requests wait for the vault no longer, only for its name while that was never looked up.
    pub(crate) fn wait_no_longer(&self) {
        if self.instance.url.scheme == Scheme::Unix || self.addresses.load().is_some() {
            self.looked_up.send_replace(true);
        }
    }

    /// Waits until its name was looked up once; a request that comes sooner is the first after the start
    /// or a reload. At once in every other case.
    pub(crate) async fn looked_up(&self, within: Duration) {
        if *self.looked_up.borrow() {
            return;
        }
        let mut looked_up = self.looked_up.subscribe();
        // Boxed: nearly all requests do not wait.
        drop(Box::pin(tokio::time::timeout(within, looked_up.wait_for(|done| *done))).await);
    }

    /// How to reach it now, at an address that is none of `tried` while there is one; the address is added
    /// to them where there are several. The route's rules judge it: this is the moment before the connection.
    pub(crate) fn reach(
        &self,
        route: &ServiceRoute,
        tried: &mut Vec<SocketAddr>,
    ) -> Result<Reached, Unreachable> {
        let template = self.template.load_full().ok_or(Unreachable::NoAuthority)?;
        if self.instance.url.scheme == Scheme::Unix {
            return Ok(Reached { template, address: None, era: 0 });
        }
        let addresses = self.addresses.load();
        let addresses = addresses.as_ref().ok_or(Unreachable::Unresolved)?;
        let allowed = |address: &SocketAddr| route.may_reach(*address);
        let address = if addresses.count() == 1 {
            addresses.iter().next().filter(allowed)
        } else {
            let now = clock::now();
            if !addresses.has_untried(tried) {
                tried.retain(|tried| !addresses.iter().any(|address| address == *tried));
            }
            std::iter::from_fn(|| {
                let address = addresses.pick(now, tried)?;
                tried.push(address);
                Some(address)
            })
            .find(allowed)
        };
        let address = Some(address.ok_or(Unreachable::NotAllowed)?);
        Ok(Reached { template, address, era: self.era_key() })
    }

    fn era_key(&self) -> u64 {
        // Odd, so that no two eras have one key.
        self.era.load(Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// Whether a connection to it, called as `peer`, may be used: where the vault's authority vouches for it, the
    /// vault has not revoked what it shows. Connections made before are not used again then.
    pub(crate) fn believes(&self, peer: &HttpPeer, shown: Option<&SslDigest>, trust: &TrustCell) -> bool {
        if !self.tls.as_ref().is_some_and(|tls| tls.believes_vault()) {
            return true;
        }
        let serial = shown.and_then(|shown| shown.serial_number.as_deref()).map(plain_serial);
        if serial.is_some_and(|serial| !trust.load().is_serial_revoked(&serial)) {
            return true;
        }
        let template = self.template.load().as_ref().map_or(0, |template| template.group_key);
        let era = self.era.load(Ordering::Relaxed);
        if peer.group_key == template ^ self.era_key() {
            // Whoever else found out in this moment has turned it already.
            let _lost = self.era.compare_exchange(era, era + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        false
    }

    /// A connect to the last address of `tried` failed. Says whether another one is left.
    pub(crate) fn connect_failed(&self, tried: &[SocketAddr]) -> bool {
        let Some(addresses) = self.addresses() else { return false };
        if addresses.count() == 1 {
            return false;
        }
        if let Some(last) = tried.last() {
            addresses.failed(*last, clock::now());
        }
        addresses.has_untried(tried)
    }

    /// A connect to an address of it succeeded.
    pub(crate) fn connect_succeeded(&self, tried: &[SocketAddr]) {
        if let (Some(addresses), Some(last)) = (self.addresses(), tried.last()) {
            addresses.succeeded(*last);
        }
    }

    /// Whether it counts as serving: its probes say so, and no operator has taken it out.
    pub(crate) fn serves(&self) -> bool {
        self.instance.is_healthy() && self.instance.held() != Hold::Maint
    }

    /// The last active probe.
    pub(crate) fn last_probe(&self) -> Option<Arc<Probe>> {
        self.last_probe.load_full()
    }

    /// Keeps the result of a probe.
    pub(crate) fn keep_probe(&self, probe: Probe) {
        self.last_probe.store(Some(Arc::new(probe)));
    }
}

/// A serial as the vault writes it, out of the framework's `00:c3:…`: no colons, no sign octet.
fn plain_serial(shown: &str) -> String {
    let digits: String = shown.chars().filter(|letter| *letter != ':').collect();
    let signed = digits.len() > 2 && digits.starts_with("00");
    if signed { digits[2..].to_owned() } else { digits }
}

/// A connection to an instance but for address and key material.
fn bare_peer(url: &InstanceUrl, timeouts: &Timeouts) -> HttpPeer {
    if url.scheme == Scheme::Unix
        && let Some(peer) = door_peer(Path::new(&url.path), timeouts)
    {
        return peer;
    }
    let mut peer = HttpPeer::new((Ipv4Addr::UNSPECIFIED, 0), url.scheme == Scheme::Https, String::new());
    set_timeouts(&mut peer, timeouts);
    match url.scheme {
        Scheme::Http | Scheme::Unix => {}
        Scheme::H2c => peer.options.set_http_version(2, 2),
        Scheme::Https => peer.options.set_http_version(2, 1),
    }
    if matches!(url.scheme, Scheme::H2c | Scheme::Https) {
        peer.options.max_h2_streams = H2_STREAMS;
        peer.options.h2_stream_window_size = Some(H2_STREAM_WINDOW);
        peer.options.h2_connection_window_size = Some(H2_STREAM_WINDOW * H2_STREAMS as u32);
        peer.options.h2_ping_interval = Some(H2_PING);
    }
    peer
}

/// The peer of a worker's internal door; `None` where the path cannot be a socket address.
pub(crate) fn door_peer(path: &Path, timeouts: &Timeouts) -> Option<HttpPeer> {
    let mut peer = HttpPeer::new_uds(path.to_str()?, false, String::new()).ok()?;
    set_timeouts(&mut peer, timeouts);
    Some(peer)
}

/// Every timeout of a peer, always. Reading is bounded more closely by the request's own deadline; the
/// value here is the backstop.
fn set_timeouts(peer: &mut HttpPeer, timeouts: &Timeouts) {
    let options = &mut peer.options;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect);
    options.read_timeout = Some(timeouts.first_byte.max(timeouts.idle));
    options.write_timeout = Some(timeouts.idle);
    options.idle_timeout = Some(timeouts.idle);
    // Upgrades are not forwarded in this version: the request goes on as plain HTTP.
    options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Deny;
}
