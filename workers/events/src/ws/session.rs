//! One WebSocket, from its first message to its close.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Value, json};
use sluice_http::{Io, Reject, Standing, Taken};
use sluice_wire::code::Code;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, sleep_until, timeout};

use super::codec::{self, Close, Decoder, MESSAGE_MAX, Message};
use super::credit::Credit;
use super::ops::{self, Op};
use crate::context::Context;
use crate::log::Filter;
use crate::stream::PIECE_BYTES;
use crate::stream::feed::{Feed, Step};
use crate::stream::out::{Form, Out};
use crate::stream::pace::Pace;
use crate::stream::sse::{ends, retry_ms, watch, write_all};

/// LIMIT: subscriptions of a connection.
pub(super) const SUBSCRIPTIONS_MAX: usize = 32;
/// LIMIT: messages of a client a second, and at once.
const MESSAGES: (f64, u32) = (50.0, 200);
/// Between two pings; as long again may the answer take.
const PING: Duration = Duration::from_secs(20);
/// How long a client may take for its own close.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often a connection that is never at rest looks whether it still may go on.
const LOOK: Duration = Duration::from_secs(1);

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

struct Subscription {
    name: String,
    /// The name as JSON.
    quoted: String,
    feed: Feed,
    credit: Option<Credit>,
}

/// What all subscriptions together wait for.
#[derive(Clone, Copy)]
struct Rest {
    /// The lowest seq that one waits for.
    seq: u64,
    until: Option<Instant>,
}

/// An open WebSocket.
pub(super) struct Session {
    context: Arc<Context>,
    io: Box<dyn Io>,
    decoder: Decoder,
    readable: Filter,
    subscriptions: Vec<Subscription>,
    out: Vec<u8>,
    pace: Pace,
    begun: Instant,
    /// When the client was last heard.
    heard: Instant,
    pinged: Instant,
    stall: Duration,
}

impl Session {
    pub(super) fn new(context: Arc<Context>, taken: Taken, readable: Filter, stall: Duration) -> Self {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(&taken.early);
        let now = Instant::now();
        Self {
            context,
            io: taken.io,
            decoder,
            readable,
            subscriptions: Vec::new(),
            out: Vec::new(),
            pace: Pace::new(MESSAGES.0, MESSAGES.1, Duration::ZERO),
            begun: now,
            heard: now,
            pinged: now,
            stall,
        }
    }

    pub(super) async fn run(mut self, standing: Standing) {
        let end = self.converse(standing).await;
        let (code, reason) = match end {
            End::Gone => return,
            End::Closed(code) => (code, String::new()),
            End::Told(code, reason) => {
                if code != 1012 {
                    let word = reason.split(';').next().unwrap_or_default();
                    self.context.metrics.dropped(word, 1);
                }
                (code, reason)
            }
        };
        self.subscriptions.clear();
        codec::write_close(code, &reason, &mut self.out);
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

    async fn converse(&mut self, standing: Standing) -> End {
        let context = Arc::clone(&self.context);
        let mut heads = context.hub.heads();
        let mut stopping = std::pin::pin!(context.stop.wait());
        let mut lost = watch(&standing);
        let mut looked = Instant::now();
        loop {
            if context.stop.is_stopping() {
                return End::Told(1012, format!("draining; retry_ms={}", retry_ms()));
            }
            if lost.is_some() && looked.elapsed() >= LOOK {
                looked = Instant::now();
                if let Some(ended) = standing.ended() {
                    return End::Told(1008, ended.as_str().to_owned());
                }
            }
            if let Err(end) = self.hear().await {
                return end;
            }
            let rest = self.deliver().await;
            if let Err(end) = self.flush().await {
                return end;
            }
            let Some(rest) = rest else {
                // There is more: a look at what the client says, without waiting for it.
                let read = self.read().now_or_never();
                if let Some(Err(end)) = read {
                    return end;
                }
                tokio::task::yield_now().await;
                continue;
            };
            let due = self.pinged + PING;
            let due = rest.until.map_or(due, |until| until.min(due));
            tokio::select! {
                read = self.read() => if let Err(end) = read {
                    return end;
                },
                // An error means that the hub is gone, which happens only at the end.
                () = async { drop(heads.wait_for(|head| *head >= rest.seq).await) } => {}
                () = &mut stopping => {}
                ended = ends(&mut lost) => return End::Told(1008, ended.as_str().to_owned()),
                () = sleep_until(due) => {}
            }
            if let Err(close) = self.ping() {
                return close.into();
            }
        }
    }

    /// Waits for bytes of the client.
    async fn read(&mut self) -> Result<(), End> {
        let mut bytes = [0; 512];
        match self.io.read(&mut bytes).await {
            Ok(0) | Err(_) => Err(End::Gone),
            Ok(count) => {
                self.decoder.buffer().extend_from_slice(&bytes[..count]);
                self.heard = Instant::now();
                Ok(())
            }
        }
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
        let (name, op) = match ops::read(text, &self.readable) {
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
        let place = self.subscriptions.iter().position(|one| one.name == name);
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
            let (name, quoted) = (name.to_owned(), Value::from(name).to_string());
            self.subscriptions.push(Subscription { name, quoted, feed, credit: credit.map(Credit::new) });
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

    /// Each subscription's next step; what they wait for when none has more.
    async fn deliver(&mut self) -> Option<Rest> {
        let (mut rest, mut more) = (Rest { seq: u64::MAX, until: None }, false);
        let mut over = Vec::new();
        let metrics = Arc::clone(&self.context.metrics);
        let until = |rest: &mut Rest, until: Option<Instant>| {
            rest.until = [rest.until, until].into_iter().flatten().min();
        };
        for (place, subscription) in self.subscriptions.iter_mut().enumerate() {
            // The last ones get their turn: who wrote much is last in the next round.
            if self.out.len() >= 4 * PIECE_BYTES {
                more = true;
                break;
            }
            let Subscription { quoted, feed, credit, .. } = subscription;
            let form = Form::Socket { name: quoted, credit: credit.as_mut() };
            let mut out = Out::new(&mut self.out, form, &metrics);
            let step = match feed.step(&mut out) {
                Step::Behind => match feed.catch_up(&mut out).await {
                    Ok(()) => Step::More,
                    Err(_) => Step::Over("unreadable"),
                },
                step => step,
            };
            match step {
                Step::More | Step::Behind => more = true,
                Step::Wait(seq, at) => {
                    rest.seq = rest.seq.min(seq);
                    until(&mut rest, at);
                }
                Step::Held(at) => until(&mut rest, at),
                Step::Over(reason) => {
                    out.notice("disconnect", json!({ "reason": reason }), None);
                    metrics.dropped(reason, 1);
                    over.push(place);
                }
            }
        }
        for place in over.into_iter().rev() {
            self.subscriptions.remove(place);
        }
        if more && self.subscriptions.len() > 1 {
            self.subscriptions.rotate_left(1);
        }
        (!more).then_some(rest)
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
