//! One connection to what is measured, in the clear or under TLS: opened within a time, greeted where the protocol
//! asks for it, written to and read from without waiting for anybody else.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as Waking, Poll, Waker};
use std::time::Duration;

use anyhow::Context as _;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// LIMIT: time to connect, to shake hands and to be greeted.
pub(crate) const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Bytes that a connection takes at once: a request is sent in one write.
const SEND_BUFFER_BYTES: u32 = 256 * 1024;
/// LIMIT: a greeting's answer.
const GREETING_BYTES_MAX: usize = 16 * 1024;
/// Bytes read at once.
const PIECE_BYTES: usize = 16 * 1024;

/// Where connections go.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub address: SocketAddr,
    /// Nothing where it is spoken to in the clear.
    pub tls: Option<Tls>,
}

/// How a server is known under TLS, and what is shown to it.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    pub config: Arc<ClientConfig>,
    pub name: ServerName<'static>,
}

/// A connection of either kind.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

/// A connection that one task reads while another may write.
#[derive(Debug)]
pub(crate) struct Link(RefCell<Stream>);

impl Place {
    /// In the clear.
    pub(crate) fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// A connection whose handshake is over.
    pub(crate) async fn stream(&self) -> anyhow::Result<Stream> {
        let opening = tokio::time::timeout(CONNECT_LIMIT, async {
            let stream = reach(self.address).await.map_err(anyhow::Error::from)?;
            let Some(Tls { config, name }) = &self.tls else { return Ok(Stream::Plain(stream)) };
            let secured = TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream).await;
            anyhow::Ok(Stream::Secure(Box::new(secured.context("TLS handshake")?)))
        });
        let stream = opening.await.context("connect too slow")?;
        let stream = stream.with_context(|| format!("connect to {}", self.address))?;
        if let Stream::Plain(stream) = &stream {
            // A fresh stream answers "would block" to its first write until its readiness was seen once.
            stream.writable().await?;
        }
        Ok(stream)
    }

    /// The same, ready for requests, or greeted first.
    pub(crate) async fn link(&self, greeting: Option<(&str, &[u8])>) -> anyhow::Result<Link> {
        let link = Link(RefCell::new(self.stream().await?));
        if let Some((words, end)) = greeting {
            let greeted = tokio::time::timeout(CONNECT_LIMIT, link.greet(words.as_bytes(), end));
            greeted.await.context("greeted too slowly")??;
        }
        Ok(link)
    }
}

/// A connection that takes a whole request at once.
async fn reach(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Link {
    /// Writes all of `bytes` at once: at most one request is in flight, so the socket's buffer has room. Where it has
    /// none the connection is closed, which its reader sees.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.0.borrow_mut();
        let sent = stream.send(bytes);
        if sent.is_err() {
            stream.close();
        }
        sent
    }

    /// Waits for bytes and appends them; zero when there will be no more.
    pub(crate) async fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.receive_pieces(buffer, PIECE_BYTES).await
    }

    /// The same with pieces of another size.
    pub(crate) async fn receive_pieces(&self, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
        buffer.reserve(most);
        // A future without a state of its own: made anew for each look, so that the stream is borrowed no longer.
        poll_fn(|waking| pin!(self.0.borrow_mut().read_buf(buffer)).poll(waking)).await
    }

    /// Says something and waits until the answer has come; gives back what came behind it. Without an `end` the first
    /// bytes are the answer, and are given back.
    pub(crate) async fn greet(&self, words: &[u8], end: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.take_step(words, end, "").await
    }

    /// The same; what came until the end must hold some words.
    pub(crate) async fn take_step(&self, words: &[u8], end: &[u8], must: &str) -> anyhow::Result<Vec<u8>> {
        self.send(words)?;
        let mut heard = Vec::new();
        let refused = |heard: &[u8]| {
            anyhow::anyhow!("refused: {}", String::from_utf8_lossy(&heard[..heard.len().min(300)]))
        };
        loop {
            match memchr::memmem::find(&heard, end) {
                Some(_) if end.is_empty() && !heard.is_empty() => return Ok(heard),
                Some(at) if !end.is_empty() => {
                    let right =
                        must.is_empty() || memchr::memmem::find(&heard[..at], must.as_bytes()).is_some();
                    return if right { Ok(heard.split_off(at + end.len())) } else { Err(refused(&heard)) };
                }
                _ => {}
            }
            if heard.len() > GREETING_BYTES_MAX || self.receive(&mut heard).await? == 0 {
                return Err(refused(&heard));
            }
        }
    }
}

impl Stream {
    fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let full = || io::Error::new(io::ErrorKind::WouldBlock, "the connection takes no more");
        if let Self::Plain(stream) = self {
            return if stream.try_write(bytes)? == bytes.len() { Ok(()) } else { Err(full()) };
        }
        // One look, which does not count against what a task may do before others get their turn: many connections
        // are written to in one.
        let writing = poll_fn(|waking| {
            while !bytes.is_empty() {
                match Pin::new(&mut *self).poll_write(waking, bytes) {
                    Poll::Ready(written) => bytes = &bytes[written?..],
                    Poll::Pending => return Poll::Ready(Err(full())),
                }
            }
            match Pin::new(&mut *self).poll_flush(waking) {
                Poll::Ready(flushed) => Poll::Ready(flushed),
                Poll::Pending => Poll::Ready(Err(full())),
            }
        });
        let mut waking = Waking::from_waker(Waker::noop());
        match pin!(tokio::task::unconstrained(writing)).poll(&mut waking) {
            Poll::Ready(sent) => sent,
            Poll::Pending => Err(full()),
        }
    }

    fn close(&self) {
        let stream = match self {
            Self::Plain(stream) => stream,
            Self::Secure(stream) => stream.get_ref().0,
        };
        // It may be closed already, which is as good.
        rustix::net::shutdown(stream, rustix::net::Shutdown::Both).unwrap_or_default();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        waking: &mut Waking<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_read(waking, into),
            Self::Secure(stream) => Pin::new(stream).poll_read(waking, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        waking: &mut Waking<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_write(waking, bytes),
            Self::Secure(stream) => Pin::new(stream).poll_write(waking, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, waking: &mut Waking<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_flush(waking),
            Self::Secure(stream) => Pin::new(stream).poll_flush(waking),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, waking: &mut Waking<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(waking),
            Self::Secure(stream) => Pin::new(stream).poll_shutdown(waking),
        }
    }
}
