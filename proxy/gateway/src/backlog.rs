//! How far an upstream is behind with a request's body.
//!
//! Pingora looks at a client only while its pipe to the upstream has room. A full pipe would hide a client that
//! leaves and a deadline that passes, so no more pieces are handed out than the pipe holds: the wait for the
//! upstream is the stream's own, where both are seen. A piece counts until its last copy is dropped, which is
//! when it was written, or when nobody wants it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use tokio::time::Instant;

use crate::clock;
use crate::link::Link;

/// LIMIT: pieces under way. Pingora's pipe holds four; with one free it goes on looking at the client.
const PIECES: usize = 3;

/// The pieces of one request's body that are under way to its upstream.
#[derive(Debug)]
pub(crate) struct Backlog {
    origin: Instant,
    /// Which request of the connection they belong to.
    request: AtomicU32,
    pieces: AtomicUsize,
    /// When the last one was taken, or the first one came.
    moved_us: AtomicU64,
    /// How long the upstream may take none.
    patience_us: AtomicU64,
    reader: AtomicWaker,
}

impl Backlog {
    /// Nothing is under way.
    pub(crate) fn new() -> Self {
        Self {
            origin: Instant::now(),
            request: AtomicU32::new(0),
            pieces: AtomicUsize::new(0),
            moved_us: AtomicU64::new(0),
            patience_us: AtomicU64::new(u64::MAX),
            reader: AtomicWaker::new(),
        }
    }

    /// Another request: what is left of the one before counts no more.
    pub(crate) fn begin(&self) {
        self.request.fetch_add(1, Ordering::Relaxed);
        self.pieces.store(0, Ordering::Relaxed);
        self.set_patience(None);
    }

    /// How long the upstream may take nothing from now on; `None` leaves that to the request's deadline.
    pub(crate) fn set_patience(&self, patience: Option<Duration>) {
        if patience.is_some() {
            // What an earlier request of the connection moved says nothing of this one.
            self.note_move();
        }
        let us = patience.map_or(u64::MAX, |patience| patience.as_micros() as u64);
        self.patience_us.store(us, Ordering::Relaxed);
    }

    /// Ready when another piece may be handed out.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.pieces.load(Ordering::Acquire) < PIECES {
            return Poll::Ready(());
        }
        self.reader.register(cx.waker());
        // One may have been taken just before.
        if self.pieces.load(Ordering::Acquire) < PIECES { Poll::Ready(()) } else { Poll::Pending }
    }

    /// When an upstream that takes nothing more is given up.
    pub(crate) fn due(&self) -> Option<Instant> {
        let patience = self.patience_us.load(Ordering::Relaxed);
        let moved = self.moved_us.load(Ordering::Relaxed);
        (patience != u64::MAX).then(|| self.origin + Duration::from_micros(moved.saturating_add(patience)))
    }

    fn add(&self) -> u32 {
        if self.pieces.fetch_add(1, Ordering::AcqRel) == 0 {
            self.note_move();
        }
        self.request.load(Ordering::Relaxed)
    }

    fn taken(&self, request: u32) {
        if self.request.load(Ordering::Relaxed) != request {
            return;
        }
        self.note_move();
        let less = |pieces: usize| Some(pieces.saturating_sub(1));
        if self.pieces.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) == Ok(PIECES) {
            self.reader.wake();
        }
    }

    /// The upstream took something, or is offered the first piece.
    pub(crate) fn note_move(&self) {
        let moved = clock::instant() - self.origin;
        self.moved_us.store(moved.as_micros() as u64, Ordering::Relaxed);
    }
}

/// A piece on its way.
struct Piece {
    bytes: Bytes,
    link: Arc<Link>,
    request: u32,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.link.backlog().taken(self.request);
    }
}

/// The same bytes, counted until they are dropped.
pub(crate) fn counted(link: &Arc<Link>, bytes: Bytes) -> Bytes {
    let request = link.backlog().add();
    Bytes::from_owner(Piece { bytes, link: Arc::clone(link), request })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::task::noop_waker_ref;

    #[tokio::test(start_paused = true)]
    async fn pieces_count_until_their_last_copy_is_gone() {
        let link = Arc::new(Link::new());
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut pieces: Vec<Bytes> =
            (0..PIECES).map(|_| counted(&link, Bytes::from_static(b"piece"))).collect();
        assert!(link.backlog().poll_room(&mut cx).is_pending());
        let part = pieces[0].slice(1..3);
        drop(pieces.remove(0));
        assert!(link.backlog().poll_room(&mut cx).is_pending());
        assert_eq!(part, "ie");
        drop(part);
        assert!(link.backlog().poll_room(&mut cx).is_ready());
        link.backlog().begin();
        drop(pieces);
        // The earlier request's leave the next one's count alone.
        let _kept: Vec<Bytes> = (0..PIECES).map(|_| counted(&link, Bytes::from_static(b"x"))).collect();
        assert!(link.backlog().poll_room(&mut cx).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn patience_counts_from_the_last_piece_taken() {
        let link = Arc::new(Link::new());
        assert_eq!(link.backlog().due(), None);
        link.backlog().set_patience(Some(Duration::from_secs(5)));
        let begun = Instant::now();
        let first = counted(&link, Bytes::from_static(b"x"));
        let _second = counted(&link, Bytes::from_static(b"x"));
        assert_eq!(link.backlog().due(), Some(begun + Duration::from_secs(5)));
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(first);
        assert_eq!(link.backlog().due(), Some(begun + Duration::from_secs(7)));
        // The next request of the connection, long after: nothing of it was offered yet.
        tokio::time::advance(Duration::from_secs(60)).await;
        link.backlog().begin();
        link.backlog().set_patience(Some(Duration::from_secs(5)));
        assert_eq!(link.backlog().due(), Some(begun + Duration::from_secs(67)));
    }
}
