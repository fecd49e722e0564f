//! An upstream for clients at full rate: it answers at once, slowly, in events or as a WebSocket, and
//! remembers every write that reached it whole.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Between two events of a stream.
const EVENT_EVERY: Duration = Duration::from_millis(10);
/// What RFC 6455 adds to a key.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

static WRITES: Mutex<BTreeMap<u64, u32>> = Mutex::new(BTreeMap::new());

/// An upstream that answers every request with `ok`. `/slow/MS` after so many milliseconds, `/once/ID` after
/// the whole body, which it counts; `/events` is an endless stream. It lives as long as the test run.
pub(crate) fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// A number for a write that nobody has made before.
pub(crate) fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// How often a write reached an upstream whole.
pub(crate) fn arrivals(id: u64) -> u32 {
    WRITES.lock().unwrap_or_else(PoisonError::into_inner).get(&id).copied().unwrap_or_default()
}

/// The answer to a WebSocket's key.
pub(crate) fn accept_of(key: &str) -> String {
    let text = format!("{key}{GUID}");
    STANDARD.encode(ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}

#[derive(Default)]
struct Head {
    target: String,
    length: usize,
    chunked: bool,
    key: Option<String>,
}

fn serve(stream: TcpStream) {
    let _faster = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Some(head) = read_head(&mut stream) {
        if let Some(key) = &head.key {
            return echo(stream, key);
        }
        if !read_body(&mut stream, &head) {
            return;
        }
        let after = |mark: &str| head.target.rsplit_once(mark).and_then(|(_, rest)| rest.parse().ok());
        if let Some(id) = after("/once/") {
            *WRITES.lock().unwrap_or_else(PoisonError::into_inner).entry(id).or_default() += 1;
        }
        if let Some(ms) = after("/slow/") {
            std::thread::park_timeout(Duration::from_millis(ms));
        }
        if head.target.ends_with("/events") {
            return events(stream.get_mut());
        }
        if stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

fn read_head(stream: &mut BufReader<TcpStream>) -> Option<Head> {
    let (mut head, mut line) = (Head::default(), String::new());
    stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
    line.split(' ').nth(1)?.clone_into(&mut head.target);
    loop {
        line.clear();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if line == "\r\n" {
            return Some(head);
        }
        let (name, value) = line.split_once(':')?;
        match name.to_ascii_lowercase().as_str() {
            "content-length" => head.length = value.trim().parse().ok()?,
            "transfer-encoding" => head.chunked = true,
            "sec-websocket-key" => head.key = Some(value.trim().to_owned()),
            _ => {}
        }
    }
}

/// Whether the body came whole.
fn read_body(stream: &mut BufReader<TcpStream>, head: &Head) -> bool {
    if !head.chunked {
        return stream.read_exact(&mut vec![0; head.length]).is_ok();
    }
    let mut line = String::new();
    loop {
        line.clear();
        let read = stream.read_line(&mut line);
        let Ok(size) = usize::from_str_radix(line.trim(), 16) else { return false };
        if read.is_err() || stream.read_exact(&mut vec![0; size + 2]).is_err() {
            return false;
        }
        if size == 0 {
            return true;
        }
    }
}

/// Numbered events until the client goes.
fn events(stream: &mut TcpStream) {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut sent = stream.write_all(head.as_bytes());
    let mut number = 0_u64;
    while sent.is_ok() {
        let event = format!("data: {number}\n\n");
        sent = stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
        number += 1;
        std::thread::park_timeout(EVENT_EVERY);
    }
}

/// Echoes small frames until a close.
fn echo(mut stream: BufReader<TcpStream>, key: &str) {
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
         sec-websocket-accept: {}\r\n\r\n",
        accept_of(key)
    );
    let mut sent = stream.get_mut().write_all(head.as_bytes());
    while sent.is_ok() {
        let mut start = [0; 6];
        if stream.read_exact(&mut start).is_err() {
            return;
        }
        let [first, length, mask @ ..] = start;
        let mut payload = vec![0; usize::from(length & 0x7f)];
        if stream.read_exact(&mut payload).is_err() {
            return;
        }
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        let frame = [&[first, length & 0x7f], payload.as_slice()].concat();
        sent = stream.get_mut().write_all(&frame);
        if first & 0x0f == 8 {
            return;
        }
    }
}
