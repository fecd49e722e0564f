//! TLS at a TCP door, beside plain HTTP from this machine.
//!
//! Which of the two a connection speaks is told by its first byte: 0x16 begins a TLS handshake and no
//! HTTP method. TLS asks for a client certificate: between processes without exception, at a door for
//! clients whoever shows none has a token to show. One that is shown and not believed ends the
//! handshake either way. Plain HTTP is answered for peers
//! on the loopback interface alone: there nobody can listen in or stand in between who could not also
//! read this process, and it keeps `curl http://127.0.0.1:…` working while every hop between processes
//! is encrypted. Anybody else without TLS gets 403 `tls_required`.
//!
//! TLS 1.2 and 1.3 with ring's suites, all of them AEAD; HTTP/1.1 only; no early data. Sessions are not
//! resumed, since resuming would skip the verifier: the peers are processes that keep connections.
//! Certificate and roots are swapped whole by [`Tls::replace`]; connections that stand are not touched,
//! and the next handshake sees the new. Before the first, a handshake waits. LIMIT: 10 s from accepting
//! to the end of the handshake.

mod verify;

#[cfg(test)]
mod tests;

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use sluice_identity::certificate::{CertificateError, ClientCertificate};
use sluice_wire::code::Code;
use sluice_wire::problem::{self, Problem};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::trust::TrustCell;
pub use verify::ClientVerifier;

/// LIMIT: from accepting a connection to the end of its handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// First byte of a TLS handshake record.
const HANDSHAKE_RECORD: u8 = 0x16;
/// LIMIT: certificates of a chain, and of roots.
const CERTIFICATES_MAX: usize = 16;

/// Certificate, key or roots cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not PEM.
    #[error("the certificates are not PEM")]
    Pem(#[source] pem::Error),
    /// None, or too many.
    #[error("{0} certificates where 1 to {CERTIFICATES_MAX} are expected")]
    Count(usize),
    /// Key, chain and roots do not make a server.
    #[error("key, certificate and roots do not fit together")]
    Settings(#[source] rustls::Error),
}

/// What a door shows to its peers and which of them it believes. Shared between the door and whoever
/// renews the certificate.
pub struct Tls {
    certificates: Clients,
    current: watch::Sender<Option<Arc<ServerConfig>>>,
    trust: TrustCell,
    handshake_max: Duration,
}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clients {
    /// All of them.
    Certified,
    /// Whoever has one.
    Any,
}

/// A connection that may go on.
pub(crate) enum Entered {
    /// Plain, from this machine.
    Plain(TcpStream),
    /// By TLS, and who its certificate says it is, if it showed one.
    Secured(Box<TlsStream<TcpStream>>, Option<Arc<ClientCertificate>>),
}

/// Why a connection ends before its first request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnterError {
    #[error("nothing came in time")]
    Timeout,
    #[error("the connection ended")]
    Closed,
    #[error("plain HTTP from another machine")]
    TlsRequired,
    #[error("the handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the client's certificate cannot be read")]
    Certificate(#[source] CertificateError),
}

/// What a connection's first byte and its peer's address make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Tls,
    Plain,
    Refused,
}

impl Way {
    fn of(first: u8, peer: IpAddr) -> Self {
        match first {
            HANDSHAKE_RECORD => Self::Tls,
            _ if peer.to_canonical().is_loopback() => Self::Plain,
            _ => Self::Refused,
        }
    }
}

impl Tls {
    /// Shows nothing yet; `trust` tells which certificates were revoked.
    pub fn new(certificates: Clients, trust: TrustCell) -> Self {
        Self { certificates, current: watch::Sender::new(None), trust, handshake_max: HANDSHAKE_MAX }
    }

    /// From the next handshake on shows this chain (PEM, the leaf first) with its key (PKCS#8, DER) and
    /// believes clients whose chains end in these roots (PEM). Nothing changes when it fails.
    pub fn replace(&self, chain: &str, key_pkcs8: &[u8], roots: &str) -> Result<(), TlsError> {
        let mandatory = self.certificates == Clients::Certified;
        let verifier = ClientVerifier::new(provider(), mandatory, &certificates(roots)?, self.trust.clone());
        let verifier = Arc::new(verifier.map_err(TlsError::Settings)?);
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsError::Settings)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(chain)?, PrivatePkcs8KeyDer::from(key_pkcs8.to_vec()).into())
            .map_err(TlsError::Settings)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        self.current.send_replace(Some(Arc::new(config)));
        Ok(())
    }

    /// Whether it has something to show.
    pub fn is_ready(&self) -> bool {
        self.current.borrow().is_some()
    }

    /// Finds out what a connection speaks and shakes hands where it has to, in bounded time.
    pub(crate) async fn enter(&self, stream: TcpStream, peer: IpAddr) -> Result<Entered, EnterError> {
        let entering = async {
            let mut first = [0];
            if stream.peek(&mut first).await.map_err(EnterError::Handshake)? == 0 {
                return Err(EnterError::Closed);
            }
            match Way::of(first[0], peer) {
                Way::Tls => self.handshake(stream).await,
                Way::Plain => Ok(Entered::Plain(stream)),
                Way::Refused => {
                    refuse(stream).await;
                    Err(EnterError::TlsRequired)
                }
            }
        };
        tokio::time::timeout(self.handshake_max, entering).await.unwrap_or(Err(EnterError::Timeout))
    }

    async fn handshake(&self, stream: TcpStream) -> Result<Entered, EnterError> {
        let mut current = self.current.subscribe();
        let config = current.wait_for(Option::is_some).await.ok().and_then(|config| config.clone());
        let acceptor = TlsAcceptor::from(config.ok_or(EnterError::Closed)?);
        let stream = acceptor.accept(stream).await.map_err(EnterError::Handshake)?;
        let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let client = leaf.map(|leaf| ClientCertificate::parse(leaf).map(Arc::new)).transpose();
        let client = client.map_err(EnterError::Certificate)?;
        Ok(Entered::Secured(Box::new(stream), client))
    }
}

/// The one crypto provider.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&PROVIDER)
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes()).take(CERTIFICATES_MAX + 1);
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(TlsError::Pem)?;
    if (1..=CERTIFICATES_MAX).contains(&found.len()) { Ok(found) } else { Err(TlsError::Count(found.len())) }
}

/// Tells a peer that spoke plain HTTP why that is the end. Its request is not read.
async fn refuse(mut stream: TcpStream) {
    let body = Problem::new(Code::TlsRequired)
        .detail("only this machine may speak plain HTTP here; connect by TLS")
        .to_json();
    let head = format!(
        "HTTP/1.1 403 Forbidden\r\ncontent-type: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        problem::CONTENT_TYPE,
        body.len()
    );
    let whole = [head.as_bytes(), body.as_ref()].concat();
    // Who does not read it has closed already.
    let _gone = stream.write_all(&whole).await;
    let _gone = stream.shutdown().await;
}
