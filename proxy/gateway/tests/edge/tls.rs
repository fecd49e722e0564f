//! TLS towards clients: certificates by name, their exchange, client certificates, the edge's own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use sluice_wire::feed::{Change, Delta, Message};
use sluice_wire::role::Role;

use crate::harness::{Client, Edge, PATIENCE, Setup, Upstream, eventually, ok, reply, service};
use crate::tunnel::{TEXT, asking, frame, switched};

pub type Secure = Client<StreamOwned<ClientConnection, TcpStream>>;

/// An authority of the test.
pub struct Ca {
    pub issuer: Issuer<'static, KeyPair>,
    pub root: CertificateDer<'static>,
}

/// A certificate and its key, PEM and DER.
pub struct Leaf {
    cert: String,
    key: String,
    pub chain: Vec<CertificateDer<'static>>,
    pub der: PrivateKeyDer<'static>,
    pub serial: String,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), root }
    }

    pub fn pem(&self) -> String {
        sluice_client::pem("CERTIFICATE", &self.root)
    }

    pub fn issue(&self, names: &[&str], uri: Option<&str>, serial: u8) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.serial_number = Some(vec![0x4a, serial].into());
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            cert: cert.pem(),
            key: key.serialize_pem(),
            chain: vec![cert.der().clone()],
            der: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            serial: format!("4a{serial:02x}"),
        }
    }

    /// How a client that believes this authority connects, showing `leaf`.
    pub fn client(&self, leaf: Option<&Leaf>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(roots);
        Arc::new(match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => builder.with_client_auth_cert(leaf.chain.clone(), leaf.der.clone_key()).unwrap(),
        })
    }
}

impl Leaf {
    /// What a client shows.
    pub fn of(chain: Vec<CertificateDer<'static>>, der: PrivateKeyDer<'static>) -> Self {
        Self { cert: String::new(), key: String::new(), chain, der, serial: String::new() }
    }

    pub fn write(&self, dir: &Path, name: &str) {
        // Both files at once for a reader that looks between.
        std::fs::write(dir.join(format!("{name}.key.new")), &self.key).unwrap();
        std::fs::write(dir.join(format!("{name}.pem.new")), &self.cert).unwrap();
        std::fs::rename(dir.join(format!("{name}.key.new")), dir.join(format!("{name}.key"))).unwrap();
        std::fs::rename(dir.join(format!("{name}.pem.new")), dir.join(format!("{name}.pem"))).unwrap();
    }
}

pub fn connect(edge: &Edge, config: &Arc<ClientConfig>, name: &str) -> Secure {
    let socket = TcpStream::connect(edge.tls.expect("a TLS door")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_nodelay(true).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    Client::over(StreamOwned::new(ClientConnection::new(Arc::clone(config), name).unwrap(), socket))
}

pub fn ask(client: &mut Secure, host: &str) -> Option<u16> {
    client.send(&format!("GET /api HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    client.try_reply().map(|reply| reply.status)
}

/// The certificate that a client was shown.
pub fn shown(client: &Secure) -> CertificateDer<'static> {
    client.socket.conn.peer_certificates().unwrap()[0].clone().into_owned()
}

pub struct Site {
    pub ca: Ca,
    pub upstream: Upstream,
    pub edge: Edge,
}

/// An edge with a certificate for `shop.example` and one for `*.desk.example`.
pub fn site(more: &str, service_more: &str) -> Site {
    site_of(Upstream::start(ok), more, service_more)
}

pub fn site_of(upstream: Upstream, more: &str, service_more: &str) -> Site {
    let ca = Ca::new();
    let setup = Setup::new("");
    let conf = setup.dir.path().join("conf");
    std::fs::create_dir_all(&conf).unwrap();
    ca.issue(&["shop.example"], None, 1).write(&conf, "shop");
    ca.issue(&["*.desk.example", "127.0.0.1"], None, 2).write(&conf, "desk");
    std::fs::write(conf.join("ca.pem"), ca.pem()).unwrap();
    let main = format!(
        "[edge]\nthreads = 1\n[edge.limits]\nheader_timeout = \"1s\"\n[edge.tls]\nlisten = \"127.0.0.1:0\"\n\
         certificate = [{{ cert = \"shop.pem\", key = \"shop.key\" }}, {{ cert = \"desk.pem\", key = \"desk.key\" }}]\n\
         {more}\n"
    );
    let text = service("api", "/api", &[upstream.url()], service_more);
    let edge = Setup { main, ..setup }.service("api", &text).start();
    Site { ca, upstream, edge }
}

#[test]
fn the_name_picks_the_certificate() {
    let Site { ca, upstream, edge } = site("", "auth_required = false");
    let config = ca.client(None);
    let mut shop = connect(&edge, &config, "shop.example");
    assert_eq!(ask(&mut shop, "shop.example"), Some(200));
    let mut desk = connect(&edge, &config, "fx.desk.example");
    assert_eq!(ask(&mut desk, "fx.desk.example:8443"), Some(200));
    assert_ne!(shown(&shop), shown(&desk));
    assert_eq!(ask(&mut desk, "rates.desk.example"), Some(200), "the same certificate is for both");
    assert_eq!(ask(&mut shop, "SHOP.Example."), Some(200), "one name, however it is written");
    let seen = upstream.seen();
    assert_eq!(seen[0].fields("x-forwarded-proto"), ["https"]);
    assert_eq!(seen[0].fields("x-forwarded-host"), ["shop.example"]);
    // A client that is at the wrong door is told so.
    assert_eq!(ask(&mut desk, "shop.example"), Some(421));
    assert!(desk.is_closed());
    assert_eq!(upstream.seen().len(), 4);
}

#[test]
fn answers_over_tls_ask_for_tls() {
    let Site { ca, edge, .. } = site("", "auth_required = false");
    let mut client = connect(&edge, &ca.client(None), "shop.example");
    let answer = client.exchange("GET /api HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    assert!(answer.field("strict-transport-security").starts_with("max-age="));
    assert_eq!(edge.get("/api").field("strict-transport-security"), "");
}

#[test]
fn replaced_files_serve_the_next_handshake_and_cut_nobody() {
    let Site { ca, edge, .. } = site("", "auth_required = false");
    let config = ca.client(None);
    let mut before = connect(&edge, &config, "shop.example");
    assert_eq!(ask(&mut before, "shop.example"), Some(200));
    let old = shown(&before);
    // A key that does not fit its certificate changes nothing.
    std::fs::write(edge.conf.join("shop.key"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let is_told = || edge.get("/health").text().contains("changed certificate files cannot be used");
    eventually("what cannot be used is told", || is_told().then_some(()));
    ca.issue(&["shop.example"], None, 9).write(&edge.conf, "shop");
    let new = eventually("the new certificate", || {
        // Settings of its own: a resumed session is not shown a certificate.
        let mut client = connect(&edge, &ca.client(None), "shop.example");
        assert_eq!(ask(&mut client, "shop.example"), Some(200));
        Some(shown(&client)).filter(|shown| *shown != old)
    });
    assert_ne!(new, old);
    eventually("nothing is told any longer", || (!is_told()).then_some(()));
    assert_eq!(ask(&mut before, "shop.example"), Some(200), "a connection that stands is not touched");
}

#[test]
fn a_client_needs_a_certificate_where_it_is_required() {
    let logs = tempfile::tempdir().unwrap();
    let log = logs.path().join("access");
    let more = format!(
        "client_auth = \"required\"\nclient_ca = \"ca.pem\"\n[auth.roles]\n\"spiffe://desk.example/service/pricer\" = [\"read\"]\n[log]\naccess = \"file:{}\"\n",
        log.display()
    );
    let Site { ca, upstream, edge } = site(&more, "permissions = { GET = [\"read\"], POST = [\"write\"] }");
    let refused = |config: Arc<ClientConfig>| {
        let mut client = connect(&edge, &config, "shop.example");
        assert_eq!(ask(&mut client, "shop.example"), None);
    };
    refused(ca.client(None));
    // A client that sends at once, as all do, still reads why.
    let mut told = connect(&edge, &ca.client(None), "shop.example");
    told.send("GET /api HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    told.socket.sock.set_read_timeout(Some(PATIENCE)).unwrap();
    told.send(&"x".repeat(4_000));
    let alert = told.socket.read(&mut [0; 16]).unwrap_err().to_string();
    assert!(alert.contains("CertificateRequired"), "{alert}");
    let stranger = Ca::new().issue(&["pricer"], Some("spiffe://desk.example/service/pricer"), 3);
    refused(ca.client(Some(&stranger)));
    let pricer = ca.issue(&["pricer"], Some("spiffe://desk.example/service/pricer"), 4);
    let config = ca.client(Some(&pricer));
    let mut client = connect(&edge, &config, "shop.example");
    assert_eq!(ask(&mut client, "shop.example"), Some(200));
    let seen = upstream.only();
    assert_eq!(seen.fields("x-user"), ["spiffe://desk.example/service/pricer"]);
    assert_eq!(seen.fields("x-permissions"), ["read"]);
    assert_eq!(seen.fields("x-auth-method"), ["mtls"]);
    let post = "POST /api HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(client.exchange(post).status, 403, "its role may read only");
    // A token that is shown speaks for itself.
    let token = edge.issuer.token("write");
    let post = post.replace("Content-Length", &format!("Authorization: Bearer {token}\r\nContent-Length"));
    assert_eq!(client.exchange(&post).status, 200);
    assert_eq!(upstream.seen()[1].fields("x-user"), ["alice"]);
    // Another service of the same authority has a valid identity and no rights.
    let other = ca.issue(&["other"], Some("spiffe://desk.example/service/other"), 5);
    let mut client = connect(&edge, &ca.client(Some(&other)), "shop.example");
    assert_eq!(ask(&mut client, "shop.example"), Some(403));
    // The same name in a strange trust domain is another one.
    let foreign = ca.issue(&["pricer"], Some("spiffe://evil.example/service/pricer"), 6);
    let mut client = connect(&edge, &ca.client(Some(&foreign)), "shop.example");
    assert_eq!(ask(&mut client, "shop.example"), Some(403));
    let line = eventually("the line of the first request", || {
        let text = std::fs::read_to_string(&log).ok()?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["status"] == 200 && line["path"] == "/api")
    });
    assert_eq!(
        (&line["tls"], &line["client_id"]),
        (&json!("TLSv1.3"), &json!("spiffe://desk.example/service/pricer"))
    );
}

#[test]
fn a_name_of_our_own_trust_domain_counts_from_the_vault_alone() {
    let (own, strange) = (Arc::new(Ca::new()), Ca::new());
    let upstream = Upstream::start(ok);
    let main = "[edge]\nthreads = 1\n[edge.tls]\nlisten = \"127.0.0.1:0\"\nnames = [\"shop.example\"]\n\
        client_auth = \"optional\"\nclient_ca = \"ca.pem\"\n[auth.roles]\nbot = [\"read\", \"admin\"]\n\
        \"spiffe://sluice.internal/service/bot\" = [\"read\"]\n\
        \"spiffe://desk.example/service/bot\" = [\"read\", \"admin\"]\n";
    let mut setup = Setup::new(main);
    let conf = setup.dir.path().join("conf");
    std::fs::create_dir_all(&conf).unwrap();
    std::fs::write(conf.join("ca.pem"), own.pem() + &strange.pem()).unwrap();
    let _vault = vault(&mut setup, Arc::clone(&own), 600);
    let any = service("any", "/any", &[upstream.url()], "");
    let text = service("api", "/api", &[upstream.url()], "permissions = { GET = [\"read\"] }");
    let edge = setup.service("api", &text).service("any", &any).start();
    let status = |signer: &Ca, id: &str, serial: u8, path: &str| {
        let shows = signer.issue(&["bot"], Some(id), serial);
        let mut config = ClientConfig::clone(&own.client(None));
        config.client_auth_cert_resolver =
            Arc::clone(&strange.client(Some(&shows)).client_auth_cert_resolver);
        let mut client = connect(&edge, &Arc::new(config), "shop.example");
        client.exchange(&format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n")).status
    };
    for path in ["/api", "/any"] {
        assert_eq!(status(&own, "spiffe://sluice.internal/service/bot", 2, path), 200, "{path}");
        assert_eq!(status(&strange, "spiffe://desk.example/service/bot", 3, path), 200, "{path}");
        assert_eq!(status(&strange, "spiffe://sluice.internal/service/bot", 4, path), 401, "{path}");
    }
    let users: Vec<_> = upstream.seen().iter().map(|seen| seen.fields("x-user")[0].to_owned()).collect();
    let (ours, theirs) = ("spiffe://sluice.internal/service/bot", "spiffe://desk.example/service/bot");
    assert_eq!(users, [ours, theirs, ours, theirs]);
    for seen in upstream.seen() {
        assert_eq!(seen.fields("x-permissions"), ["read"], "a certificate makes nobody an administrator");
        assert!(seen.fields("x-internal-proof").is_empty(), "that is for workers");
    }
}

#[test]
fn a_revoked_certificate_ends_standing_and_resumed_sessions() {
    let more = "client_auth = \"optional\"\nclient_ca = \"ca.pem\"\n[auth.roles]\n\"spiffe://desk.example/service/pricer\" = [\"read\"]";
    let Site { ca, edge, .. } = site(more, "permissions = { GET = [\"read\"] }");
    let pricer = ca.issue(&["pricer"], Some("spiffe://desk.example/service/pricer"), 7);
    let config = ca.client(Some(&pricer));
    let mut standing = connect(&edge, &config, "shop.example");
    assert_eq!(ask(&mut standing, "shop.example"), Some(200));
    let change = Change::Serial { serial: pricer.serial.clone() };
    let epoch = edge.issuer.snapshot.epoch.clone();
    edge.trust.apply(&Message::Delta(Delta { epoch, seq: 2, change }));
    assert_eq!(ask(&mut standing, "shop.example"), Some(401));
    assert!(standing.is_closed());
    let mut resumed = connect(&edge, &config, "shop.example");
    assert!(matches!(ask(&mut resumed, "shop.example"), None | Some(401)));
    let mut fresh = connect(&edge, &ca.client(Some(&pricer)), "shop.example");
    assert_eq!(ask(&mut fresh, "shop.example"), None, "refused at the handshake");
    let mut anonymous = connect(&edge, &ca.client(None), "shop.example");
    assert_eq!(ask(&mut anonymous, "shop.example"), Some(401), "optional: a token would do");
}

#[test]
fn a_websocket_ends_when_its_clients_certificate_is_revoked() {
    let upstream = Upstream::start(|seen, wire| {
        let mut piece = [0; 64];
        let hello = [switched(&seen.head).as_bytes(), &frame(TEXT, b"hello", false)].concat();
        drop(wire.write_all(&hello));
        while let Ok(count @ 1..) = wire.read(&mut piece) {
            drop(wire.write_all(&piece[..count]));
        }
        false
    });
    let more = "client_auth = \"optional\"\nclient_ca = \"ca.pem\"\n[auth.roles]\n\"spiffe://desk.example/service/pricer\" = [\"read\"]";
    let Site { ca, edge, .. } = site_of(upstream, more, "permissions = { GET = [\"read\"] }");
    let pricer = ca.issue(&["pricer"], Some("spiffe://desk.example/service/pricer"), 8);
    let mut client = connect(&edge, &ca.client(Some(&pricer)), "shop.example");
    client.send(&asking("/api", "").replace("Host: edge", "Host: shop.example"));
    assert!(client.read_until("hello").starts_with("HTTP/1.1 101 "));
    client.socket.write_all(&frame(TEXT, b"there", true)).unwrap();
    client.socket.flush().unwrap();
    client.read_until("there");
    let begun = Instant::now();
    let change = Change::Serial { serial: pricer.serial.clone() };
    let epoch = edge.issuer.snapshot.epoch.clone();
    edge.trust.apply(&Message::Delta(Delta { epoch, seq: 2, change }));
    assert!(client.read_until("credential revoked").ends_with("credential revoked"));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(client.is_closed());
}

#[test]
fn a_handshake_has_a_deadline() {
    let Site { edge, .. } = site("", "auth_required = false");
    let begun = Instant::now();
    let mut silent = TcpStream::connect(edge.tls.unwrap()).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    silent.write_all(&[0x16, 0x03, 0x01]).unwrap();
    assert_eq!(silent.read(&mut [0; 16]).unwrap_or(0), 0);
    assert!(begun.elapsed() >= Duration::from_millis(900));
    let metrics = edge.get("/metrics").text();
    assert!(metrics.contains("sluice_edge_tls_handshakes_total{result=\"timeout\"} 1"), "{metrics}");
}

#[test]
fn secrets_pass_over_tls_or_where_plain_text_is_allowed() {
    let far = "GET /secrets/a HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";
    let Site { ca, edge, .. } = site("", "auth_required = false");
    let mut client = connect(&edge, &ca.client(None), "shop.example");
    assert_ne!(client.exchange(far).status, 403);
    let plain = edge.connect().exchange(far);
    assert_eq!((plain.status, plain.code().as_str()), (403, "tls_required"));
    let open = Setup::new("[edge]\nthreads = 1\nplain_secrets = true\n").start();
    assert_ne!(open.connect().exchange(far).status, 403);
}

/// A vault that signs what the edge asks for; `life_s` seconds each.
pub fn vault(setup: &mut Setup, ca: Arc<Ca>, life_s: i64) -> Upstream {
    let door = setup.door(Role::Vault);
    Upstream::start_unix(&door, move |seen, wire| {
        assert_eq!(seen.line(), "POST /internal/certificates HTTP/1.1");
        assert_eq!((seen.fields("x-internal-key").len(), seen.fields("x-internal-self").len()), (1, 1));
        let asked: Value = serde_json::from_slice(&seen.body).unwrap();
        let csr = CertificateSigningRequestParams::from_pem(asked["csr"].as_str().unwrap()).unwrap();
        let words = |key: &str| -> Vec<String> {
            asked[key].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let mut params =
            CertificateParams::new([words("dns_names"), words("ip_addresses")].concat()).unwrap();
        let id = "spiffe://sluice.internal/role/edge";
        params.subject_alt_names.push(SanType::URI(id.try_into().unwrap()));
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&csr.public_key, &ca.issuer).unwrap();
        let now = jiff::Timestamp::now();
        let after = |seconds: i64| (now + jiff::SignedDuration::from_secs(seconds)).to_string();
        let body = json!({
            "certificate": leaf.pem(), "ca_chain": ca.pem(), "ca_certificate": ca.pem(),
            "serial_number": "01", "spiffe_id": id, "issued_at": now.to_string(),
            "expires_at": after(life_s), "renew_at": after(life_s * 2 / 3),
        });
        wire.write_all(reply("200 OK", &body.to_string()).as_bytes()).is_ok()
    })
}

#[test]
fn the_automatic_certificate_comes_from_the_vault_and_is_renewed() {
    let ca = Arc::new(Ca::new());
    let upstream = Upstream::start(ok);
    let main = "[edge]\nthreads = 1\n[edge.tls]\nlisten = \"127.0.0.1:0\"\nnames = [\"gate.example\"]\n";
    let mut setup = Setup::new(main);
    let _vault = vault(&mut setup, Arc::clone(&ca), 3);
    let text = service(
        "api",
        "/api",
        &[upstream.url()],
        "auth_required = false\nhosts = [\"gate.example\", \"api.example\"]",
    );
    let edge = setup.service("api", &text).start();
    let config = ca.client(None);
    let mut client = connect(&edge, &config, "gate.example");
    assert_eq!(ask(&mut client, "gate.example"), Some(200));
    assert_eq!(ask(&mut client, "api.example"), Some(200), "hosts of services are in it too");
    let first = shown(&client);
    eventually("a renewal", || {
        let mut client = connect(&edge, &ca.client(None), "gate.example");
        assert_eq!(ask(&mut client, "gate.example"), Some(200));
        (shown(&client) != first).then_some(())
    });
    assert_eq!(ask(&mut client, "gate.example"), Some(200), "nobody is cut off by it");
    let kept = std::fs::metadata(edge.data.join("edge/identity.json")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&kept.permissions()) & 0o777, 0o600);
}
