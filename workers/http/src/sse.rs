//! Server-sent events.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderValue, header};
use http_body::Frame;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// Pause after which a comment keeps the connection alive through proxies.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// Writes one event. `data` must be a single line; `id` and `event` without line breaks.
pub fn frame(id: Option<&str>, event: &str, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + event.len() + 64);
    if let Some(id) = id {
        text.push_str("id: ");
        text.push_str(id);
        text.push('\n');
    }
    text.push_str("event: ");
    text.push_str(event);
    text.push_str("\ndata: ");
    text.push_str(data);
    text.push_str("\n\n");
    Bytes::from(text)
}

/// Answers with a stream of already encoded frames; it ends when the stream ends.
pub fn response(frames: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat.reset();
    let mut response = Response::new(Body::new(Frames { frames: Box::pin(frames), heartbeat }));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

struct Frames {
    frames: Pin<Box<dyn Stream<Item = Bytes> + Send>>,
    heartbeat: Interval,
}

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(next) = self.frames.as_mut().poll_next(context) {
            self.heartbeat.reset();
            return Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))));
        }
        match self.heartbeat.poll_tick(context) {
            Poll::Ready(_) => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b": heartbeat\n\n"))))),
            Poll::Pending => Poll::Pending,
        }
    }
}
