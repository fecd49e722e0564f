//! Upstreams that record the raw requests which reach them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::find;

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
    figures: Arc<Mutex<BTreeMap<String, String>>>,
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
            figures: Arc::default(),
        }
    }

    fn parts(&self, answer: Arc<Answer>) -> Parts {
        Parts {
            answer,
            seen: Arc::clone(&self.seen),
            connections: Arc::clone(&self.connections),
            probes_ok: Arc::clone(&self.probes_ok),
            figures: Arc::clone(&self.figures),
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

    /// What it answers where the edge asks for a page itself; an empty object without it.
    pub fn show(&self, target: &str, page: &serde_json::Value) {
        self.figures.lock().unwrap().insert(target.to_owned(), page.to_string());
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
    figures: Arc<Mutex<BTreeMap<String, String>>>,
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
                    let target = seen.line().split(' ').nth(1).unwrap_or_default().to_owned();
                    let page = parts.figures.lock().unwrap().get(&target).cloned();
                    drop(socket.write_all(reply("200 OK", page.as_deref().unwrap_or("{}")).as_bytes()));
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
