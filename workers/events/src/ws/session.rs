//! One WebSocket, from its first message to its close.

mod turn;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use serde_json::{Value, json};
use sluice_http::{Io, Reject, Standing, Taken};
use sluice_wire::code::Code;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::codec::{self, Close, Decoder, MESSAGE_MAX, Message};
use super::credit::Credit;
use super::ops::{self, Op};
use crate::bell::{Bell, Wants};
use crate::context::Context;
use crate::log::Filter;
use crate::stream::feed::Feed;
use crate::stream::pace::Pace;
use crate::stream::sse::{retry_ms, write_all};
use turn::{Subscription, Turn};

/// LIMIT: subscriptions of a connection.
pub(super) const SUBSCRIPTIONS_MAX: usize = 32;
/// LIMIT: messages of a client a second, and at once.
const MESSAGES: (f64, u32) = (50.0, 200);
/// Between two pings; as long again may the answer take.
const PING: Duration = Duration::from_secs(20);
/// How long a client may take for its own close.
const FAREWELL: Duration = Duration::from_secs(1);

const TOO_MANY: Close = Close { code: 1008, reason: "too_many_messages" };
const NO_PONG: Close = Close { code: 4408, reason: "no_pong" };

/// Why a connection ends.
enum End {
    /// The client has left, or takes nothing.
    Gone,
    /// The client said good-bye.
    Closed(u16),
    /// It is told why.
    Told(u16, String),
}

impl From<Close> for End {
    fn from(close: Close) -> Self {
        Self::Told(close.code, close.reason.to_owned())
    }
}

/// An open WebSocket.
pub(super) struct Session {
    context: Arc<Context>,
    /// Calls it; events ring the subscriptions' own.
    bell: Arc<Bell>,
    io: Box<dyn Io>,
    decoder: Decoder,
    /// What the caller may read, unless that is everything.
    readable: Option<Box<Filter>>,
    subscriptions: Vec<Subscription>,
    out: Vec<u8>,
    pace: Pace,
    begun: Instant,
    /// When the client was last heard.
    heard: Instant,
    pinged: Instant,
    stall: Duration,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.context.hub.bells().take_down(&self.bell, Wants::Calls);
    }
}

impl Session {
    pub(super) fn new(context: Arc<Context>, taken: Taken, readable: Filter, stall: Duration) -> Self {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(&taken.early);
        let now = Instant::now();
        let bell = Bell::new();
        context.hub.bells().hang(&bell, Wants::Calls);
        Self {
            context,
            bell,
            io: taken.io,
            decoder,
            readable: (readable != Filter::default()).then(|| Box::new(readable)),
            subscriptions: Vec::new(),
            out: Vec::new(),
            pace: Pace::new(MESSAGES.0, MESSAGES.1, Duration::ZERO),
            begun: now,
            heard: now,
            pinged: now,
            stall,
        }
    }

    #[allow(
        clippy::manual_async_fn,
        reason = "it lives long: an `async fn` would keep what it is given twice"
    )]
    pub(super) fn run(mut self, standing: Standing) -> impl Future<Output = ()> + Send {
        async move {
            match self.converse(&standing).await {
                End::Gone => {}
                End::Closed(code) => Box::pin(self.part(code, "")).await,
                End::Told(code, reason) => {
                    if code != 1012 {
                        let word = reason.split(';').next().unwrap_or_default();
                        self.context.metrics.dropped(word, 1);
                    }
                    Box::pin(self.part(code, &reason)).await;
                }
            }
        }
    }

    /// Says good-bye.
    async fn part(&mut self, code: u16, reason: &str) {
        self.subscriptions.clear();
        codec::write_close(code, reason, &mut self.out);
        let last = std::mem::take(&mut self.out);
        if write_all(&mut self.io, &last, FAREWELL).await.is_err() {
            return;
        }
        drop(self.io.shutdown().await);
        // What the client still sends is read for a moment: a reset would overtake the close.
        let mut ignored = [0; 256];
        let emptied = async { while matches!(self.io.read(&mut ignored).await, Ok(1..)) {} };
        drop(timeout(FAREWELL, emptied).await);
    }

    async fn converse(&mut self, standing: &Standing) -> End {
        let mut judge_at = standing.can_end().then(Instant::now);
        let mut alarm = pin!(sleep_until(self.pinged + PING));
        loop {
            if self.context.stop.is_stopping() {
                return End::Told(1012, format!("draining; retry_ms={}", retry_ms()));
            }
            let now = Instant::now();
            if self.bell.take_call() {
                judge_at = judge_at.map(|_| now);
            }
            if judge_at.is_some_and(|at| now >= at) {
                if let Some(ended) = standing.ended() {
                    return End::Told(1008, ended.as_str().to_owned());
                }
                judge_at = Some(now + standing.left());
            }
            if !self.decoder.buffer().is_empty()
                && let Err(end) = Box::pin(self.hear()).await
            {
                return end;
            }
            let mut turn = self.deliver();
            if let Turn::Behind(name) = turn {
                // Of the size of a read, and rare.
                Box::pin(self.catch_up(&name)).await;
                turn = Turn::More;
            }
            if let Err(end) = self.flush().await {
                return end;
            }
            let Turn::Rest(rest) = turn else {
                // There is more: a look at what the client says, without waiting for it.
                let read = poll_fn(|cx| Poll::Ready(self.poll_read(cx)));
                if let Poll::Ready(Err(end)) = read.await {
                    return end;
                }
                tokio::task::yield_now().await;
                continue;
            };
            let due = [Some(self.pinged + PING), rest, judge_at].into_iter().flatten().min();
            // An alarm that is too early is set anew when it goes off.
            if let Some(due) = due
                && (alarm.is_elapsed() || due < alarm.deadline())
            {
                alarm.as_mut().reset(due);
            }
            if let Err(end) = poll_fn(|cx| self.poll_rest(cx, alarm.as_mut())).await {
                return end;
            }
            if let Err(close) = self.ping() {
                return close.into();
            }
        }
    }

    /// Waits until there is something to do.
    fn poll_rest(&mut self, cx: &mut task::Context<'_>, alarm: Pin<&mut Sleep>) -> Poll<Result<(), End>> {
        if let Poll::Ready(read) = self.poll_read(cx) {
            return Poll::Ready(read);
        }
        self.bell.listen(cx);
        let mut is_awake = self.bell.is_called();
        for subscription in &self.subscriptions {
            subscription.feed.bell().listen(cx);
            is_awake |= subscription.feed.is_rung();
        }
        if is_awake || alarm.poll(cx).is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Waits for bytes of the client.
    fn poll_read(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), End>> {
        let mut bytes = [0; 512];
        let mut bytes = ReadBuf::new(&mut bytes);
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut bytes));
        if read.is_err() || bytes.filled().is_empty() {
            return Poll::Ready(Err(End::Gone));
        }
        self.decoder.buffer().extend_from_slice(bytes.filled());
        self.heard = Instant::now();
        Poll::Ready(Ok(()))
    }

    /// Does what the client said.
    async fn hear(&mut self) -> Result<(), End> {
        while let Some(message) = self.decoder.next()? {
            let now = self.begun.elapsed();
            if self.pace.room(now) == 0 {
                return Err(TOO_MANY.into());
            }
            self.pace.took(1, now);
            match message {
                Message::Text(text) => self.obey(&text).await,
                Message::Ping(payload) => codec::write_pong(&payload, &mut self.out),
                Message::Pong => {}
                Message::Close(code) => return Err(End::Closed(code.unwrap_or(1000))),
            }
            if self.out.len() > MESSAGE_MAX {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn obey(&mut self, text: &str) {
        let everything = Filter::default();
        let readable = self.readable.as_deref().unwrap_or(&everything);
        let (name, op) = match ops::read(text, readable) {
            Ok(read) => read,
            Err(wrong) => return self.refuse(wrong.sub.as_deref(), &wrong.pointer, &wrong.reject),
        };
        let said = self.act(&name, op).await;
        match said {
            Ok(said) => self.say(&said),
            Err((pointer, reject)) => self.refuse(Some(&name), pointer, &reject),
        }
    }

    async fn act(&mut self, name: &str, op: Op) -> Result<Value, (&'static str, Reject)> {
        let quoted = Value::from(name).to_string();
        let place = self.subscriptions.iter().position(|one| *one.name == *quoted);
        if let Op::Subscribe { choice, credit } = op {
            if place.is_some() {
                return Err(("/sub", Reject::new(Code::Conflict, "there is a subscription of this name")));
            }
            if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
                let detail = format!("a connection has at most {SUBSCRIPTIONS_MAX} subscriptions");
                return Err(("/sub", Reject::new(Code::Unprocessable, detail)));
            }
            let feed = Feed::open(&self.context, choice).await.map_err(|reject| ("", reject))?;
            let said = json!({ "op": "subscribed", "sub": name, "seq": feed.next() });
            let name = quoted.into();
            // Most have one.
            self.subscriptions.reserve_exact(1);
            self.subscriptions.push(Subscription {
                name,
                feed,
                credit: credit.map(|credit| Box::new(Credit::new(credit))),
            });
            return Ok(said);
        }
        let Some(place) = place else {
            return Err(("/sub", Reject::new(Code::NotFound, "there is no subscription of this name")));
        };
        let subscription = &mut self.subscriptions[place];
        match op {
            Op::Unsubscribe => {
                self.subscriptions.swap_remove(place);
                Ok(json!({ "op": "unsubscribed", "sub": name }))
            }
            Op::Seek(start) => {
                subscription.feed.seek(start).await.map_err(|reject| ("/to", reject))?;
                if let Some(credit) = &mut subscription.credit {
                    credit.forget();
                }
                Ok(json!({ "op": "sought", "sub": name, "seq": subscription.feed.next() }))
            }
            Op::Ack(position) => {
                let covered = self.context.read(move |reader| position.covers(reader)).await;
                let covered = covered.map_err(|reject| ("/id", reject))?;
                let (confirmed, left) = subscription
                    .credit
                    .as_mut()
                    .map_or((0, 0), |credit| (credit.confirm(covered), credit.unconfirmed()));
                Ok(json!({ "op": "acked", "sub": name, "id": position.to_string(),
                    "confirmed": confirmed, "unconfirmed": left }))
            }
            Op::Credit(more) => {
                let Some(credit) = &mut subscription.credit else {
                    return Err(("/n", Reject::new(Code::Conflict, "this subscription has no bound")));
                };
                credit.grant(more);
                Ok(json!({ "op": "credited", "sub": name, "credit": credit.left() }))
            }
            Op::Subscribe { .. } => Err(("/op", Reject::new(Code::Internal, "handled before"))),
        }
    }

    /// Pings when it is time, and ends a connection whose last ping came to nothing.
    fn ping(&mut self) -> Result<(), Close> {
        if self.pinged.elapsed() < PING {
            return Ok(());
        }
        if self.heard < self.pinged {
            return Err(NO_PONG);
        }
        codec::write_ping(&mut self.out);
        self.pinged = Instant::now();
        Ok(())
    }

    fn say(&mut self, said: &Value) {
        codec::write_text(&[said.to_string().as_bytes()], &mut self.out);
    }

    fn refuse(&mut self, sub: Option<&str>, pointer: &str, reject: &Reject) {
        let problem = reject.problem();
        let mut said = json!({
            "op": "error",
            "code": problem.code.word(),
            "detail": problem.detail,
            "pointer": pointer,
        });
        if let Some(sub) = sub {
            said["sub"] = sub.into();
        }
        self.say(&said);
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.out);
        write_all(&mut self.io, &bytes, self.stall).await.map_err(|error| {
            if error.kind() == std::io::ErrorKind::TimedOut {
                self.context.metrics.dropped("stalled", 1);
            }
            End::Gone
        })
    }
}
