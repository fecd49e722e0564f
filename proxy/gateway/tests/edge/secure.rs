//! TLS towards instances: whom the edge believes there, and what it shows of itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::harness::{Edge, Setup, Upstream, eventually, ok, service};
use crate::tls::{Ca, vault};

/// An authority and what it signs, as values and as files.
pub struct Authority {
    pub certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key.
pub struct Signed {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn sign(&self, name: &str) -> Signed {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Signed {
            chain: vec![certificate.der().clone()],
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        }
    }

    pub fn write(&self, dir: &Path, name: &str) -> PathBuf {
        write(dir, &format!("{name}.crt"), &self.pem)
    }
}

impl Signed {
    /// The table of a configuration that names it.
    pub fn write(&self, dir: &Path, name: &str) -> String {
        let cert = write(dir, &format!("{name}.crt"), &self.certificate_pem);
        let key = write(dir, &format!("{name}.key"), &self.key_pem);
        format!("{{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display())
    }
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

/// A server's settings; `clients` are those it asks a certificate of.
pub fn server(
    signed: &Signed,
    clients: Option<&CertificateDer<'static>>,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    server_of(signed.chain.clone(), &signed.key, clients, alpn)
}

fn server_of(
    chain: Vec<CertificateDer<'static>>,
    key: &PrivateKeyDer<'static>,
    clients: Option<&CertificateDer<'static>>,
    alpn: &[&[u8]],
) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder.with_single_cert(chain, key.clone_key()).unwrap();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}

pub fn https(upstream: &Upstream) -> String {
    format!("https://{}", upstream.address.unwrap())
}

const PROBED: &str =
    "health = { interval = \"100ms\", timeout = \"90ms\", unhealthy = 1 }\npanic_threshold = 0.0\n";

/// A breaker that stays closed while a test waits for the end of failures.
const PATIENT: &str = "breaker = { failure_threshold = 100000, failure_rate = 1.0 }\n";

fn text(url: &str, tls: &str, more: &str) -> String {
    service("api", "/api", &[url.to_owned()], &format!("auth_required = false\ntls = {{ {tls} }}\n{more}"))
}

fn edge(url: &str, tls: &str, more: &str) -> Edge {
    Setup::new("").service("api", &text(url, tls, more)).start()
}

#[test]
fn an_instance_is_believed_by_its_authority_and_name() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let upstream = Upstream::start_tls(server(&ours.sign("backend.internal"), None, &[]), ok);
    let (ca, other) = (ours.write(dir.path(), "ours"), theirs.write(dir.path(), "theirs"));
    let with = |ca: &Path, sni: &str, more: &str| {
        let tls = format!("sni = \"{sni}\", ca = \"{}\"{more}", ca.display());
        edge(&https(&upstream), &tls, PROBED)
    };

    let good = with(&ca, "backend.internal", "");
    for _ in 0..3 {
        let answer = good.get("/api");
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    }
    let listed = good.get("/api/services").json()["services"][0]["instances"][0].clone();
    assert_eq!(
        (listed["url"].as_str(), listed["state"].as_str()),
        (Some(&*https(&upstream)), Some("healthy"))
    );
    assert_eq!(eventually("a probe", || good.probe("api")), "200");
    drop(good);

    let reached = upstream.seen().len();
    for (ca, sni, why) in
        [(&other, "backend.internal", "UnknownIssuer"), (&ca, "another.internal", "not valid for name")]
    {
        let edge = with(ca, sni, "");
        let answer = eventually("probes have failed or the connect is refused", || {
            Some(edge.get("/api")).filter(|answer| answer.status != 200)
        });
        assert!(matches!(answer.code().as_str(), "upstream_refused" | "no_healthy_instance"));
        let detail = eventually("a probe", || edge.probe("api"));
        assert!(detail.contains(why), "{detail}");
        eventually("it is unhealthy", || {
            let state = edge.get("/services").json()["services"][0]["instances"][0]["state"].clone();
            (state == "unhealthy").then_some(())
        });
    }
    assert_eq!(upstream.seen().len(), reached, "no request reaches an instance that is not believed");
    assert_eq!(with(&other, "whatever", ", verify = false").get("/api").status, 200);
}

#[test]
fn the_edge_shows_its_certificate_where_it_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let upstream = Upstream::start_tls(server(&servers.sign("backend"), Some(&clients.certificate), &[]), ok);
    let ca = servers.write(dir.path(), "servers");
    let shown = clients.sign("edge").write(dir.path(), "edge");
    let stranger = servers.sign("edge").write(dir.path(), "stranger");
    let with = |shown: &str| {
        let tls = format!("sni = \"backend\", ca = \"{}\", client_cert = {shown}", ca.display());
        edge(&https(&upstream), &tls, PROBED)
    };
    let good = with(&shown);
    assert_eq!(good.get("/api").status, 200);
    assert_eq!(eventually("a probe", || good.probe("api")), "200");
    for shown in ["\"off\"", &stranger] {
        let edge = with(shown);
        assert_ne!(edge.get("/api").status, 200);
        let detail = eventually("a probe", || edge.probe("api"));
        assert_ne!(detail, "200");
        eventually("it is unhealthy", || {
            (edge.get("/health").json()["services"]["api"]["status"] == "unhealthy").then_some(())
        });
    }
}

#[test]
fn a_changed_authority_takes_effect_with_the_next_request() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let upstream = Upstream::start_tls(server(&ours.sign("backend"), None, &[]), ok);
    let (ca, other) = (ours.write(dir.path(), "ours"), theirs.write(dir.path(), "theirs"));
    let tls = |ca: &Path| format!("sni = \"backend\", ca = \"{}\"", ca.display());
    let edge = edge(&https(&upstream), &tls(&ca), PATIENT);
    let file = edge.conf.join("services.d/api.toml");
    let mut client = edge.connect();
    let mut get = || client.exchange("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n").status;
    assert_eq!([get(), get(), get()], [200, 200, 200]);
    // The next one is 30 s away: from here on connections are those of requests.
    assert_eq!(eventually("a probe", || edge.probe("api")), "200");
    let connections = upstream.connections.load(Ordering::SeqCst);

    // Another change leaves the connections alone.
    std::fs::write(&file, text(&https(&upstream), &tls(&ca), &format!("body_bytes = \"2MiB\"\n{PATIENT}")))
        .unwrap();
    eventually("the change is taken", || {
        (edge.get("/health").json()["config"]["generation"] == 2).then_some(())
    });
    assert_eq!(get(), 200);
    assert_eq!(upstream.connections.load(Ordering::SeqCst), connections);

    // A file that cannot be used changes nothing, and says why.
    let gone = dir.path().join("gone.crt");
    std::fs::write(&file, text(&https(&upstream), &tls(&gone), PATIENT)).unwrap();
    let said = eventually("the change is refused", || {
        let last = edge.get("/health").json()["config"]["last_reload"].clone();
        (last["result"] == "refused").then(|| last.to_string())
    });
    assert!(said.contains("E0601 in api.toml") && !said.contains("gone.crt"), "{said}");
    let token = edge.issuer.token_of("operator", "control:read");
    let history = edge.admin("GET", "/admin/config", Some(&token), None).json()["history"].clone();
    assert!(history[0]["error"].as_str().unwrap().contains("gone.crt"), "{history}");
    assert_eq!(get(), 200);

    // One that is replaced in place is seen too; a registration does not read it.
    std::fs::write(&file, text(&https(&upstream), &tls(&ca), PATIENT)).unwrap();
    eventually("the old file is back", || {
        (edge.get("/health").json()["config"]["last_reload"]["result"] == "accepted").then_some(())
    });
    let kept = std::fs::read(&ca).unwrap();
    std::fs::remove_file(&ca).unwrap();
    let body = serde_json::json!({"name": "s", "url": "http://127.0.0.1:9", "prefix": "/s"});
    let registered = edge.call("POST", "/api/register", &edge.issuer.token("registry:write"), &body);
    assert_eq!(registered.status, 201, "{}", registered.text());
    std::fs::write(&ca, std::fs::read(&other).unwrap()).unwrap();
    let fresh = |status: u16| (edge.get("/api").status == status).then_some(());
    eventually("the replaced authority counts", || fresh(502));
    std::fs::write(&ca, kept).unwrap();
    eventually("the right one again", || fresh(200));

    // An idle connection that the old authority vouched for is not used any more.
    std::fs::write(&file, text(&https(&upstream), &tls(&other), PATIENT)).unwrap();
    eventually("the authority is another", || fresh(502));
}

#[test]
fn between_roles_both_sides_show_what_the_vault_gave_and_renews() {
    let ca = Arc::new(Ca::new());
    let leaf = ca.issue(&["demo"], None, 7);
    let upstream = Upstream::start_tls(server_of(leaf.chain, &leaf.der, Some(&ca.root), &[]), ok);
    let mut setup = Setup::new("");
    let _vault = vault(&mut setup, Arc::clone(&ca), 3);
    // One probe soon and then none that would count as a connection.
    let edge = setup.service("api", &text(&https(&upstream), "sni = \"demo\"", "")).start();
    let mut client = edge.connect();
    let mut get = || client.exchange("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    let first = get();
    assert_eq!(first.status, 200, "the first request waits for the vault: {}", first.text());
    assert_eq!(get().status, 200);
    assert_eq!(eventually("a probe", || edge.probe("api")), "200");
    let connections = upstream.connections.load(Ordering::SeqCst);
    let kept = || std::fs::read(edge.data.join("edge/identity.json")).unwrap_or_default();
    let certificate = kept();
    eventually("the certificate is renewed", || (kept() != certificate).then_some(()));
    eventually("a connection is made with the new one", || {
        assert_eq!(get().status, 200, "no request fails by a renewal");
        (upstream.connections.load(Ordering::SeqCst) > connections).then_some(())
    });
}

#[test]
fn without_a_vault_an_automatic_authority_believes_nobody() {
    let authority = Authority::new("ours");
    let upstream = Upstream::start_tls(server(&authority.sign("backend"), None, &[]), ok);
    let more = "timeouts = { connect = \"50ms\", first_byte = \"1s\", total = \"2s\" }";
    let edge = edge(&https(&upstream), "sni = \"backend\"", more);
    let answer = edge.get("/api");
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_healthy_instance"));
    assert!(answer.text().contains("authority"), "{}", answer.text());
    assert_eq!(upstream.connections.load(Ordering::SeqCst), 0);
}

#[test]
fn a_unix_socket_of_a_file_is_an_instance_like_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("service.sock");
    let upstream = Upstream::start_unix(&path, ok);
    let url = format!("unix:{}", path.display());
    let text =
        service("api", "/api", std::slice::from_ref(&url), &format!("auth_required = false\n{PROBED}"));
    let edge = Setup::new("").service("api", &text).start();
    assert_eq!(edge.get("/api/x").status, 200);
    assert_eq!(upstream.only().line(), "GET /x HTTP/1.1");
    assert_eq!(upstream.only().fields("host"), ["localhost"]);
    let listed = edge.get("/services").json()["services"][0]["instances"][0].clone();
    assert_eq!((listed["url"].as_str(), listed["state"].as_str()), (Some(&*url), Some("healthy")));
    assert_eq!(eventually("a probe", || edge.probe("api")), "200");
    drop(upstream);
}
