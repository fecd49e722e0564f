//! What is known of a client connection for its whole life.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use rustls::pki_types::CertificateDer;
pub(crate) use sluice_http::is_within;
use sluice_identity::certificate::ClientCertificate;

use crate::digits::push_address;
use crate::jwt_cache::{LastToken, Verified};

/// A client connection.
#[derive(Debug)]
pub(crate) struct Conn {
    /// The client; behind a proxy that speaks the PROXY protocol the one it names.
    pub(crate) peer: SocketAddr,
    /// The other end of the socket.
    pub(crate) direct: SocketAddr,
    /// This end of the socket.
    pub(crate) local: SocketAddr,
    /// Its TLS session; `None` for plain text.
    pub(crate) tls: Option<TlsSession>,
    /// The client's address, as upstreams are told it.
    pub(crate) peer_address: HeaderValue,
    /// The token that came on it last.
    pub(crate) token: LastToken,
}

impl Conn {
    /// A connection that is known to this extent.
    pub(crate) fn new(
        peer: SocketAddr,
        direct: SocketAddr,
        local: SocketAddr,
        tls: Option<TlsSession>,
    ) -> Self {
        let mut text = Vec::new();
        push_address(&mut text, peer.ip().to_canonical());
        let peer_address = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"));
        Self { peer, direct, local, tls, peer_address, token: LastToken::default() }
    }

    /// Whether it is encrypted.
    pub(crate) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

/// Of the configuration, and of the edge's own identity.
type Generations = (u64, u64);

/// What a TLS handshake agreed on.
#[derive(Debug)]
pub(crate) struct TlsSession {
    /// The host name the client asked for, lower case.
    pub(crate) sni: Option<String>,
    /// `TLSv1.2` or `TLSv1.3`.
    pub(crate) version: &'static str,
    /// Whether the two agreed on HTTP/2.
    pub(crate) http2: bool,
    /// The certificate the client showed, verified at the handshake.
    pub(crate) client: Option<ClientCertificate>,
    /// That certificate and its issuers, as they came.
    pub(crate) chain: Box<[CertificateDer<'static>]>,
    /// By which rules for clients it was let in last.
    admitted_by: AtomicU64,
    /// The caller it stands for, as of a generation and an authority of our own.
    caller: ArcSwapOption<(Generations, Option<Arc<Verified>>)>,
}

impl TlsSession {
    /// A session as the handshake left it: the client's certificate with its chain, the number of the rules
    /// for clients.
    pub(crate) fn new(
        sni: Option<String>,
        version: &'static str,
        http2: bool,
        client: Option<(ClientCertificate, &[CertificateDer<'_>])>,
        admitted_by: u64,
    ) -> Self {
        let (client, chain) = client.unzip();
        let chain = chain.into_iter().flatten().map(|certificate| certificate.clone().into_owned());
        Self {
            sni,
            version,
            http2,
            client,
            chain: chain.collect(),
            admitted_by: AtomicU64::new(admitted_by),
            caller: ArcSwapOption::empty(),
        }
    }

    /// The number of the rules for clients that it was let in by last.
    pub(crate) fn admitted_by(&self) -> u64 {
        self.admitted_by.load(Ordering::Relaxed)
    }

    /// Lets it in by other rules too.
    pub(crate) fn admit_by(&self, rules: u64) {
        self.admitted_by.store(rules, Ordering::Relaxed);
    }

    /// The caller the client's certificate stands for, made by `make` once a generation of the configuration and of the
    /// edge's own identity.
    pub(crate) fn caller(
        &self,
        generation: Generations,
        make: impl FnOnce(&ClientCertificate) -> Option<Arc<Verified>>,
    ) -> Option<Arc<Verified>> {
        let certificate = self.client.as_ref()?;
        let known = self.caller.load();
        if let Some((_, caller)) = known.as_deref().filter(|(of, _)| *of == generation) {
            return caller.clone();
        }
        let caller = make(certificate);
        self.caller.store(Some(Arc::new((generation, caller.clone()))));
        caller
    }
}

/// The version of HTTP a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// A WebSocket, after its 101.
    WebSocket,
}

impl Protocol {
    /// The word for it in the access log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "http/1.0",
            Self::Http11 => "http/1.1",
            Self::Http2 => "h2",
            Self::WebSocket => "ws",
        }
    }
}
