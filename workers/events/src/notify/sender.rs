//! One target's alerts, one after the other: a target that fails is asked again ever more seldom, and keeps nobody
//! else waiting.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounterVec;
use sluice_http::Stop;
use tokio::sync::Notify;

use super::alert::{Alert, Level, State};
use super::gate::{Gate, Limits};
use super::queue::{Gone, Queue, Waiting};
use super::target::{Target, Told};
use crate::log::{Clock as _, MessageId, SystemClock};

/// How often a target is told: ten at once, then one every six seconds; the same alert every ten minutes.
const LIMITS: Limits = Limits { burst: 10, every_ms: 6_000, repeat_ms: 600_000 };
/// First pause after a failure; it doubles up to [`PAUSE_MAX_MS`].
const PAUSE_MIN_MS: u64 = 500;
const PAUSE_MAX_MS: u64 = 60_000;
/// LIMIT: how long a target is asked to take one alert.
const GIVE_UP_MS: u64 = 3_600_000;

/// A clock that begins with the wall's time and never goes back.
#[derive(Clone, Copy)]
pub(super) struct Time {
    wall_ms: u64,
    begun: Instant,
}

impl Time {
    pub(super) fn start() -> Self {
        Self { wall_ms: SystemClock.now_ms(), begun: Instant::now() }
    }

    pub(super) fn now_ms(self) -> u64 {
        self.wall_ms + self.begun.elapsed().as_millis() as u64
    }
}

/// A message that waits for targets: says so when the last of them is done with it.
pub(super) struct Ticket {
    pub(super) id: MessageId,
    pub(super) done: Arc<Done>,
}

/// Messages that every target is done with. There are no more of them than messages held.
#[derive(Default)]
pub(super) struct Done {
    ids: Mutex<Vec<MessageId>>,
    bell: Notify,
}

impl Done {
    /// Returns when there may be some.
    pub(super) async fn wait(&self) {
        self.bell.notified().await;
    }

    /// Takes them.
    pub(super) fn take(&self) -> Vec<MessageId> {
        std::mem::take(&mut self.ids.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.done.ids.lock().unwrap_or_else(PoisonError::into_inner).push(self.id);
        self.done.bell.notify_one();
    }
}

/// Where alerts for one target are left.
pub(super) struct Mailbox {
    queue: Mutex<Queue<Arc<Ticket>>>,
    bell: Notify,
    kind: &'static str,
    level: Level,
    results: IntCounterVec,
    time: Time,
}

impl Mailbox {
    /// Leaves an alert, unless it is not for this target.
    pub(super) fn leave(&self, alert: &Arc<Alert>, ticket: &Arc<Ticket>) {
        if !self.wants(alert) {
            return self.count("below_level");
        }
        let gone = self.queue().push(Arc::clone(alert), Arc::clone(ticket), self.time.now_ms());
        self.account(gone);
        self.bell.notify_one();
    }

    /// An end is told to whom the beginning was told, which the gate knows.
    fn wants(&self, alert: &Alert) -> bool {
        alert.state == State::Resolved || alert.level >= self.level
    }

    fn account(&self, gone: Option<Gone>) {
        match gone {
            Some(Gone::Superseded) => self.count("superseded"),
            Some(Gone::LeftOut) => self.count("left_out"),
            None => {}
        }
    }

    pub(super) fn count(&self, result: &str) {
        self.results.with_label_values(&[self.kind, result]).inc();
    }

    fn queue(&self) -> MutexGuard<'_, Queue<Arc<Ticket>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells one target.
pub(super) struct Sender {
    target: Target,
    /// Which of the configured ones, from 1: its address is mostly a secret.
    number: usize,
    mailbox: Arc<Mailbox>,
    gate: Gate,
    failures: u32,
    retry_at_ms: u64,
    stop: Stop,
}

/// What there is to do.
enum Next {
    Nothing,
    In(u64),
    Tell(Waiting<Arc<Ticket>>),
}

impl Sender {
    pub(super) fn new(target: Target, number: usize, results: IntCounterVec, time: Time, stop: Stop) -> Self {
        let (kind, level) = (target.kind.as_str(), target.level);
        let (queue, bell) = (Mutex::default(), Notify::new());
        let mailbox = Arc::new(Mailbox { queue, bell, kind, level, results, time });
        let gate = Gate::new(LIMITS);
        Self { target, number, mailbox, gate, failures: 0, retry_at_ms: 0, stop }
    }

    pub(super) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&self.mailbox)
    }

    /// Takes up what a process before this one told; newest first.
    pub(super) fn before(&mut self, alert: &Alert, at_ms: u64) {
        if self.mailbox.wants(alert) {
            self.gate.before(alert, at_ms);
        }
    }

    /// Tells what is left in the mailbox until the process is to end.
    pub(super) async fn run(mut self) {
        while !self.stop.is_stopping() {
            match self.next() {
                Next::Tell(waiting) => self.tell(waiting).await,
                Next::In(ms) => {
                    tokio::select! {
                        () = tokio::time::sleep(Duration::from_millis(ms)) => {}
                        () = self.stop.wait() => {}
                    }
                }
                Next::Nothing => {
                    tokio::select! {
                        () = self.mailbox.bell.notified() => {}
                        () = self.stop.wait() => {}
                    }
                }
            }
        }
    }

    fn next(&mut self) -> Next {
        let now_ms = self.mailbox.time.now_ms();
        let mut queue = self.mailbox.queue();
        if queue.is_empty() {
            return Next::Nothing;
        }
        let wait_ms = self.retry_at_ms.saturating_sub(now_ms).max(self.gate.wait_ms(now_ms));
        if wait_ms > 0 {
            return Next::In(wait_ms);
        }
        while let Some(waiting) = queue.take() {
            if self.gate.is_known(&waiting.alert, now_ms) {
                self.mailbox.count("repeated");
            } else if now_ms.saturating_sub(waiting.since_ms) > GIVE_UP_MS {
                self.mailbox.count("gave_up");
            } else {
                return Next::Tell(waiting);
            }
        }
        Next::Nothing
    }

    async fn tell(&mut self, waiting: Waiting<Arc<Ticket>>) {
        let left_out = self.mailbox.queue().left_out();
        let told = self.target.tell(&waiting.alert, left_out).await;
        let now_ms = self.mailbox.time.now_ms();
        match told {
            Told::Delivered => {
                self.gate.told(&waiting.alert, now_ms);
                self.mailbox.queue().admitted(left_out);
                self.mailbox.count("delivered");
                drop(waiting.ticket);
                self.well();
            }
            Told::Refused(why) => {
                self.gate.refused(now_ms);
                self.mailbox.count("refused");
                let (number, kind, event_id) =
                    (self.number, self.mailbox.kind, waiting.alert.event_id.as_str());
                tracing::error!(
                    component = "notify",
                    number,
                    kind,
                    event_id,
                    why,
                    "a target refuses an alert"
                );
                self.well();
            }
            Told::Later { why, after, may_have } => {
                if may_have {
                    self.gate.tried(&waiting.alert, now_ms);
                }
                self.mailbox.count("failed");
                self.failed(&why, after, now_ms);
                let gone = self.mailbox.queue().put_back(waiting);
                self.mailbox.account(gone);
            }
        }
    }

    fn failed(&mut self, why: &str, after: Option<Duration>, now_ms: u64) {
        let pause_ms = (PAUSE_MIN_MS << self.failures.min(16)).min(PAUSE_MAX_MS);
        let pause_ms = after.map_or(pause_ms, |after| pause_ms.max(after.as_millis() as u64));
        self.retry_at_ms = now_ms + pause_ms;
        self.failures += 1;
        let (number, kind) = (self.number, self.mailbox.kind);
        // Once for each time that it breaks: the metric counts the rest.
        if self.failures == 1 {
            tracing::warn!(component = "notify", number, kind, why, pause_ms, "a target cannot be told");
        } else {
            tracing::debug!(component = "notify", number, kind, why, pause_ms, "a target cannot be told yet");
        }
    }

    fn well(&mut self) {
        if self.failures > 0 {
            let (number, kind, tries) = (self.number, self.mailbox.kind, self.failures);
            tracing::info!(component = "notify", number, kind, tries, "a target can be told again");
        }
        self.failures = 0;
    }
}
