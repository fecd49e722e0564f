//! Alerts: who is to be told of what the system itself says, by mail, chat or webhook.
//!
//! A consumer of the group [`GROUP`] like any other: it leases the events that may be alerts ([`alert`]), leaves
//! each with the targets that want it ([`sender`]) and acknowledges it when every one of them has taken it, refused
//! it for good, or need not be told. What is not acknowledged is handed out again, also after a restart.

mod alert;
mod gate;
mod mail;
mod post;
mod queue;
mod render;
mod sender;
mod target;
#[cfg(test)]
mod tests;
mod trust;

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use sluice_schema::Notify;
use tokio::task::JoinSet;

use crate::context::Context;
use crate::engine::{ReadError, Reader};
use crate::group::{Ask, Delivery, Event, GroupError, How, Lease, Selector, Settings, Settle, Start};
use crate::log::{Filter, MessageId};
use alert::Alert;
use sender::{Done, Mailbox, Sender, Ticket, Time};
use target::Target;
use trust::Trust;

/// The consumer group of the alerts.
pub(crate) const GROUP: &str = "notifications";
/// The only consumer in it.
const CONSUMER: &str = "notify";
/// Messages leased at once.
const LEASE_MAX: usize = 100;
/// How long one lease waits for messages.
const LEASE_WAIT: Duration = Duration::from_secs(20);
/// Time the group gives for a message, and how often it is asked for again while targets wait.
const ACK_WAIT_MS: u64 = 30_000;
const EXTEND_PERIOD: Duration = Duration::from_secs(10);
/// Deliveries of a message: each start of the process may be one.
const MAX_DELIVER: u32 = 100;
/// Pause after the group could not be asked.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// LIMIT: how long the start waits for the group; later it is asked for again.
const PREPARE_MAX: Duration = Duration::from_secs(2);
/// LIMIT: how long the end waits for messages that are being sent.
const DRAIN: Duration = Duration::from_secs(2);
/// LIMIT: what is older than this when it is read alerts nobody.
const STALE_MS: u64 = 24 * 3_600_000;
/// LIMIT: alerts taken up after a restart, and events looked at for them.
const BEFORE_MAX: usize = 2_000;
const BEFORE_LOOKS_MAX: u64 = 100_000;

type Leasing = Pin<Box<dyn Future<Output = Result<Lease, GroupError>> + Send>>;

/// Follows the group for the targets.
pub(crate) struct Notifier {
    context: Arc<Context>,
    time: Time,
    mailboxes: Vec<Arc<Mailbox>>,
    senders: Vec<Sender>,
    /// Whether the group is there.
    prepared: bool,
    /// It was said that it is not.
    is_down: bool,
    /// Messages that targets are not done with.
    held: BTreeSet<MessageId>,
    done: Arc<Done>,
}

impl Notifier {
    /// A notifier whose group is there from here on, so that what is published next alerts; `None` without targets.
    pub(crate) async fn prepare(context: &Arc<Context>, targets: &[Notify]) -> Option<Self> {
        if targets.is_empty() {
            return None;
        }
        let Ok(trust) = tokio::task::spawn_blocking(Trust::of_machine).await else { return None };
        let time = Time::start();
        let results = &context.metrics.notify.results;
        let mut senders = Vec::with_capacity(targets.len());
        for (index, notify) in targets.iter().enumerate() {
            let (number, kind) = (index + 1, notify.kind.as_str());
            match Target::new(notify, &trust) {
                Ok(target) => {
                    senders.push(Sender::new(target, number, results.clone(), time, context.stop.clone()));
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(component = "notify", number, kind, error, "a target is told nothing");
                }
            }
        }
        if senders.is_empty() {
            return None;
        }
        let done = Arc::new(Done::default());
        let mailboxes = senders.iter().map(Sender::mailbox).collect();
        let (context, held) = (Arc::clone(context), BTreeSet::new());
        let mut notifier =
            Self { context, time, mailboxes, senders, prepared: false, is_down: false, held, done };
        let put = tokio::time::timeout(PREPARE_MAX, notifier.put()).await;
        if let Err(error) = put.unwrap_or(Err(GroupError::Busy("the groups do not answer yet"))) {
            notifier.down(&error);
        }
        Some(notifier)
    }

    /// Follows the group until the process is to end.
    pub(crate) async fn run(mut self) {
        let mut tasks = JoinSet::new();
        for sender in std::mem::take(&mut self.senders) {
            tasks.spawn(sender.run());
        }
        let mut leasing: Option<Leasing> = None;
        while !self.context.stop.is_stopping() {
            let Err(error) = self.follow(&mut leasing).await else { break };
            self.down(&error);
            tokio::select! {
                () = tokio::time::sleep(RETRY_AFTER) => {}
                () = self.context.stop.wait() => {}
            }
        }
        // What is being sent may end; the rest is for the next process.
        drop(tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await);
        // What was handed out this moment goes back with the rest.
        if let Some(Ok(lease)) = leasing.and_then(FutureExt::now_or_never) {
            self.held.extend(lease.messages.iter().map(|message| message.id));
        }
        if tokio::time::timeout(DRAIN, self.give_back()).await.is_err() {
            tracing::warn!(component = "notify", "alerts that wait come again when their leases have ended");
        }
    }

    /// Acknowledges what is done, and lets go of the rest at once.
    async fn give_back(&mut self) {
        // A failure has been answered with the same as the time running out: the leases end by themselves.
        drop(self.settle_done().await);
        let left = std::mem::take(&mut self.held).into_iter().collect();
        drop(self.settle(left, How::Nack { delay_ms: Some(0), reason: None }).await);
    }

    /// Leases, hands on and acknowledges until something fails or the process is to end.
    async fn follow(&mut self, leasing: &mut Option<Leasing>) -> Result<(), GroupError> {
        if !self.prepared {
            self.put().await?;
        }
        let stop = self.context.stop.clone();
        let mut extend = tokio::time::interval(EXTEND_PERIOD);
        loop {
            // A lease that is given up half-way would keep its messages from everybody for a while.
            let lease = leasing.get_or_insert_with(|| lease(&self.context));
            tokio::select! {
                () = stop.wait() => return Ok(()),
                leased = lease => {
                    *leasing = None;
                    self.take(leased?).await?;
                }
                () = self.done.wait() => self.settle_done().await?,
                _ = extend.tick() => {
                    self.settle(self.held.iter().copied().collect(), How::Extend).await?;
                }
            }
            self.context.metrics.notify.waiting.set(self.held.len() as i64);
        }
    }

    /// Makes sure of the group. Where it was there, what was told before this start is taken up.
    async fn put(&mut self) -> Result<(), GroupError> {
        let kinds = alert::TYPES.iter().map(|kind| (*kind).into()).collect();
        let settings = Settings {
            ack_wait_ms: ACK_WAIT_MS,
            max_deliver: MAX_DELIVER,
            backoff_ms: vec![1_000],
            filter: Selector { kinds, ..Selector::default() },
            ..Settings::default()
        };
        let put = self.context.groups.put(GROUP, settings, Start::Now).await?;
        if !put.created && !self.senders.is_empty() {
            let since_ms = self.time.now_ms().saturating_sub(STALE_MS);
            let place = put.report.place;
            let before = self.context.read(move |reader| before(reader, place, since_ms)).await;
            for (alert, at_ms) in before.unwrap_or_default() {
                for sender in &mut self.senders {
                    sender.before(&alert, at_ms);
                }
            }
        }
        self.prepared = true;
        self.is_down = false;
        self.context.metrics.notify.following.set(1);
        tracing::info!(component = "notify", targets = self.mailboxes.len(), "alerts are followed");
        Ok(())
    }

    /// Hands messages to the targets. What alerts nobody is acknowledged with the rest.
    async fn take(&mut self, lease: Lease) -> Result<(), GroupError> {
        let stale_ms = self.time.now_ms().saturating_sub(STALE_MS);
        let mut settled = Vec::new();
        for Delivery { id, event, .. } in lease.messages {
            let alert = match &event {
                Event::Stored(record) => alert::alert(id, record.json()),
                Event::Kept { json, .. } => alert::alert(id, json),
            };
            let Some(alert) = alert.filter(|_| id.ms >= stale_ms) else {
                settled.push(id);
                continue;
            };
            // A lease that ran out is handed out again while its targets still wait.
            if self.held.insert(id) {
                let (alert, done) = (Arc::new(alert), Arc::clone(&self.done));
                let ticket = Arc::new(Ticket { id, done });
                self.mailboxes.iter().for_each(|mailbox| mailbox.leave(&alert, &ticket));
            }
        }
        self.settle(settled, How::Ack).await
    }

    /// Acknowledges what every target is done with.
    async fn settle_done(&mut self) -> Result<(), GroupError> {
        let ids = self.done.take();
        for id in &ids {
            self.held.remove(id);
        }
        self.settle(ids, How::Ack).await
    }

    async fn settle(&self, ids: Vec<MessageId>, how: How) -> Result<(), GroupError> {
        if ids.is_empty() {
            return Ok(());
        }
        let settle = Settle { consumer: CONSUMER.into(), ids, how, readable: Filter::default() };
        self.context.groups.settle(GROUP, settle).await.map(drop)
    }

    /// Nobody is told of alerts for now. The group is asked for anew: somebody may have removed it.
    fn down(&mut self, error: &GroupError) {
        self.prepared = false;
        self.context.metrics.notify.following.set(0);
        if !std::mem::replace(&mut self.is_down, true) {
            let error = error as &dyn std::error::Error;
            tracing::warn!(
                component = "notify",
                error,
                "nobody is told of alerts: their group cannot be asked"
            );
        }
    }
}

fn lease(context: &Context) -> Leasing {
    let groups = context.groups.clone();
    Box::pin(async move {
        let ask = |answer| Ask {
            consumer: CONSUMER.into(),
            max: LEASE_MAX,
            until: Instant::now() + LEASE_WAIT,
            readable: Filter::default(),
            answer,
        };
        groups.lease(GROUP, ask).await
    })
}

/// The alerts before a place that are not older than a time, newest first, with when they were stored.
fn before(reader: &Reader, place: u64, since_ms: u64) -> Result<Vec<(Alert, u64)>, ReadError> {
    let wanted =
        Filter { kinds: alert::TYPES.iter().map(|kind| (*kind).into()).collect(), ..Filter::default() };
    let mut scan = reader.backward(place, wanted).pausing_after(BEFORE_LOOKS_MAX);
    let mut found = Vec::new();
    while found.len() < BEFORE_MAX {
        let Some(record) = scan.next()? else { break };
        let id = record.stamp.id;
        if id.ms < since_ms {
            break;
        }
        found.extend(alert::alert(id, record.json()).map(|alert| (alert, id.ms)));
    }
    Ok(found)
}
