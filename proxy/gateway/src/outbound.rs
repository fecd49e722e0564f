//! The output buffer of a client connection: small pieces are held back until a flush, so that head and
//! body of an answer leave in one `send`.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite as _;

use crate::socket::Socket;

/// LIMIT: bytes held back; a head with a small body fits.
const HELD_BYTES: usize = 8 << 10;

/// Bytes that were written and not sent.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    bytes: Vec<u8>,
    start: usize,
    /// A TLS socket says that it took bytes while they are still in its own buffer.
    unflushed: bool,
}

impl Outbound {
    /// Nothing waits here nor in the socket's own buffer.
    pub(crate) const fn is_flushed(&self) -> bool {
        self.bytes.is_empty() && !self.unflushed
    }

    /// The bytes.
    pub(crate) fn unsent(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Takes `more` where it fits.
    pub(crate) fn hold(&mut self, more: &[u8]) -> bool {
        let fits = self.unsent().len() + more.len() <= HELD_BYTES;
        if fits {
            self.bytes.extend_from_slice(more);
        }
        fits
    }

    /// Where more is written that is to be held; at most what was ever one piece above the bound.
    pub(crate) fn room(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Whether as much is held as may be.
    pub(crate) fn is_full(&self) -> bool {
        self.unsent().len() > HELD_BYTES
    }

    /// Drops what is held.
    pub(crate) fn forget(&mut self) {
        self.bytes.clear();
        self.start = 0;
        self.unflushed = false;
    }

    /// Gives back what a large piece made it grow to.
    pub(crate) fn shrink(&mut self) {
        if self.bytes.is_empty() && self.bytes.capacity() > HELD_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// Sends what is held, together with `more`; returns how much of `more` went. Ready with nothing more
    /// means that all has left the process. `progress` is called after each `send` that took bytes.
    pub(crate) fn poll_send(
        &mut self,
        socket: &mut Socket,
        cx: &mut Context<'_>,
        more: &[u8],
        mut progress: impl FnMut(),
    ) -> Poll<io::Result<usize>> {
        loop {
            let held = &self.bytes[self.start..];
            if held.is_empty() && more.is_empty() {
                if self.unflushed {
                    ready!(Pin::new(&mut *socket).poll_flush(cx))?;
                    self.unflushed = false;
                    progress();
                }
                return Poll::Ready(Ok(0));
            }
            let held_bytes = held.len();
            let both = [IoSlice::new(held), IoSlice::new(more)];
            let count = ready!(Pin::new(&mut *socket).poll_write_vectored(cx, &both))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            progress();
            self.unflushed = true;
            self.sent(count.min(held_bytes));
            if count > held_bytes {
                return Poll::Ready(Ok(count - held_bytes));
            }
        }
    }

    fn sent(&mut self, count: usize) {
        self.start += count;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::time::Duration;

    use rcgen::generate_simple_self_signed;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, RootCertStore, ServerConfig};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::{TcpListener, TcpStream};
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::{TlsAcceptor, TlsConnector};

    use super::*;
    use crate::tls::provider;

    /// Both ends of an encrypted connection.
    async fn pair() -> (Socket, TlsStream<TcpStream>) {
        let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).unwrap();
        let server = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let client = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connected = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let (server, client) = tokio::join!(
            TlsAcceptor::from(Arc::new(server)).accept(accepted),
            TlsConnector::from(Arc::new(client)).connect(name, connected),
        );
        (Socket::Tls(Box::new(server.unwrap())), client.unwrap())
    }

    #[tokio::test]
    async fn a_flush_over_tls_leaves_nothing_behind() {
        let (mut socket, mut client) = pair().await;
        let mut out = Outbound::default();
        let piece = [7; 16 << 10];
        let mut taken = 0;
        // Until the socket is full: the last piece it took waits in the buffer of TLS.
        while let Poll::Ready(count) =
            poll_fn(|cx| Poll::Ready(out.poll_send(&mut socket, cx, &piece, || ()))).await
        {
            taken += count.unwrap();
        }
        let flush = poll_fn(|cx| out.poll_send(&mut socket, cx, &[], || ()));
        let mut received = vec![0; taken];
        let both = async { tokio::join!(flush, client.read_exact(&mut received)) };
        let (flushed, read) = tokio::time::timeout(Duration::from_secs(20), both).await.unwrap();
        assert_eq!((flushed.unwrap(), read.unwrap()), (0, taken));
        assert!(out.is_flushed());
    }
}
