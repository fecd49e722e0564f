//! WebSockets through the edge: opening, carrying, ending.

mod carrying;
mod ending;
mod many;
mod opening;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::harness::{Edge, PATIENCE, Setup, eventually, find, reply, service};

pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;

/// An upstream that hands each connection over after the first head.
pub struct Raw {
    pub address: SocketAddr,
    pub heads: Arc<Mutex<Vec<String>>>,
    pub open: Arc<AtomicUsize>,
}

impl Raw {
    pub fn start(serve: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let raw =
            Self { address: listener.local_addr().unwrap(), heads: Arc::default(), open: Arc::default() };
        let (heads, open, serve) = (Arc::clone(&raw.heads), Arc::clone(&raw.open), Arc::new(serve));
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                socket.set_nodelay(true).unwrap();
                let (heads, open, serve) = (Arc::clone(&heads), Arc::clone(&open), Arc::clone(&serve));
                std::thread::spawn(move || {
                    let head = read_head(&mut socket);
                    if head.starts_with("GET /health ") {
                        drop(socket.write_all(reply("200 OK", "").as_bytes()));
                        return;
                    }
                    if head.is_empty() {
                        return;
                    }
                    heads.lock().unwrap().push(head.clone());
                    open.fetch_add(1, Ordering::SeqCst);
                    serve(&head, &mut socket);
                    drop(socket);
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        raw
    }

    /// An upstream that switches at once, then does `serve`.
    pub fn switching(serve: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Self {
        Self::start(move |head, socket| {
            if socket.write_all(switched(head).as_bytes()).is_ok() {
                serve(socket);
            }
        })
    }

    /// An upstream that switches at once and sends every byte back.
    pub fn echoing() -> Self {
        Self::switching(echo)
    }

    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

/// Sends every byte back, unmasked as it came.
pub fn echo(socket: &mut TcpStream) {
    let mut piece = vec![0; 64 << 10];
    while let Ok(count @ 1..) = socket.read(&mut piece) {
        if socket.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}

/// Reads byte by byte, so that nothing behind the head is taken.
pub fn read_head(socket: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match socket.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return String::new(),
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// The 101 to a head.
pub fn switched(head: &str) -> String {
    let key = head
        .lines()
        .find_map(|line| {
            line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        })
        .map_or("", |(_, value)| value.trim());
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()));
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nServer: x\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// An edge with one open service at `/ws`.
pub fn edge_at(upstream: &Raw, more: &str) -> Edge {
    setup(upstream, &format!("auth_required = false\n{more}")).start()
}

pub fn setup(upstream: &Raw, more: &str) -> Setup {
    setup_to(upstream.address, more)
}

/// The same for any upstream.
pub fn edge_to(upstream: SocketAddr, more: &str) -> Edge {
    setup_to(upstream, more).start()
}

fn setup_to(upstream: SocketAddr, more: &str) -> Setup {
    Setup::new("").service("ws", &service("ws", "/ws", &[format!("http://{upstream}")], more))
}

/// A frame; a mask of zeros leaves the payload as it is.
pub fn frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let bit = if masked { 0x80 } else { 0 };
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => frame.push(bit | short as u8),
        length @ 126..65_536 => {
            frame.push(bit | 0x7e);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(bit | 0x7f);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(if masked { &[0; 4][..] } else { &[] });
    frame.extend(payload);
    frame
}

pub fn close(code: u16, reason: &str, masked: bool) -> Vec<u8> {
    frame(CLOSE, &[&code.to_be_bytes(), reason.as_bytes()].concat(), masked)
}

/// A client of WebSockets.
pub struct Ws {
    pub socket: TcpStream,
    rest: Vec<u8>,
}

impl Ws {
    /// Connects and asks for a WebSocket with these further fields.
    pub fn ask(edge: &Edge, target: &str, fields: &str) -> Self {
        Self::send(edge, &asking(target, fields))
    }

    pub fn send(edge: &Edge, raw: &str) -> Self {
        let mut socket = TcpStream::connect(edge.http).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.write_all(raw.as_bytes()).unwrap();
        Self { socket, rest: Vec::new() }
    }

    /// Connects and is switched.
    pub fn open(edge: &Edge) -> Self {
        Self::open_as(edge, "")
    }

    pub fn open_as(edge: &Edge, fields: &str) -> Self {
        let mut ws = Self::ask(edge, "/ws", fields);
        let head = ws.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        ws
    }

    pub fn head(&mut self) -> String {
        loop {
            if let Some(at) = find(&self.rest, b"\r\n\r\n") {
                return String::from_utf8(self.rest.drain(..at + 4).collect()).unwrap();
            }
            if self.fill() == 0 {
                return String::from_utf8_lossy(&std::mem::take(&mut self.rest)).into_owned();
            }
        }
    }

    fn fill(&mut self) -> usize {
        let mut piece = [0; 16 << 10];
        let count = self.socket.read(&mut piece).unwrap_or(0);
        self.rest.extend_from_slice(&piece[..count]);
        count
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    /// The next `count` bytes, fewer at the end.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.rest.len() < count && self.fill() > 0 {}
        let count = count.min(self.rest.len());
        self.rest.drain(..count).collect()
    }

    /// Opcode and payload of the next frame; `None` at the end.
    pub fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second] = self.bytes(2).try_into().ok()?;
        let length = match second & 0x7f {
            126 => u16::from_be_bytes(self.bytes(2).try_into().ok()?).into(),
            127 => u64::from_be_bytes(self.bytes(8).try_into().ok()?),
            short => u64::from(short),
        };
        if second & 0x80 != 0 {
            self.bytes(4);
        }
        Some((first & 0x0f, self.bytes(length as usize)))
    }

    /// Code and reason of the close frame that comes next.
    pub fn closed(&mut self) -> (u16, String) {
        let (opcode, payload) = self.frame().expect("a frame");
        assert_eq!(opcode, CLOSE, "{payload:?}");
        let code = u16::from_be_bytes(payload[..2].try_into().unwrap());
        (code, String::from_utf8(payload[2..].to_vec()).unwrap())
    }

    /// Whether the connection has ended, with nothing more sent.
    pub fn has_ended(&mut self) -> bool {
        self.rest.is_empty() && self.fill() == 0
    }

    /// Everything up to the end.
    pub fn read_all(&mut self) -> Vec<u8> {
        while self.fill() > 0 {}
        std::mem::take(&mut self.rest)
    }
}

pub fn asking(target: &str, fields: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: edge\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
}

/// A line of the edge's exposition.
pub fn metric(edge: &Edge, name: &str) -> Option<f64> {
    let text = edge.get("/metrics").text();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Waits until a count stands still; returns it.
pub fn stalled(mut count: impl FnMut() -> usize) -> usize {
    let (mut last, mut since) = (count(), Instant::now());
    eventually("nothing moves any more", || {
        let now = count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(300)).then_some(last)
    })
}

/// An upstream that answers each head and keeps the connection, without a thread for it.
pub struct Holding {
    pub address: SocketAddr,
    pub held: Arc<Mutex<Vec<TcpStream>>>,
}

impl Holding {
    pub fn start(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let holding = Self { address: listener.local_addr().unwrap(), held: Arc::default() };
        let held = Arc::clone(&holding.held);
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let head = read_head(&mut socket);
                if head.starts_with("GET /health ") {
                    drop(socket.write_all(reply("200 OK", "").as_bytes()));
                } else if socket.write_all(answer(&head).as_bytes()).is_ok() {
                    held.lock().unwrap().push(socket);
                }
            }
        });
        holding
    }
}

/// Runs an ignored test in a process of its own, so that what it measures is its own.
pub fn alone(test: &str) {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    let output = command.args(["--exact", test, "--ignored", "--nocapture"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    eprintln!("{text}");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
}

/// A figure of this process, KiB: `VmRSS` now, `VmHWM` at most.
pub fn memory_kib(name: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
