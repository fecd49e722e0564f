//! The edge on the wire, as a whole system: its own certificate, clients' certificates, idle connections.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};

use crate::harness::http::{get, post};
use crate::harness::{Instance, Up, repository, until};

/// The shipped configuration with a TLS listener.
fn start(dir: &Path, tls: &str) -> Instance {
    let conf = dir.join("conf");
    std::fs::create_dir_all(conf.join("services.d")).unwrap();
    let shipped = repository().join("conf");
    for file in std::fs::read_dir(shipped.join("services.d")).unwrap().flatten() {
        std::fs::copy(file.path(), conf.join("services.d").join(file.file_name())).unwrap();
    }
    let main = std::fs::read_to_string(shipped.join("sluice.toml")).unwrap();
    let main = format!("{main}\n[edge.tls]\nlisten = \"127.0.0.1:8443\"\n{tls}\n");
    std::fs::write(conf.join("sluice.toml"), main).unwrap();
    Up::new(&dir.join("data")).conf(&conf.join("sluice.toml")).start()
}

/// Where the TLS listener is: as far from the plain one as configured.
fn tls_door(sluice: &Instance) -> SocketAddr {
    let plain: SocketAddr = sluice.edge().strip_prefix("http://").unwrap().parse().unwrap();
    SocketAddr::new(plain.ip(), plain.port() + 443)
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A client that believes the vault's authority, showing the credential where there is one.
fn secure(sluice: &Instance, credential: Option<&Value>) -> Secure {
    let chain = get(sluice.vault(), "/ca/chain").send().expect(200).body;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(chain.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match credential {
        None => builder.with_no_client_auth(),
        Some(credential) => {
            let text = |key: &str| credential[key].as_str().unwrap().to_owned();
            let issuers = credential["ca_chain"].as_array().unwrap().iter().filter_map(Value::as_str);
            let chain = text("certificate") + &issuers.collect::<String>();
            let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().unwrap();
            let key = PrivateKeyDer::from_pem_slice(text("private_key").as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let socket = TcpStream::connect(tls_door(sluice)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), socket)
}

/// Status of a GET that closes; `None` where no answer came.
fn status(mut client: Secure, path: &str) -> Option<u16> {
    let _may_be_refused =
        write!(client, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let _may_be_cut = client.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).get(9..12)?.parse().ok()
}

#[test]
fn the_vaults_certificates_serve_the_listener_and_its_clients() {
    let dir = tempfile::tempdir().unwrap();
    let tls = "client_auth = \"optional\"\n[auth.roles]\npricer = [\"read\"]";
    let sluice = start(dir.path(), tls);
    let market = "/api/data/market/BTC/USDT";
    assert_eq!(status(secure(&sluice, None), "/livez"), Some(200));
    assert_eq!(status(secure(&sluice, None), market), Some(401));
    let issue = |name: &str| {
        let request = post(sluice.vault(), &format!("/credentials/{name}")).token(sluice.admin());
        request.json(&json!({})).send().expect(200).json()
    };
    let (pricer, other) = (issue("pricer"), issue("other"));
    assert_eq!(status(secure(&sluice, Some(&pricer)), market), Some(200));
    assert_eq!(status(secure(&sluice, Some(&other)), market), Some(403), "a valid identity without rights");
    let revoke = post(sluice.vault(), "/credentials/pricer/revoke").token(sluice.admin());
    revoke.json(&json!({"serial_number": pricer["serial_number"]})).send().expect(200);
    until("the edge refuses the revoked certificate", || {
        (status(secure(&sluice, Some(&pricer)), market) != Some(200)).then_some(())
    });
    assert_eq!(status(secure(&sluice, Some(&other)), "/livez"), Some(200));
    sluice.stop();
}

#[test]
fn roles_whose_certificates_are_revoked_get_others_and_work_on() {
    let dir = tempfile::tempdir().unwrap();
    let sluice = Up::new(&dir.path().join("data")).start();
    let routed = || get(sluice.edge(), "/api/data/symbols").token(sluice.admin()).send().status;
    until("the edge reaches the demo", || (routed() == 200).then_some(()));
    for role in ["edge", "demo"] {
        let shown = || {
            let credential = get(sluice.vault(), &format!("/credentials/{role}")).token(sluice.admin());
            credential.send().expect(200).json()["serial_number"].clone()
        };
        let before = shown();
        let revoke = post(sluice.vault(), &format!("/credentials/{role}/revoke")).token(sluice.admin());
        revoke.json(&json!({ "serial_number": before })).send().expect(200);
        until("it has another certificate", || (shown() != before).then_some(()));
        until("the edge reaches the demo again", || (routed() == 200).then_some(()));
    }
    sluice.stop();
}

fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// KiB that each of `count` idle connections costs the edge.
fn idle_cost<T>(edge: u32, count: u64, mut open: impl FnMut() -> T) -> f64 {
    let before = resident_kib(edge);
    let held: Vec<T> = (0..count).map(|_| open()).collect();
    let cost = resident_kib(edge).saturating_sub(before) as f64 / count as f64;
    drop(held);
    cost
}

#[test]
fn idle_connections_are_cheap() {
    // 10,000 with SLUICE_LONG set; fewer in the gate, which has other things to do.
    let long = std::env::var_os("SLUICE_LONG").is_some();
    let (plain, tls) = if long { (10_000, 5_000) } else { (1_500, 300) };
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let sluice = start(dir.path(), "");
    let edge = sluice.role_pid("proxy").unwrap();
    let address = sluice.edge().strip_prefix("http://").unwrap().to_owned();
    let ask = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut answer = [0; 1024];
    let mut open_tls = || {
        let mut client = secure(&sluice, None);
        client.write_all(ask).unwrap();
        assert!(client.read(&mut answer).unwrap() > 0);
        client
    };
    // What the first handshakes allocate for good is not the connections'.
    drop((0..20).map(|_| open_tls()).collect::<Vec<_>>());
    let tls_kib = idle_cost(edge, tls, open_tls);
    let plain_kib = idle_cost(edge, plain, || {
        let mut client = TcpStream::connect(&address).unwrap();
        client.write_all(ask).unwrap();
        assert!(client.read(&mut answer).unwrap() > 0);
        client
    });
    eprintln!("an idle connection costs the edge {plain_kib:.1} KiB, with TLS {tls_kib:.1} KiB");
    assert!(plain_kib <= 16.0, "{plain_kib} KiB");
    assert!(tls_kib <= 48.0, "{tls_kib} KiB");
    assert_eq!(get(sluice.edge(), "/livez").send().status, 200);
    sluice.stop();
}
