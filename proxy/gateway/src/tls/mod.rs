//! TLS towards clients: which certificate, who may connect, what a handshake may cost.
//!
//! TLS 1.2 and 1.3 with ring's suites, all of them AEAD; no early data. Certificates, authority and
//! revocations are swapped under the running listener: a new certificate serves the next handshake, and
//! connections that stand are not touched. A new authority or another `client_auth` also forgets the
//! sessions that could be resumed, since resuming skips the verifier.

mod certificates;
pub(crate) mod identity;
pub(crate) mod replaced;

use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::server::{NoClientAuth, ServerSessionMemoryCache};
use sluice_http::{ClientVerifier, TrustCell};
use sluice_identity::certificate::ClientCertificate;
use sluice_schema::{Authority, Certificate, ClientAuth, EdgeTls};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::conn::TlsSession;
pub use certificates::CertificateFault;
use certificates::{Certificates, Served, read_chain};
use identity::RoleIdentity;

/// LIMIT: sessions that can be resumed.
const SESSIONS_MAX: usize = 4_096;
/// LIMIT: from the first byte to the end of a handshake, whatever `header_timeout` allows.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// The one crypto provider.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
    Arc::clone(&PROVIDER)
}

/// The TLS settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A certificate or key.
    #[error(transparent)]
    Certificate(#[from] CertificateFault),
    /// An authority.
    #[error("the authority of client certificates cannot be used")]
    Authority(#[source] rustls::Error),
    /// rustls does not take the settings.
    #[error("the TLS settings do not fit together")]
    Settings(#[source] rustls::Error),
}

/// Why a handshake came to nothing; a fixed word for metrics.
#[derive(Debug)]
pub(crate) struct HandshakeFault(pub(crate) &'static str);

/// TLS towards clients. Empty until the first settings are applied, and closed until there is a certificate.
pub(crate) struct Tls {
    certificates: Arc<Certificates>,
    acceptor: watch::Sender<Option<TlsAcceptor>>,
    applied: Mutex<Option<Applied>>,
    trust: TrustCell,
}

/// What the present acceptor was built from.
struct Applied {
    client_auth: ClientAuth,
    roots: Vec<CertificateDer<'static>>,
}

impl Tls {
    /// Nothing served yet.
    pub(crate) fn new(trust: TrustCell) -> Self {
        Self {
            certificates: Arc::default(),
            acceptor: watch::Sender::new(None),
            applied: Mutex::default(),
            trust,
        }
    }

    /// Takes settings, and the edge's own identity where they say `auto`. What needs an identity that is
    /// not there yet waits for it. Nothing changes when it fails.
    pub(crate) fn apply(&self, tls: &EdgeTls, identity: Option<&RoleIdentity>) -> Result<(), TlsFault> {
        let served = match (&tls.certificate, identity) {
            (Certificate::Files(files), _) => {
                files.iter().map(Served::from_files).collect::<Result<Vec<_>, _>>()?
            }
            (Certificate::Auto, Some(identity)) => {
                vec![Served::new(identity.chain.clone(), &identity.key())?]
            }
            (Certificate::Auto, None) => return Ok(()),
        };
        let roots = match (tls.client_auth, &tls.client_ca, identity) {
            (ClientAuth::Off, ..) => Vec::new(),
            (_, Authority::File(path), _) => read_chain(path)?,
            (_, Authority::Auto, Some(identity)) => identity.roots.clone(),
            (_, Authority::Auto, None) => return Ok(()),
        };
        let mut applied = self.applied.lock().unwrap_or_else(PoisonError::into_inner);
        let same = applied
            .as_ref()
            .is_some_and(|applied| applied.client_auth == tls.client_auth && applied.roots == roots);
        let acceptor = if same { None } else { Some(self.acceptor(tls.client_auth, &roots)?) };
        self.certificates.replace(&served);
        if acceptor.is_some() {
            self.acceptor.send_replace(acceptor);
            *applied = Some(Applied { client_auth: tls.client_auth, roots });
        }
        Ok(())
    }

    fn acceptor(
        &self,
        client_auth: ClientAuth,
        roots: &[CertificateDer<'static>],
    ) -> Result<TlsAcceptor, TlsFault> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsFault::Settings)?;
        let builder = match client_auth {
            ClientAuth::Off => builder.with_client_cert_verifier(Arc::new(NoClientAuth)),
            auth => {
                let clients =
                    ClientVerifier::new(provider(), auth == ClientAuth::Required, roots, self.trust.clone());
                let clients = clients.map_err(TlsFault::Authority)?;
                builder.with_client_cert_verifier(Arc::new(clients))
            }
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&self.certificates) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Whether it has what it shows to clients.
    pub(crate) fn is_ready(&self) -> bool {
        self.acceptor.borrow().is_some()
    }

    /// When the first certificate in use ends, unix seconds.
    pub(crate) fn not_after_s(&self) -> Option<i64> {
        self.certificates.not_after_s()
    }

    /// Whether a request for `host` belongs on a connection that was made to `sni`.
    pub(crate) fn is_directed(&self, sni: &str, host: &str) -> bool {
        self.certificates.cover_both(sni, host)
    }

    /// Shakes hands, by `deadline` at the latest.
    pub(crate) async fn handshake(
        &self,
        socket: TcpStream,
        deadline: Instant,
    ) -> Result<(Box<TlsStream<TcpStream>>, TlsSession), HandshakeFault> {
        let deadline = deadline.min(Instant::now() + HANDSHAKE_MAX);
        let shaken = async {
            let mut ready = self.acceptor.subscribe();
            let acceptor = ready.wait_for(Option::is_some).await.ok().and_then(|acceptor| acceptor.clone());
            let acceptor = acceptor.ok_or(HandshakeFault("no_certificate"))?;
            acceptor.accept(socket).await.map_err(|error| HandshakeFault(reason(&error)))
        };
        let stream = tokio::time::timeout_at(deadline, shaken);
        let stream = stream.await.unwrap_or(Err(HandshakeFault("timeout")))?;
        let session = session(&stream)?;
        Ok((Box::new(stream), session))
    }
}

/// What the handshake agreed on.
fn session(stream: &TlsStream<TcpStream>) -> Result<TlsSession, HandshakeFault> {
    let (_, tls) = stream.get_ref();
    let client = match tls.peer_certificates().and_then(|chain| chain.first()) {
        Some(leaf) => Some(ClientCertificate::parse(leaf).map_err(|_| HandshakeFault("certificate"))?),
        None => None,
    };
    let version = match tls.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let http2 = tls.alpn_protocol() == Some(b"h2");
    Ok(TlsSession::new(tls.server_name().map(str::to_ascii_lowercase), version, http2, client))
}

/// A word for why a handshake failed.
fn reason(error: &std::io::Error) -> &'static str {
    use rustls::{AlertDescription as Alert, CertificateError as Bad, Error as Tls};
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>()) else {
        return "disconnected";
    };
    match tls {
        Tls::NoCertificatesPresented => "no_client_certificate",
        Tls::InvalidCertificate(Bad::Revoked) => "certificate_revoked",
        Tls::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => "certificate_expired",
        Tls::InvalidCertificate(_) => "certificate",
        Tls::AlertReceived(Alert::UnknownCA | Alert::BadCertificate | Alert::CertificateUnknown) => {
            "refused_by_client"
        }
        Tls::PeerIncompatible(_) => "incompatible",
        _ => "protocol",
    }
}

/// Files that the settings name, to see when one is replaced.
pub(crate) fn files(tls: &EdgeTls) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Certificate::Files(pairs) = &tls.certificate {
        files.extend(pairs.iter().flat_map(|pair| [pair.cert.clone(), pair.key.clone()]));
    }
    if let (true, Authority::File(path)) = (tls.client_auth != ClientAuth::Off, &tls.client_ca) {
        files.push(path.clone());
    }
    files
}
