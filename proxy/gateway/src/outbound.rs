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
}

impl Outbound {
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

    /// Sends what is held, together with `more`; returns how much of `more` went. `progress` is called
    /// after each `send` that took bytes.
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
                return Poll::Ready(Ok(0));
            }
            let held_bytes = held.len();
            let both = [IoSlice::new(held), IoSlice::new(more)];
            let count = ready!(Pin::new(&mut *socket).poll_write_vectored(cx, &both))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            progress();
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
