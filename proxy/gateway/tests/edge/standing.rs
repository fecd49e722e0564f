//! What stands when a credential ends or clients are let in by other rules: connections, streams, instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use sluice_wire::feed::{Change, Delta, Message, RevokedSubject};

use crate::harness::{Edge, Seen, Setup, Upstream, Wire, eventually, ok, service};
use crate::secure::https;
use crate::tls::{Ca, Leaf, Site, ask, connect, shown, site, site_of, vault};
use crate::upstream_h2::H2;

const BOT: &str = "spiffe://desk.example/service/bot";
const CLIENTS: &str = "client_auth = \"optional\"\nclient_ca = \"ca.pem\"\n[auth.roles]\n\"spiffe://desk.example/service/bot\" = [\"read\"]";
const READ: &str = "permissions = { GET = [\"read\"] }";

fn tell(edge: &Edge, seq: u64, change: Change) {
    let epoch = edge.issuer.snapshot.epoch.clone();
    edge.trust.apply(&Message::Delta(Delta { epoch, seq, change }));
}

fn revoke(edge: &Edge, seq: u64, leaf: &Leaf) {
    tell(edge, seq, Change::Serial { serial: leaf.serial.clone() });
}

/// Another authority of clients takes the place of the file.
fn trust_clients_of(edge: &Edge, authorities: &[&Ca]) {
    let text: String = authorities.iter().map(|ca| ca.pem()).collect();
    std::fs::write(edge.conf.join("ca.new"), text).unwrap();
    std::fs::rename(edge.conf.join("ca.new"), edge.conf.join("ca.pem")).unwrap();
}

#[test]
fn another_authority_of_clients_counts_on_connections_that_stand() {
    let Site { ca, edge, .. } = site(CLIENTS, READ);
    let bot = ca.issue(&["bot"], Some(BOT), 3);
    let config = ca.client(Some(&bot));
    let mut standing = connect(&edge, &config, "shop.example");
    assert_eq!(ask(&mut standing, "shop.example"), Some(200));
    // One more authority beside it takes nothing from anybody.
    let other = Ca::new();
    let theirs = other.issue(&["bot"], Some(BOT), 4);
    trust_clients_of(&edge, &[&ca, &other]);
    let mut newcomer = eventually("the second authority counts", || {
        let config = ca.client(Some(&theirs));
        let mut client = connect(&edge, &config, "shop.example");
        (ask(&mut client, "shop.example") == Some(200)).then_some(client)
    });
    assert_eq!(ask(&mut standing, "shop.example"), Some(200), "its authority is one of them still");
    // Without its own it is nobody's word any more, however long the connection stands.
    trust_clients_of(&edge, &[&other]);
    let last = eventually("the first authority does not count", || {
        let status = ask(&mut standing, "shop.example");
        (status != Some(200)).then_some(status)
    });
    assert_eq!(last, Some(421));
    assert!(standing.is_closed());
    assert_eq!(ask(&mut newcomer, "shop.example"), Some(200));
    let mut resumed = connect(&edge, &config, "shop.example");
    assert_eq!(ask(&mut resumed, "shop.example"), None, "a session of before is not resumed");
}

#[test]
fn a_certificate_that_is_required_now_is_required_of_who_is_there() {
    let Site { ca, edge, .. } = site(CLIENTS, "auth_required = false");
    let mut anonymous = connect(&edge, &ca.client(None), "shop.example");
    let bot = ca.issue(&["bot"], Some(BOT), 3);
    let mut known = connect(&edge, &ca.client(Some(&bot)), "shop.example");
    assert_eq!(
        (ask(&mut anonymous, "shop.example"), ask(&mut known, "shop.example")),
        (Some(200), Some(200))
    );
    let file = edge.conf.join("sluice.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("\"optional\"", "\"required\"")).unwrap();
    eventually("who shows nothing is sent away", || {
        (ask(&mut anonymous, "shop.example") == Some(421)).then_some(())
    });
    assert!(anonymous.is_closed());
    assert_eq!(ask(&mut known, "shop.example"), Some(200));
    std::fs::write(&file, text.replace("\"optional\"", "\"off\"")).unwrap();
    let last = eventually("nobody is known by a certificate any more", || {
        ask(&mut known, "shop.example").filter(|status| *status != 200)
    });
    assert_eq!(last, 421);
}

/// Sends one event, and no more.
fn events(_: &Seen, wire: &mut dyn Wire) -> bool {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    drop(wire.write_all(format!("{head}7\r\ndata:1\n\r\n").as_bytes()));
    while wire.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    false
}

#[test]
fn an_event_stream_ends_with_the_certificate_of_its_client() {
    let Site { ca, edge, .. } = site_of(Upstream::start(events), CLIENTS, READ);
    let bot = ca.issue(&["bot"], Some(BOT), 3);
    let mut client = connect(&edge, &ca.client(Some(&bot)), "shop.example");
    client.send("GET /api HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    client.read_until("data:1");
    let begun = Instant::now();
    revoke(&edge, 2, &bot);
    client.read_until("0\r\n\r\n");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(client.is_closed());
}

#[test]
fn an_event_stream_ends_with_the_token_of_its_client_and_another_goes_on() {
    let upstream = Upstream::start(events);
    let edge = Setup::new("").service("api", &service("api", "/api", &[upstream.url()], READ)).start();
    let start = |name: &str| {
        let mut client = edge.connect();
        let token = edge.issuer.token_of(name, "read");
        client.send(&format!("GET /api HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {token}\r\n\r\n"));
        client.read_until("data:1");
        client
    };
    let (mut ended, mut kept) = (start("alice"), start("bob"));
    let issued_until = jiff::Timestamp::now().as_second() + 1;
    tell(&edge, 2, Change::Sub(RevokedSubject { sub: "alice".to_owned(), issued_until }));
    ended.read_until("0\r\n\r\n");
    assert!(ended.is_closed());
    kept.socket.set_read_timeout(Some(Duration::from_millis(700))).unwrap();
    let mut piece = [0; 16];
    let read = std::io::Read::read(&mut kept.socket, &mut piece);
    assert!(read.is_err(), "it waits for the next event: {read:?}");
}

/// Shows one certificate, and later another.
#[derive(Debug)]
struct Renewing {
    renewed: AtomicBool,
    both: [Arc<CertifiedKey>; 2],
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.both[usize::from(self.renewed.load(Ordering::SeqCst))]))
    }
}

#[test]
fn an_instance_whose_certificate_was_revoked_gets_no_request() {
    for alpn in [&b"http/1.1"[..], b"h2"] {
        revoked_instance(alpn);
    }
}

fn revoked_instance(alpn: &[u8]) {
    let ca = Arc::new(Ca::new());
    let leaves = [7, 8].map(|serial| ca.issue(&["demo"], None, serial));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let both = leaves.each_ref().map(|leaf| {
        let key = rustls::crypto::ring::sign::any_supported_type(&leaf.der).unwrap();
        Arc::new(CertifiedKey::new(leaf.chain.clone(), key))
    });
    let showing = Arc::new(Renewing { renewed: AtomicBool::new(false), both });
    let builder = rustls::ServerConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut tls = builder.with_cert_resolver(Arc::clone(&showing) as _);
    tls.alpn_protocols = vec![alpn.to_vec()];
    let tls = Arc::new(tls);
    let (url, seen): (String, Box<dyn Fn() -> usize>) = if alpn == b"h2" {
        let upstream = H2::start(Some(tls), |_, _, mut respond| async move {
            drop(respond.send_response(http::Response::new(()), true));
        });
        (format!("https://{}", upstream.address), Box::new(move || upstream.requests()))
    } else {
        let upstream = Upstream::start_tls(tls, ok);
        (https(&upstream), Box::new(move || upstream.seen().len()))
    };
    let mut setup = Setup::new("");
    let _vault = vault(&mut setup, Arc::clone(&ca), 600);
    let more = "auth_required = false\ntls = { sni = \"demo\" }\nretry = { attempts = 1 }\n\
                health = { interval = \"100ms\", timeout = \"90ms\" }\npanic_threshold = 1.0\n\
                breaker = { failure_threshold = 100000, failure_rate = 1.0 }";
    let edge = setup.service("api", &service("api", "/api", &[url], more)).start();
    assert_eq!(edge.get("/api").status, 200);
    assert_eq!(edge.get("/api").status, 200);
    revoke(&edge, 2, &leaves[0]);
    let reached = seen();
    for _ in 0..3 {
        assert_ne!(edge.get("/api").status, 200, "neither from the pool nor anew");
    }
    eventually("a probe says why", || edge.probe("api").filter(|detail| detail.contains("revoked")));
    assert_eq!(seen(), reached, "no request was sent there");
    showing.renewed.store(true, Ordering::SeqCst);
    eventually("another certificate is believed", || (edge.get("/api").status == 200).then_some(()));
    for _ in 0..3 {
        assert_eq!(edge.get("/api").status, 200, "connections of before are not used again");
    }
}

#[test]
fn the_edge_replaces_its_own_certificate_at_once_when_it_is_revoked() {
    let ca = Arc::new(Ca::new());
    let main = "[edge]\nthreads = 1\n[edge.tls]\nlisten = \"127.0.0.1:0\"\n";
    let mut setup = Setup::new(main);
    let _vault = vault(&mut setup, Arc::clone(&ca), 600);
    let upstream = Upstream::start(ok);
    let text = service("api", "/api", &[upstream.url()], "auth_required = false");
    let edge = setup.service("api", &text).start();
    let started = Instant::now();
    let look = || {
        let mut client = connect(&edge, &ca.client(None), "localhost");
        assert_eq!(ask(&mut client, "localhost"), Some(200));
        shown(&client)
    };
    let first = look();
    // In the second after one was given no other is asked for.
    eventually("that second is over", || (started.elapsed() > Duration::from_millis(1_200)).then_some(()));
    let begun = Instant::now();
    let serial = x509_parser::parse_x509_certificate(&first).unwrap().1.raw_serial_as_string();
    let serial = serial.replace(':', "");
    let serial = serial.strip_prefix("00").filter(|rest| !rest.is_empty()).unwrap_or(&serial).to_owned();
    tell(&edge, 2, Change::Serial { serial });
    eventually("another certificate", || (look() != first).then_some(()));
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}
