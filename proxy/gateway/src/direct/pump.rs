//! Moves a request to an instance and the answer back, both at once: one poll looks at all three sides.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};

use pingora::{Error, ErrorSource, ErrorType, Result};
use tokio::io::ReadBuf;

use super::answer::AnswerBody;
use super::client::Client;
use super::head::{Came, Head, read_answer};
use super::pool::Upstream;
use crate::ctx::Exchange;
use crate::forward::answer_piece;
use crate::idempotency;
use crate::link::Fault;
use crate::reframe::{frame_fields, interim_fields};

/// LIMIT: bytes of a request on their way at once.
const PIECE_BYTES: usize = 16 << 10;
/// LIMIT: body bytes kept for another try.
const RETRY_BYTES: usize = 64 << 10;
/// Room for most heads, so that a buffer need not grow piece by piece.
pub(super) const HEAD_ROOM: usize = 1 << 10;
/// LIMIT: an upstream's head.
pub(super) const HEAD_BYTES: usize = 64 << 10;

/// A request on its way.
#[derive(Debug, Default)]
pub(super) struct Sending {
    /// Head and body bytes to be written.
    out: Vec<u8>,
    start: usize,
    /// Body bytes that the client has still to send.
    left: u64,
    /// Body bytes read so far; cleared once they are too many.
    kept: Vec<u8>,
    dropped: bool,
}

impl Sending {
    /// A request with a body of so many bytes.
    pub(super) fn new(body_bytes: u64) -> Self {
        Self { left: body_bytes, ..Self::default() }
    }

    /// Body bytes that came, while all of them are kept.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Starts a try: this head, and behind it what is known of the body.
    pub(super) fn begin(&mut self, head: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
        self.out.clear();
        self.out.reserve(HEAD_ROOM);
        self.start = 0;
        head(&mut self.out)?;
        self.out.extend_from_slice(&self.kept);
        Ok(())
    }

    /// Whether another try could send the same.
    pub(super) const fn is_replayable(&self) -> bool {
        !self.dropped
    }

    /// Whether the client has sent all of it.
    pub(super) const fn is_received(&self) -> bool {
        self.left == 0
    }

    /// Body bytes that came so far and are sent again.
    pub(super) const fn read(&self) -> u64 {
        self.kept.len() as u64
    }

    /// Whether the upstream has taken all that is there.
    const fn is_written(&self) -> bool {
        self.out.is_empty()
    }

    fn wrote(&mut self, count: usize) {
        self.start += count;
        if self.start == self.out.len() {
            self.out.clear();
            self.start = 0;
        }
    }

    /// Reads more of the body where there is room.
    pub(super) fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut impl Client,
    ) -> Poll<io::Result<usize>> {
        let room = PIECE_BYTES.min(usize::try_from(self.left).unwrap_or(PIECE_BYTES));
        let from = self.out.len();
        self.out.resize(from + room, 0);
        let mut buf = ReadBuf::new(&mut self.out[from..]);
        let read = client.poll_body(cx, &mut buf);
        let count = buf.filled().len();
        self.out.truncate(from + count);
        ready!(read)?;
        self.left -= count as u64;
        if !self.dropped && self.kept.len() + count <= RETRY_BYTES {
            self.kept.extend_from_slice(&self.out[from..]);
        } else {
            self.dropped = true;
            self.kept = Vec::new();
        }
        Poll::Ready(Ok(count))
    }
}

/// One try under way.
pub(super) struct Pump<'a, C> {
    client: &'a mut C,
    pub(super) x: &'a mut Exchange,
    pub(super) sending: &'a mut Sending,
    pub(super) upstream: Upstream,
    /// Why the upstream takes no more of the request; it may answer all the same.
    unwritable: Option<io::Error>,
    /// Why the client takes no more of an answer that has to be known all the same.
    unheard: Option<Box<Error>>,
}

impl<'a, C: Client> Pump<'a, C> {
    pub(super) fn new(
        client: &'a mut C,
        x: &'a mut Exchange,
        sending: &'a mut Sending,
        upstream: Upstream,
    ) -> Self {
        Self { client, x, sending, upstream, unwritable: None, unheard: None }
    }

    /// Whether the connection may serve another request after this one.
    pub(super) fn is_whole(&self) -> bool {
        self.unwritable.is_none()
            && self.sending.is_received()
            && self.sending.is_written()
            && self.upstream.inbound.is_empty()
    }

    /// The connection, when the try is over.
    pub(super) fn into_upstream(self) -> Upstream {
        self.upstream
    }

    /// Notes whether the upstream had not taken all of the body when the try ended.
    pub(super) fn note_blocked(&mut self) {
        self.x.upstream_blocks = !self.sending.is_written();
    }

    /// The final head of the upstream. Interim ones are passed on.
    pub(super) async fn final_head(&mut self) -> Result<Came> {
        loop {
            let mut came = self.head().await?;
            if !came.head.status.is_informational() {
                frame_fields(came.head.status, came.head.version, &mut came.head.fields)?;
                return Ok(came);
            }
            self.x.interim = self.x.interim.saturating_add(1);
            let Head { status, version, fields } = &mut came.head;
            interim_fields(self.x.interim, *status, *version, fields, self.x.request_id.as_str())?;
            self.client.interim(&came.head);
            if let Err(error) = self.flush().await {
                self.go_on_unheard(error)?;
            }
        }
    }

    /// The next head of the upstream.
    async fn head(&mut self) -> Result<Came> {
        loop {
            if let Some(came) = read_answer(self.upstream.inbound.filled())? {
                self.upstream.inbound.consume(came.bytes);
                return Ok(came);
            }
            if self.upstream.inbound.filled().len() >= HEAD_BYTES {
                return Err(super::head::invalid());
            }
            if poll_fn(|cx| self.poll_both(cx, true)).await? == 0 {
                return Err(from_upstream(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// Sends the head that was written to the stream, and the whole body behind it.
    pub(super) async fn answer(&mut self, body: &mut AnswerBody) -> Result<()> {
        poll_fn(|cx| self.poll_answer(cx, body)).await
    }

    /// Sends what is written, all of it.
    async fn flush(&mut self) -> Result<()> {
        poll_fn(|cx| self.client.poll_flush(cx)).await.map_err(from_client)
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>, body: &mut AnswerBody) -> Poll<Result<()>> {
        loop {
            match self.client.poll_room(cx).map_err(from_client) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => self.go_on_unheard(error)?,
                // The client takes nothing now; what it still sends goes on meanwhile.
                Poll::Pending => return self.poll_both(cx, false).map_ok(drop),
            }
            if body.is_done() {
                return match self.unheard.take() {
                    Some(error) => Poll::Ready(Err(error)),
                    None => self.client.poll_flush(cx).map_err(from_client),
                };
            }
            if self.upstream.inbound.is_empty() {
                match ready!(self.poll_both(cx, true)) {
                    Ok(0) => {
                        body.close().map_err(from_upstream)?;
                    }
                    Ok(_) => {}
                    Err(error) => {
                        self.go_on_unheard(error)?;
                        continue;
                    }
                }
            }
            self.write_body(body)?;
            if self.unheard.is_some() {
                self.client.forget();
            }
        }
    }

    /// A client that has a key and takes no more may ask for its answer again: it is read to its end. Any other
    /// failure stays one.
    fn go_on_unheard(&mut self, error: Box<Error>) -> Result<()> {
        let link = &self.x.arrival.link;
        let of_client = *error.esource() == ErrorSource::Downstream
            && matches!(link.fault(), Fault::None | Fault::WriteTimeout);
        if !of_client || self.x.key.is_none() || self.unheard.is_some() {
            return Err(error);
        }
        link.clear_fault();
        self.client.forget();
        self.unheard = Some(error);
        Ok(())
    }

    /// Writes the body at hand.
    fn write_body(&mut self, body: &mut AnswerBody) -> Result<()> {
        let Self { client, upstream, x, .. } = self;
        let Exchange { events, key, .. } = &mut **x;
        let chunked = C::CHUNKS && body.is_chunked();
        let out = client.out();
        let frame = out.len();
        // Room for the size of a chunk, written when it is known.
        if chunked {
            out.extend_from_slice(b"00000000\r\n");
        }
        let piece = body
            .take(upstream.inbound.filled(), |data| {
                out.extend_from_slice(data);
                idempotency::piece_goes(key, data);
                if let Some(events) = events {
                    events.follow(data);
                }
            })
            // Half a chunk would stand there with the size of the last one.
            .inspect_err(|_| out.truncate(frame))
            .map_err(from_upstream)?;
        upstream.inbound.consume(piece.used);
        if chunked {
            if piece.data == 0 {
                out.truncate(frame);
            } else {
                out[frame..frame + 8].copy_from_slice(format!("{:08x}", piece.data).as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            if body.is_done() {
                out.extend_from_slice(b"0\r\n\r\n");
            }
        }
        if body.is_done() {
            client.end();
        }
        x.answer_bytes += piece.data as u64;
        answer_piece(x, None, body.is_done());
        Ok(())
    }

    /// Moves the request on; ready when the upstream has sent something, or one side has failed.
    /// Without `reads` nothing of the upstream is looked at, and it is ready only with an error.
    fn poll_both(&mut self, cx: &mut Context<'_>, reads: bool) -> Poll<Result<usize>> {
        let mut read = !reads;
        loop {
            self.poll_request(cx);
            if !std::mem::replace(&mut read, true)
                && let Poll::Ready(count) = self.upstream.poll_fill(cx)
            {
                return Poll::Ready(self.filled(count));
            }
            if self.unwritable.is_some() || !self.sending.is_written() {
                if !reads {
                    // Its answer is not read, so it need not take more: the client's time counts, not its own.
                    return Poll::Pending;
                }
                return self.client.poll_behind(cx).map(|error| Err(from_client(error)));
            }
            if self.sending.is_received() && !reads {
                return Poll::Pending;
            }
            if self.sending.is_received() {
                return self.client.poll_left(cx).map(|error| Err(from_client(error)));
            }
            let count = ready!(self.sending.poll_more(cx, self.client)).map_err(from_client)?;
            if count == 0 {
                return Poll::Ready(Err(from_client(io::ErrorKind::UnexpectedEof.into())));
            }
            self.came(count);
        }
    }

    /// Body bytes of the client came.
    fn came(&mut self, count: usize) {
        self.x.body_bytes += count as u64;
        self.x.arrival.link.backlog().note_move();
        if !self.sending.is_received() {
            return;
        }
        self.x.note_received();
        if self.x.upstream_status.is_none() {
            self.x.await_head();
        }
    }

    /// Writes what of the request is at hand.
    fn poll_request(&mut self, cx: &mut Context<'_>) {
        while self.unwritable.is_none() && !self.sending.is_written() {
            match self.upstream.poll_write(cx, &self.sending.out[self.sending.start..]) {
                Poll::Ready(Ok(0)) => self.unwritable = Some(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    self.sending.wrote(count);
                    if self.sending.is_written() && self.sending.is_received() {
                        idempotency::is_handed(self.x);
                    }
                    self.x.arrival.link.backlog().note_move();
                }
                Poll::Ready(Err(error)) => self.unwritable = Some(error),
                Poll::Pending => return,
            }
        }
    }

    /// What a read came to. An upstream that took no more and then left has failed at taking.
    fn filled(&mut self, count: io::Result<usize>) -> Result<usize> {
        match count {
            Ok(count) if count > 0 || self.unwritable.is_none() => Ok(count),
            Ok(_) => Err(from_upstream(self.unwritable.take().unwrap_or(io::ErrorKind::WriteZero.into()))),
            Err(error) => Err(from_upstream(self.unwritable.take().unwrap_or(error))),
        }
    }
}

/// The client broke off, or the request's time is over.
#[allow(clippy::unnecessary_box_returns, reason = "the framework's errors are boxed")]
pub(super) fn from_client(error: io::Error) -> Box<Error> {
    Error::because(ErrorType::ReadError, "client", error).into_down()
}

#[allow(clippy::unnecessary_box_returns, reason = "the framework's errors are boxed")]
pub(super) fn from_upstream(error: io::Error) -> Box<Error> {
    let kind = match error.kind() {
        io::ErrorKind::InvalidData => ErrorType::InvalidHTTPHeader,
        io::ErrorKind::UnexpectedEof => ErrorType::ConnectionClosed,
        _ => ErrorType::ReadError,
    };
    Error::because(kind, "upstream", error).into_up()
}
