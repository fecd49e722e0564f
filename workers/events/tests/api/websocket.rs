//! A WebSocket client of a few lines, so that the worker's frames are read by other code than wrote them.

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::world::{DEADLINE, User, World};

/// What a head needs to ask for a WebSocket.
pub(crate) const UPGRADE: &str = "connection: keep-alive, Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// An open WebSocket.
pub(crate) struct Socket {
    io: Box<dyn Io>,
    /// Pings that came.
    pub(crate) pings: u32,
}

/// What the worker said.
#[derive(Debug)]
pub(crate) enum Said {
    Text(Value),
    Close(u16, String),
    Pong(Vec<u8>),
}

impl Socket {
    /// Opens one as a client behind the edge.
    pub(crate) async fn open(user: User<'_>) -> Self {
        let (io, head) = user.socket("/events/ws", UPGRADE).await;
        Self::over(Box::new(io), &head).await
    }

    /// Opens one at the worker's own port.
    pub(crate) async fn with_token(world: &World, token: &str) -> Self {
        let io = tokio::net::TcpStream::connect(world.address).await.unwrap();
        let head = format!(
            "GET /events/ws HTTP/1.1\r\nhost: events\r\nauthorization: Bearer {token}\r\n{UPGRADE}\r\n"
        );
        Self::over(Box::new(io), &head).await
    }

    async fn over(mut io: Box<dyn Io>, head: &str) -> Self {
        io.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(io.read_u8().await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        Self { io, pings: 0 }
    }

    pub(crate) async fn frame(&mut self, opcode: u8, payload: &[u8]) {
        let mask = [7, 11, 13, 17];
        let mut bytes = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..=125 => bytes.push(0x80 | length as u8),
            length => {
                bytes.push(0xFE);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&mask);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        // A connection that was closed is seen by what is read.
        drop(self.io.write_all(&bytes).await);
    }

    pub(crate) async fn say(&mut self, said: &Value) {
        self.frame(0x1, said.to_string().as_bytes()).await;
    }

    /// What the worker says next; pings are answered.
    pub(crate) async fn hear(&mut self) -> Said {
        tokio::time::timeout(DEADLINE, self.read()).await.expect("a message in time")
    }

    /// The next message, which is a text.
    pub(crate) async fn text(&mut self) -> Value {
        match self.hear().await {
            Said::Text(value) => value,
            other => panic!("{other:?}"),
        }
    }

    /// Says something and hears the answer to it.
    pub(crate) async fn ask(&mut self, said: &Value) -> Value {
        self.say(said).await;
        self.text().await
    }

    async fn read(&mut self) -> Said {
        loop {
            let first = self.io.read_u8().await.unwrap();
            assert_eq!(first & 0xF0, 0x80, "whole and without extensions");
            let length = match self.io.read_u8().await.unwrap() {
                126 => usize::from(self.io.read_u16().await.unwrap()),
                127 => self.io.read_u64().await.unwrap() as usize,
                length => usize::from(length),
            };
            let mut payload = vec![0; length];
            self.io.read_exact(&mut payload).await.unwrap();
            match first & 0x0F {
                0x1 => return Said::Text(serde_json::from_slice(&payload).unwrap()),
                0x8 => {
                    let (code, reason) = payload.split_first_chunk::<2>().unwrap();
                    let reason = String::from_utf8(reason.to_vec()).unwrap();
                    return Said::Close(u16::from_be_bytes(*code), reason);
                }
                0x9 => {
                    self.pings += 1;
                    self.frame(0xA, &payload).await;
                }
                0xA => return Said::Pong(payload),
                opcode => panic!("opcode {opcode}"),
            }
        }
    }
}
