//! A subscription over server-sent events: the connection from its head to its end.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, pending};
use serde_json::json;
use sluice_http::sse::HEARTBEAT;
use sluice_http::{Ended, Standing, Taken};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::feed::{Feed, Step};
use super::out::{Form, Out};

/// Span of the pauses that clients are told at drain, so that they do not all come back at once.
const RETRY_MS: std::ops::Range<u64> = 500..5_000;
/// How often a stream that is never at rest looks whether it still may go on.
const LOOK: Duration = Duration::from_secs(1);
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
pub(crate) async fn deliver(mut feed: Feed, taken: Taken, standing: Standing, stall: Duration) {
    let Taken { io, early, chunked } = taken;
    // It holds on to the buffer of the request's head.
    drop(early);
    let mut line = Line { io, chunked, stall };
    let metrics = feed.context().metrics.clone();
    let mut bytes = line.piece();
    bytes.extend_from_slice(b": stream open\n\n");
    let end = match line.send(bytes).await {
        Ok(()) => follow(&mut feed, &mut line, standing).await,
        Err(error) => gone(&metrics, &error),
    };
    let last = match end {
        End::Gone => return,
        End::Drain => retry(),
        End::Told(reason) => {
            metrics.dropped(reason, 1);
            sluice_http::sse::frame(None, "disconnect", &json!({ "reason": reason }).to_string())
        }
    };
    let mut bytes = line.piece();
    bytes.extend_from_slice(&last);
    // A client that does not take its last word has left.
    drop(line.send_last(bytes).await);
}

async fn follow(feed: &mut Feed, line: &mut Line, standing: Standing) -> End {
    let context = feed.context().clone();
    let mut heads = context.hub.heads();
    let mut stopping = pin!(context.stop.wait());
    let mut lost = watch(&standing);
    let (mut spoken, mut looked) = (Instant::now(), Instant::now());
    loop {
        if context.stop.is_stopping() {
            return End::Drain;
        }
        if lost.is_some() && looked.elapsed() >= LOOK {
            looked = Instant::now();
            if let Some(ended) = standing.ended() {
                return End::Told(ended.as_str());
            }
        }
        let mut bytes = line.piece();
        let empty = bytes.len();
        let mut out = Out::new(&mut bytes, Form::Sse, &context.metrics);
        let step = match feed.step(&mut out) {
            Step::Behind => match feed.catch_up(&mut out).await {
                Ok(()) => Step::More,
                Err(_) => Step::Over("unreadable"),
            },
            step => step,
        };
        drop(out);
        if bytes.len() > empty {
            spoken = Instant::now();
            if let Err(error) = line.send(bytes).await {
                return gone(&context.metrics, &error);
            }
            if step == Step::More {
                continue;
            }
        } else {
            spare(bytes);
        }
        let (seq, until) = match step {
            Step::More => {
                // Nothing wanted among many: let others have their turn.
                tokio::task::yield_now().await;
                continue;
            }
            Step::Wait(seq, until) => (seq, until),
            Step::Held(until) => (u64::MAX, until),
            Step::Over(reason) => return End::Told(reason),
            Step::Behind => continue,
        };
        let quiet = spoken + HEARTBEAT;
        let due = until.map_or(quiet, |until| until.min(quiet));
        let mut ignored = [0; 32];
        tokio::select! {
            // An error means that the hub is gone, which happens only at the end.
            () = async { drop(heads.wait_for(|head| *head >= seq).await) } => {}
            () = &mut stopping => {}
            ended = ends(&mut lost) => return End::Told(ended.as_str()),
            () = sleep_until(due) => if Instant::now() >= quiet {
                spoken = Instant::now();
                let mut bytes = line.piece();
                bytes.extend_from_slice(b": heartbeat\n\n");
                if let Err(error) = line.send(bytes).await {
                    return gone(&context.metrics, &error);
                }
            },
            // A client has nothing more to say; what it says is not listened to.
            read = line.io.read(&mut ignored) => if matches!(read, Ok(0) | Err(_)) {
                return End::Gone;
            },
        }
    }
}

/// Hears of the credential's end; `None` for one that does not end.
pub(crate) fn watch(standing: &Standing) -> Option<BoxFuture<'static, Ended>> {
    if !standing.can_end() {
        return None;
    }
    let standing = standing.clone();
    Some(Box::pin(async move { standing.lost().await }))
}

/// Waits for it.
pub(crate) async fn ends(lost: &mut Option<BoxFuture<'static, Ended>>) -> Ended {
    match lost {
        Some(lost) => lost.await,
        None => pending().await,
    }
}

fn gone(metrics: &crate::metrics::Metrics, error: &io::Error) -> End {
    if error.kind() == io::ErrorKind::TimedOut {
        metrics.dropped("stalled", 1);
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
    io: &mut (impl AsyncWrite + Unpin + ?Sized),
    mut bytes: &[u8],
    stall: Duration,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let taken = timeout(stall, io.write(bytes)).await.unwrap_or(Err(io::ErrorKind::TimedOut.into()))?;
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
            let length = format!("{:06x}", bytes.len() - CHUNK_HEAD.len());
            bytes[..6].copy_from_slice(length.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
    }

    async fn send(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        self.seal(&mut bytes);
        write_all(&mut self.io, &bytes, self.stall).await?;
        spare(bytes);
        Ok(())
    }

    async fn send_last(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        self.seal(&mut bytes);
        if self.chunked {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        write_all(&mut self.io, &bytes, Duration::from_secs(2)).await?;
        self.io.shutdown().await
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
