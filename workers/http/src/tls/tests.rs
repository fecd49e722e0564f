//! A secured door over real sockets, with certificates made for the purpose.

mod chains;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use axum::Router;
use axum::routing::get;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sluice_identity::jwk::publish;
use sluice_schema::Config;
use sluice_wire::feed::{Change, Delta, Message, Revoked, Snapshot};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::*;
use crate::tests::start;
use crate::{InternalKeys, Listener, MaybeCaller, Peer, Stopper, serve_secured, wrap};

const PATIENCE: Duration = Duration::from_secs(20);

/// A root and what it signs.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A leaf with its key.
struct Leaf {
    chain: String,
    key: Vec<u8>,
}

impl Ca {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A leaf for `demo` and localhost with this path as SPIFFE id and this one-byte serial.
    fn leaf(&self, path: &str, serial: u8) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["demo".to_owned(), "localhost".to_owned()]).unwrap();
        let id = format!("spiffe://sluice.internal/{path}");
        params.subject_alt_names.push(SanType::URI(id.try_into().unwrap()));
        params.serial_number = Some(SerialNumber::from_slice(&[serial]));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Leaf { chain, key: key.serialize_der() }
    }

    /// A client that believes this root, with a certificate or without.
    fn client(&self, leaf: Option<&Leaf>, protocols: &[&str]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(certificates(&self.pem).unwrap().remove(0)).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let key = PrivateKeyDer::try_from(leaf.key.clone()).unwrap();
                builder.with_client_auth_cert(certificates(&leaf.chain).unwrap(), key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

/// A door that serves, with its own certificate's serial 1.
struct Door {
    ca: Ca,
    address: SocketAddr,
    tls: Arc<Tls>,
    trust: TrustCell,
    stopper: Stopper,
    served: tokio::task::JoinHandle<()>,
}

fn routes() -> Router {
    let caller = |MaybeCaller(caller): MaybeCaller| async move {
        caller.map_or("anonymous".to_owned(), |caller| {
            format!("{} {} [{}]", caller.subject, caller.via.as_str(), caller.grants.to_header())
        })
    };
    let peer = |axum::Extension(peer): axum::Extension<Peer>| async move {
        peer.client.map_or("none".to_owned(), |client| client.serial.clone())
    };
    Router::new().route("/caller", get(caller)).route("/peer", get(peer))
}

struct Well;

impl crate::HealthSource for Well {
    fn ready(&self) -> bool {
        true
    }

    fn components(&self) -> BTreeMap<String, crate::Component> {
        BTreeMap::new()
    }
}

/// A door with a time for the handshake that shows nothing yet.
fn opened(clients: Clients, handshake_max: Duration) -> Door {
    let mut config = Config::default();
    // A certificate makes nobody an administrator, whatever the role of its name lists.
    config.auth.roles.insert("bot".to_owned(), vec!["trade".to_owned(), "admin".to_owned()]);
    let keys = InternalKeys::alone();
    let (start, stopper) = start(config, keys, std::path::PathBuf::new());
    start.trust.apply(&Message::Snapshot(Snapshot {
        epoch: "e".into(),
        seq: 1,
        jwks: vec![publish(&[4; 65]).unwrap()],
        revoked: Revoked::default(),
    }));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Arc::new(Tls { handshake_max, ..Tls::new(clients, start.trust.clone()) });
    let app = wrap(&start, routes(), Arc::new(Well));
    let serving =
        serve_secured(Listener::Tcp(listener), Arc::clone(&tls), app, start.stop.clone(), PATIENCE).unwrap();
    let trust = start.trust.clone();
    Door { ca: Ca::new(), address, tls, trust, stopper, served: tokio::spawn(serving) }
}

fn door() -> Door {
    let door = opened(Clients::Certified, HANDSHAKE_MAX);
    door.show(1);
    door
}

impl Door {
    fn show(&self, serial: u8) {
        let own = self.ca.leaf("role/demo", serial);
        self.tls.replace(&own.chain, &own.key, &self.ca.pem).unwrap();
    }

    fn revoke(&self, seq: u64, serial: &str) {
        let change = Change::Serial { serial: serial.into() };
        self.trust.apply(&Message::Delta(Delta { epoch: "e".into(), seq, change }));
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn connect(&self, client: &TlsConnector) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let name = ServerName::try_from("demo").unwrap();
        tokio::time::timeout(PATIENCE, client.connect(name, self.tcp().await)).await.unwrap()
    }

    /// One request on a connection of its own.
    async fn ask(&self, client: &TlsConnector, path: &str, headers: &str) -> io::Result<String> {
        let mut stream = self.connect(client).await?;
        request(&mut stream, path, &format!("connection: close\r\n{headers}")).await?;
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap()?;
        Ok(String::from_utf8(answer).unwrap())
    }
}

async fn request<S: AsyncWrite + Unpin>(stream: &mut S, path: &str, headers: &str) -> io::Result<()> {
    let text = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    stream.write_all(text.as_bytes()).await
}

/// Reads one answer whose body ends in `end`.
async fn answer<S: AsyncRead + Unpin>(stream: &mut S, end: &str) -> String {
    let mut text = String::new();
    while !text.ends_with(end) {
        let mut bytes = [0; 4_096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "it ended: {text}");
        text.push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
    text
}

#[tokio::test]
async fn roles_services_and_strangers_are_told_apart_by_certificate() {
    let door = door();
    let edge = door.ca.client(Some(&door.ca.leaf("role/edge", 2)), &["http/1.1"]);
    assert!(door.ask(&edge, "/peer", "").await.unwrap().ends_with("02"));
    assert!(door.ask(&edge, "/caller", "").await.unwrap().ends_with("anonymous"), "it speaks for a client");
    let own = door.ask(&edge, "/caller", "x-internal-self: 1\r\n").await.unwrap();
    assert!(own.contains("role/edge role"), "{own}");
    let vouched = door.ask(&edge, "/caller", "x-user: alice\r\nx-permissions: read\r\n").await.unwrap();
    assert!(vouched.ends_with("alice edge [read]"), "{vouched}");

    let calc = door.ca.client(Some(&door.ca.leaf("role/calc", 3)), &[]);
    let spoofed = door.ask(&calc, "/caller", "x-user: admin\r\nx-permissions: admin\r\n").await.unwrap();
    assert!(spoofed.contains("role/calc role"), "{spoofed}");
    let bot = door.ca.client(Some(&door.ca.leaf("service/bot", 4)), &[]);
    let spoofed = door.ask(&bot, "/caller", "x-user: admin\r\nx-permissions: admin\r\n").await.unwrap();
    assert!(spoofed.ends_with("spiffe://sluice.internal/service/bot mtls [trade]"), "{spoofed}");
    let token = door.ask(&bot, "/caller", "authorization: Bearer x.y.z\r\n").await.unwrap();
    assert!(token.starts_with("HTTP/1.1 401"), "a token that is shown must be good: {token}");
    let other = door.ca.client(Some(&door.ca.leaf("job/x", 5)), &[]);
    assert!(door.ask(&other, "/caller", "").await.unwrap().ends_with("anonymous"));
    let figures = door.ask(&edge, "/metrics", "x-internal-self: 1\r\n").await.unwrap();
    assert!(figures.contains(r#"sluice_http_requests_total{door="mtls",status="2xx"} 7"#), "{figures}");
}

#[tokio::test]
async fn a_door_for_clients_takes_whoever_shows_no_certificate_but_no_bad_one() {
    let door = opened(Clients::Any, HANDSHAKE_MAX);
    door.show(1);
    let none = door.ca.client(None, &[]);
    assert!(door.ask(&none, "/caller", "").await.unwrap().ends_with("anonymous"));
    let token = door.ask(&none, "/caller", "authorization: Bearer x.y.z\r\n").await.unwrap();
    assert!(token.starts_with("HTTP/1.1 401"), "{token}");
    let spoofed = door.ask(&none, "/caller", "x-user: admin\r\nx-permissions: admin\r\n").await.unwrap();
    assert!(spoofed.ends_with("anonymous"), "{spoofed}");
    let bot = door.ca.client(Some(&door.ca.leaf("service/bot", 4)), &[]);
    let bot = door.ask(&bot, "/caller", "").await.unwrap();
    assert!(bot.ends_with("spiffe://sluice.internal/service/bot mtls [trade]"), "{bot}");
    let foreign = door.ca.client(Some(&Ca::new().leaf("role/edge", 2)), &[]);
    assert!(door.ask(&foreign, "/caller", "").await.is_err());
}

#[tokio::test]
async fn nobody_gets_in_without_a_certificate_of_the_authority() {
    let door = door();
    let none = door.ca.client(None, &[]);
    assert!(door.ask(&none, "/peer", "").await.is_err());
    let stranger = Ca::new();
    let foreign = door.ca.client(Some(&stranger.leaf("role/edge", 2)), &[]);
    assert!(door.ask(&foreign, "/peer", "").await.is_err());
    let nobody = door.ca.client(Some(&door.ca.leaf("role/../edge", 2)), &[]);
    assert!(door.ask(&nobody, "/peer", "").await.is_err(), "a name that is not a SPIFFE id");
    let h2 = door.ca.client(Some(&door.ca.leaf("role/edge", 2)), &["h2"]);
    assert!(door.ask(&h2, "/peer", "").await.is_err(), "HTTP/1.1 only");
    let sound = door.ca.client(Some(&door.ca.leaf("role/edge", 2)), &["h2", "http/1.1"]);
    assert!(door.ask(&sound, "/peer", "").await.is_ok(), "and nobody else was disturbed");
}

#[tokio::test]
async fn revocation_holds_for_new_connections_and_for_open_ones() {
    let door = door();
    let edge = door.ca.client(Some(&door.ca.leaf("role/edge", 2)), &[]);
    let mut open = door.connect(&edge).await.unwrap();
    request(&mut open, "/peer", "").await.unwrap();
    answer(&mut open, "02").await;
    door.revoke(2, "02");
    request(&mut open, "/peer", "authorization: Bearer x\r\n").await.unwrap();
    let refused = answer(&mut open, "}").await;
    assert!(refused.starts_with("HTTP/1.1 401") && refused.contains("connection: close"), "{refused}");
    assert!(door.ask(&edge, "/peer", "").await.is_err());
    let other = door.ca.client(Some(&door.ca.leaf("role/edge", 3)), &[]);
    assert!(door.ask(&other, "/peer", "").await.is_ok());
}

#[tokio::test]
async fn plain_http_is_for_this_machine() {
    let door = door();
    let mut plain = door.tcp().await;
    request(&mut plain, "/peer", "").await.unwrap();
    assert!(answer(&mut plain, "none").await.starts_with("HTTP/1.1 200"));
    let way = |first, address: &str| Way::of(first, address.parse().unwrap());
    for here in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
        assert_eq!(way(b'G', here), Way::Plain, "{here}");
    }
    for away in ["10.0.0.1", "0.0.0.0", "::", "fe80::1", "::ffff:10.0.0.1", "192.168.0.1"] {
        assert_eq!(way(b'G', away), Way::Refused, "{away}");
        assert_eq!(way(0x16, away), Way::Tls, "{away}");
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    request(&mut client, "/", "").await.unwrap();
    let accepted = listener.accept().await.unwrap().0;
    let refused = door.tls.enter(accepted, "10.0.0.1".parse().unwrap()).await;
    assert!(matches!(refused, Err(EnterError::TlsRequired)));
    let text = answer(&mut client, "}").await;
    assert!(text.starts_with("HTTP/1.1 403") && text.contains("tls_required"), "{text}");
}

#[tokio::test]
async fn new_certificate_serves_the_next_handshake_and_old_connections_live_on() {
    let door = opened(Clients::Certified, HANDSHAKE_MAX);
    let edge = door.ca.client(Some(&door.ca.leaf("role/edge", 2)), &[]);
    let early = door.connect(&edge);
    tokio::pin!(early);
    tokio::select! {
        biased;
        _ = &mut early => panic!("there is nothing to show yet"),
        () = tokio::task::yield_now() => door.show(1),
    }
    let mut first = early.await.unwrap();
    let shown = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
        ClientCertificate::parse(&leaf).unwrap().serial
    };
    door.show(9);
    let second = door.connect(&edge).await.unwrap();
    assert_eq!((shown(&first).as_str(), shown(&second).as_str()), ("01", "09"));
    request(&mut first, "/peer", "").await.unwrap();
    assert!(answer(&mut first, "02").await.starts_with("HTTP/1.1 200"));

    let own = door.ca.leaf("role/demo", 10);
    let other = door.ca.leaf("role/demo", 11);
    assert!(matches!(door.tls.replace("", &own.key, &door.ca.pem), Err(TlsError::Count(0))));
    assert!(matches!(door.tls.replace(&own.chain, &own.key, ""), Err(TlsError::Count(0))));
    let unfit = door.tls.replace(&own.chain, &other.key, &door.ca.pem);
    assert!(matches!(unfit, Err(TlsError::Settings(_))));
    assert!(matches!(door.tls.replace(&own.chain, b"no key", &door.ca.pem), Err(TlsError::Settings(_))));
    assert!(door.tls.replace(&own.chain.repeat(20), &own.key, &door.ca.pem).is_err());
    let third = door.connect(&edge).await.unwrap();
    assert_eq!(shown(&third), "09", "what failed changed nothing");
}

#[tokio::test]
async fn silence_and_half_a_handshake_are_cut_in_time() {
    let door = opened(Clients::Certified, Duration::from_millis(200));
    door.show(1);
    for first in [&b""[..], &[0x16], &[0x16, 3, 1, 2, 0, 1]] {
        let began = Instant::now();
        let mut stream = door.tcp().await;
        stream.write_all(first).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
        assert!(ended.is_err() || rest.is_empty(), "{rest:?}");
        assert!(began.elapsed() >= Duration::from_millis(150), "not before its time");
    }
}

#[tokio::test]
async fn drain_ends_handshakes_and_lets_requests_finish() {
    let door = door();
    let silent = door.tcp().await;
    let edge = door.ca.client(Some(&door.ca.leaf("role/edge", 2)), &[]);
    let mut open = door.connect(&edge).await.unwrap();
    request(&mut open, "/peer", "").await.unwrap();
    answer(&mut open, "02").await;
    door.stopper.stop();
    tokio::time::timeout(PATIENCE / 2, door.served).await.expect("nobody holds the drain up").unwrap();
    drop(silent);
}
