//! Certificates of the roles, the vault's own port among them, are exchanged under load and no request fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::harness::http::get;
use crate::harness::load::{Client, Fault, KeepAlive, Load, Target};
use crate::harness::{Instance, Up};

/// Life of a certificate here: the next one is asked for after 3.5 to 4 s, and a second later at most.
const LIFE: &str = "6s";
/// Certificates that each role must have had after its first.
const RENEWALS: usize = 3;
/// Three renewals take 14 s: the shortest life that leaves a busy machine two seconds for each.
const WITHIN: Duration = Duration::from_secs(45);

/// A service's page, through the edge.
const PAGE: &str = "/data_service/symbols";
/// What anybody may read at the vault's own port.
const AUTHORITY: &str = "/ca/certificate";

/// A client that shakes hands anew for each request.
struct Fresh(Target, &'static str);

impl Client for Fresh {
    fn exchange(&mut self) -> Result<(), Fault> {
        KeepAlive::at(self.0.clone(), self.1).exchange()
    }
}

fn believing(root: &str) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(root.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Arc::new(config.unwrap().with_root_certificates(roots).with_no_client_auth())
}

/// The serials that the roles show now.
fn serials(sluice: &Instance) -> BTreeMap<String, String> {
    let listed = get(sluice.vault(), "/credentials").token(sluice.admin()).send().expect(200).json();
    let text = |one: &serde_json::Value, name: &str| one[name].as_str().unwrap().to_owned();
    let listed = listed["credentials"].as_array().unwrap();
    listed.iter().map(|one| (text(one, "service_name"), text(one, "serial_number"))).collect()
}

#[test]
fn certificates_are_renewed_under_load_and_no_request_fails() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("services.d")).unwrap();
    let conf = format!(
        "[vault]\nleaf_ttl = \"{LIFE}\"\n[edge.tls]\nlisten = \"127.0.0.1:8443\"\ncertificate = \"auto\"\n"
    );
    std::fs::write(dir.path().join("sluice.toml"), conf).unwrap();
    let service = "[[service]]\nname = \"data_service\"\nprefix = \"/data_service\"\nauth_required = false\n\
                   rate_limit = 1000000000\n[[service.instance]]\nurl = \"http://127.0.0.1:8001\"\n";
    std::fs::write(dir.path().join("services.d/data.toml"), service).unwrap();
    let sluice = Up::new(&dir.path().join("data")).conf(&dir.path().join("sluice.toml")).start();
    let root = get(sluice.vault(), "/ca/certificate").send().expect(200).body;
    let secure = sluice.banner["edge_tls"].as_str().unwrap().trim_start_matches("https://").to_owned();
    let secure = Target { address: secure.parse().unwrap(), tls: Some(believing(&root)) };
    let vault = Target { tls: secure.tls.clone(), ..Target::plain(sluice.vault()) };

    let plain = sluice.edge().to_owned();
    let loads = [
        Load::start(2, move || KeepAlive::new(&plain, PAGE)),
        Load::start(1, {
            let secure = secure.clone();
            move || KeepAlive::at(secure.clone(), PAGE)
        }),
        Load::start(1, move || Fresh(secure.clone(), PAGE)),
        Load::start(1, {
            let vault = vault.clone();
            move || KeepAlive::at(vault.clone(), AUTHORITY)
        }),
        Load::start(1, move || Fresh(vault.clone(), AUTHORITY)),
    ];
    let (began, mut seen) = (Instant::now(), BTreeMap::<String, BTreeSet<String>>::new());
    let had = |seen: &BTreeMap<String, BTreeSet<String>>, role: &str| seen.get(role).map_or(0, BTreeSet::len);
    while ["edge", "demo", "vault"].iter().any(|role| had(&seen, role) <= RENEWALS) {
        assert!(began.elapsed() < WITHIN, "renewals: {seen:?}");
        for (role, serial) in serials(&sluice) {
            seen.entry(role).or_default().insert(serial);
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
    for load in loads {
        let tally = load.stop();
        assert_eq!(tally.failed, 0, "of {} requests:{}", tally.answered, tally.told());
        assert!(tally.answered > 20, "{} requests in {:?}", tally.answered, began.elapsed());
        println!("{} requests, slowest {:?}", tally.answered, tally.slowest);
    }
    // By mutual TLS, all of them.
    let demo = sluice.banner["demo"]["data"].as_str().unwrap();
    let figures = get(demo, "/metrics").send().expect(200).body;
    assert!(figures.contains("sluice_http_requests_total{door=\"mtls\",status=\"2xx\"}"), "{figures}");
    sluice.stop();
}
