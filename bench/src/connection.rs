//! Connections to what is measured: opened within a time, greeted where the protocol asks for it.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use crate::load::Target;
use crate::voice::NUMBER;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that a connection takes at once: a request is sent in one write.
const SEND_BUFFER_BYTES: u32 = 256 * 1024;
/// LIMIT: a greeting's answer.
const GREETING_BYTES_MAX: usize = 16 * 1024;

/// The connections of a measurement, each ready for its first request.
pub(crate) async fn connect_all(target: &Target, connections: u32) -> anyhow::Result<Vec<Rc<TcpStream>>> {
    let mut streams = Vec::new();
    for id in 0..connections as usize {
        streams.push(Rc::new(connect(target, id).await?));
    }
    Ok(streams)
}

/// A connection that is ready for its first request.
pub(crate) async fn connect(target: &Target, id: usize) -> anyhow::Result<TcpStream> {
    let connecting = tokio::time::timeout(CONNECT_LIMIT, async {
        let mut stream = reach(target.address).await?;
        if let Some((words, end)) = &target.greeting {
            greet(&mut stream, &words.replace(NUMBER, &format!("{id:08x}")), end).await?;
        }
        anyhow::Ok(stream)
    });
    let stream = connecting.await.context("connect too slow")?;
    let stream = stream.with_context(|| format!("connect to {}", target.address))?;
    // A fresh stream answers "would block" to its first try_write until its readiness was seen once.
    stream.writable().await?;
    Ok(stream)
}

/// A connection that takes a whole request at once.
pub(crate) async fn reach(address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Says something and waits until the answer has come; gives back what came behind it.
pub(crate) async fn greet(stream: &mut TcpStream, words: &str, end: &[u8]) -> anyhow::Result<Vec<u8>> {
    stream.write_all(words.as_bytes()).await?;
    let mut heard = Vec::new();
    loop {
        if let Some(at) = memchr::memmem::find(&heard, end) {
            return Ok(heard.split_off(at + end.len()));
        }
        if heard.len() > GREETING_BYTES_MAX || stream.read_buf(&mut heard).await? == 0 {
            bail!("refused: {}", String::from_utf8_lossy(&heard[..heard.len().min(300)]));
        }
    }
}
