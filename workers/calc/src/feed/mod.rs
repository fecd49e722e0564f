//! Candles of the event worker, into the stored series.
//!
//! `candle_closed` comes through a consumer group: a candle is leased, stored durably, and then acknowledged. What was
//! stored and not yet acknowledged when the worker died comes again and is a repetition, so each candle is applied
//! once. A candle that other numbers are stored for already (somebody has imported them) is counted as a conflict and
//! acknowledged: what is stored stays. So is one that the limits of the store leave no room for, and one that is no
//! bar, each with a line of the log; the event worker keeps them.
//!
//! While the store cannot write for the moment, messages are kept by extending their leases. While the event worker is
//! away it is asked again after a pause. Where none is configured there is no feed. At the end, what is held and not
//! stored goes back at once.
//!
//! Bars among the market data become open candles ([`open`]): nothing depends on them, so they are not acknowledged.

mod bar;
mod open;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use prometheus::{IntCounter, IntGauge};
use sluice_client::{Client, ClientError, Leased};
use sluice_http::Stop;
use sluice_wire::event::SERIES_GROUP;
use tokio::task::JoinSet;

use crate::bounds::FEED_AT_ONCE;
use crate::context::Context;
use crate::series::{Append, Applied, Candle, Fault, SeriesKey, Store};

/// The only consumer of the group.
const CONSUMER: &str = "calc";
/// Messages of one lease.
const LEASE_MAX: usize = 1_000;
/// How long a lease waits for messages.
const LEASE_WAIT: Duration = Duration::from_secs(30);
/// Pause after the event worker or the store could not be used; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// Less than the group's time for a message, so that leases are extended before they end.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// LIMIT: how long giving back holds the end up.
const GIVE_BACK: Duration = Duration::from_secs(1);

/// Follows the event worker for the store until dropped or asked to end.
pub(crate) struct Feed {
    tasks: JoinSet<()>,
}

/// What is counted.
#[derive(Clone)]
pub(crate) struct Counts {
    /// 1 while candles are leased.
    pub(crate) following: IntGauge,
    /// Candles that could not be stored.
    pub(crate) dropped: IntCounter,
}

/// One feed of closed candles.
struct Closed {
    client: Client,
    context: Arc<Context>,
    counts: Counts,
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

impl Feed {
    /// Begins to follow.
    pub(crate) fn start(client: Client, context: &Arc<Context>, counts: Counts, stop: Stop) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(open::run(client.clone(), Arc::clone(context), stop.clone()));
        let closed = Closed { client, context: Arc::clone(context), counts, stop, is_down: false };
        tasks.spawn(closed.run());
        Self { tasks }
    }

    /// Waits until what is held was given back; the process was asked to end before.
    pub(crate) async fn end(mut self) {
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(GIVE_BACK * 2, ended).await);
        self.tasks.shutdown().await;
    }
}

impl Closed {
    async fn run(mut self) {
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
        self.counts.following.set(0);
    }

    /// Leases, stores and acknowledges until something fails or the process is to end.
    async fn follow(&mut self, pause: &mut Duration) -> Halt {
        loop {
            let leased = tokio::select! {
                () = self.stop.wait() => return Halt::Ends,
                leased = self.client.lease(SERIES_GROUP, CONSUMER, LEASE_MAX, LEASE_WAIT) => leased,
            };
            let messages = match leased {
                Ok(lease) => lease.messages,
                Err(error) => return Halt::Away(error),
            };
            self.up();
            *pause = PAUSE_MIN;
            if let Err(halt) = self.take(messages).await {
                return halt;
            }
        }
    }

    /// Stores what was leased, and acknowledges it.
    async fn take(&self, messages: Vec<Leased>) -> Result<(), Halt> {
        for piece in messages.chunks(FEED_AT_ONCE) {
            let ids: Vec<String> = piece.iter().map(|message| message.message_id.clone()).collect();
            let bars = self.bars(piece);
            tokio::select! {
                () = self.stop.wait() => {
                    let back = self.client.nack(SERIES_GROUP, CONSUMER, &ids, Duration::ZERO);
                    // What is not given back comes again when its lease has ended.
                    drop(tokio::time::timeout(GIVE_BACK, back).await);
                    return Err(Halt::Ends);
                }
                stored = self.store(bars, &ids) => stored?,
            }
            self.client.ack(SERIES_GROUP, CONSUMER, &ids).await?;
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
                    self.counts.dropped.inc();
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
            self.client.extend(SERIES_GROUP, CONSUMER, ids).await?;
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
                Ok(applied) => told(&key, &applied),
                Err(Fault::Limit(why)) => {
                    self.counts.dropped.inc_by(candles.len() as u64);
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
        self.counts.following.set(1);
        if std::mem::take(&mut self.is_down) {
            tracing::info!(component = "feed", "candles are followed again");
        }
    }

    fn down(&mut self, error: &ClientError) {
        self.counts.following.set(0);
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
