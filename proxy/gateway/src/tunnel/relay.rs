//! An answer that is no 101, on its way to the client. Its body keeps its own end; one that ends with the
//! upstream's connection becomes chunked, so that a broken one never looks complete.

use std::io;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderValue, StatusCode};
use pingora::http::ResponseHeader;
use pingora::protocols::Stream;
use sluice_policy::ending::Failure;
use sluice_wire::code::Code;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::EARLY_BYTES;
use super::handshake::{answer_bytes, invalid};
use super::tries::{Answered, while_present};
use crate::account;
use crate::chunks::ChunkScanner;
use crate::ctx::Exchange;
use crate::forward::{dress, is_stream, settle, tell_breaker};
use crate::peer;
use crate::reframe::frame_anew;
use crate::state::Shared;
use crate::stream::Downstream;

/// One piece of a body.
const PIECE_BYTES: usize = 16 << 10;

/// How a body ends.
enum Body {
    /// There is none, or all of it has come.
    Done,
    /// After so many bytes.
    Length(u64),
    /// After its last chunk.
    Chunked(ChunkScanner),
    /// With the connection.
    Open,
}

/// Relays an answer and ends the connection.
pub(super) async fn run(
    shared: &Shared,
    mut stream: Box<Downstream>,
    mut x: Box<Exchange>,
    answered: Box<Answered>,
) {
    let Answered { mut upstream, mut head, rest } = *answered;
    let status = head.status.as_u16();
    let Ok((body, wire)) = begin(&mut x, &mut head) else {
        x.upstream_status = None;
        x.failure = Some(Failure { code: Code::UpstreamInvalid, counts: true });
        x.decision = Code::UpstreamInvalid.word();
        let answer = peer::answer(&x, Failure { code: Code::UpstreamInvalid, counts: true });
        return super::refuse(shared, stream, x, answer).await;
    };
    if x.streaming {
        tell_breaker(&mut x);
    }
    let passed = pass(&mut stream, &mut upstream, &mut x, body, wire, rest).await;
    if passed.is_err() && !x.streaming && x.decision == "forwarded" {
        x.decision = "cut_short";
    }
    settle(&mut x);
    account::count(shared, &x, Some(status));
    account::line(shared, &x, Some(status), passed.is_err());
    if passed.is_ok() {
        // The client may be gone; the end was all that was left to say.
        drop(stream.shutdown().await);
    }
}

/// The client's head, and how the body behind it ends.
fn begin(x: &mut Exchange, head: &mut ResponseHeader) -> pingora::Result<(Body, Vec<u8>)> {
    frame_anew(head)?;
    let body = framing(head)?;
    x.streaming = is_stream(head);
    dress(x, head)?;
    if matches!(body, Body::Open) {
        head.insert_header(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))?;
    }
    let wire = answer_bytes(std::mem::replace(head, ResponseHeader::build(200, None)?))?;
    Ok((body, wire))
}

fn framing(head: &mut ResponseHeader) -> pingora::Result<Body> {
    if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Body::Done);
    }
    if head.headers.contains_key(TRANSFER_ENCODING) {
        head.remove_header(&CONTENT_LENGTH);
        return Ok(Body::Chunked(ChunkScanner::default()));
    }
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => Ok(Body::Open),
        (Some(length), None) if length.as_bytes().iter().all(u8::is_ascii_digit) => {
            let length = length.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(invalid)?;
            Ok(if length == 0 { Body::Done } else { Body::Length(length) })
        }
        _ => Err(invalid()),
    }
}

/// Sends head and body. An error leaves the body unfinished, and the client sees that it is.
async fn pass(
    stream: &mut Downstream,
    upstream: &mut Stream,
    x: &mut Exchange,
    mut body: Body,
    head: Vec<u8>,
    rest: Vec<u8>,
) -> io::Result<()> {
    stream.write_all(&head).await?;
    let (mut piece, kept_max) = (rest, stream.buffered().len() + EARLY_BYTES);
    loop {
        let taken = take(&mut body, &piece)?;
        x.answer_bytes += taken as u64;
        send(stream, &body, &piece[..taken]).await?;
        if matches!(body, Body::Done) {
            return stream.flush().await;
        }
        stream.flush().await?;
        piece.clear();
        piece.reserve(PIECE_BYTES);
        let within = x.timeouts().map_or(Duration::ZERO, |timeouts| timeouts.idle);
        let within = x.left().map_or(within, |left| left.min(within));
        let read = tokio::time::timeout(within, upstream.read_buf(&mut piece));
        match while_present(stream, kept_max, read).await {
            None => {
                x.decision = "client_left";
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Some(Err(_)) => return Err(io::ErrorKind::TimedOut.into()),
            Some(Ok(Err(error))) => return Err(error),
            Some(Ok(Ok(0))) => {
                if !matches!(body, Body::Open) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                stream.write_all(b"0\r\n\r\n").await?;
                return stream.flush().await;
            }
            Some(Ok(Ok(_))) => {}
        }
    }
}

/// How many of the bytes belong to the body, which moves on by them.
fn take(body: &mut Body, bytes: &[u8]) -> io::Result<usize> {
    let (taken, done) = match body {
        Body::Done => (0, true),
        Body::Open => (bytes.len(), false),
        Body::Length(left) => {
            let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            *left -= taken as u64;
            (taken, *left == 0)
        }
        Body::Chunked(scanner) => {
            let taken =
                scanner.scan(bytes).map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
            (taken, scanner.is_done())
        }
    };
    if done {
        *body = Body::Done;
    }
    Ok(taken)
}

async fn send(stream: &mut Downstream, body: &Body, piece: &[u8]) -> io::Result<()> {
    if piece.is_empty() {
        return Ok(());
    }
    if !matches!(body, Body::Open) {
        return stream.write_all(piece).await;
    }
    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
    stream.write_all(piece).await?;
    stream.write_all(b"\r\n").await
}
