//! An open tunnel, from the 101 to its end.
//!
//! Ends when both directions have (a half-close is passed on, and the other half may stay quiet for
//! [`HALF_OPEN`]), when either end breaks, when nothing passes for `timeouts.idle`, or when it is told to:
//! then both ends get a close frame, see [`super::goodbye`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::protocols::Stream;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};

use super::goodbye::Stop;
use super::handshake::answer_bytes;
use super::open::Place;
use super::pipe::Pipe;
use super::tries::Answered;
use crate::account;
use crate::caps::ConnectionPermit;
use crate::conn::Protocol;
use crate::ctx::Exchange;
use crate::forward::{dress, settle};
use crate::headers::drop_hop_by_hop;
use crate::linger::{Patience, linger};
use crate::socket::Socket;
use crate::state::Shared;
use crate::stream::Downstream;

/// LIMIT: quiet after one end has closed its half.
const HALF_OPEN: Duration = Duration::from_secs(5);
/// LIMIT: writing the last frames to an upstream.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// An open tunnel.
struct Tunnel {
    client: Socket,
    upstream: Stream,
    /// From the client.
    up: Pipe,
    /// From the upstream.
    down: Pipe,
    idle: Duration,
    moved: Instant,
    timer: Pin<Box<Sleep>>,
    told: Option<oneshot::Receiver<Stop>>,
    goodbye: Option<Goodbye>,
}

/// The edge ends the tunnel.
#[derive(Clone, Copy)]
struct Goodbye {
    stop: Stop,
    /// When it is cut off, whatever is missing.
    until: Instant,
    /// The client's close frame was sent.
    said: bool,
}

/// How a tunnel ended.
enum End {
    /// Both directions came to their ends.
    Closed,
    /// One end broke off.
    Broken,
    /// The edge ended it.
    Stopped(Stop),
}

/// Answers 101 and carries what follows until the tunnel ends.
pub(super) async fn run(
    shared: Arc<Shared>,
    stream: Box<Downstream>,
    head_bytes: usize,
    mut x: Box<Exchange>,
    answered: Box<Answered>,
) {
    x.arrival.protocol = Protocol::WebSocket;
    account::count(&shared, &x, Some(101));
    let opened = open(&shared, stream, head_bytes, &mut x, *answered);
    let Some((mut tunnel, permit)) = opened else {
        return account::line(&shared, &x, Some(101), true);
    };
    let (place, told) = Place::take(shared, &x);
    tunnel.told = Some(told);
    let end = poll_fn(|cx| tunnel.poll(cx)).await;
    settle(&mut x);
    (x.body_bytes, x.answer_bytes) = (tunnel.up.bytes(), tunnel.down.bytes());
    if let End::Stopped(stop) = end {
        x.decision = stop.decision();
    }
    account::line(place.shared(), &x, Some(101), matches!(end, End::Broken));
    if let End::Stopped(stop) = end {
        // Boxed, so that an open tunnel holds no room for its end.
        Box::pin(part(tunnel, stop, permit)).await;
    }
}

/// The tunnel with the 101 and all that came early in its buffers.
fn open(
    shared: &Shared,
    stream: Box<Downstream>,
    head_bytes: usize,
    x: &mut Exchange,
    answered: Answered,
) -> Option<(Tunnel, Option<ConnectionPermit>)> {
    let Answered { upstream, mut head, rest } = answered;
    let version = head.version;
    drop_hop_by_hop(&mut head, version);
    dress(x, &mut head).ok()?;
    let head = answer_bytes(head).ok()?;
    let (client, read, permit) = stream.into_parts()?;
    let early = &read[head_bytes..];
    let now = Instant::now();
    let idle = x.timeouts()?.idle;
    let tunnel = Tunnel {
        client,
        upstream,
        up: Pipe::new(early, shared.meters.tunnel_bytes[0].clone()),
        down: Pipe::new(&rest, shared.meters.tunnel_bytes[1].clone()).behind(head),
        idle,
        moved: now,
        timer: Box::pin(tokio::time::sleep_until(now + idle)),
        told: None,
        goodbye: None,
    };
    Some((tunnel, permit))
}

/// The upstream's last frames and end, then the client's end: what it still sends is read for a moment, or
/// a reset would overtake the close frame.
async fn part(mut tunnel: Tunnel, stop: Stop, permit: Option<ConnectionPermit>) {
    if !tunnel.up.has_ended() && !tunnel.up.is_closed() {
        tunnel.up.end_with(stop.to_upstream());
    }
    let Tunnel { client, mut upstream, mut up, .. } = tunnel;
    let ends = async {
        poll_fn(|cx| up.poll_rest(cx, &mut upstream)).await?;
        upstream.shutdown().await
    };
    // Both ends have had their chance.
    drop(tokio::time::timeout(LAST_WORDS, ends).await);
    drop(upstream);
    linger(client, Vec::new(), permit, Patience::SHORT).await;
}

impl Tunnel {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.listen(cx);
        loop {
            let up = self.up.poll(cx, &mut self.client, &mut self.upstream);
            let down = self.down.poll(cx, &mut self.upstream, &mut self.client);
            if self.up.take_moved() | self.down.take_moved() {
                self.moved = Instant::now();
            }
            if let Some(end) = self.ended(up, down) {
                return Poll::Ready(end);
            }
            ready!(self.poll_due(cx));
            match self.goodbye {
                Some(goodbye) => return Poll::Ready(End::Stopped(goodbye.stop)),
                None if self.is_half_open() => return Poll::Ready(End::Broken),
                None => self.stop(Stop::Idle),
            }
        }
    }

    /// Hears whether it is to end.
    fn listen(&mut self, cx: &mut Context<'_>) {
        let Some(told) = &mut self.told else { return };
        if let Poll::Ready(stop) = Pin::new(told).poll(cx) {
            self.told = None;
            if let (Ok(stop), None) = (stop, self.goodbye) {
                self.stop(stop);
            }
        }
    }

    fn stop(&mut self, stop: Stop) {
        self.goodbye = Some(Goodbye { stop, until: stop.frame_until(Instant::now()), said: false });
        self.down.end_with(stop.to_client());
        if stop.silences() {
            self.up.end_with(stop.to_upstream());
        }
    }

    fn ended(&mut self, up: Poll<io::Result<()>>, down: Poll<io::Result<()>>) -> Option<End> {
        let broken = matches!(up, Poll::Ready(Err(_))) || matches!(down, Poll::Ready(Err(_)));
        let both = up.is_ready() && down.is_ready();
        let Some(goodbye) = &mut self.goodbye else {
            return match (broken, both) {
                (true, _) => Some(End::Broken),
                (false, both) => both.then_some(End::Closed),
            };
        };
        if !goodbye.said && self.down.has_ended() && self.down.is_drained() {
            goodbye.said = true;
            goodbye.until = goodbye.stop.answer_until(Instant::now());
        }
        let answered = self.up.has_read_all() || (self.up.is_closed() && self.up.is_drained());
        (broken || both || (goodbye.said && answered)).then_some(End::Stopped(goodbye.stop))
    }

    /// Ready when it has waited long enough. The timer is moved lazily: bytes that pass cost it nothing.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = match self.goodbye {
            Some(goodbye) => goodbye.until,
            None if self.is_half_open() => self.moved + self.idle.min(HALF_OPEN),
            None => self.moved + self.idle,
        };
        loop {
            if self.timer.deadline() > due || self.timer.is_elapsed() {
                if due <= Instant::now() {
                    return Poll::Ready(());
                }
                self.timer.as_mut().reset(due);
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }

    fn is_half_open(&self) -> bool {
        self.up.is_done() != self.down.is_done()
    }
}
