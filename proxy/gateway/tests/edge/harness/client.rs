//! Clients that send bytes and read whole answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::{PATIENCE, find};

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

    pub(super) fn try_to(address: SocketAddr) -> Option<Self> {
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

    /// So many bytes, or what came before the end.
    pub fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        while self.rest.len() < count && self.fill() > 0 {}
        self.rest.drain(..count.min(self.rest.len())).collect()
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

pub(super) fn call(
    to: SocketAddr,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: Option<&Value>,
) -> Reply {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let body = body.map(Value::to_string).unwrap_or_default();
    Client::to(to).exchange(&format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    ))
}
