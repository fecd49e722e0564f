//! Closed candles: leased, stored, acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use sluice_client::{Client, ClientError, Leased};
use sluice_http::Stop;

use super::{GIVE_BACK, PAUSE_MAX, PAUSE_MIN, Seat, bar};
use crate::bounds::FEED_AT_ONCE;
use crate::context::Context;
use crate::series::{Append, Applied, Candle, Fault, SeriesKey, Store};

/// Messages of one lease.
const LEASE_MAX: usize = 1_000;
/// How long a lease waits for messages.
const LEASE_WAIT: Duration = Duration::from_secs(30);
/// Time for a message. Storing one takes milliseconds, and so long a worker that comes back waits for what it held.
const ACK_WAIT: &str = "5s";
/// Deliveries of a message: each start of the worker may be one.
const DELIVER_MAX: u32 = 1_000;
/// Pause before a message is handed out again.
const BACKOFF: &str = "1s";

/// One feed of closed candles.
pub(super) struct Closed {
    client: Client,
    context: Arc<Context>,
    seat: Seat,
    stop: Stop,
    is_down: bool,
}

/// Why leased candles are not stored.
enum Halt {
    /// The worker ends.
    Ends,
    /// The event worker cannot be asked.
    Away(ClientError),
}

impl From<ClientError> for Halt {
    fn from(error: ClientError) -> Self {
        Self::Away(error)
    }
}

impl Closed {
    pub(super) const fn new(client: Client, context: Arc<Context>, seat: Seat, stop: Stop) -> Self {
        Self { client, context, seat, stop, is_down: false }
    }

    /// Follows until the process is to end.
    pub(super) async fn run(mut self) {
        let mut pause = PAUSE_MIN;
        while !self.stop.is_stopping() {
            match self.follow(&mut pause).await {
                Halt::Ends => break,
                Halt::Away(error) => self.down(&error),
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
                () = self.stop.wait() => {}
            }
        }
        self.context.feed.halts();
    }

    /// Makes sure of the group, then leases, stores and acknowledges until something fails or the process is to end.
    async fn follow(&mut self, pause: &mut Duration) -> Halt {
        let joined = tokio::select! {
            () = self.stop.wait() => return Halt::Ends,
            joined = self.join() => joined,
        };
        if let Err(error) = joined {
            return Halt::Away(error);
        }
        self.up();
        loop {
            let leased = tokio::select! {
                () = self.stop.wait() => return Halt::Ends,
                leased = self.client.lease(&self.seat.group, &self.seat.consumer, LEASE_MAX, LEASE_WAIT) => leased,
            };
            let messages = match leased {
                Ok(lease) => lease.messages,
                Err(error) => return Halt::Away(error),
            };
            *pause = PAUSE_MIN;
            if let Err(halt) = self.take(messages).await {
                return halt;
            }
        }
    }

    /// Makes the group where there is none: at the first start, and where it was removed.
    async fn join(&self) -> Result<(), ClientError> {
        match self.client.progress(&self.seat.group).await {
            Ok(progress) => self.context.feed.looked(Some(progress)),
            Err(ClientError::Status { status: StatusCode::NOT_FOUND, .. }) => {
                self.client.make_group(&self.seat.group, &set_up()).await?;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Stores what was leased, and acknowledges it.
    async fn take(&self, messages: Vec<Leased>) -> Result<(), Halt> {
        for piece in messages.chunks(FEED_AT_ONCE) {
            let ids: Vec<String> = piece.iter().map(|message| message.message_id.clone()).collect();
            let bars = self.bars(piece);
            tokio::select! {
                () = self.stop.wait() => {
                    let back = self.client.nack(&self.seat.group, &self.seat.consumer, &ids, Duration::ZERO);
                    // What is not given back comes again when its lease has ended.
                    drop(tokio::time::timeout(GIVE_BACK, back).await);
                    return Err(Halt::Ends);
                }
                stored = self.store(bars, &ids) => stored?,
            }
            self.client.ack(&self.seat.group, &self.seat.consumer, &ids).await?;
        }
        Ok(())
    }

    /// The bars of messages by their series, each in the order of the stream.
    fn bars(&self, messages: &[Leased]) -> BTreeMap<SeriesKey, Vec<Candle>> {
        let mut bars: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for message in messages {
            match bar::bar(&message.event.event.data) {
                Ok((key, candle)) => bars.entry(key).or_default().push(candle),
                Err(why) => {
                    self.context.feed.dropped(1);
                    let message_id = &*message.message_id;
                    tracing::warn!(component = "feed", message_id, why, "a closed candle is no bar");
                }
            }
        }
        bars
    }

    /// Stores bars, all series at once: one sync of the disk does for them. Returns when there is none left.
    async fn store(&self, mut bars: BTreeMap<SeriesKey, Vec<Candle>>, ids: &[String]) -> Result<(), Halt> {
        let mut pause = PAUSE_MIN;
        loop {
            bars = self.store_once(bars).await;
            if bars.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
            self.client.extend(&self.seat.group, &self.seat.consumer, ids).await?;
        }
    }

    /// What is left to be tried again.
    async fn store_once(&self, bars: BTreeMap<SeriesKey, Vec<Candle>>) -> BTreeMap<SeriesKey, Vec<Candle>> {
        let appends = bars.into_iter().map(async |(key, candles)| {
            let stored = append(&self.context.series, &key, &candles).await;
            (key, candles, stored)
        });
        let mut left = BTreeMap::new();
        for (key, candles, stored) in join_all(appends).await {
            match stored {
                Ok(applied) => {
                    self.context.feed.stored(&applied);
                    told(&key, &applied);
                }
                Err(Fault::Limit(why)) => {
                    self.context.feed.dropped(candles.len());
                    tracing::warn!(
                        component = "feed",
                        series = key.text(),
                        why,
                        "a closed candle is not stored"
                    );
                }
                Err(fault) => {
                    let error = &fault as &dyn std::error::Error;
                    tracing::debug!(component = "feed", series = key.text(), error, "tried again");
                    left.insert(key, candles);
                }
            }
        }
        left
    }

    fn up(&mut self) {
        self.context.feed.follows();
        if std::mem::take(&mut self.is_down) {
            tracing::info!(component = "feed", "candles are followed again");
        }
    }

    fn down(&mut self, error: &ClientError) {
        self.context.feed.halts();
        if !std::mem::replace(&mut self.is_down, true) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(
                component = "feed",
                error,
                "stored series are not fed: the events cannot be asked for"
            );
        }
    }
}

/// How the group is set up. It begins with the oldest event: what was closed before the first start is in it too.
/// Candles of a symbol come one after the other, since rows of a series are only ever added at its end.
fn set_up() -> Value {
    json!({
        "start": "earliest",
        "ack_wait": ACK_WAIT,
        "max_deliver": DELIVER_MAX,
        "backoff": [BACKOFF],
        "order_key": "symbol",
        "filter": {"event_type": "candle_closed"},
    })
}

/// Stores closed candles of a series in their order.
async fn append(store: &Store, key: &SeriesKey, candles: &[Candle]) -> Result<Applied, Fault> {
    // The open bar of the market data is not closed by a later one: its closed candle comes too.
    let how = Append { last_is_open: false, closes_open: false };
    let ascends = candles.is_sorted_by(|before, after| before.time_ms < after.time_ms);
    if ascends {
        return store.append(key, candles.to_vec(), how).await;
    }
    // One that is late, or comes again in the same lease, is counted as what it is.
    let mut all = Applied::default();
    for candle in candles {
        let applied = store.append(key, vec![*candle], how).await?;
        all.added += applied.added;
        all.repeated += applied.repeated;
        all.conflicts.extend(applied.conflicts);
        all.late.extend(applied.late);
    }
    Ok(all)
}

/// What is stored stays; the difference is worth a line.
fn told(key: &SeriesKey, applied: &Applied) {
    for (begins, why) in [
        (&applied.conflicts, "a closed candle has other numbers than the stored row"),
        (&applied.late, "a closed candle is older than the newest row"),
    ] {
        if let Some(begin_ms) = begins.first() {
            tracing::warn!(
                component = "feed",
                series = key.text(),
                begin_ms,
                candles = begins.len(),
                "{why}; the stored series stays as it is"
            );
        }
    }
}
