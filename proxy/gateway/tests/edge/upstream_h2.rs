//! Instances that speak HTTP/2, in clear text or behind TLS.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::harness::{Edge, Setup, eventually, service};
use crate::secure::{Authority, server};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Serve = dyn Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> Work + Send + Sync;

/// A server of HTTP/2 that counts connections and requests; probes are answered apart.
pub struct H2 {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
}

impl H2 {
    /// `serve` gets the number of the request, from 0.
    pub fn start<W: Future<Output = ()> + Send + 'static>(
        tls: Option<Arc<ServerConfig>>,
        serve: impl Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> W + Send + Sync + 'static,
    ) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), tls, serve)
    }

    pub fn on<W: Future<Output = ()> + Send + 'static>(
        listener: TcpListener,
        tls: Option<Arc<ServerConfig>>,
        serve: impl Fn(usize, Request<RecvStream>, SendResponse<Bytes>) -> W + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, asked) = (Arc::clone(&connections), Arc::clone(&requests));
        let serve: Arc<Serve> = Arc::new(move |n, request, respond| Box::pin(serve(n, request, respond)));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                listener.set_nonblocking(true).unwrap();
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    counted.fetch_add(1, Ordering::SeqCst);
                    let (tls, serve, asked) = (tls.clone(), Arc::clone(&serve), Arc::clone(&asked));
                    tokio::spawn(async move {
                        match tls {
                            None => connection(socket, serve, asked).await,
                            Some(tls) => {
                                if let Ok(socket) = tokio_rustls::TlsAcceptor::from(tls).accept(socket).await
                                {
                                    connection(socket, serve, asked).await;
                                }
                            }
                        }
                    });
                }
            });
        });
        Self { address, connections, requests }
    }

    pub fn edge(&self, more: &str) -> Edge {
        let text = service(
            "api",
            "/api",
            &[format!("h2c://{}", self.address)],
            &format!("auth_required = false\n{more}"),
        );
        Setup::new("").service("api", &text).start()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin>(
    socket: S,
    serve: Arc<Serve>,
    asked: Arc<AtomicUsize>,
) {
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        if request.uri().path() == "/health" {
            let mut response = Response::new(());
            // As strict as others are: no `Host`, but `:scheme` and `:authority`.
            let whole = request.uri().scheme().is_some() && request.uri().authority().is_some();
            if !whole || request.headers().contains_key("host") {
                *response.status_mut() = http::StatusCode::BAD_REQUEST;
            }
            drop(respond.send_response(response, true));
            continue;
        }
        tokio::spawn(serve(asked.fetch_add(1, Ordering::SeqCst), request, respond));
    }
}

/// The whole body, its window given back.
async fn body(request: Request<RecvStream>) -> Vec<u8> {
    let mut stream = request.into_body();
    let mut whole = Vec::new();
    while let Some(Ok(piece)) = stream.data().await {
        whole.extend_from_slice(&piece);
        drop(stream.flow_control().release_capacity(piece.len()));
    }
    whole
}

/// Answers with method, authority, scheme and body, then trailers.
async fn echo(_: usize, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let line = format!("{} {}|", request.method(), request.uri());
    let te =
        request.headers().get("te").map(|te| format!("te={}|", te.to_str().unwrap())).unwrap_or_default();
    let answer = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut stream = respond.send_response(answer, false).unwrap();
    let mut all = (line + &te).into_bytes();
    all.extend(body(request).await);
    stream.send_data(all.into(), false).unwrap();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
}

async fn empty(_: usize, _: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    drop(respond.send_response(Response::new(()), true));
}

fn post(edge: &Edge, body: &str) -> crate::harness::Reply {
    edge.send(&format!(
        "POST /api/x?y HTTP/1.1\r\nHost: edge\r\nContent-Type: application/grpc\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    ))
}

#[test]
fn a_plain_client_reaches_a_clear_text_http2_instance() {
    let upstream = H2::start(None, echo);
    let edge = upstream.edge("");
    let get = edge.get("/api/x?y");
    assert_eq!(get.status, 200, "{}", get.text());
    assert_eq!(get.text(), format!("GET http://{}/x?y|", upstream.address));
    assert_eq!(get.field("transfer-encoding"), "chunked");
    let answer = post(&edge, "hello");
    assert_eq!(answer.text(), format!("POST http://{}/x?y|te=trailers|hello", upstream.address));
    // Trailers do not break a connection that goes on.
    let mut client = edge.connect();
    for _ in 0..3 {
        let answer = client.exchange("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
        assert_eq!(answer.status, 200);
    }
    let large = "x".repeat(700_000);
    assert!(post(&edge, &large).text().ends_with(&large));
    assert_eq!(eventually("a probe", || edge.probe("api")), "200");
}

#[test]
fn streams_share_connections() {
    let upstream = H2::start(None, |_, _, mut respond| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(respond.send_response(Response::new(()), true));
    });
    let text = service("api", "/api", &[format!("h2c://{}", upstream.address)], "auth_required = false");
    // Each thread has connections of its own.
    let edge = Setup::new("[edge]\nthreads = 1\n").service("api", &text).start();
    let ask = |count: usize| {
        let clients: Vec<_> = (0..count)
            .map(|_| {
                let mut client = edge.connect();
                client.send("GET /api HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n");
                client
            })
            .collect();
        for mut client in clients {
            assert_eq!(client.reply().status, 200);
        }
    };
    ask(1);
    ask(60);
    let connections = upstream.connections.load(Ordering::SeqCst);
    assert!(connections <= 4, "61 requests and a few probes took {connections} connections");
}

#[test]
fn a_refused_stream_was_not_processed_so_even_a_post_goes_on() {
    let upstream = H2::start(None, |n, request, mut respond| async move {
        if n == 0 {
            respond.send_reset(Reason::REFUSED_STREAM);
        } else {
            echo(n, request, respond).await;
        }
    });
    let edge = upstream.edge("");
    let answer = post(&edge, "order");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().ends_with("|order"));
    assert_eq!(upstream.requests(), 2);

    let upstream = H2::start(None, |_, _, mut respond| async move {
        respond.send_reset(Reason::REFUSED_STREAM);
    });
    let answer = post(&upstream.edge("retry = { attempts = 1 }"), "order");
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_refused"));
    assert_eq!(answer.json()["outcome"], "not_sent");
}

#[test]
fn another_reset_may_have_been_processed_so_a_post_ends_there() {
    let upstream = H2::start(None, |_, _, mut respond| async move {
        respond.send_reset(Reason::INTERNAL_ERROR);
    });
    let edge = upstream.edge("");
    let answer = post(&edge, "order");
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_refused"));
    assert_eq!(answer.json()["outcome"], "unknown");
    assert_eq!(upstream.requests(), 1);
    assert_eq!(edge.get("/api").status, 502);
    assert_eq!(upstream.requests(), 3, "a GET is tried again");
}

/// Takes a connection and its first request, then leaves for good without having processed it.
pub fn leave(listener: &TcpListener) {
    let (mut socket, _) = listener.accept().unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    socket.write_all(&settings).unwrap();
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    // Frame header of the request: type 1 on stream 1.
    while !seen.windows(9).any(|frame: &[u8]| frame[3] == 1 && frame[5..] == [0, 0, 0, 1]) {
        let count = socket.read(&mut piece).unwrap();
        assert!(count > 0);
        seen.extend_from_slice(&piece[..count]);
    }
    // GOAWAY, last stream 0, no error.
    socket.write_all(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    drop(socket.shutdown(std::net::Shutdown::Write));
}

#[test]
fn what_a_leaving_instance_left_out_goes_elsewhere() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let handover = std::thread::spawn(move || {
        leave(&listener);
        H2::on(listener, None, echo)
    });
    let text = service(
        "api",
        "/api",
        &[format!("h2c://{address}")],
        "auth_required = false\nhealth = { interval = \"24h\" }",
    );
    let edge = Setup::new("").service("api", &text).start();
    let answer = post(&edge, "order");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(handover.join().unwrap().requests(), 1);
}

#[test]
fn an_instance_that_takes_no_body_is_ended_by_the_deadline() {
    // It holds the body: its window is never given back, and it never answers.
    let upstream = H2::start(None, |_, request, respond| async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        drop((request, respond));
    });
    let edge = upstream.edge(
        "body_bytes = \"8MiB\"\nretry = { attempts = 1 }\n\
         timeouts = { connect = \"100ms\", first_byte = \"300ms\", total = \"1s\", idle = \"60s\" }",
    );
    let begun = Instant::now();
    let answer = post(&edge, &"x".repeat(4 << 20));
    assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"));
    assert_eq!(answer.json()["outcome"], "unknown");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn tls_agrees_on_http2() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("ours");
    let ca = authority.write(dir.path(), "ours");
    let upstream = H2::start(Some(server(&authority.sign("backend"), None, &[b"h2"])), echo);
    let text = service(
        "api",
        "/api",
        &[format!("https://{}", upstream.address)],
        &format!("auth_required = false\ntls = {{ sni = \"backend\", ca = \"{}\" }}\n", ca.display()),
    );
    let edge = Setup::new("").service("api", &text).start();
    for _ in 0..4 {
        let answer = post(&edge, "hello");
        assert_eq!(answer.text(), format!("POST https://{}/x?y|te=trailers|hello", upstream.address));
    }
    assert!(upstream.connections.load(Ordering::SeqCst) <= 3, "two edge threads and a probe");
    assert_eq!(eventually("a probe", || edge.probe("api")), "200");
}

#[test]
fn a_probe_of_http2_sees_who_does_not_speak_it() {
    let plain = crate::harness::Upstream::start(crate::harness::ok);
    let text = service(
        "api",
        "/api",
        &[format!("h2c://{}", plain.address.unwrap())],
        "auth_required = false\nhealth = { interval = \"100ms\", timeout = \"90ms\", unhealthy = 1 }",
    );
    let edge = Setup::new("").service("api", &text).start();
    eventually("it is unhealthy", || {
        (edge.get("/health").json()["services"]["api"]["status"] == "unhealthy").then_some(())
    });
    let edge = H2::start(None, empty).edge("");
    assert_eq!(edge.get("/api").status, 200);
    assert_eq!(eventually("a probe", || edge.probe("api")), "200");
}
