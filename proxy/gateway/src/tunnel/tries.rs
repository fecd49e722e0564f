//! One try at an upstream: a connection of its own, the head there, the head back.

use std::future::poll_fn;
use std::task::{Context, Poll};

use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::{ALPN, Stream};
use pingora::{Error, ErrorType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::handshake::{invalid, read_answer, request_bytes, switches};
use crate::clock;
use crate::ctx::Exchange;
use crate::forward::prepare;
use crate::kill;
use crate::peer::check_instance;
use crate::state::Shared;
use crate::stream::Downstream;

/// LIMIT: an upstream's heads until its final one, interim ones included.
const HEAD_BYTES: usize = 64 << 10;
/// LIMIT: interim answers before the final one.
const INTERIM_MAX: usize = 8;

/// A final head and the connection it came on.
pub(super) struct Answered {
    /// The connection.
    pub(super) upstream: Stream,
    /// The head.
    pub(super) head: ResponseHeader,
    /// What came behind the head.
    pub(super) rest: Vec<u8>,
}

/// Why a try came to nothing.
pub(super) enum Failed {
    /// It was not made; the exchange has the answer.
    Refused,
    /// No connection.
    Connect(Box<Error>),
    /// The connection stood.
    Upstream(Box<Error>),
}

/// Makes one try.
pub(super) async fn once(
    shared: &Shared,
    x: &mut Exchange,
    asked: &RequestHeader,
) -> Result<Box<Answered>, Failed> {
    let chosen = kill::choose(shared, x, &asked.headers).await.map_err(|_| Failed::Refused)?;
    let mut peer = chosen.peer(x);
    // A WebSocket in HTTP/2 is another protocol (RFC 8441); over TLS only HTTP/1.1 is offered.
    peer.options.alpn = ALPN::H1;
    let mut upstream = shared.tunnels.connect(&peer).await.map_err(Failed::Connect)?;
    check_instance(shared, x, &peer, upstream.get_ssl_digest().as_deref()).map_err(Failed::Connect)?;
    let mut head = asked.clone();
    prepare(shared, x, &mut head).map_err(Failed::Upstream)?;
    let request = request_bytes(head).map_err(Failed::Upstream)?;
    let left = x.deadline().and_then(|deadline| deadline.first_byte(clock::now())).unwrap_or_default();
    let (head, rest) = tokio::time::timeout(left, ask(&mut upstream, &request))
        .await
        .unwrap_or_else(|_| Err(Error::new_up(ErrorType::ReadTimedout)))
        .map_err(Failed::Upstream)?;
    if head.status == StatusCode::SWITCHING_PROTOCOLS && !switches(&head.headers, &asked.headers) {
        return Err(Failed::Upstream(invalid()));
    }
    Ok(Box::new(Answered { upstream, head, rest }))
}

/// Sends a head and waits for the final one.
async fn ask(upstream: &mut Stream, request: &[u8]) -> pingora::Result<(ResponseHeader, Vec<u8>)> {
    let broke = |error: std::io::Error| Error::because(ErrorType::ReadError, "upstream", error).into_up();
    upstream.write_all(request).await.map_err(broke)?;
    upstream.flush().await.map_err(broke)?;
    let (mut bytes, mut interim) = (Vec::with_capacity(1024), 0);
    loop {
        while let Some((head, length)) = read_answer(&bytes)? {
            let rest = bytes.split_off(length);
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok((head, rest));
            }
            interim += 1;
            if interim > INTERIM_MAX {
                return Err(invalid());
            }
            bytes = rest;
        }
        if bytes.len() >= HEAD_BYTES {
            return Err(invalid());
        }
        if upstream.read_buf(&mut bytes).await.map_err(broke)? == 0 {
            return Err(Error::new_up(ErrorType::ConnectionClosed));
        }
    }
}

/// Does `work` while the client stays; `None` when it leaves. What the client sends meanwhile is kept, up to
/// `kept_max` bytes in all; where it has sent more, nobody looks any more.
pub(super) async fn while_present<T>(
    stream: &mut Downstream,
    kept_max: usize,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(work);
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => poll_left(stream, kept_max, cx).map(|()| None),
    })
    .await
}

/// Ready when the client has left.
fn poll_left(stream: &mut Downstream, kept_max: usize, cx: &mut Context<'_>) -> Poll<()> {
    while stream.buffered().len() < kept_max {
        match stream.poll_fill(cx, kept_max, None) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Pending
}
