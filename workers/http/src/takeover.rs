//! Answers that take their connection over: event streams and WebSockets.
//!
//! A stream may say nothing for hours. The HTTP library keeps two buffers and its own state for it, some 20 KiB a
//! connection; a taken one keeps what its stream needs and no more. The answer still passes every layer, so it has
//! its request id and is counted; its head is written here, then the stream owns the bytes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, StatusCode, Version, header};
use tokio::io::{AsyncRead, AsyncWrite};

/// What a connection's bytes go through.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection whose answer's head was written.
pub struct Taken {
    /// The connection; it ends when this is dropped.
    pub io: Box<dyn Io>,
    /// What the client sent behind its request.
    pub early: Bytes,
    /// Whether the body has to be written as chunks; else it ends with the connection.
    pub chunked: bool,
}

type Work = Box<dyn FnOnce(Taken) -> BoxFuture<'static, ()> + Send>;

/// Carried by a response through the layers, which ask for `Clone`.
#[derive(Clone)]
struct Claim(Arc<Mutex<Option<Work>>>);

/// Makes a response that takes its connection over: its head is written, its body is not looked at, then the work
/// runs as a task of its own until it ends the connection. Only for requests without a body.
pub fn take_over<F>(mut head: Response, work: impl FnOnce(Taken) -> F + Send + 'static) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let work: Work = Box::new(move |taken| Box::pin(work(taken)));
    head.extensions_mut().insert(Claim(Arc::new(Mutex::new(Some(work)))));
    head
}

/// A response's wish to take the connection over.
pub(crate) struct Claimed {
    pub(crate) head: Vec<u8>,
    pub(crate) chunked: bool,
    pub(crate) work: Work,
}

/// Where a connection's service leaves such a wish for the connection's task.
#[derive(Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<Claimed>>>);

impl Slot {
    /// Passes a response on; one that takes the connection over stays here, and the call does not end.
    pub(crate) async fn pass(&self, version: Version, head_only: bool, mut response: Response) -> Response {
        let claim = response.extensions_mut().remove::<Claim>().filter(|_| !head_only);
        let work = claim.and_then(|claim| lock(&claim.0).take());
        let Some(work) = work else { return response };
        let (head, chunked) = head(version, response);
        *lock(&self.0) = Some(Claimed { head, chunked, work });
        std::future::pending().await
    }

    pub(crate) fn take(&self) -> Option<Claimed> {
        lock(&self.0).take()
    }
}

/// The bytes of a head, and whether chunks follow it.
fn head(version: Version, mut response: Response<Body>) -> (Vec<u8>, bool) {
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let chunked = !switches && version == Version::HTTP_11;
    let headers = response.headers_mut();
    headers.remove(header::CONTENT_LENGTH);
    if chunked {
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if !switches {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    let now = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&jiff::Timestamp::now());
    if let Some(date) = now.ok().and_then(|now| HeaderValue::try_from(now).ok()) {
        headers.insert(header::DATE, date);
    }
    let mut bytes = Vec::with_capacity(512);
    let version = if version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    bytes.extend_from_slice(format!("{version} {} {reason}\r\n", status.as_str()).as_bytes());
    for (name, value) in response.headers() {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    (bytes, chunked)
}

fn lock<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}
