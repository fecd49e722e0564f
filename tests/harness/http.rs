//! A small HTTP/1.1 client on raw sockets: tests see every byte and send whatever they like.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longest wait for a byte.
const WITHIN: Duration = Duration::from_secs(15);

/// An answer, read whole.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Answer {
    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts the status.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// Asserts a problem body of a code, with the request's id.
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        let answer = self.expect(status);
        assert_eq!(
            answer.headers.get("content-type").map(String::as_str),
            Some("application/problem+json"),
            "{answer:?}"
        );
        let body = answer.json();
        assert_eq!(body["code"], code, "{body}");
        assert_eq!(body["status"], status, "{body}");
        assert_eq!(
            body["request_id"].as_str(),
            answer.headers.get("x-request-id").map(String::as_str),
            "{answer:?}"
        );
        body
    }
}

/// A connection to `http://host:port`.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    pub(crate) fn open(base: &str) -> Self {
        let stream = TcpStream::connect(base.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(WITHIN)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::new(stream))
    }

    /// Sends raw bytes. The other side may have closed already: what counts is its answer.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _closed_early = self.0.get_mut().write_all(bytes);
    }

    /// Reads one answer; `None` when the connection was closed without one.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let status_line = self.line()?;
        let status = status_line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':')?;
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let body = if matches!(status, 204 | 304) { Vec::new() } else { self.body(&headers)? };
        Some(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// One line without its end; `None` at the end of the stream.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(1..) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
            _ => None,
        }
    }

    fn body(&mut self, headers: &BTreeMap<String, String>) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        if let Some(length) = headers.get("content-length") {
            body.resize(length.parse().ok()?, 0);
            self.0.read_exact(&mut body).ok()?;
        } else if headers.contains_key("transfer-encoding") {
            loop {
                let size = usize::from_str_radix(self.line()?.split(';').next()?, 16).ok()?;
                let from = body.len();
                body.resize(from + size, 0);
                self.0.read_exact(&mut body[from..]).ok()?;
                self.line()?;
                if size == 0 {
                    break;
                }
            }
        } else {
            let _closed = self.0.read_to_end(&mut body);
        }
        Some(body)
    }
}

/// A request being built.
pub(crate) struct Request {
    base: String,
    head: String,
    body: Vec<u8>,
}

/// Begins a request.
pub(crate) fn request(method: &str, base: &str, path: &str) -> Request {
    let host = base.strip_prefix("http://").unwrap();
    Request {
        base: base.to_owned(),
        head: format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n"),
        body: Vec::new(),
    }
}

pub(crate) fn get(base: &str, path: &str) -> Request {
    request("GET", base, path)
}

pub(crate) fn post(base: &str, path: &str) -> Request {
    request("POST", base, path)
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.head.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    pub(crate) fn token(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.text("application/json", body.to_string())
    }

    pub(crate) fn text(self, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let mut request = self.header("content-type", content_type);
        request.body = body.into();
        request
    }

    /// Sends it on a new connection and reads the answer.
    pub(crate) fn send(self) -> Answer {
        let mut connection = Connection::open(&self.base);
        connection.send(&self.bytes());
        connection.answer().expect("an answer")
    }

    /// Sends it on a new connection; `None` where nobody answers, or not to the end.
    pub(crate) fn try_send(self) -> Option<Answer> {
        let stream = TcpStream::connect(self.base.strip_prefix("http://").unwrap()).ok()?;
        stream.set_read_timeout(Some(WITHIN)).ok()?;
        let mut connection = Connection(BufReader::new(stream));
        connection.send(&self.bytes());
        connection.answer()
    }

    /// Sends it and hands back the connection: for streams, after reading the head.
    pub(crate) fn open(self) -> Connection {
        let mut connection = Connection::open(&self.base);
        connection.send(&self.bytes());
        connection
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone().into_bytes();
        if !self.body.is_empty() || self.head.starts_with("POST") || self.head.starts_with("PUT") {
            bytes.extend(format!("content-length: {}\r\n", self.body.len()).into_bytes());
        }
        bytes.extend(b"\r\n");
        bytes.extend(&self.body);
        bytes
    }
}

/// Reads server-sent events from an open connection: pairs of event name and data.
pub(crate) fn events(connection: &mut Connection, count: usize) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let (mut id, mut name) = (String::new(), String::new());
    while found.len() < count {
        let line = connection.line().expect("the stream goes on");
        if let Some(text) = line.strip_prefix("id: ") {
            text.clone_into(&mut id);
        } else if let Some(text) = line.strip_prefix("event: ") {
            text.clone_into(&mut name);
        } else if let Some(data) = line.strip_prefix("data: ") {
            found.push((id.clone(), name.clone(), data.to_owned()));
        }
    }
    found
}
