//! A connection that stays: one call after the other, from an address of its choice.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::check::Answer;
use crate::response::{BODY_BYTES_MAX, HEAD_BYTES_MAX, parse};

/// Longest time one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(10);

/// An open connection.
pub(crate) struct Line(TcpStream);

impl Line {
    /// Connects; `from` is the caller's address, where it matters.
    pub(crate) async fn open(address: SocketAddr, from: Option<Ipv4Addr>) -> anyhow::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        if let Some(from) = from {
            socket.bind((from, 0).into()).with_context(|| format!("bind {from}"))?;
        }
        let stream = socket.connect(address).await.with_context(|| format!("connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends one request and reads its answer.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        tokio::time::timeout(CALL_LIMIT, self.exchange(request)).await.context("no answer in time")?
    }

    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer> {
        self.0.write_all(request).await?;
        let mut buffer = Vec::with_capacity(4096);
        loop {
            let mut body = Vec::new();
            if let Some(response) = parse(&buffer, Some(&mut body))? {
                return Ok(Answer { status: response.status, body });
            }
            if buffer.len() > HEAD_BYTES_MAX + BODY_BYTES_MAX || self.0.read_buf(&mut buffer).await? == 0 {
                bail!("closed before the answer was whole");
            }
        }
    }
}
