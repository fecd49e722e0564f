//! The common surroundings, over real sockets.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use http::request::Parts;
use hyper::body::Incoming;
use serde_json::Value;
use sluice_identity::caller::Caller;
use sluice_identity::jwk::publish;
use sluice_schema::Config;
use sluice_telemetry::{log, metric};
use sluice_wire::code::Code;
use sluice_wire::feed::{Message, Revoked, Snapshot};
use sluice_wire::role::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::{
    Authenticated, BodyBytes, BodyLimit, Component, Direct, Doors, HealthSource, InternalKeys, Listener,
    MaybeCaller, Reject, Start, Stopper, StrictJson, TrustCell, serve_with,
};

struct Well;

impl HealthSource for Well {
    fn ready(&self) -> bool {
        true
    }

    fn components(&self) -> BTreeMap<String, Component> {
        BTreeMap::from([("store".to_owned(), Component::healthy())])
    }
}

struct Running {
    address: std::net::SocketAddr,
    socket: PathBuf,
    edge_key: String,
    stopper: Stopper,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn routes() -> Router {
    Router::new()
        .route("/whoami", get(|Authenticated(caller): Authenticated| async move { caller.subject }))
        .route(
            "/maybe",
            get(|MaybeCaller(caller): MaybeCaller| async move {
                caller.map_or("anonymous".to_owned(), |caller| {
                    format!("{} {}", caller.subject, caller.via.as_str())
                })
            }),
        )
        .route("/json", post(|StrictJson(value): StrictJson<Value>| async move { value.to_string() }))
        .route("/bytes", post(|BodyBytes(bytes): BodyBytes| async move { bytes.len().to_string() }))
        .route("/panic", get(|| async { assert!(false_by_purpose(), "on purpose") }))
        .layer(Extension(BodyLimit(64)))
}

/// Answers `POST /direct` with who asks and how much, and panics when told to.
struct Echo;

impl Direct for Echo {
    fn takes(&self, request: &Request<Incoming>) -> Option<usize> {
        (request.uri().path() == "/direct").then_some(64)
    }

    fn answer<'a>(
        &'a self,
        caller: Arc<Caller>,
        head: &'a Parts,
        body: Bytes,
    ) -> BoxFuture<'a, Result<Response, Reject>> {
        Box::pin(async move {
            let headers = &head.headers;
            assert!(!headers.contains_key("x-panic"), "on purpose");
            if headers.contains_key("x-refuse") {
                return Err(Reject::new(Code::Conflict, "no"));
            }
            Ok(format!("{} {}", caller.subject, body.len()).into_response())
        })
    }
}

fn false_by_purpose() -> bool {
    std::hint::black_box(false)
}

/// A start of the calculation worker without doors, and what stops it.
pub(crate) fn start(config: Config, keys: InternalKeys, data_dir: PathBuf) -> (Start, Stopper) {
    let (stopper, stop) = Stopper::new();
    let config = Arc::new(config);
    let start = Start {
        role: Role::Calc,
        trust: TrustCell::new(&config, Role::Calc),
        config,
        config_path: PathBuf::new(),
        data_dir,
        dev: true,
        port_offset: 0,
        environment: BTreeMap::new(),
        keys: Arc::new(keys),
        sockets: BTreeMap::new(),
        doors: Mutex::new(Doors::default()),
        stop,
        registry: metric::registry("calc"),
        log: log::LogLevel::fixed(),
        announce: false,
        handover: crate::Handover::none(),
    };
    (start, stopper)
}

fn running() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("door.sock");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let mut doors = Doors::default();
    doors.insert("api", Listener::Tcp(tcp));
    doors.insert("internal", Listener::Unix(UnixListener::bind(&socket).unwrap()));
    let edge_key = InternalKeys::mint();
    let peers = BTreeMap::from([(Role::Edge, InternalKeys::digest(&edge_key))]);
    let keys = InternalKeys::new(InternalKeys::mint(), &peers);
    let (start, stopper) = start(Config::default(), keys, dir.path().to_owned());
    *start.doors() = doors;
    start.trust.apply(&Message::Snapshot(Snapshot {
        epoch: "e".into(),
        seq: 1,
        jwks: vec![publish(&[4; 65]).unwrap()],
        revoked: Revoked::default(),
    }));
    let task = tokio::spawn(async move {
        serve_with(&start, routes(), Some(Arc::new(Echo)), Arc::new(Well)).await.unwrap();
    });
    Running { address, socket, edge_key, stopper, task, _dir: dir }
}

async fn exchange<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(
    mut stream: S,
    request: &str,
) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

impl Running {
    async fn api(&self, head: &str, body: &str) -> String {
        let request = format!(
            "{head}host: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        exchange(TcpStream::connect(self.address).await.unwrap(), &request).await
    }

    async fn internal(&self, path: &str, headers: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
        exchange(UnixStream::connect(&self.socket).await.unwrap(), &request).await
    }
}

fn problem(answer: &str) -> Value {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("application/problem+json"), "{answer}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn problems_name_request_and_path() {
    let running = running();
    let answer = running.api("GET /nowhere HTTP/1.1\r\nx-request-id: req-12345\r\n", "").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(answer.contains("x-request-id: req-12345"), "{answer}");
    let body = problem(&answer);
    assert_eq!((body["code"].as_str(), body["instance"].as_str()), (Some("not_found"), Some("/nowhere")));
    assert_eq!(body["request_id"], "req-12345");
    assert!(running.api("DELETE /whoami HTTP/1.1\r\n", "").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn a_panic_is_one_500_and_the_process_lives() {
    let running = running();
    let answer = running.api("GET /panic HTTP/1.1\r\n", "").await;
    assert_eq!(problem(&answer)["code"], "internal");
    assert!(running.api("GET /livez HTTP/1.1\r\n", "").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn bodies_are_bounded_and_strict() {
    let running = running();
    let fits = running.api("POST /bytes HTTP/1.1\r\n", &"x".repeat(64)).await;
    assert!(fits.ends_with("64"), "{fits}");
    let large = running.api("POST /bytes HTTP/1.1\r\n", &"x".repeat(65)).await;
    assert!(large.starts_with("HTTP/1.1 413"), "{large}");
    let doubled = running.api("POST /json HTTP/1.1\r\n", r#"{"a":1,"a":2}"#).await;
    assert_eq!(problem(&doubled)["code"], "invalid_json");
    let typed = running.api("POST /json HTTP/1.1\r\ncontent-type: text/plain\r\n", "{}").await;
    assert!(typed.starts_with("HTTP/1.1 415"), "{typed}");
}

#[tokio::test]
async fn a_coded_body_is_refused_with_the_codings_that_are_taken() {
    let running = running();
    for coding in ["gzip", "identity, br", "identity\r\ncontent-encoding: zstd", "\u{e4}"] {
        for path in ["/bytes", "/json"] {
            let answer =
                running.api(&format!("POST {path} HTTP/1.1\r\ncontent-encoding: {coding}\r\n"), "{}").await;
            assert!(answer.starts_with("HTTP/1.1 415"), "{coding}: {answer}");
            assert!(answer.contains("accept-encoding: identity\r\n"), "{answer}");
            assert_eq!(problem(&answer)["code"], "unsupported_media_type");
        }
    }
    let plain = running.api("POST /bytes HTTP/1.1\r\ncontent-encoding: Identity\r\n", "12").await;
    assert!(plain.ends_with('2'), "{plain}");
}

#[tokio::test]
async fn a_direct_call_has_the_same_surroundings() {
    let running = running();
    let nobody = running.api("POST /direct HTTP/1.1\r\n", "").await;
    assert!(nobody.starts_with("HTTP/1.1 401"), "{nobody}");
    assert_eq!(problem(&nobody)["instance"], "/direct");
    let post = async |headers: &str, body: &str| {
        let request = format!(
            "POST /direct HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-internal-key: {}\r\n\
             x-user: alice\r\nx-request-id: req-12345\r\n{headers}content-length: {}\r\n\r\n{body}",
            running.edge_key,
            body.len(),
        );
        exchange(UnixStream::connect(&running.socket).await.unwrap(), &request).await
    };
    let answer = post("", "four").await;
    assert!(answer.contains("x-request-id: req-12345") && answer.ends_with("alice 4"), "{answer}");
    assert!(post("", &"x".repeat(64)).await.ends_with("alice 64"));
    for (headers, bytes, code) in
        [("", 65, "body_too_large"), ("x-panic: 1\r\n", 1, "internal"), ("x-refuse: 1\r\n", 1, "conflict")]
    {
        let problem = problem(&post(headers, &"x".repeat(bytes)).await);
        assert_eq!((&problem["code"], &problem["request_id"]), (&code.into(), &"req-12345".into()));
    }
    let metrics = running.api("GET /metrics HTTP/1.1\r\n", "").await;
    let counted = r#"sluice_http_requests_total{door="internal",status="2xx"} 2"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_bad_credential_is_never_anonymous() {
    let running = running();
    assert!(running.api("GET /maybe HTTP/1.1\r\n", "").await.ends_with("anonymous"));
    let bad = running.api("GET /maybe HTTP/1.1\r\nauthorization: Bearer x.y.z\r\n", "").await;
    assert!(bad.starts_with("HTTP/1.1 401"), "{bad}");
    let twice = "GET /maybe HTTP/1.1\r\nauthorization: Bearer a\r\nauthorization: Bearer b\r\n";
    assert!(running.api(twice, "").await.starts_with("HTTP/1.1 401"));
    let none = running.api("GET /whoami HTTP/1.1\r\n", "").await;
    assert!(none.contains("www-authenticate: Bearer error=\"invalid_token\""), "{none}");
}

#[tokio::test]
async fn identity_headers_count_only_from_the_edge() {
    let running = running();
    let spoofed = running.api("GET /maybe HTTP/1.1\r\nx-user: admin\r\nx-permissions: admin\r\n", "").await;
    assert!(spoofed.ends_with("anonymous"), "{spoofed}");
    let keyless = running.internal("/maybe", "x-user: admin\r\n").await;
    assert!(keyless.starts_with("HTTP/1.1 401"), "{keyless}");
    let key = format!("x-internal-key: {}\r\n", running.edge_key);
    let vouched = running.internal("/maybe", &format!("{key}x-user: alice\r\n")).await;
    assert!(vouched.ends_with("alice edge"), "{vouched}");
    let legacy = format!("{key}x-user: alice\r\nx-auth-method: legacy_token\r\n");
    assert!(running.internal("/maybe", &legacy).await.ends_with("alice legacy_token"));
    let certificate =
        format!("{key}x-user: spiffe://d/service/bot\r\nx-account: bot\r\nx-auth-method: mtls\r\n");
    assert!(running.internal("/maybe", &certificate).await.ends_with("spiffe://d/service/bot mtls"));
    let key_of_the_file = format!("{key}x-user: desk\r\nx-auth-method: api_key\r\n");
    assert!(running.internal("/maybe", &key_of_the_file).await.ends_with("desk api_key"));
    let anonymous = running.internal("/maybe", &key).await;
    assert!(anonymous.ends_with("anonymous"), "{anonymous}");
    let own = running.internal("/maybe", &format!("{key}x-internal-self: 1\r\n")).await;
    assert!(own.ends_with("role/edge role"), "{own}");
}

#[tokio::test]
async fn health_and_metrics_answer_and_draining_is_not_ready() {
    let running = running();
    let health = running.api("GET /health HTTP/1.1\r\n", "").await;
    assert!(
        health.contains(r#""status":"healthy""#) && health.contains(r#""store":{"status":"healthy"}"#),
        "{health}"
    );
    assert!(running.api("GET /metrics HTTP/1.1\r\n", "").await.contains("sluice_build_info"));
    let proxied = running.api("GET /metrics HTTP/1.1\r\nx-forwarded-for: 10.1.1.1\r\n", "").await;
    assert!(proxied.starts_with("HTTP/1.1 401"), "{proxied}");
    assert!(running.api("GET /readyz HTTP/1.1\r\n", "").await.starts_with("HTTP/1.1 200"));
    running.stopper.stop();
    running.task.await.unwrap();
    assert!(TcpStream::connect(running.address).await.is_err());
}
