//! TLS towards clients: which certificate, who may connect, what a handshake may cost.
//!
//! TLS 1.2 and 1.3 with ring's suites, all of them AEAD; no early data. Certificates, authority and
//! revocations are swapped under the running listener: a new certificate serves the next handshake, and
//! connections that stand are not touched. A new authority or another `client_auth` also forgets the
//! sessions that could be resumed, since resuming skips the verifier; and connections that stand are judged
//! by it at their next request.

mod certificates;
pub(crate) mod identity;
pub(crate) mod replaced;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use rustls::server::{NoClientAuth, ServerSessionMemoryCache};
use sluice_http::{ClientVerifier, TrustCell};
use sluice_identity::certificate::ClientCertificate;
use sluice_schema::{Authority, Certificate, ClientAuth, EdgeTls};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::clock;
use crate::conn::TlsSession;
pub use certificates::CertificateFault;
use certificates::{Certificates, Served, plain_name, read_chain};
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

/// A handshake came to nothing.
#[derive(Debug)]
pub(crate) struct HandshakeFault {
    /// Why; a fixed word for metrics.
    pub(crate) reason: &'static str,
    /// The socket, where the client was sent an alert that closing at once would overtake.
    pub(crate) told: Option<TcpStream>,
}

impl HandshakeFault {
    const fn new(reason: &'static str) -> Self {
        Self { reason, told: None }
    }
}

/// TLS towards clients. Empty until the first settings are applied, and closed until there is a certificate.
pub(crate) struct Tls {
    certificates: Arc<Certificates>,
    rules: watch::Sender<Option<Arc<Rules>>>,
    /// The number of the present rules.
    number: AtomicU64,
    applying: Mutex<()>,
    trust: TrustCell,
    /// Which changed files are not in use.
    pub(crate) refused: replaced::Refused,
}

/// What handshakes go by.
struct Rules {
    acceptor: TlsAcceptor,
    client_auth: ClientAuth,
    roots: Vec<CertificateDer<'static>>,
    /// `None` where no certificate is asked for.
    clients: Option<Arc<ClientVerifier>>,
    /// Another number with each change.
    number: u64,
}

impl Rules {
    /// Whether a client that is let in already would be let in by these.
    fn admit(&self, session: &TlsSession) -> bool {
        match (&self.clients, session.chain.split_first()) {
            // Nobody stands for anything by a certificate any more.
            (None, Some(_)) => false,
            (None, None) => true,
            (Some(_), None) => self.client_auth != ClientAuth::Required,
            (Some(clients), Some((leaf, issuers))) => {
                clients.verify_client_cert(leaf, issuers, UnixTime::now()).is_ok()
            }
        }
    }
}

impl Tls {
    /// Nothing served yet.
    pub(crate) fn new(trust: TrustCell) -> Self {
        Self {
            certificates: Arc::default(),
            rules: watch::Sender::new(None),
            number: AtomicU64::new(0),
            applying: Mutex::default(),
            trust,
            refused: replaced::Refused::default(),
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
        let _one_at_a_time = self.applying.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.rules.borrow().clone();
        let same = present.is_some_and(|rules| rules.client_auth == tls.client_auth && rules.roots == roots);
        let rules = if same { None } else { Some(self.rules(tls.client_auth, roots)?) };
        self.certificates.replace(&served, clock::unix_s())?;
        if let Some(rules) = rules {
            let number = rules.number;
            self.rules.send_replace(Some(Arc::new(rules)));
            self.number.store(number, Ordering::Release);
        }
        Ok(())
    }

    fn rules(&self, client_auth: ClientAuth, roots: Vec<CertificateDer<'static>>) -> Result<Rules, TlsFault> {
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(TlsFault::Settings)?;
        let clients = match client_auth {
            ClientAuth::Off => None,
            auth => {
                let mandatory = auth == ClientAuth::Required;
                let clients = ClientVerifier::new(provider(), mandatory, &roots, self.trust.clone());
                Some(Arc::new(clients.map_err(TlsFault::Authority)?))
            }
        };
        let builder = match &clients {
            None => builder.with_client_cert_verifier(Arc::new(NoClientAuth)),
            Some(clients) => builder.with_client_cert_verifier(Arc::clone(clients) as _),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&self.certificates) as _);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let number = self.number.load(Ordering::Acquire) + 1;
        Ok(Rules { acceptor, client_auth, roots, clients, number })
    }

    /// Whether a connection may go on under the present rules for clients: one that was made by earlier ones
    /// is judged once by the new.
    pub(crate) fn admits(&self, session: &TlsSession) -> bool {
        if session.admitted_by() == self.number.load(Ordering::Acquire) {
            return true;
        }
        let present = self.rules.borrow().clone();
        let Some(rules) = present else { return true };
        let admitted = rules.admit(session);
        if admitted {
            session.admit_by(rules.number);
        }
        admitted
    }

    /// Whether it has what it shows to clients.
    pub(crate) fn is_ready(&self) -> bool {
        self.rules.borrow().is_some()
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
            let mut ready = self.rules.subscribe();
            let rules = ready.wait_for(Option::is_some).await.ok().and_then(|rules| rules.clone());
            let rules = rules.ok_or(HandshakeFault::new("no_certificate"))?;
            let stream = rules.acceptor.accept(socket).into_fallible().await;
            let stream = stream.map_err(|(error, socket)| HandshakeFault {
                reason: reason(&error),
                told: Some(socket).filter(|_| error.get_ref().is_some()),
            });
            Ok((stream?, rules.number))
        };
        let shaken = tokio::time::timeout_at(deadline, shaken);
        let (stream, rules) = shaken.await.unwrap_or(Err(HandshakeFault::new("timeout")))?;
        let session = session(&stream, rules)?;
        Ok((Box::new(stream), session))
    }
}

/// What the handshake agreed on.
fn session(stream: &TlsStream<TcpStream>, rules: u64) -> Result<TlsSession, HandshakeFault> {
    let (_, tls) = stream.get_ref();
    let chain = tls.peer_certificates().unwrap_or_default();
    let read = |leaf| ClientCertificate::parse(leaf).map_err(|_| HandshakeFault::new("certificate"));
    let client = chain.first().map(|leaf| read(leaf)).transpose()?.map(|leaf| (leaf, chain));
    let version = match tls.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    let http2 = tls.alpn_protocol() == Some(b"h2");
    Ok(TlsSession::new(tls.server_name().map(plain_name), version, http2, client, rules))
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
