//! Two clients of HTTP/2: a proper one, and one that sends whatever frames a test asks for.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use serde_json::Value;

use crate::harness::{Edge, PATIENCE};

/// Runs a test's asynchronous part; no part takes longer than three times the patience.
pub fn run<T>(part: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(3 * PATIENCE, part).await.expect("in time") })
}

/// A proper client's connection.
pub struct Proper {
    pub send: SendRequest<Bytes>,
    pub task: tokio::task::JoinHandle<Result<(), h2::Error>>,
    authority: String,
}

/// A whole answer.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl Whole {
    pub fn field(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The problem's machine word, checked for form.
    pub fn code(&self) -> String {
        assert_eq!(self.field("content-type"), "application/problem+json", "{self:?}");
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status, "{problem}");
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Proper {
    pub async fn to(edge: &Edge) -> Self {
        let builder = h2::client::Builder::new();
        Self::with(edge, &builder).await
    }

    pub async fn with(edge: &Edge, builder: &h2::client::Builder) -> Self {
        let socket = tokio::net::TcpStream::connect(edge.http).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (send, connection) = builder.handshake(socket).await.unwrap();
        let task = tokio::spawn(connection);
        Self { send, task, authority: edge.http.to_string() }
    }

    pub fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(format!("http://{}{path}", self.authority))
    }

    /// Begins a request; its body is still open.
    pub async fn begin(&mut self, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        self.send = self.send.clone().ready().await.unwrap();
        self.send.send_request(request, false).unwrap()
    }

    pub async fn get(&mut self, path: &str) -> Whole {
        let request = self.request("GET", path).body(()).unwrap();
        self.fetch(request, None).await.unwrap()
    }

    pub async fn fetch(&mut self, request: Request<()>, body: Option<Bytes>) -> Result<Whole, h2::Error> {
        self.send = self.send.clone().ready().await?;
        let (answer, stream) = self.send.send_request(request, body.is_none())?;
        let sending = async {
            if let Some(body) = body {
                // The edge may answer before it has all of it.
                drop(upload(stream, body).await);
            }
        };
        tokio::join!(whole(answer), sending).0
    }
}

/// Sends a body as its windows allow.
pub async fn upload(mut stream: SendStream<Bytes>, mut body: Bytes) -> Result<(), h2::Error> {
    while !body.is_empty() {
        stream.reserve_capacity(body.len());
        let Some(room) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return Ok(()) };
        let piece = body.split_to(room?.min(body.len()));
        stream.send_data(piece, false)?;
    }
    stream.send_data(Bytes::new(), true)
}

/// Reads an answer to its end.
pub async fn whole(answer: ResponseFuture) -> Result<Whole, h2::Error> {
    let (parts, body) = answer.await?.into_parts();
    let (body, trailers) = drain(body).await?;
    Ok(Whole { status: parts.status.as_u16(), headers: parts.headers, body, trailers })
}

/// Reads a body to its end.
pub async fn drain(mut body: RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut all = BytesMut::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        all.extend_from_slice(&piece);
    }
    Ok((all.freeze(), body.trailers().await?))
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Got {
    /// A 32-bit number in the payload.
    pub fn word(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

/// A client that sends frames as they are.
pub struct Raw {
    pub socket: TcpStream,
    rest: Vec<u8>,
    out: Vec<u8>,
}

impl Raw {
    /// Connects and exchanges greetings; answers come without the dynamic table.
    pub fn to(edge: &Edge) -> Self {
        Self::greeting(edge.http, &[(1, 0)])
    }

    /// The same with settings of its own.
    pub fn greeting(to: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let socket = TcpStream::connect(to).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut raw = Self { socket, rest: Vec::new(), out: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec() };
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        raw.frame(SETTINGS, 0, 0, &payload).frame(SETTINGS, ACK, 0, b"").flush();
        raw
    }

    /// Adds a frame to what is sent next.
    pub fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        self.out.extend_from_slice(&frame(kind, flags, stream, payload));
        self
    }

    /// Adds a header block, in as many frames as it needs.
    pub fn block(&mut self, stream: u32, flags: u8, block: &[u8]) -> &mut Self {
        let pieces: Vec<&[u8]> = block.chunks(16_000).collect();
        for (at, piece) in pieces.iter().enumerate() {
            let (kind, flags) = if at == 0 { (HEADERS, flags) } else { (CONTINUATION, 0) };
            let end = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
            self.frame(kind, flags | end, stream, piece);
        }
        self
    }

    /// Adds a request's head.
    pub fn head(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) -> &mut Self {
        self.frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
    }

    /// Adds `GET` of a path.
    pub fn get(&mut self, stream: u32, path: &str) -> &mut Self {
        self.head(stream, END_STREAM, &request("GET", path))
    }

    /// Sends what was added; false where the edge takes no more.
    pub fn flush(&mut self) -> bool {
        let out = std::mem::take(&mut self.out);
        self.socket.write_all(&out).is_ok()
    }

    /// The next frame; `None` at the end.
    pub fn next(&mut self) -> Option<Got> {
        self.next_within(PATIENCE)
    }

    /// The next frame, should one come in time.
    pub fn next_within(&mut self, time: Duration) -> Option<Got> {
        let until = Instant::now() + time;
        loop {
            if self.rest.len() >= 9 {
                let length = u32::from_be_bytes([0, self.rest[0], self.rest[1], self.rest[2]]) as usize;
                if self.rest.len() >= 9 + length {
                    let frame: Vec<u8> = self.rest.drain(..9 + length).collect();
                    let stream = u32::from_be_bytes(frame[5..9].try_into().unwrap()) & 0x7fff_ffff;
                    return Some(Got {
                        kind: frame[3],
                        flags: frame[4],
                        stream,
                        payload: frame[9..].to_vec(),
                    });
                }
            }
            let left = until.checked_duration_since(Instant::now())?;
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).unwrap();
            let mut piece = [0; 16_384];
            match self.socket.read(&mut piece) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.rest.extend_from_slice(&piece[..count]),
            }
        }
    }

    /// Frames until one that is wanted; `None` where the connection ends before it.
    pub fn until(&mut self, mut wanted: impl FnMut(&Got) -> bool) -> Option<Got> {
        while let Some(got) = self.next() {
            if wanted(&got) {
                return Some(got);
            }
        }
        None
    }

    /// What became of a stream: a status, or the reason of its reset as a negative number.
    pub fn outcome(&mut self, stream: u32) -> Option<i64> {
        let got = self.until(|got| got.stream == stream && matches!(got.kind, HEADERS | RESET))?;
        Some(read_outcome(&got))
    }

    /// The reason of the goodbye; `None` where the connection ends without one.
    pub fn goodbye(&mut self) -> Option<u32> {
        self.until(|got| got.kind == GOAWAY).map(|got| got.word(4))
    }

    /// Whether the edge has closed the connection, whatever comes before that.
    pub fn is_closed(&mut self) -> bool {
        let until = Instant::now() + PATIENCE;
        while self.next_within(PATIENCE).is_some() {}
        Instant::now() < until
    }
}

/// A status, or the reason of a reset as a negative number.
pub fn read_outcome(got: &Got) -> i64 {
    if got.kind == RESET { -i64::from(got.word(0)) } else { i64::from(status(&got.payload)) }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The pseudo-header fields of an ordinary request.
pub fn request<'a>(method: &'a str, path: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", "edge"), (":path", path)]
}

/// A header block of literals.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            number(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A length of seven bits and more.
pub fn number(block: &mut Vec<u8>, value: usize) {
    if value < 127 {
        block.push(u8::try_from(value).unwrap());
        return;
    }
    block.push(127);
    let mut left = value - 127;
    while left >= 128 {
        block.push(u8::try_from(left % 128).unwrap() | 0x80);
        left /= 128;
    }
    block.push(u8::try_from(left).unwrap());
}

/// The status at the front of a block that uses no dynamic table.
fn status(block: &[u8]) -> u16 {
    let mut rest = block;
    // Changes of the table's size come first.
    while rest[0] & 0xe0 == 0x20 {
        rest = &rest[1..];
    }
    match rest[0] {
        0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(rest[0] - 0x88)],
        0x08 | 0x18 | 0x48 => {
            let length = usize::from(rest[1] & 0x7f);
            let text = &rest[2..2 + length];
            if rest[1] & 0x80 == 0 {
                std::str::from_utf8(text).unwrap().parse().unwrap()
            } else {
                digits(text)
            }
        }
        other => panic!("no status in front: {other:#x}"),
    }
}

/// Three digits in Huffman's code: 0 to 2 have five bits, the others six.
fn digits(code: &[u8]) -> u16 {
    let bits: Vec<u8> = code.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let take = |from: usize, count: usize| {
        bits[from..from + count].iter().fold(0_u16, |value, bit| value << 1 | u16::from(*bit))
    };
    let (mut at, mut value) = (0, 0);
    for _ in 0..3 {
        let five = take(at, 5);
        let (digit, count) = if five < 3 { (five, 5) } else { (take(at, 6) - 0x16, 6) };
        value = value * 10 + digit;
        at += count;
    }
    value
}
