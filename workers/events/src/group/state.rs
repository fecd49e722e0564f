//! The state of one group. Pure: times are arguments, what happened comes out as facts, and a fact is the only
//! thing that changes what is kept.
//!
//! A group holds its place in the stream and the messages between: those handed out and not done, those that wait
//! for one before them with the same key. Everything before the place that is not held is done, dead or refused by
//! the filter; everything from the place on has not been looked at.
//!
//! With an order key, a key has one message at a time that is open (ready, leased, delayed or about to die); the
//! others wait in order. Settling the open one opens the next. So a failing message holds up its key alone.

mod happened;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};

use crate::log::MessageId;

use super::fact::{Fact, Fresh, Gap, Leased, Phase, Redriven, Snapshot, Totals};
use super::settings::Settings;

/// A message of a group.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Place of its event in the stream.
    pub(crate) seq: u64,
    /// Deliveries so far.
    pub(crate) attempts: u32,
    /// Where it stands.
    pub(crate) phase: Phase,
    /// Who had it last.
    pub(crate) holder: Option<Arc<str>>,
    /// Why it failed last, when a consumer said so.
    pub(crate) reason: Option<Box<str>>,
    /// It comes from a replay.
    pub(crate) is_replay: bool,
    key: Option<Arc<str>>,
}

/// Who takes messages of a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Consumer {
    /// Messages it holds.
    pub(crate) leased: usize,
    /// When it was heard of last, in milliseconds since 1970.
    pub(crate) seen_ms: u64,
}

/// The messages of one key.
#[derive(Clone, Debug, Default)]
struct Lane {
    open: Option<MessageId>,
    waiting: BTreeSet<MessageId>,
}

/// What became of the ids of a call.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Settled {
    /// Ids that the consumer held.
    pub(crate) known: Vec<MessageId>,
    /// Ids that it did not hold.
    pub(crate) unknown: Vec<MessageId>,
}

/// The state of one group.
#[derive(Clone, Debug)]
pub(crate) struct State {
    settings: Settings,
    created_ms: u64,
    /// Seq of the next event to look at.
    place: u64,
    last: Option<MessageId>,
    totals: Totals,
    gap: Option<Gap>,
    messages: BTreeMap<MessageId, Message>,
    due: BTreeSet<(u64, MessageId)>,
    ready: BTreeSet<MessageId>,
    doomed: BTreeSet<MessageId>,
    lanes: HashMap<Arc<str>, Lane>,
    /// Messages that were never handed out.
    undelivered: usize,
    consumers: BTreeMap<Arc<str>, Consumer>,
}

impl State {
    /// A new group at a place.
    pub(crate) fn new(settings: Settings, place: u64, created_ms: u64) -> Self {
        Self {
            settings,
            created_ms,
            place,
            last: None,
            totals: Totals::default(),
            gap: None,
            messages: BTreeMap::new(),
            due: BTreeSet::new(),
            ready: BTreeSet::new(),
            doomed: BTreeSet::new(),
            lanes: HashMap::new(),
            undelivered: 0,
            consumers: BTreeMap::new(),
        }
    }

    /// The state of a snapshot, before its messages.
    pub(crate) fn restored(snapshot: Snapshot) -> Self {
        let mut state = Self::new(snapshot.settings, snapshot.place, snapshot.created_ms);
        state.last = snapshot.last.map(|(ms, n)| MessageId { ms, n });
        state.totals = snapshot.totals;
        state.gap = snapshot.gap;
        state
    }

    // What is so.

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(crate) fn created_ms(&self) -> u64 {
        self.created_ms
    }

    pub(crate) fn place(&self) -> u64 {
        self.place
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// What no consumer has been told of yet.
    pub(crate) fn gap(&self) -> Option<Gap> {
        self.gap
    }

    /// The newest message that was taken up.
    pub(crate) fn last(&self) -> Option<MessageId> {
        self.last
    }

    pub(crate) fn message(&self, id: MessageId) -> Option<&Message> {
        self.messages.get(&id)
    }

    /// Messages held, whatever their phase.
    pub(crate) fn held(&self) -> usize {
        self.messages.len()
    }

    /// Messages handed out at least once and not settled.
    pub(crate) fn pending(&self) -> usize {
        self.messages.len() - self.undelivered
    }

    /// Messages taken up and never handed out.
    pub(crate) fn waiting(&self) -> usize {
        self.undelivered
    }

    /// The oldest message that is not settled.
    pub(crate) fn oldest(&self) -> Option<MessageId> {
        self.messages.keys().next().copied()
    }

    pub(crate) fn consumers(&self) -> &BTreeMap<Arc<str>, Consumer> {
        &self.consumers
    }

    /// Messages that can be handed out, oldest first.
    pub(crate) fn ready(&self) -> impl Iterator<Item = MessageId> {
        self.ready.iter().copied()
    }

    pub(crate) fn ready_count(&self) -> usize {
        self.ready.len()
    }

    /// Whether an event with this key could be handed out at once.
    pub(crate) fn is_free(&self, key: Option<&str>) -> bool {
        key.is_none_or(|key| !self.lanes.contains_key(key))
    }

    /// Messages that are to become dead letters.
    pub(crate) fn doomed(&self) -> Vec<MessageId> {
        self.doomed.iter().copied().collect()
    }

    /// When [`State::expire`] has something to do next.
    pub(crate) fn next_due_ms(&self) -> Option<u64> {
        self.due.first().map(|(ms, _)| *ms)
    }

    // What is asked for.

    /// Ends what is over by now.
    pub(crate) fn expire(&mut self, now_ms: u64) -> Option<Fact> {
        let mut entered = Vec::new();
        while let Some((at_ms, id)) = self.due.first().copied().filter(|(ms, _)| *ms <= now_ms) {
            let Some(message) = self.messages.get(&id) else {
                self.due.pop_first();
                continue;
            };
            let spent = message.attempts >= self.settings.max_deliver;
            match message.phase {
                Phase::Leased(_) | Phase::Delayed(_) if spent => self.set(id, Phase::Doomed),
                Phase::Leased(_) => {
                    let pause_ms = self.settings.backoff_ms(message.attempts);
                    self.set(id, Phase::Delayed(at_ms.saturating_add(pause_ms)));
                }
                Phase::Scheduled(_) => {
                    self.due.pop_first();
                    entered.push(id);
                }
                _ => self.set(id, Phase::Ready),
            }
        }
        if entered.is_empty() {
            return None;
        }
        let fact = Fact::Entered { ids: entered };
        self.apply(&fact, now_ms);
        Some(fact)
    }

    /// Notes that everything before a seq was looked at and nothing of it wanted. Not a fact: looking again does
    /// no harm.
    pub(crate) fn advance(&mut self, upto: u64) {
        self.place = self.place.max(upto);
    }

    /// Goes back to a place: the stream ends before the group's, because another stream took the place of it.
    pub(crate) fn rewind(&mut self, place: u64) -> Fact {
        let fact = Fact::Rewound { place };
        self.apply(&fact, 0);
        fact
    }

    /// Hands messages to a consumer.
    pub(crate) fn lease(&mut self, consumer: &str, ids: &[MessageId], now_ms: u64) -> Fact {
        let messages = ids
            .iter()
            .filter_map(|id| Some(Leased { id: *id, attempts: self.messages.get(id)?.attempts + 1 }))
            .collect();
        let until_ms = now_ms.saturating_add(self.settings.ack_wait_ms);
        let fact = Fact::Leased { consumer: consumer.into(), until_ms, messages };
        self.apply(&fact, now_ms);
        fact
    }

    /// Notes that a consumer is there.
    pub(crate) fn see(&mut self, consumer: &str, now_ms: u64) {
        let name = self.consumer(consumer);
        if let Some(consumer) = self.consumers.get_mut(&name) {
            consumer.seen_ms = consumer.seen_ms.max(now_ms);
        }
    }

    /// Forgets consumers that hold nothing and were not heard of since then.
    pub(crate) fn forget_before(&mut self, ms: u64) {
        self.consumers.retain(|_, consumer| consumer.leased > 0 || consumer.seen_ms >= ms);
    }

    /// Settles messages. A consumer that comes late settles what nobody else has been given in the meantime.
    pub(crate) fn ack(&mut self, consumer: &str, ids: &[MessageId], now_ms: u64) -> (Settled, Option<Fact>) {
        let settled = self.sort(consumer, ids, false);
        self.settled(settled, now_ms, |ids| Fact::Acked { ids })
    }

    /// Gives messages back as failed. They are handed out again after `delay_ms`, or after the group's pause.
    pub(crate) fn nack(
        &mut self,
        consumer: &str,
        ids: &[MessageId],
        delay_ms: Option<u64>,
        reason: Option<&str>,
        now_ms: u64,
    ) -> (Settled, Vec<Fact>) {
        let settled = self.sort(consumer, ids, true);
        let mut by_pause: BTreeMap<u64, Vec<MessageId>> = BTreeMap::new();
        for id in &settled.known {
            let attempts = self.messages.get(id).map_or(1, |message| message.attempts);
            let spent = attempts >= self.settings.max_deliver;
            let pause_ms =
                if spent { 0 } else { delay_ms.unwrap_or_else(|| self.settings.backoff_ms(attempts)) };
            by_pause.entry(pause_ms).or_default().push(*id);
        }
        let facts: Vec<Fact> = by_pause
            .into_iter()
            .map(|(pause_ms, ids)| Fact::Delayed {
                until_ms: now_ms.saturating_add(pause_ms),
                reason: reason.map(Into::into),
                ids,
            })
            .collect();
        for fact in &facts {
            self.apply(fact, now_ms);
        }
        (settled, facts)
    }

    /// Lets leases go on for another ack wait.
    pub(crate) fn extend(
        &mut self,
        consumer: &str,
        ids: &[MessageId],
        now_ms: u64,
    ) -> (Settled, Option<Fact>) {
        let settled = self.sort(consumer, ids, true);
        let until_ms = now_ms.saturating_add(self.settings.ack_wait_ms);
        self.settled(settled, now_ms, |ids| Fact::Extended { until_ms, ids })
    }

    /// Takes leases back that did not reach their consumer.
    pub(crate) fn release(&mut self, consumer: &str, ids: &[MessageId], now_ms: u64) -> Option<Fact> {
        let settled = self.sort(consumer, ids, true);
        self.settled(settled, now_ms, |ids| Fact::Released { ids }).1
    }

    /// A dead letter that finds no room stays a message, and is tried again then. Not a fact: it follows again.
    pub(crate) fn postpone(&mut self, id: MessageId, until_ms: u64) {
        if self.doomed.contains(&id) {
            self.set(id, Phase::Delayed(until_ms));
        }
    }

    /// A message became a dead letter.
    pub(crate) fn bury(&mut self, id: MessageId) {
        if self.remove(id).is_some() {
            self.totals.dead += 1;
        }
    }

    fn settled(
        &mut self,
        settled: Settled,
        now_ms: u64,
        fact: impl FnOnce(Vec<MessageId>) -> Fact,
    ) -> (Settled, Option<Fact>) {
        if settled.known.is_empty() {
            return (settled, None);
        }
        let fact = fact(settled.known.clone());
        self.apply(&fact, now_ms);
        (settled, Some(fact))
    }

    /// Tells the ids that a consumer holds from the others.
    fn sort(&self, consumer: &str, ids: &[MessageId], leased: bool) -> Settled {
        let mut settled = Settled::default();
        let mut seen = BTreeSet::new();
        for id in ids {
            if !seen.insert(*id) {
                continue;
            }
            let holds = self.messages.get(id).is_some_and(|message| {
                let is_leased = matches!(message.phase, Phase::Leased(_));
                message.holder.as_deref() == Some(consumer) && message.attempts > 0 && (is_leased || !leased)
            });
            (if holds { &mut settled.known } else { &mut settled.unknown }).push(*id);
        }
        settled
    }
}

/// The dead letters of a redrive as facts: `per_s` of them a second.
pub(crate) fn paced(fresh: Vec<Fresh>, per_s: Option<f64>, now_ms: u64) -> Vec<Redriven> {
    let at_ms = |index: usize| per_s.map_or(now_ms, |per_s| now_ms + (index as f64 * 1e3 / per_s) as u64);
    fresh.into_iter().enumerate().map(|(index, fresh)| Redriven { fresh, at_ms: at_ms(index) }).collect()
}
