//! The generator over TLS and HTTP/2, and through failures of the server.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::response::head_end;
use crate::url::Trust;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Certificates of a test's own authority, as files.
struct Authority {
    dir: tempfile::TempDir,
    config: Arc<ServerConfig>,
}

impl Authority {
    fn new(ask_clients: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let leaf = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &ca).unwrap(), key)
        };
        let (server, server_key) = leaf("127.0.0.1");
        let (client, client_key) = leaf("client");
        for (name, text) in
            [("ca.pem", ca.pem()), ("client.pem", client.pem()), ("client.key", client_key.serialize_pem())]
        {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = if ask_clients {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let chain: Vec<CertificateDer<'static>> = vec![server.der().clone()];
        let key = PrivateKeyDer::try_from(server_key.serialize_der()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self { dir, config: Arc::new(config) }
    }

    fn trust(&self, with_own: bool) -> Trust {
        let file = |name: &str| self.dir.path().join(name);
        let own = with_own.then(|| (file("client.pem"), file("client.key")));
        Trust { ca: Some(file("ca.pem")), insecure: false, own }
    }
}

/// Answers whatever is asked, under TLS with a configuration; `streams` speaks HTTP/2.
async fn server(tls: Option<Arc<ServerConfig>>, streams: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tls = tls.clone();
            tokio::task::spawn_local(async move {
                match tls {
                    None => serve(stream, streams).await,
                    Some(config) => {
                        if let Ok(stream) = TlsAcceptor::from(config).accept(stream).await {
                            serve(stream, streams).await;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, streams: bool) {
    if streams { serve_streams(stream).await } else { serve_one(stream).await }
}

async fn serve_one(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut buffer = Vec::new();
    while matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
        while let Some(end) = head_end(&buffer) {
            buffer.drain(..end);
            if stream.write_all(ANSWER).await.is_err() || stream.flush().await.is_err() {
                return;
            }
        }
    }
}

async fn serve_streams(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let status = if request.uri().path() == "/missing" { 404 } else { 200 };
        let response = http::Response::builder().status(status).body(()).unwrap();
        if let Ok(mut body) = respond.send_response(response, false) {
            // A caller that went away needs no answer.
            drop(body.send_data(Bytes::from_static(b"ok"), true));
        }
    }
}

fn target(address: SocketAddr, trust: Option<&Trust>, streams: Option<u32>, path: &str) -> Target {
    let tls = trust.map(|trust| Tls {
        config: trust.config(streams.is_some()).unwrap(),
        name: ServerName::try_from("127.0.0.1").unwrap(),
    });
    let request = Request::plain(format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").into_bytes());
    Target { streams, ..Target::of(Place { address, tls }, request, Expects::Body(2)) }
}

fn plan(pace: Pace, window_ms: u64) -> Plan {
    Plan { pace, connections: 3, warmup: Duration::from_millis(30), window: Duration::from_millis(window_ms) }
}

async fn within<T>(asking: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), LocalSet::new().run_until(asking)).await.unwrap()
}

#[tokio::test]
async fn every_request_is_answered_over_each_protocol() {
    let authority = Authority::new(false);
    let trust = authority.trust(false);
    for (tls, streams) in [(false, None), (true, None), (false, Some(4)), (true, Some(4))] {
        let outcome = within(async {
            let address = server(tls.then(|| Arc::clone(&authority.config)), streams.is_some()).await;
            let target = target(address, tls.then_some(&trust), streams, "/");
            drive(&target, plan(Pace::Open(500), 200), || ()).await.unwrap()
        })
        .await;
        assert_eq!(outcome.failures, Failures::default(), "{tls} {streams:?}: {:?}", outcome.complaint);
        assert_eq!(outcome.latency.len(), 100, "{tls} {streams:?}");
    }
}

#[tokio::test]
async fn many_connections_are_begun_at_once() {
    let authority = Authority::new(false);
    let trust = authority.trust(false);
    for tls in [false, true] {
        let outcome = within(async {
            let address = server(tls.then(|| Arc::clone(&authority.config)), false).await;
            let target = target(address, tls.then_some(&trust), None, "/");
            drive(&target, Plan { connections: 400, ..plan(Pace::Closed, 100) }, || ()).await.unwrap()
        })
        .await;
        assert_eq!(outcome.failures, Failures::default(), "{tls}: {:?}", outcome.complaint);
    }
}

#[tokio::test]
async fn a_request_that_finds_no_room_fails_and_its_connection_is_made_anew() {
    let outcome = within(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Takes connections and reads nothing.
        tokio::task::spawn_local(async move {
            let mut kept = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                kept.push(stream);
            }
        });
        let mut target = target(address, None, None, "/");
        let body = "x".repeat(16 << 20);
        target.asks[0].request = Request::plain(format!("POST / HTTP/1.1\r\n\r\n{body}").into_bytes());
        drive(&target, plan(Pace::Open(100), 100), || ()).await.unwrap()
    })
    .await;
    let failures = outcome.failures;
    assert!(failures.total() >= 10 && failures.total() == failures.closed + failures.reset, "{failures:?}");
}

#[tokio::test]
async fn clients_that_are_asked_for_a_certificate_show_it() {
    let authority = Authority::new(true);
    let asked = async |trust: Trust| {
        within(async {
            let address = server(Some(Arc::clone(&authority.config)), false).await;
            drive(&target(address, Some(&trust), None, "/"), plan(Pace::Open(200), 100), || ()).await
        })
        .await
    };
    assert_eq!(asked(authority.trust(true)).await.unwrap().failures, Failures::default());
    // TLS 1.3 tells a client only after its handshake that its certificate is missing.
    let without = asked(authority.trust(false)).await;
    assert!(without.is_err() || without.unwrap().failures.total() >= 20);
    let stranger = Authority::new(false);
    assert!(asked(stranger.trust(false)).await.is_err(), "an authority that nobody trusts");
    let anybody = Trust { ca: None, insecure: true, ..authority.trust(true) };
    assert_eq!(asked(anybody).await.unwrap().failures, Failures::default());
}

#[tokio::test]
async fn wrong_statuses_of_streams_are_counted() {
    let outcome = within(async {
        let address = server(None, true).await;
        drive(&target(address, None, Some(2), "/missing"), plan(Pace::Closed, 60), || ()).await.unwrap()
    })
    .await;
    assert!(outcome.failures.status[&404] > 0 && outcome.failures.total() == outcome.failures.status[&404]);
}

#[tokio::test]
async fn a_server_without_http2_is_an_error_not_a_figure() {
    let refused = within(async {
        let address = server(None, false).await;
        tokio::time::timeout(
            Duration::from_secs(20),
            drive(&target(address, None, Some(2), "/"), plan(Pace::Open(200), 60), || ()),
        )
        .await
    })
    .await;
    // The handshake of HTTP/2 in the clear asks nothing back: what comes instead shows at the first request.
    assert!(refused.unwrap().map_or(true, |outcome| outcome.failures.total() > 0));
}

/// A server that is gone for a while in the middle of the window, on one address.
async fn interrupted(streams: Option<u32>) -> Outcome<()> {
    within(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = Rc::new(RefCell::new(JoinSet::new()));
        let accept = move |listener: TcpListener, serving: Rc<RefCell<JoinSet<()>>>| async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.borrow_mut().spawn_local(async move { serve(stream, streams.is_some()).await });
            }
        };
        let first =
            Rc::new(RefCell::new(Some(tokio::task::spawn_local(accept(listener, Rc::clone(&serving))))));
        let gone = {
            let serving = Rc::clone(&serving);
            Act::new(Duration::from_millis(100), "gone", move || {
                let (first, serving) = (first.borrow_mut().take(), Rc::clone(&serving));
                Box::pin(async move {
                    first.context("gone already")?.abort();
                    serving.borrow_mut().abort_all();
                    Ok(())
                })
            })
        };
        let back = Act::new(Duration::from_millis(200), "back", move || {
            let serving = Rc::clone(&serving);
            Box::pin(async move {
                let listener = TcpListener::bind(address).await?;
                tokio::task::spawn_local(accept(listener, serving));
                Ok(())
            })
        });
        let target = Target { script: vec![back, gone], ..target(address, None, streams, "/") };
        drive(&target, plan(Pace::Open(500), 400), || ()).await.unwrap()
    })
    .await
}

#[tokio::test]
async fn a_server_that_goes_and_comes_back_is_charged_for_the_time_between() {
    for streams in [None, Some(2)] {
        let Outcome { failures, latency, timeline, .. } = interrupted(streams).await;
        assert!(failures.refused >= 20, "{streams:?}: {failures:?}");
        assert_eq!(failures.total(), failures.refused + failures.closed + failures.reset, "{failures:?}");
        assert_eq!(latency.len(), 200, "each slot is answered or has failed");
        let moments = timeline.moments(1);
        let failed =
            |from: usize, to: usize| moments[from..to].iter().map(|moment| moment.failed).sum::<u64>();
        assert!(failed(2, 5) >= 20 && failed(6, 8) == 0, "{moments:?}");
    }
}

#[tokio::test]
async fn a_command_that_fails_while_asking_fails_the_run() {
    let run = async |words: &str| {
        let act = Act::command(Duration::from_millis(10), words);
        within(async {
            let address = server(None, false).await;
            let target = Target { script: vec![act], ..target(address, None, None, "/") };
            drive(&target, plan(Pace::Open(200), 300), || ()).await.map(drop)
        })
        .await
    };
    run("true").await.unwrap();
    assert!(format!("{:#}", run("exit 3").await.unwrap_err()).contains("exit 3"));
    assert!(format!("{:#}", run("sleep 9").await.unwrap_err()).contains("the window ended"));
}
