//! The loop of one connection: streams in, floods and idleness out, and an end that lets streams finish.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;
use pingora::apps::HttpServerApp as _;
use pingora::protocols::http::ServerSession;
use sluice_policy::framing::Transport;
use sluice_schema::Limits;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::direct::Stream;
use super::guarded::Watch;
use super::parting::Parting;
use super::session::{Asked, Known, Session, Taken};
use super::{Io, head};
use crate::conn::{Conn, is_within};
use crate::connection::stopping;
use crate::linger::Patience;
use crate::link::Link;
use crate::server::App;
use crate::service::Intake;
use crate::state::Shared;
use crate::stream::StreamTimes;
use crate::timer::Timer;
use crate::{account, calls, direct, ids};

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// How long streams may take to notice that their connection is gone.
const AFTERMATH: Duration = Duration::from_secs(10);

/// What a stream needs to know of its surroundings.
pub(super) struct Scene {
    shared: Arc<Shared>,
    app: Arc<App>,
    conn: Arc<Conn>,
    transport: Transport,
    times: StreamTimes,
    closing: watch::Receiver<bool>,
    block: Duration,
}

impl Scene {
    /// The surroundings of a connection.
    pub(super) fn new(shared: Arc<Shared>, app: Arc<App>, conn: Arc<Conn>, limits: &Limits) -> Self {
        let generation = shared.generation.load();
        let proxied = is_within(conn.direct.ip(), &generation.config.edge.trusted_proxies);
        let transport = match conn.tls {
            Some(_) => Transport::Tls,
            None if proxied => Transport::Proxied,
            None => Transport::Plain,
        };
        drop(generation);
        let closing = shared.drain.shutdown_watch();
        let (times, block) = (StreamTimes::of(limits, &shared.stalls), limits.header_timeout);
        Self { shared, app, conn, transport, times, closing, block }
    }
}

/// How a connection ends.
enum End {
    /// By itself: the client left, or the goodbye was said and heard.
    Closed,
    /// By an error of the line or of the protocol.
    Failed(h2::Error),
    /// The client sent too much of something.
    Flood(&'static str),
    /// Nothing went on, or something went on too long.
    TimedOut,
}

/// A connection under way.
pub(super) struct Running {
    io: Io,
    watch: Arc<Watch>,
    scene: Scene,
    /// Each tells at its end whether the connection is to end too.
    streams: JoinSet<bool>,
    idle: Duration,
    idle_since: Instant,
    timer: Timer,
    /// Streams came on it.
    used: bool,
    parting: Parting,
}

impl Running {
    /// A connection whose greeting was exchanged; `idle` is how long it may be without a stream.
    pub(super) fn new(io: Io, watch: Arc<Watch>, scene: Scene, idle: Duration) -> Self {
        Self {
            io,
            watch,
            scene,
            streams: JoinSet::new(),
            idle,
            idle_since: Instant::now(),
            timer: Timer::default(),
            used: false,
            parting: Parting::Stays,
        }
    }

    /// Runs it to its end.
    pub(super) async fn run(mut self) {
        let end = self.serve().await;
        let patience = match end {
            End::Closed => Patience::LONG,
            End::TimedOut if self.parting.is_begun() => Patience::LONG,
            _ => Patience::SHORT,
        };
        match end {
            End::Closed => {}
            End::Failed(error) => {
                if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                    self.tell_flood("protocol");
                }
                tracing::debug!(component = "h2", client = %self.scene.conn.peer.ip(), %error, "connection ended");
            }
            End::Flood(kind) => {
                self.tell_flood(kind);
                self.say_goodbye(Reason::ENHANCE_YOUR_CALM).await;
            }
            End::TimedOut => self.say_goodbye(Reason::NO_ERROR).await,
        }
        let Self { io, watch, mut streams, .. } = self;
        // Streams learn of the end by this.
        drop(io);
        let aftermath = async { while streams.join_next().await.is_some() {} };
        let (aftermath, ()) =
            tokio::join!(tokio::time::timeout(AFTERMATH, aftermath), watch.linger(patience));
        if aftermath.is_err() {
            tracing::warn!(component = "h2", open = streams.len(), "streams cut off after their connection");
        }
    }

    fn tell_flood(&self, kind: &'static str) {
        self.scene.shared.meters.h2_flood(kind);
        tracing::warn!(
            component = "h2", client = %self.scene.conn.peer.ip(), kind, "connection ended: too many frames"
        );
    }

    async fn say_goodbye(&mut self, reason: Reason) {
        self.io.abrupt_shutdown(reason);
        // The client may not listen any more.
        drop(tokio::time::timeout(GOODBYE, poll_fn(|cx| self.io.poll_closed(cx))).await);
    }

    /// Serves until it is over. During the lame duck a connection that was used is told to end, another one
    /// only with its first stream: a client that has just come would find itself without a connection.
    async fn serve(&mut self) -> End {
        let mut begun = self.scene.closing.clone();
        let ended = self.scene.shared.drain.closes();
        let begun = async move { drop(begun.wait_for(|closing| *closing).await) };
        tokio::pin!(begun, ended);
        let (mut told, mut over) = (false, false);
        loop {
            tokio::select! {
                biased;
                () = &mut ended, if !over => {
                    (told, over) = (true, true);
                    self.leave();
                }
                () = &mut begun, if !told => {
                    told = true;
                    if self.used {
                        self.leave();
                    }
                }
                end = poll_fn(|cx| self.poll_turn(cx)) => return end,
            }
        }
    }

    /// Tells the client to go elsewhere; what it has begun is finished.
    fn leave(&mut self) {
        if !self.parting.is_begun() {
            self.watch.say_first_word();
            self.parting = Parting::begin(self.io.ping_pong());
        }
    }

    /// Says the last word, which lets the connection end with its streams.
    fn part(&mut self) {
        self.parting = Parting::Said;
        self.idle_since = Instant::now();
        self.io.graceful_shutdown();
    }

    /// One turn: what has come is taken, as far as it goes.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        while let Poll::Ready(Some(ended)) = self.streams.poll_join_next(cx) {
            self.idle_since = Instant::now();
            if ended.unwrap_or(false) {
                self.leave();
            }
        }
        self.watch.begin_turn();
        loop {
            match self.io.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => self.take(request, respond),
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(self.verdict().unwrap_or(End::Failed(error)));
                }
                Poll::Ready(None) => return Poll::Ready(End::Closed),
                Poll::Pending => break,
            }
        }
        if let Some(end) = self.verdict() {
            return Poll::Ready(end);
        }
        if self.watch.is_spent() {
            // More is at hand: others first.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let word_due = self.parting.due(cx);
        let due = self.watch.due(self.scene.block).into_iter().chain(self.idle_due()).chain(word_due).min();
        let Some(due) = due else { return Poll::Pending };
        ready!(self.timer.poll(cx, due));
        if word_due != Some(due) {
            return Poll::Ready(End::TimedOut);
        }
        self.part();
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// When it ends for want of streams. One that parts waits no longer than a goodbye takes, unless the client has
    /// still to take the end of an answer.
    fn idle_due(&self) -> Option<Instant> {
        let waits = match self.parting {
            Parting::Stays => self.idle,
            Parting::Told { .. } => return None,
            Parting::Said if self.io.has_streams() => self.idle,
            Parting::Said => GOODBYE.min(self.idle),
        };
        self.streams.is_empty().then(|| self.idle_since + waits)
    }

    fn verdict(&self) -> Option<End> {
        self.watch.verdict().map(|flood| End::Flood(flood.as_str()))
    }

    /// A new stream: judged, then run or answered.
    fn take(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        self.used = true;
        if *self.scene.closing.borrow() {
            self.leave();
        }
        let Scene { shared, app, conn, transport, times, closing, .. } = &self.scene;
        let generation = shared.generation.load_full();
        let (parts, body) = request.into_parts();
        let limits = &generation.config.edge.limits;
        let arrival = match head::accept(&parts, body.is_end_stream(), conn, *transport, limits) {
            Ok(arrival) => arrival,
            Err(refusal) => {
                let id = ids::mint();
                account::refused(shared, conn.peer.ip(), &id, &refusal);
                head::refuse(respond, &parts, &refusal, &id);
                self.watch.malformed();
                return;
            }
        };
        let (framing, link) = (arrival.body, Arc::clone(&arrival.link));
        let parts = head::translate(parts, &arrival);
        let taken = Taken::new(parts, (body, framing), respond, times.clone(), &link);
        let intake = Intake { arrival: Box::new(arrival), generation };
        let (shared, app, closing) = (Arc::clone(shared), Arc::clone(app), closing.clone());
        let ended = shared.drain.closes();
        self.streams.spawn(async move {
            tokio::pin!(ended);
            stopping(Box::pin(answer(shared, app, taken, intake, closing)), ended, &link).await;
            link.is_last()
        });
    }
}

/// Runs a stream's request: a call to an instance of HTTP/2 beside Pingora, everything else through it.
async fn answer(
    shared: Arc<Shared>,
    app: Arc<App>,
    mut taken: Taken,
    mut intake: Intake,
    closing: watch::Receiver<bool>,
) {
    let link = Arc::clone(&intake.arrival.link);
    if let Some(direct) = taken.goes_direct(&mut intake) {
        let (body, reply) = taken.into_sides();
        let mut stream = Stream::new(body, reply, link);
        direct::run(&shared, &app.pool, &mut stream, intake, direct).await;
        return;
    }
    // Boxed, so that other requests hold no room for the framework's.
    Box::pin(through_pingora(shared, app, taken.into_asked(), intake, closing, link)).await;
}

async fn through_pingora(
    shared: Arc<Shared>,
    app: Arc<App>,
    asked: Asked,
    intake: Intake,
    closing: watch::Receiver<bool>,
    link: Arc<Link>,
) {
    let (asked, known) = if calls::wanted(&intake, &asked.head) {
        // Boxed, so that other requests hold no room for a call.
        let left = Box::pin(calls::run(&shared, &app.lines, asked, intake)).await;
        let Some((asked, exchange)) = left else { return };
        (asked, Known::Exchange(exchange))
    } else {
        (asked, Known::Intake(intake))
    };
    let session = ServerSession::new_custom(Box::new(Session::new(asked, known, link)));
    app.pingora.process_new_http(session, &closing).await;
}
