//! Clients of streams: a WebSocket that is never cut, events whose end is always told.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};

use super::load::{Client, Fault, Target, Wire};
use super::origin::accept_of;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The close code that sends a client elsewhere.
const SERVICE_RESTART: u16 = 1012;
/// Any mask will do.
const MASK: [u8; 4] = [1, 2, 3, 4];

/// A WebSocket that sends a frame and waits for its echo. Being told to come back is no fault, being cut is.
pub(crate) struct Echo {
    target: Target,
    path: String,
    connection: Option<BufReader<Wire>>,
    number: u64,
}

impl Echo {
    pub(crate) fn new(target: Target, path: &str) -> Self {
        Self { target, path: path.to_owned(), connection: None, number: 0 }
    }

    fn open(&self) -> Result<BufReader<Wire>, Fault> {
        let mut connection = BufReader::new(self.target.connect()?);
        let head = format!(
            "GET {} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n",
            self.path
        );
        let failed = |error: std::io::Error| Fault::Failed(format!("opening: {error}"));
        connection.get_mut().write_all(head.as_bytes()).map_err(failed)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if connection.read_until(b'\n', &mut head).map_err(failed)? == 0 {
                return Err(Fault::Failed("closed before the 101".to_owned()));
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let well = head.starts_with("HTTP/1.1 101 ") && head.contains(&accept_of(KEY));
        if well { Ok(connection) } else { Err(Fault::Failed(head)) }
    }
}

impl Client for Echo {
    fn exchange(&mut self) -> Result<(), Fault> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        self.number += 1;
        let text = format!("frame {}", self.number).into_bytes();
        // One that was closed meanwhile has its close frame to read.
        let sent = connection.get_mut().write_all(&frame(0x81, &text));
        let (first, payload) = read_frame(&mut connection)
            .map_err(|error| Fault::Failed(format!("cut: {error}, after sending: {sent:?}")))?;
        match (first, payload.get(..2)) {
            (0x81, _) if payload == text => self.connection = Some(connection),
            (0x88, Some(code)) if u16::from_be_bytes([code[0], code[1]]) == SERVICE_RESTART => {
                let _it_may_be_gone = connection.get_mut().write_all(&frame(0x88, code));
            }
            _ => return Err(Fault::Failed(format!("frame {first:x} of {payload:?}"))),
        }
        Ok(())
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [first, 0x80 | payload.len() as u8].into_iter().chain(MASK).chain(masked).collect()
}

fn read_frame(connection: &mut BufReader<Wire>) -> std::io::Result<(u8, Vec<u8>)> {
    let mut start = [0; 2];
    connection.read_exact(&mut start)?;
    let mut payload = vec![0; usize::from(start[1] & 0x7f)];
    connection.read_exact(&mut payload)?;
    Ok((start[0], payload))
}

/// A stream of numbered events: none is missing, and its end is a last chunk.
pub(crate) struct Events {
    target: Target,
    path: String,
    connection: Option<BufReader<Wire>>,
    text: String,
    next: u64,
}

impl Events {
    pub(crate) fn new(target: Target, path: &str) -> Self {
        Self { target, path: path.to_owned(), connection: None, text: String::new(), next: 0 }
    }

    fn open(&mut self) -> Result<BufReader<Wire>, Fault> {
        (self.text, self.next) = (String::new(), 0);
        let mut connection = BufReader::new(self.target.connect()?);
        let head = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", self.path);
        let failed = |error: std::io::Error| Fault::Failed(format!("opening events: {error}"));
        connection.get_mut().write_all(head.as_bytes()).map_err(failed)?;
        let status = line(&mut connection).map_err(Fault::Failed)?;
        while !line(&mut connection).map_err(Fault::Failed)?.is_empty() {}
        if status.starts_with("HTTP/1.1 200 ") { Ok(connection) } else { Err(Fault::Failed(status)) }
    }

    /// One chunk; false at the last one.
    fn chunk(&mut self, connection: &mut BufReader<Wire>) -> Result<bool, String> {
        let size = line(connection)?;
        let size = usize::from_str_radix(&size, 16).map_err(|error| format!("chunk {size:?}: {error}"))?;
        let mut bytes = vec![0; size];
        connection.read_exact(&mut bytes).map_err(|error| format!("inside a chunk: {error}"))?;
        self.text.push_str(&String::from_utf8_lossy(&bytes));
        line(connection).map(|_| size > 0)
    }
}

impl Client for Events {
    fn exchange(&mut self) -> Result<(), Fault> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.open()?,
        };
        while !self.text.contains("\n\n") {
            if !self.chunk(&mut connection).map_err(Fault::Failed)? {
                // The end, told properly: the next exchange comes back.
                return Ok(());
            }
        }
        let (event, rest) = self.text.split_once("\n\n").unwrap();
        let (event, rest) = (event.to_owned(), rest.to_owned());
        self.text = rest;
        if !event.starts_with("retry:") {
            if event != format!("data: {}", self.next) {
                return Err(Fault::Failed(format!("event {event:?}, not number {}", self.next)));
            }
            self.next += 1;
        }
        self.connection = Some(connection);
        Ok(())
    }
}

/// One line without its end.
fn line(connection: &mut BufReader<Wire>) -> Result<String, String> {
    let mut line = String::new();
    match connection.read_line(&mut line) {
        Ok(1..) => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
        Ok(0) => Err("events: cut".to_owned()),
        Err(error) => Err(format!("events: {error}")),
    }
}
