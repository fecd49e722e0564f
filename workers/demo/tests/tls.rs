//! The demo's ports by mutual TLS, with certificates from a stand-in vault.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::routing::post;
use axum::{Json, Router};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sluice_client::{CertificateRequest, RoleCertificate};
use sluice_http::{
    Component, Doors, HealthSource, InternalKeys, Listener, Start, Stopper, StrictJson, TrustCell,
};
use sluice_identity::certificate::ClientCertificate;
use sluice_schema::Config;
use sluice_telemetry::{log, metric};
use sluice_wire::feed::{Change, Delta, Message, Revoked, Snapshot};
use sluice_wire::role::Role;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const PATIENCE: Duration = Duration::from_secs(20);

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// When its certificates are to be renewed.
    renew_after: SignedDuration,
    given: AtomicU32,
}

impl Ca {
    fn new(renew_after: SignedDuration) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem, renew_after, given: AtomicU32::new(0) }
    }

    fn params(role: &str, serial: u8) -> CertificateParams {
        let mut params = CertificateParams::new(vec![role.to_owned(), "localhost".to_owned()]).unwrap();
        let id = format!("spiffe://sluice.internal/role/{role}");
        params.subject_alt_names.push(SanType::URI(id.try_into().unwrap()));
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params
    }

    /// What the vault would answer; the first has serial 1.
    fn answer(&self, request: &CertificateRequest) -> RoleCertificate {
        assert_eq!(
            (request.dns_names.as_slice(), request.ip_addresses.len()),
            (&["localhost".to_owned()][..], 2)
        );
        let number = self.given.fetch_add(1, Ordering::Relaxed) + 1;
        let mut wanted = CertificateSigningRequestParams::from_pem(&request.csr).unwrap();
        wanted.params = Self::params("demo", number as u8);
        let now = Timestamp::now();
        RoleCertificate {
            certificate: wanted.signed_by(&self.issuer).unwrap().pem(),
            ca_chain: self.pem.clone(),
            ca_certificate: self.pem.clone(),
            serial_number: format!("{number:02x}"),
            spiffe_id: "spiffe://sluice.internal/role/demo".into(),
            issued_at: now,
            expires_at: now + SignedDuration::from_hours(1),
            renew_at: now + self.renew_after,
        }
    }

    /// How the edge connects, or a stranger without a certificate.
    fn connector(&self, known: bool) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        if !known {
            return TlsConnector::from(Arc::new(builder.with_no_client_auth()));
        }
        let key = KeyPair::generate().unwrap();
        let leaf = Self::params("edge", 0x70).signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        TlsConnector::from(Arc::new(builder.with_client_auth_cert(vec![leaf.der().clone()], key).unwrap()))
    }
}

struct Well;

impl HealthSource for Well {
    fn ready(&self) -> bool {
        true
    }

    fn components(&self) -> BTreeMap<String, Component> {
        BTreeMap::new()
    }
}

fn start(
    role: Role,
    config: Config,
    keys: InternalKeys,
    sockets: BTreeMap<Role, PathBuf>,
) -> (Start, Stopper) {
    let (stopper, stop) = Stopper::new();
    let config = Arc::new(config);
    let start = Start {
        role,
        trust: TrustCell::new(&config, role),
        config,
        config_path: PathBuf::new(),
        data_dir: PathBuf::new(),
        dev: true,
        port_offset: 0,
        environment: BTreeMap::new(),
        keys: Arc::new(keys),
        sockets,
        doors: Mutex::new(Doors::default()),
        stop,
        registry: metric::registry(role.as_str()),
        log: log::LogLevel::fixed(),
        announce: false,
        handover: sluice_http::Handover::none(),
    };
    (start, stopper)
}

/// A running demo with its stand-in vault.
struct Demo {
    ca: Arc<Ca>,
    address: SocketAddr,
    trust: TrustCell,
    _stoppers: [Stopper; 2],
    _dir: tempfile::TempDir,
}

fn demo(mtls: bool, renew_after: SignedDuration) -> Demo {
    let dir = tempfile::tempdir().unwrap();
    let socket = |role: Role| dir.path().join(format!("{role}.sock"));
    let key = InternalKeys::mint();
    let peers = BTreeMap::from([(Role::Demo, InternalKeys::digest(&key))]);

    let ca = Arc::new(Ca::new(renew_after));
    let signing = Arc::clone(&ca);
    let routes =
        Router::new().route(
            "/internal/certificates",
            post(|StrictJson(request): StrictJson<CertificateRequest>| async move {
                Json(signing.answer(&request))
            }),
        );
    let vault_keys = InternalKeys::new(InternalKeys::mint(), &peers);
    let (vault, vault_stopper) = start(Role::Vault, Config::default(), vault_keys, BTreeMap::new());
    vault.doors().insert("internal", Listener::Unix(UnixListener::bind(socket(Role::Vault)).unwrap()));
    tokio::spawn(async move { sluice_http::serve(&vault, routes, Arc::new(Well)).await.unwrap() });

    let sockets = [Role::Vault, Role::Events, Role::Calc].map(|role| (role, socket(role))).into();
    let config = Config { mtls, ..Config::default() };
    let (start, stopper) = start(Role::Demo, config, InternalKeys::new(key, &BTreeMap::new()), sockets);
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    start.doors().insert("data", Listener::Tcp(tcp));
    start.trust.apply(&Message::Snapshot(Snapshot {
        epoch: "e".into(),
        seq: 1,
        jwks: vec![sluice_identity::jwk::publish(&[4; 65]).unwrap()],
        revoked: Revoked::default(),
    }));
    let trust = start.trust.clone();
    tokio::spawn(async move { sluice_demo::run(start).await.unwrap() });
    Demo { ca, address, trust, _stoppers: [vault_stopper, stopper], _dir: dir }
}

impl Demo {
    async fn connect(&self, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from("demo").unwrap();
        tokio::time::timeout(PATIENCE, connector.connect(name, stream)).await.unwrap()
    }

    /// Connects until another certificate than this is shown; its serial and the connection.
    async fn shown_after(&self, connector: &TlsConnector, old: &str) -> (String, TlsStream<TcpStream>) {
        let began = Instant::now();
        loop {
            let stream = self.connect(connector).await.unwrap();
            let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
            let read = ClientCertificate::parse(&leaf).unwrap();
            assert_eq!(read.spiffe.unwrap().role(), Some(Role::Demo));
            if read.serial != old {
                return (read.serial, stream);
            }
            assert!(began.elapsed() < PATIENCE, "it was never renewed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn symbols<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> std::io::Result<String> {
    stream.write_all(b"GET /symbols HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
    let mut text = String::new();
    while !text.ends_with("]}") {
        let mut bytes = [0; 4_096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap()?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    Ok(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_port_answers_mutual_tls_and_plain_http_from_here() {
    let demo = demo(true, SignedDuration::from_hours(1));
    let mut secured = demo.connect(&demo.ca.connector(true)).await.unwrap();
    assert!(symbols(&mut secured).await.unwrap().starts_with("HTTP/1.1 200"));
    let mut plain = TcpStream::connect(demo.address).await.unwrap();
    assert!(symbols(&mut plain).await.unwrap().starts_with("HTTP/1.1 200"));
    // By TLS 1.3 a client learns with its first read that it is refused.
    let refused = match demo.connect(&demo.ca.connector(false)).await {
        Ok(mut stream) => symbols(&mut stream).await.map(|_| ()),
        Err(error) => Err(error),
    };
    assert!(refused.is_err(), "a client certificate is required");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_is_renewed_when_due_without_dropping_a_connection() {
    let demo = demo(true, SignedDuration::from_millis(300));
    let connector = demo.ca.connector(true);
    let (first, mut open) = demo.shown_after(&connector, "").await;
    let (second, _) = demo.shown_after(&connector, &first).await;
    assert_ne!(first, second);
    assert!(symbols(&mut open).await.unwrap().starts_with("HTTP/1.1 200"), "the old connection lives on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_certificate_is_replaced_at_once() {
    let demo = demo(true, SignedDuration::from_hours(1));
    let connector = demo.ca.connector(true);
    let (first, _) = demo.shown_after(&connector, "").await;
    let change = Change::Serial { serial: first.clone() };
    demo.trust.apply(&Message::Delta(Delta { epoch: "e".into(), seq: 2, change }));
    assert_eq!(demo.shown_after(&connector, &first).await.0, "02");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_mutual_tls_the_ports_are_plain_and_nothing_is_asked() {
    let demo = demo(false, SignedDuration::from_hours(1));
    let mut plain = TcpStream::connect(demo.address).await.unwrap();
    assert!(symbols(&mut plain).await.unwrap().starts_with("HTTP/1.1 200"));
    assert!(demo.connect(&demo.ca.connector(true)).await.is_err());
    assert_eq!(demo.ca.given.load(Ordering::Relaxed), 0);
}
