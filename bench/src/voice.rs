//! How a store is spoken to: the bytes that store events, and how an answer to them is read.
//!
//! HTTP/1.1 to Sluice, RESP to Redis, the text protocol of NATS. Every event is stored under an id of its own, which
//! the store gives it. In a request two kinds of places are filled as it is sent: [`STAMP`], the intended time of
//! the send, and [`NUMBER`], the connection that sends it.

use memchr::memmem;

use crate::audience::{Step, UPGRADE, frame};
use crate::response::{Response, ResponseError, parse};

/// Place of an intended time: nanoseconds since the measurement began, in hexadecimal.
pub(crate) const STAMP: &str = "@@@@@@@@@@@@@@@@";
/// Place of a connection's number, in hexadecimal.
pub(crate) const NUMBER: &str = "########";
/// What stands before a stamp in every event.
pub(crate) const BEFORE_STAMP: &str = "\"at\":\"";
/// Name of the stream, the list or the subject that events go to.
pub(crate) const STREAM: &str = "bench";
/// What a subscriber at a WebSocket says.
const SUBSCRIBE: &str = r#"{"op":"subscribe","sub":"all"}"#;
/// What a client of NATS says of itself. Of the first protocol, whose servers say nothing after their `PONG`.
const OPTIONS: &str = r#"{"verbose":false,"pedantic":false,"lang":"bench","version":"1","protocol":0}"#;
/// Events that a store keeps, about.
const KEPT: &str = "1000000";
/// LIMIT: answer to one request.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The protocol of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Voice {
    /// HTTP/1.1; subscribers hear Server-Sent Events.
    Http,
    /// The same, and subscribers hear a WebSocket.
    WebSocket,
    /// RESP 2, as Redis has it.
    Redis,
    /// NATS with JetStream.
    Nats,
}

/// The answer that counts as right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expects {
    /// HTTP, whatever the body.
    Any,
    /// HTTP, 2xx with a body of so many bytes.
    Body(usize),
    /// HTTP, 2xx with these words in its body.
    Says(&'static str),
    /// HTTP, 2xx that says so many events were stored.
    Stored(u32),
    /// So many replies of Redis, none of them an error.
    Replies(u32),
    /// So many acknowledgements of JetStream, none of them an error.
    Acks(u32),
}

/// A whole answer at the start of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answered {
    /// Its status, sizes and whether the connection goes on; 500 where a store says error.
    pub response: Response,
    /// It says what it should.
    pub right: bool,
}

impl Expects {
    /// Reads the answer at the start of `buffer`; `None` when more bytes are needed.
    pub(crate) fn read(self, buffer: &[u8]) -> Result<Option<Answered>, ResponseError> {
        match self {
            Self::Body(bytes) => {
                let found = parse(buffer, None)?;
                Ok(found.map(|response| Answered { response, right: response.body_bytes == bytes }))
            }
            Self::Any => Ok(parse(buffer, None)?.map(|response| Answered { response, right: true })),
            Self::Says(_) | Self::Stored(_) => {
                let mut body = Vec::new();
                let found = parse(buffer, Some(&mut body))?;
                Ok(found.map(|response| Answered { response, right: self.accepts(&body) }))
            }
            Self::Replies(count) => replies(buffer, count),
            Self::Acks(count) => acks(buffer, count),
        }
    }

    /// Whether the body of an answer of HTTP is the right one.
    pub(crate) fn accepts(self, body: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Body(bytes) => body.len() == bytes,
            Self::Says(words) => memmem::find(body, words.as_bytes()).is_some(),
            Self::Stored(events) => says_stored(body, events),
            Self::Replies(_) | Self::Acks(_) => false,
        }
    }
}

fn says_stored(body: &[u8], events: u32) -> bool {
    match events {
        1 => memmem::find(body, b"\"duplicate\":false").is_some(),
        _ => body.starts_with(format!("{{\"published\":{events},\"duplicates\":0,\"failed\":0,").as_bytes()),
    }
}

fn whole(used_bytes: usize, right: bool) -> Answered {
    let status = if right { 200 } else { 500 };
    Answered { response: Response { status, body_bytes: used_bytes, used_bytes, close: false }, right }
}

/// So many replies one after the other.
fn replies(buffer: &[u8], count: u32) -> Result<Option<Answered>, ResponseError> {
    let (mut at, mut right) = (0, true);
    for _ in 0..count {
        let Some((used, good)) = reply(&buffer[at..])? else { return unfinished(buffer) };
        at += used;
        right &= good;
    }
    Ok(Some(whole(at, right)))
}

/// One reply that is no array: its bytes, and whether it is no error.
fn reply(buffer: &[u8]) -> Result<Option<(usize, bool)>, ResponseError> {
    let Some(end) = memmem::find(buffer, b"\r\n") else { return Ok(None) };
    let line = &buffer[..end];
    match line.first() {
        Some(b'-') => Ok(Some((end + 2, false))),
        Some(b'+' | b':') => Ok(Some((end + 2, true))),
        Some(b'$') => {
            let bytes = number(&line[1..]).ok_or(ResponseError::Framing)?;
            let used = end + 2 + bytes + 2;
            match buffer.get(used - 2..used) {
                None => Ok(None),
                Some(b"\r\n") => Ok(Some((used, true))),
                Some(_) => Err(ResponseError::Framing),
            }
        }
        _ => Err(ResponseError::Framing),
    }
}

/// So many messages `MSG subject sid bytes`, each with an acknowledgement.
fn acks(buffer: &[u8], count: u32) -> Result<Option<Answered>, ResponseError> {
    let (mut at, mut right) = (notes(buffer), true);
    for _ in 0..count {
        let rest = &buffer[at..];
        let Some(end) = memmem::find(rest, b"\r\n") else { return unfinished(buffer) };
        if !rest.starts_with(b"MSG ") {
            return Err(ResponseError::Framing);
        }
        let last = rest[..end].rsplit(|byte| *byte == b' ').next().unwrap_or_default();
        let bytes = number(last).ok_or(ResponseError::Framing)?;
        let used = end + 2 + bytes + 2;
        let Some(message) = rest.get(end + 2..used) else { return unfinished(buffer) };
        if !message.ends_with(b"\r\n") {
            return Err(ResponseError::Framing);
        }
        right &=
            memmem::find(message, b"\"seq\":").is_some() && memmem::find(message, b"\"error\"").is_none();
        at += used;
        at += notes(&buffer[at..]);
    }
    Ok(Some(whole(at, right)))
}

/// Bytes of what NATS says now and then by itself; connections are too short for it to insist on an answer.
fn notes(buffer: &[u8]) -> usize {
    let mut at = 0;
    while buffer[at..].starts_with(b"PING\r\n") || buffer[at..].starts_with(b"INFO ") {
        let Some(end) = memmem::find(&buffer[at..], b"\r\n") else { break };
        at += end + 2;
    }
    at
}

fn unfinished(buffer: &[u8]) -> Result<Option<Answered>, ResponseError> {
    if buffer.len() > ANSWER_BYTES_MAX { Err(ResponseError::BodyTooLarge) } else { Ok(None) }
}

fn number(digits: &[u8]) -> Option<usize> {
    let found = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (found <= ANSWER_BYTES_MAX).then_some(found)
}

/// An event's JSON of `bytes` bytes, with the place of a stamp. All of an event but its place in the store.
fn event(bytes: usize) -> String {
    let of = |pad: usize| {
        format!(
            r#"{{"event_type":"market_data_update","data":{{"symbol":"BTC/USDT",{BEFORE_STAMP}{STAMP}","pad":"{}"}}}}"#,
            "x".repeat(pad)
        )
    };
    of(bytes.saturating_sub(of(0).len()))
}

/// Fewest bytes of an event.
pub(crate) fn event_bytes_min() -> usize {
    event(0).len()
}

/// A command of RESP.
fn command(words: &[&str]) -> String {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text
}

impl Voice {
    /// The bytes that store a batch of events, and what is to be answered. `shown`: they also go to who listens.
    pub(crate) fn publish(
        self,
        host: &str,
        credentials: Option<&str>,
        batch: u32,
        event_bytes: usize,
        shown: bool,
    ) -> (Vec<u8>, Expects) {
        let event = event(event_bytes);
        let all = |one: String| one.repeat(batch as usize).into_bytes();
        match self {
            Self::Http | Self::WebSocket => (post(host, credentials, batch, &event), Expects::Stored(batch)),
            Self::Redis => {
                let store = command(&["XADD", STREAM, "MAXLEN", "~", KEPT, "*", "event", &event]);
                if shown {
                    (all(store + &command(&["PUBLISH", STREAM, &event])), Expects::Replies(2 * batch))
                } else {
                    (all(store), Expects::Replies(batch))
                }
            }
            Self::Nats => {
                let line = format!("PUB {STREAM} {}{NUMBER} {}\r\n{event}\r\n", inbox(), event.len());
                (all(line), Expects::Acks(batch))
            }
        }
    }

    /// What a connection says first, and how the answer to it ends; nothing where it begins with its first request.
    pub(crate) fn greeting(self) -> Option<(String, &'static [u8])> {
        match self {
            Self::Http | Self::WebSocket | Self::Redis => None,
            Self::Nats => {
                Some((format!("CONNECT {OPTIONS}\r\nSUB {}{NUMBER} 1\r\nPING\r\n", inbox()), b"PONG\r\n"))
            }
        }
    }

    /// What asks for the number of stored events; NATS is asked through JetStream's own call.
    pub(crate) fn count(self, host: &str, credentials: Option<&str>) -> Vec<u8> {
        match self {
            Self::Http | Self::WebSocket => {
                let line = authorization(credentials);
                format!("GET /events/stats HTTP/1.1\r\nHost: {host}\r\n{line}Connection: close\r\n\r\n")
                    .into()
            }
            Self::Redis | Self::Nats => command(&["XLEN", STREAM]).into(),
        }
    }

    /// What a subscriber says, and what it awaits before it hears all that is published.
    pub(crate) fn listen(self, host: &str, credentials: Option<&str>) -> anyhow::Result<Vec<Step>> {
        let get =
            |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{}", authorization(credentials));
        Ok(match self {
            Self::Http => vec![Step::plain((get("/events/stream") + "\r\n", b": stream open\n\n"))],
            Self::WebSocket => vec![
                Step { say: (get("/events/ws") + UPGRADE).into_bytes(), end: b"\r\n\r\n", must: " 101 " },
                Step { say: frame(SUBSCRIBE)?, end: b"", must: "subscribed" },
            ],
            Self::Redis => vec![Step::plain((command(&["SUBSCRIBE", STREAM]), b":1\r\n"))],
            Self::Nats => {
                let words = format!("CONNECT {OPTIONS}\r\nSUB {STREAM} 1\r\nPING\r\n");
                vec![Step::plain((words, b"PONG\r\n"))]
            }
        })
    }
}

const fn inbox() -> &'static str {
    "_INBOX.bench."
}

fn authorization(credentials: Option<&str>) -> String {
    credentials.map_or_else(String::new, |value| format!("Authorization: {value}\r\n"))
}

fn post(host: &str, credentials: Option<&str>, batch: u32, event: &str) -> Vec<u8> {
    let (path, body) = match batch {
        1 => ("/events", event.to_owned()),
        _ => ("/events/batch", format!(r#"{{"events":[{}]}}"#, vec![event; batch as usize].join(","))),
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\n{}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        authorization(credentials),
        body.len()
    );
    (head + &body).into_bytes()
}

#[cfg(test)]
#[path = "voice_tests.rs"]
mod tests;
