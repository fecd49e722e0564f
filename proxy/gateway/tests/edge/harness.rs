//! A whole edge in this process, upstreams that record what reaches them, and a client that sends bytes.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sluice_gateway::{Lookup, Resolve, SystemResolver};
use sluice_http::{Asset, Doors, InternalKeys, Listener, Start, Stopper, TrustCell};
use sluice_identity::jwk;
use sluice_identity::trust::Trust;
use sluice_schema::Mode;
use sluice_telemetry::{log, metric};
use sluice_wire::feed::{Revoked, Snapshot};
use sluice_wire::role::Role;

/// No wait in a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `probe` gives a value, else fails with what was waited for.
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = probe() {
            return value;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One request as an upstream saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: Vec<u8>,
    /// False where the connection ended inside it.
    pub whole: bool,
}

impl Seen {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or("")
    }

    /// The values of a field, lower-case name.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }
}

pub trait Wire: Read + Write + Send {}
impl<T: Read + Write + Send> Wire for T {}

/// Answers a request; false closes the connection.
pub type Answer = dyn Fn(&Seen, &mut dyn Wire) -> bool + Send + Sync;

/// A server that records raw requests.
pub struct Upstream {
    pub address: Option<SocketAddr>,
    seen: Arc<Mutex<Vec<Seen>>>,
    pub connections: Arc<AtomicUsize>,
    probes_ok: Arc<Mutex<bool>>,
}

/// An answer with a length.
pub fn reply(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: text/plain\r\n\r\n{body}", body.len())
}

pub fn ok(_: &Seen, wire: &mut dyn Wire) -> bool {
    wire.write_all(reply("200 OK", "ok").as_bytes()).is_ok()
}

impl Upstream {
    pub fn start(answer: impl Fn(&Seen, &mut dyn Wire) -> bool + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", answer)
    }

    /// The same at a chosen loopback address.
    pub fn start_at(
        address: &str,
        answer: impl Fn(&Seen, &mut dyn Wire) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let upstream = Self::empty(Some(address));
        let parts = upstream.parts(Arc::new(answer));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                parts.serve(socket);
            }
        });
        upstream
    }

    /// The same behind TLS; a handshake that fails is a connection without a request.
    pub fn start_tls(
        tls: Arc<ServerConfig>,
        answer: impl Fn(&Seen, &mut dyn Wire) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream = Self::empty(Some(listener.local_addr().unwrap()));
        let parts = upstream.parts(Arc::new(answer));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let session = ServerConnection::new(Arc::clone(&tls)).unwrap();
                parts.serve(StreamOwned::new(session, socket));
            }
        });
        upstream
    }

    /// The same on a Unix socket, for workers.
    pub fn start_unix(
        path: &Path,
        answer: impl Fn(&Seen, &mut dyn Wire) -> bool + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let upstream = Self::empty(None);
        let parts = upstream.parts(Arc::new(answer));
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                parts.serve(socket);
            }
        });
        upstream
    }

    fn empty(address: Option<SocketAddr>) -> Self {
        Self {
            address,
            seen: Arc::default(),
            connections: Arc::default(),
            probes_ok: Arc::new(Mutex::new(true)),
        }
    }

    fn parts(&self, answer: Arc<Answer>) -> Parts {
        Parts {
            answer,
            seen: Arc::clone(&self.seen),
            connections: Arc::clone(&self.connections),
            probes_ok: Arc::clone(&self.probes_ok),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address.expect("a TCP upstream"))
    }

    /// Requests so far, probes left out.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The only request so far.
    pub fn only(&self) -> Seen {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen[0].clone()
    }

    pub fn answer_probes(&self, well: bool) {
        *self.probes_ok.lock().unwrap() = well;
    }
}

#[derive(Clone)]
struct Parts {
    answer: Arc<Answer>,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    probes_ok: Arc<Mutex<bool>>,
}

impl Parts {
    fn serve(&self, mut socket: impl Wire + 'static) {
        let parts = self.clone();
        parts.connections.fetch_add(1, Ordering::SeqCst);
        std::thread::spawn(move || {
            while let Some(seen) = read_request(&mut socket) {
                if seen.head.contains("user-agent: sluice-probe") || seen.line().starts_with("GET /health ") {
                    let well = *parts.probes_ok.lock().unwrap();
                    let status = if well { "200 OK" } else { "503 Service Unavailable" };
                    let body = r#"{"status":"healthy","components":{}}"#;
                    drop(socket.write_all(reply(status, body).as_bytes()));
                    continue;
                }
                // What the edge asks for itself, every second.
                if seen.line().starts_with("GET ") && !seen.fields("x-internal-self").is_empty() {
                    drop(socket.write_all(reply("200 OK", "{}").as_bytes()));
                    continue;
                }
                // The edge's wish for a certificate is answered like any call and not noted.
                if seen.line().starts_with("POST /internal/certificates ") {
                    (parts.answer)(&seen, &mut socket);
                    continue;
                }
                let whole = seen.whole;
                parts.seen.lock().unwrap().push(seen.clone());
                if !whole || !(parts.answer)(&seen, &mut socket) {
                    break;
                }
            }
        });
    }
}

fn read_request(wire: &mut impl Read) -> Option<Seen> {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    let head_end = loop {
        if let Some(at) = find(&bytes, b"\r\n\r\n") {
            break at + 4;
        }
        match wire.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let mut body = bytes.split_off(head_end);
    let lower = head.to_ascii_lowercase();
    let length =
        lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    let chunked = lower.contains("transfer-encoding: chunked");
    let complete = |body: &[u8]| match length {
        _ if chunked => body.ends_with(b"0\r\n\r\n"),
        Some(length) => body.len() >= length,
        None => true,
    };
    while !complete(&body) {
        match wire.read(&mut piece) {
            Ok(0) | Err(_) => return Some(Seen { head, body, whole: false }),
            Ok(count) => body.extend_from_slice(&piece[..count]),
        }
    }
    Some(Seen { head, body, whole: true })
}

pub fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Signs tokens that the edge believes.
pub struct Issuer {
    pair: EcdsaKeyPair,
    kid: String,
    pub snapshot: Snapshot,
}

impl Issuer {
    fn new() -> Self {
        let rng = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).unwrap();
        let pair =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &rng).unwrap();
        let key = jwk::publish(pair.public_key().as_ref()).unwrap();
        let kid = key.kid.clone();
        let snapshot =
            Snapshot { epoch: "e".into(), seq: 1, jwks: vec![key], revoked: Revoked::default(), crl: None };
        Self { pair, kid, snapshot }
    }

    pub fn token(&self, scope: &str) -> String {
        self.token_of("alice", scope)
    }

    pub fn token_of(&self, sub: &str, scope: &str) -> String {
        let now = jiff::Timestamp::now().as_second();
        self.sign(&json!({
            "iss": "https://sluice.internal", "sub": sub, "aud": ["sluice"], "jti": format!("jti-{sub}"),
            "iat": now - 1, "exp": now + 600, "scope": scope,
        }))
    }

    pub fn sign(&self, claims: &Value) -> String {
        let head = json!({"alg": "ES256", "kid": self.kid, "typ": "JWT"});
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(head.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A running edge.
pub struct Edge {
    pub http: SocketAddr,
    pub control: SocketAddr,
    /// Where it speaks TLS, when it does.
    pub tls: Option<SocketAddr>,
    pub issuer: Issuer,
    pub trust: TrustCell,
    pub conf: PathBuf,
    pub data: PathBuf,
    pub internal_key: String,
    resolver: Arc<dyn Resolve>,
    environment: BTreeMap<String, String>,
    preamble: &'static [u8],
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
    dir: Option<tempfile::TempDir>,
}

/// A resolver that says what it is told, and counts what it is asked.
#[derive(Clone, Default)]
pub struct Names {
    known: Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>,
    asked: Arc<AtomicUsize>,
}

impl Names {
    /// `host` stands for these from now on; for none: it does not resolve.
    pub fn set(&self, host: &str, ips: &[&str]) {
        let ips = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        self.known.lock().unwrap().insert(host.to_owned(), ips);
    }

    /// How often anything was asked.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolve for Names {
    fn lookup(&self, host: &str, port: u16) -> Lookup {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let found = self.known.lock().unwrap().get(host).cloned();
        let found = found.filter(|found| !found.is_empty()).ok_or(std::io::ErrorKind::NotFound);
        Box::pin(async move { Ok(found?.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()) })
    }
}

/// What an edge is started with.
pub struct Setup {
    /// In place of the system's resolver.
    pub names: Option<Names>,
    /// Variables the process was started with.
    pub environment: BTreeMap<String, String>,
    pub main: String,
    pub services: Vec<(String, String)>,
    pub keys: bool,
    pub dev: bool,
    pub dir: tempfile::TempDir,
    pub workers: Vec<Role>,
    /// What a balancer in front sends first.
    pub preamble: &'static [u8],
}

impl Setup {
    pub fn new(main: &str) -> Self {
        Self {
            names: None,
            environment: BTreeMap::new(),
            main: main.to_owned(),
            services: Vec::new(),
            keys: true,
            dev: true,
            dir: tempfile::tempdir().unwrap(),
            workers: Vec::new(),
            preamble: b"",
        }
    }

    /// A service as a file of its own.
    pub fn service(mut self, name: &str, text: &str) -> Self {
        self.services.push((name.to_owned(), text.to_owned()));
        self
    }

    /// Where a worker's internal door is to be.
    pub fn door(&mut self, role: Role) -> PathBuf {
        self.workers.push(role);
        self.dir.path().join(format!("{role}.sock"))
    }

    pub fn start(self) -> Edge {
        Edge::start(self)
    }

    /// An edge whose clients come through a balancer that sends this first.
    pub fn start_behind(mut self, preamble: &'static [u8]) -> Edge {
        self.preamble = preamble;
        Edge::start(self)
    }
}

/// An open service without health noise.
pub fn service(name: &str, prefix: &str, urls: &[String], more: &str) -> String {
    let mut text = format!("[[service]]\nname = \"{name}\"\nprefix = \"{prefix}\"\n{more}\n");
    for url in urls {
        text.push_str(&format!("[[service.instance]]\nurl = \"{url}\"\n"));
    }
    text
}

/// An edge with one open service at `/api`.
pub fn edge_for(upstream: &Upstream, more: &str) -> Edge {
    let text = service("api", "/api", &[upstream.url()], &format!("auth_required = false\n{more}"));
    Setup::new("").service("api", &text).start()
}

fn asset(path: &str) -> Option<Asset> {
    let file = |content_type, bytes| Some(Asset { content_type, bytes, etag: "\"1\"" });
    match path {
        "index.html" => file("text/html; charset=utf-8", b"<!doctype html><title>Sluice</title>"),
        "app.js" => file("text/javascript; charset=utf-8", b"export {};"),
        _ => None,
    }
}

impl Edge {
    pub fn start(setup: Setup) -> Self {
        let Setup { names, environment, main, services, keys, dev, dir, workers, preamble } = setup;
        let conf = dir.path().join("conf");
        std::fs::create_dir_all(conf.join("services.d")).unwrap();
        let quiet = if main.contains("[log]") { "" } else { "\n[log]\naccess = \"off\"\n" };
        let threads = if main.contains("[edge]") { "" } else { "[edge]\nthreads = 2\n" };
        std::fs::write(conf.join("sluice.toml"), format!("{threads}{main}{quiet}")).unwrap();
        for (name, text) in services {
            std::fs::write(conf.join("services.d").join(format!("{name}.toml")), text).unwrap();
        }
        let data = dir.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        let sockets = workers.iter().map(|role| (*role, dir.path().join(format!("{role}.sock")))).collect();
        let resolver: Arc<dyn Resolve> = match names {
            Some(names) => Arc::new(names),
            None => Arc::new(SystemResolver::default()),
        };
        Self::boot(dir, conf, data, sockets, keys, dev, Issuer::new(), resolver, environment, preamble)
    }

    #[expect(clippy::too_many_arguments, reason = "what two kinds of start have in common")]
    fn boot(
        dir: tempfile::TempDir,
        conf: PathBuf,
        data: PathBuf,
        sockets: BTreeMap<Role, PathBuf>,
        keys: bool,
        dev: bool,
        issuer: Issuer,
        resolver: Arc<dyn Resolve>,
        environment: BTreeMap<String, String>,
        preamble: &'static [u8],
    ) -> Self {
        let mode = Mode { dev, ..Mode::default() };
        let path = conf.join("sluice.toml");
        // The store's address is not for this version's loader; the gateway has to know it all the same.
        let variables = environment.iter().filter(|(name, _)| *name != "REDIS_URL");
        let variables = variables.map(|(name, value)| (name.clone(), value.clone())).collect();
        let loaded = sluice_schema::load(&path, &variables, mode);
        let config = Arc::new(loaded.unwrap_or_else(|report| panic!("{}", report.render(false))).config);
        let trust = TrustCell::new(&config, Role::Edge);
        if keys {
            trust.restore(Trust::from_snapshot(&issuer.snapshot));
        }
        let mut doors = Doors::default();
        let mut open = |door: &str| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            doors.insert(door, Listener::Tcp(listener));
            address
        };
        let (http, control) = (open("http"), open("control"));
        let tls = config.edge.tls.is_some().then(|| open("tls"));
        let (stopper, stop) = Stopper::new();
        let internal_key = InternalKeys::mint();
        let start = Start {
            role: Role::Edge,
            config,
            config_path: path,
            data_dir: data.clone(),
            dev,
            port_offset: 0,
            environment: environment.clone(),
            keys: Arc::new(InternalKeys::new(internal_key.clone(), &BTreeMap::new())),
            sockets,
            doors: Mutex::new(doors),
            stop,
            trust: trust.clone(),
            registry: metric::registry("edge"),
            log: log::LogLevel::fixed(),
            announce: false,
            handover: sluice_http::Handover::none(),
        };
        let kept = Arc::clone(&resolver);
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(sluice_gateway::run_with(start, asset, kept)).unwrap();
        });
        let edge = Self {
            http,
            control,
            tls,
            issuer,
            trust,
            conf,
            data,
            internal_key,
            resolver,
            environment,
            preamble,
            stopper,
            thread: Some(thread),
            dir: Some(dir),
        };
        eventually("the edge answers", || edge.try_get("/livez").filter(|answer| answer.status == 200));
        edge
    }

    /// Ends this edge and starts another on the same folders.
    pub fn restart(mut self) -> Self {
        self.end();
        let issuer = std::mem::replace(&mut self.issuer, Issuer::new());
        let dir = self.dir.take().unwrap();
        let (conf, data) = (self.conf.clone(), self.data.clone());
        let (resolver, environment) = (Arc::clone(&self.resolver), self.environment.clone());
        let preamble = self.preamble;
        Self::boot(dir, conf, data, BTreeMap::new(), true, true, issuer, resolver, environment, preamble)
    }

    fn end(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the edge panicked");
        }
    }

    /// Begins the drain without waiting for its end.
    pub fn begin_drain(&self) {
        self.stopper.stop();
    }

    pub fn connect(&self) -> Client {
        Client::to(self.http)
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"))
    }

    pub fn get_as(&self, path: &str, token: &str) -> Reply {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        ))
    }

    pub fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> Reply {
        call(self.http, method, path, Some(token), Some(body))
    }

    /// A call of the control port.
    pub fn admin(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Reply {
        call(self.control, method, path, token, body)
    }

    /// Sends raw bytes on a connection of its own and reads one answer.
    pub fn send(&self, raw: &str) -> Reply {
        self.connect().exchange(raw)
    }

    fn try_get(&self, path: &str) -> Option<Reply> {
        let mut client = Client::try_to(self.http)?;
        drop(client.socket.write_all(self.preamble));
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n"));
        client.try_reply()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.end();
    }
}

fn call(to: SocketAddr, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> Reply {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let body = body.map(Value::to_string).unwrap_or_default();
    Client::to(to).exchange(&format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ))
}

/// A client connection.
pub struct Client<S = TcpStream> {
    pub socket: S,
    rest: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Client {
    pub fn to(address: SocketAddr) -> Self {
        Self::try_to(address).expect("connect")
    }

    fn try_to(address: SocketAddr) -> Option<Self> {
        let socket = TcpStream::connect(address).ok()?;
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Some(Self::over(socket))
    }
}

impl<S: Read + Write> Client<S> {
    /// A client over a connection that stands.
    pub fn over(socket: S) -> Self {
        Self { socket, rest: Vec::new() }
    }

    pub fn send(&mut self, raw: &str) {
        // The edge may have closed already; the answer tells.
        drop(self.socket.write_all(raw.as_bytes()));
    }

    pub fn exchange(&mut self, raw: &str) -> Reply {
        self.send(raw);
        self.try_reply().unwrap_or_else(|| panic!("no answer to {raw:?}"))
    }

    fn fill(&mut self) -> usize {
        let mut piece = [0; 4096];
        let count = self.socket.read(&mut piece).unwrap_or(0);
        self.rest.extend_from_slice(&piece[..count]);
        count
    }

    /// Bytes until `what` was seen, or what came before the end.
    pub fn read_until(&mut self, what: &str) -> String {
        while find(&self.rest, what.as_bytes()).is_none() {
            if self.fill() == 0 {
                break;
            }
        }
        let end = find(&self.rest, what.as_bytes()).map_or(self.rest.len(), |at| at + what.len());
        String::from_utf8_lossy(&self.rest.drain(..end).collect::<Vec<u8>>()).into_owned()
    }

    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("an answer")
    }

    pub fn try_reply(&mut self) -> Option<Reply> {
        let head = self.read_until("\r\n\r\n");
        let status = head.get(9..12)?.parse().ok()?;
        let lower = head.to_ascii_lowercase();
        let length =
            lower.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let body = if lower.contains("transfer-encoding: chunked") {
            self.chunks()
        } else if let Some(length) = length {
            while self.rest.len() < length && self.fill() > 0 {}
            self.rest.drain(..length.min(self.rest.len())).collect()
        } else {
            Vec::new()
        };
        Some(Reply { status, head, body })
    }

    fn chunks(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            let line = self.read_until("\r\n");
            let Ok(size) = usize::from_str_radix(line.trim(), 16) else { return body };
            while self.rest.len() < size + 2 && self.fill() > 0 {}
            let end = (size + 2).min(self.rest.len());
            let chunk: Vec<u8> = self.rest.drain(..end).collect();
            body.extend_from_slice(&chunk[..size.min(chunk.len())]);
            if size == 0 {
                return body;
            }
        }
    }

    /// Whether the edge has closed the connection, with nothing more sent.
    pub fn is_closed(&mut self) -> bool {
        self.rest.is_empty() && self.fill() == 0
    }
}

impl Reply {
    /// The values of a field.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .collect()
    }

    pub fn field(&self, name: &str) -> &str {
        self.fields(name).first().copied().unwrap_or("")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {} {}", self.head, self.text()))
    }

    /// The problem's machine word, checked for form.
    pub fn code(&self) -> String {
        assert_eq!(self.field("content-type"), "application/problem+json", "{} {}", self.head, self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert_eq!(problem["request_id"].as_str().unwrap(), self.field("x-request-id"), "{problem}");
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Edge {
    /// What the last probe of a service's first instance said, as the dashboard shows it.
    pub fn probe(&self, service: &str) -> Option<String> {
        let mut viewer = Client::to(self.control);
        viewer.send("GET /dashboard/stream HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let picture: Value = loop {
            let frame = viewer.read_until("\n\n");
            if let Some(data) = frame.split("data: ").nth(1) {
                break serde_json::from_str(data.lines().next()?).ok()?;
            }
        };
        let routes = picture["routes"].as_array().unwrap();
        let route = routes.iter().find(|route| route["name"] == service)?;
        route["instances"][0]["last_probe"]["detail"].as_str().map(str::to_owned)
    }

    /// Waits for the end of a drain that has begun.
    pub fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok(), "the edge panicked");
        }
    }
}

/// A token of the older platforms.
pub fn hs256(key: &str, claims: &Value) -> String {
    let head = json!({"alg": "HS256", "typ": "JWT"});
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(head.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes())))
}
