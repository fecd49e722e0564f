//! A client that reads answers to the letter: what is not well framed, late or left open is an error.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use crate::harness::{PATIENCE, find};

/// A connection to the edge.
pub struct Wire {
    socket: TcpStream,
    rest: Vec<u8>,
}

/// One answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// Why there is no whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The connection ended before the first byte of one.
    Closed,
    /// It ended inside one; what came.
    Cut(String),
    /// Nothing came in time; what came before.
    Late(String),
    /// It is not HTTP.
    Wrong(String),
}

impl Answer {
    pub fn field(&self, name: &str) -> &str {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        values.next().map_or("", |(_, value)| value.trim())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The problem's machine word; empty where it is none.
    pub fn code(&self) -> String {
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        if self.field("content-type") != "application/problem+json" || problem["status"] != self.status {
            return String::new();
        }
        problem["code"].as_str().unwrap_or("").to_owned()
    }
}

impl Wire {
    pub fn to(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("the edge accepts");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self { socket, rest: Vec::new() }
    }

    /// Sends; the edge may have closed already, the answer tells.
    pub fn send(&mut self, bytes: &[u8]) {
        drop(self.socket.write_all(bytes));
    }

    /// Sends nothing more.
    pub fn finish(&mut self) {
        drop(self.socket.shutdown(Shutdown::Write));
    }

    /// One answer; `bodiless` where the request was HEAD.
    pub fn answer(&mut self, bodiless: bool) -> Result<Answer, Missing> {
        let end = loop {
            if let Some(at) = find(&self.rest, b"\r\n\r\n") {
                break at + 4;
            }
            if self.fill()? == 0 {
                return Err(if self.rest.is_empty() { Missing::Closed } else { self.cut() });
            }
        };
        let head = String::from_utf8_lossy(&self.rest[..end]).into_owned();
        let wrong = || Missing::Wrong(head.clone());
        let status: u16 =
            head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(wrong)?;
        let mut answer = Answer { status, head: head.clone(), body: Vec::new() };
        let (length, coding) = (answer.field("content-length"), answer.field("transfer-encoding"));
        let length: Option<usize> = length.parse().ok();
        let chunked = coding.eq_ignore_ascii_case("chunked");
        if length.is_some() && chunked {
            return Err(wrong());
        }
        self.rest.drain(..end);
        if bodiless || status < 200 || matches!(status, 204 | 304) {
            return Ok(answer);
        }
        answer.body = match length {
            _ if chunked => self.chunks()?,
            Some(length) => self.take(length)?,
            None => self.remainder()?,
        };
        Ok(answer)
    }

    /// Reads until these bytes came.
    pub fn wait_for(&mut self, what: &[u8]) {
        while !what.is_empty() && find(&self.rest, what).is_none() {
            assert_ne!(self.fill(), Ok(0), "closed before {}", what.escape_ascii());
        }
    }

    /// The connection ends here with nothing more on it.
    pub fn ends(&mut self) -> Result<(), String> {
        match self.remainder() {
            Ok(rest) if rest.is_empty() => Ok(()),
            Ok(rest) => Err(format!("{} follows", rest.escape_ascii())),
            Err(missing) => Err(format!("left open: {missing:?}")),
        }
    }

    /// Everything until the edge closes.
    pub fn remainder(&mut self) -> Result<Vec<u8>, Missing> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.rest))
    }

    fn fill(&mut self) -> Result<usize, Missing> {
        let mut piece = [0; 16 << 10];
        match self.socket.read(&mut piece) {
            Ok(count) => {
                self.rest.extend_from_slice(&piece[..count]);
                Ok(count)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err(Missing::Late(self.shown()))
            }
            // A reset ends a connection too.
            Err(_) => Ok(0),
        }
    }

    fn shown(&self) -> String {
        self.rest.escape_ascii().to_string()
    }

    fn cut(&self) -> Missing {
        Missing::Cut(self.shown())
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, Missing> {
        while self.rest.len() < count {
            if self.fill()? == 0 {
                return Err(self.cut());
            }
        }
        Ok(self.rest.drain(..count).collect())
    }

    fn chunks(&mut self) -> Result<Vec<u8>, Missing> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = find(&self.rest, b"\r\n") {
                    break at;
                }
                if self.fill()? == 0 {
                    return Err(self.cut());
                }
            };
            let line: Vec<u8> = self.rest.drain(..end + 2).collect();
            let size =
                std::str::from_utf8(&line[..end]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
            let Some(size) = size else { return Err(Missing::Wrong(line.escape_ascii().to_string())) };
            let data = self.take(size + 2)?;
            if !data.ends_with(b"\r\n") {
                return Err(Missing::Wrong("chunk end".to_owned()));
            }
            body.extend_from_slice(&data[..size]);
            if size == 0 {
                return Ok(body);
            }
        }
    }
}
