//! A subscription over server-sent events: the connection from its head to its end.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sluice_http::sse::HEARTBEAT;
use sluice_http::{Standing, Taken};
use tokio::io::{AsyncRead as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::feed::{Feed, Step};
use super::out::{Form, Out};

/// Span of the pauses that clients are told at drain, so that they do not all come back at once.
const RETRY_MS: std::ops::Range<u64> = 500..5_000;
/// Room for the size of a chunk, in six digits.
const CHUNK_HEAD: &[u8] = b"000000\r\n";

thread_local! {
    /// A piece's memory between two streams: each is at rest most of the time, and then holds none.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// LIMIT: memory that a thread keeps for the next piece, in bytes.
const SPARE_BYTES_MAX: usize = 256 * 1024;

fn spare(bytes: Vec<u8>) {
    if bytes.capacity() <= SPARE_BYTES_MAX {
        SPARE.set(bytes);
    }
}

/// Why a stream ends.
enum End {
    /// The process drains.
    Drain,
    /// The client has left, or takes nothing.
    Gone,
    /// It is told why.
    Told(&'static str),
}

/// Delivers until the client, the credential or the process ends.
pub(crate) fn deliver(
    mut feed: Feed,
    taken: Taken,
    standing: Standing,
    stall: Duration,
) -> impl Future<Output = ()> + Send {
    let Taken { io, early, chunked } = taken;
    // It holds on to the buffer of the request's head.
    drop(early);
    let mut line = Line { io, chunked, stall };
    // What it works on is moved into the block and stays in its place: an `async fn` would keep it twice.
    async move {
        let end = match line.say(b": stream open\n\n").await {
            Ok(()) => follow(&mut feed, &mut line, &standing).await,
            Err(error) => gone(&feed, &error),
        };
        let last = match end {
            End::Gone => return,
            End::Drain => retry(),
            End::Told(reason) => {
                feed.context().metrics.dropped(reason, 1);
                sluice_http::sse::frame(None, "disconnect", &json!({ "reason": reason }).to_string())
            }
        };
        // A client that does not take its last word has left.
        drop(Box::pin(line.say_last(&last)).await);
    }
}

async fn follow(feed: &mut Feed, line: &mut Line, standing: &Standing) -> End {
    let mut now = Instant::now();
    let mut quiet_at = now + HEARTBEAT;
    let mut judge_at = standing.can_end().then_some(now);
    let mut alarm = pin!(sleep_until(quiet_at));
    loop {
        if feed.context().stop.is_stopping() {
            return End::Drain;
        }
        if feed.bell().take_call() {
            judge_at = judge_at.map(|_| now);
        }
        if judge_at.is_some_and(|at| now >= at) {
            if let Some(ended) = standing.ended() {
                return End::Told(ended.as_str());
            }
            judge_at = Some(now + standing.left());
        }
        let mut bytes = line.piece();
        let empty = bytes.len();
        let (step, is_behind) = {
            let context = Arc::clone(feed.context());
            let mut out = Out::new(&mut bytes, Form::Sse, &context.metrics);
            let step = feed.step(&mut out);
            if step == Step::Behind {
                // Of the size of a read, and rare.
                let caught_up = Box::pin(feed.catch_up(&mut out)).await;
                (if caught_up.is_ok() { Step::More } else { Step::Over("unreadable") }, true)
            } else {
                (step, false)
            }
        };
        let has_written = bytes.len() > empty;
        if has_written {
            if let Err(error) = line.send(bytes).await {
                return gone(feed, &error);
            }
        } else {
            spare(bytes);
        }
        now = Instant::now();
        if has_written {
            quiet_at = now + HEARTBEAT;
        }
        let until = match step {
            Step::More | Step::Behind => {
                // Nothing wanted among many: let others have their turn.
                if !has_written && !is_behind {
                    tokio::task::yield_now().await;
                }
                continue;
            }
            Step::Wait => None,
            Step::Held(until) => until,
            Step::Over(reason) => return End::Told(reason),
        };
        let due = [Some(quiet_at), until, judge_at].into_iter().flatten().min().unwrap_or(quiet_at);
        // An alarm that is too early is set anew when it goes off: a stream that is busy leaves it alone.
        if alarm.is_elapsed() || due < alarm.deadline() {
            alarm.as_mut().reset(due);
        }
        let left = poll_fn(|cx| {
            let has_left = line.poll_left(cx);
            feed.bell().listen(cx);
            let is_awake = feed.is_rung() || feed.bell().is_called();
            if has_left || is_awake || alarm.as_mut().poll(cx).is_ready() {
                Poll::Ready(has_left)
            } else {
                Poll::Pending
            }
        });
        if left.await {
            return End::Gone;
        }
        now = Instant::now();
        if now >= quiet_at {
            if let Err(error) = line.say(b": heartbeat\n\n").await {
                return gone(feed, &error);
            }
            quiet_at = now + HEARTBEAT;
        }
    }
}

fn gone(feed: &Feed, error: &io::Error) -> End {
    if error.kind() == io::ErrorKind::TimedOut {
        feed.context().metrics.dropped("stalled", 1);
    }
    End::Gone
}

/// Tells the client when to come back.
fn retry() -> Bytes {
    Bytes::from(format!("retry: {}\n\n", retry_ms()))
}

/// A pause before coming back, another one for each client.
pub(crate) fn retry_ms() -> u64 {
    let span = RETRY_MS.end - RETRY_MS.start;
    RETRY_MS.start + Uuid::new_v4().as_u64_pair().1 % span
}

/// Writes all, as long as the other end takes something now and then.
pub(crate) async fn write_all(
    io: &mut (impl AsyncWrite + Unpin + Send + ?Sized),
    mut bytes: &[u8],
    stall: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let taken = poll_fn(|cx| match Pin::new(&mut *io).poll_write(cx, bytes) {
            Poll::Ready(taken) => Poll::Ready(Some(taken)),
            Poll::Pending => Poll::Ready(None),
        });
        let taken = match taken.await {
            Some(taken) => taken?,
            // The clock is looked at only for one that has to wait.
            None => Box::pin(timeout(stall, io.write(bytes)))
                .await
                .unwrap_or(Err(io::ErrorKind::TimedOut.into()))?,
        };
        if taken == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[taken..];
    }
    Ok(())
}

/// The connection, with or without chunks.
struct Line {
    io: Box<dyn sluice_http::Io>,
    chunked: bool,
    stall: Duration,
}

impl Line {
    /// An empty piece, in memory that was used before where there is some.
    fn piece(&self) -> Vec<u8> {
        let mut bytes = SPARE.take();
        bytes.clear();
        if self.chunked {
            bytes.extend_from_slice(CHUNK_HEAD);
        }
        bytes
    }

    fn seal(&self, bytes: &mut Vec<u8>) {
        if self.chunked {
            // A piece has at most 64 KiB and one event, or what a step reads from the log: six digits are enough.
            let length = bytes.len() - CHUNK_HEAD.len();
            for (place, digit) in bytes[..6].iter_mut().rev().enumerate() {
                *digit = b"0123456789abcdef"[length >> (4 * place) & 0xf];
            }
            bytes.extend_from_slice(b"\r\n");
        }
    }

    /// Writes a piece; its memory is kept for the next one.
    async fn send(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        self.seal(&mut bytes);
        write_all(&mut self.io, &bytes, self.stall).await?;
        spare(bytes);
        Ok(())
    }

    /// Writes a few words.
    async fn say(&mut self, words: &[u8]) -> io::Result<()> {
        let mut bytes = self.piece();
        bytes.extend_from_slice(words);
        self.send(bytes).await
    }

    async fn say_last(&mut self, words: &[u8]) -> io::Result<()> {
        let mut bytes = self.piece();
        bytes.extend_from_slice(words);
        self.seal(&mut bytes);
        if self.chunked {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        write_all(&mut self.io, &bytes, Duration::from_secs(2)).await?;
        self.io.shutdown().await
    }

    /// Whether the client has left. It has nothing more to say; what it says is not listened to.
    fn poll_left(&mut self, cx: &mut task::Context<'_>) -> bool {
        let mut ignored = [0; 32];
        loop {
            let mut buffer = ReadBuf::new(&mut ignored);
            match Pin::new(&mut self.io).poll_read(cx, &mut buffer) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_at_drain_differ() {
        let pauses: std::collections::BTreeSet<Bytes> = (0..20).map(|_| retry()).collect();
        assert!(pauses.len() > 10);
    }
}
