//! What happened to a group, and what that makes of its state.

use std::sync::Arc;

use super::super::fact::{Fact, Fresh, Gap, Held, Leased, Phase, Snapshot};
use super::super::settings::{OrderKey, Settings};
use super::{Consumer, Message, State};
use crate::log::MessageId;

impl State {
    /// Changes the state as a fact says.
    pub(crate) fn apply(&mut self, fact: &Fact, now_ms: u64) {
        match fact {
            Fact::Created { .. } | Fact::Deleted | Fact::Purged | Fact::Snapshot(_) => {}
            Fact::Changed { settings } => self.change(settings),
            Fact::Taken { upto, fresh } => {
                self.place = self.place.max(*upto);
                for one in fresh {
                    self.last = self.last.max(Some(one.id));
                    self.insert(one, Phase::Ready);
                    self.enter(one.id);
                }
            }
            Fact::Skipped { expected, got } => {
                self.place = self.place.max(*got);
                self.missed(*expected, *got, got.saturating_sub(*expected));
            }
            Fact::Leased { consumer, until_ms, messages } => {
                self.leased(consumer, *until_ms, messages, now_ms);
            }
            Fact::Acked { ids } => {
                for id in ids {
                    self.totals.acked += u64::from(self.remove(*id).is_some());
                }
            }
            Fact::Delayed { until_ms, reason, ids } => {
                for id in ids {
                    self.set(*id, Phase::Delayed(*until_ms));
                    if let Some(message) = self.messages.get_mut(id) {
                        message.reason = Some(reason.clone().unwrap_or_else(|| "nacked".into()));
                    }
                }
            }
            Fact::Extended { until_ms, ids } => {
                for id in ids {
                    self.set(*id, Phase::Leased(*until_ms));
                }
            }
            Fact::Released { ids } => {
                for id in ids {
                    self.released(*id);
                }
            }
            Fact::Lost { ids } => {
                for id in ids {
                    if let Some(message) = self.remove(*id) {
                        self.missed(message.seq, message.seq + 1, 1);
                    }
                }
            }
            Fact::Rewound { place } => {
                self.place = self.place.min(*place);
                self.last = None;
                let beyond = self.messages.iter().filter(|(_, message)| message.seq >= *place);
                let ids = beyond.map(|(id, _)| *id).collect();
                self.apply(&Fact::Lost { ids }, now_ms);
            }
            Fact::Redriven { letters } => {
                for letter in letters {
                    self.insert(&letter.fresh, Phase::Scheduled(letter.at_ms));
                }
            }
            Fact::Replayed { fresh } => {
                for one in fresh {
                    // One that is held goes on as it is.
                    if self.messages.contains_key(&one.id) {
                        continue;
                    }
                    self.insert(one, Phase::Ready);
                    if let Some(message) = self.messages.get_mut(&one.id) {
                        message.is_replay = true;
                    }
                    self.enter(one.id);
                }
            }
            Fact::Entered { ids } => {
                for id in ids {
                    self.enter(*id);
                }
            }
            Fact::Held { messages } => {
                for held in messages {
                    self.restore(held);
                }
            }
        }
    }

    /// The facts that give this state.
    pub(crate) fn snapshot(&self) -> [Fact; 2] {
        let head = Snapshot {
            settings: self.settings.clone(),
            created_ms: self.created_ms,
            place: self.place,
            last: self.last.map(|id| (id.ms, id.n)),
            totals: self.totals,
            gap: self.gap,
        };
        let messages = self.messages.iter().map(|(id, message)| message.held(*id)).collect();
        [Fact::Snapshot(Box::new(head)), Fact::Held { messages }]
    }

    fn leased(&mut self, consumer: &str, until_ms: u64, messages: &[Leased], now_ms: u64) {
        self.gap = None;
        self.see(consumer, now_ms);
        let holder = self.consumer(consumer);
        for one in messages {
            let Some(message) = self.messages.get_mut(&one.id) else { continue };
            self.undelivered -= usize::from(message.attempts == 0);
            message.attempts = one.attempts;
            // Taken out of its phase first: a lease that ended counts for who had it.
            self.set(one.id, Phase::Ready);
            if let Some(message) = self.messages.get_mut(&one.id) {
                message.holder = Some(Arc::clone(&holder));
                message.reason = None;
            }
            self.set(one.id, Phase::Leased(until_ms));
            self.totals.delivered += 1;
            self.totals.redelivered += u64::from(one.attempts > 1);
        }
    }

    fn released(&mut self, id: MessageId) {
        self.set(id, Phase::Ready);
        let Some(message) = self.messages.get_mut(&id) else { return };
        message.attempts = message.attempts.saturating_sub(1);
        message.holder = None;
        self.undelivered += usize::from(message.attempts == 0);
        self.totals.delivered = self.totals.delivered.saturating_sub(1);
        self.totals.redelivered = self.totals.redelivered.saturating_sub(u64::from(message.attempts > 0));
    }

    fn missed(&mut self, expected: u64, got: u64, events: u64) {
        self.totals.skipped += events;
        let gap = self.gap.get_or_insert(Gap { expected, got, events: 0 });
        gap.expected = gap.expected.min(expected);
        gap.got = gap.got.max(got);
        gap.events += events;
    }

    fn change(&mut self, settings: &Settings) {
        self.settings = settings.clone();
        if settings.order_key == OrderKey::Symbol {
            // What is held already goes on without order.
            return;
        }
        self.lanes.clear();
        let ids: Vec<MessageId> = self.messages.keys().copied().collect();
        for id in ids {
            let Some(message) = self.messages.get_mut(&id) else { continue };
            message.key = None;
            if message.phase == Phase::Waiting {
                self.set(id, Phase::Ready);
            }
        }
    }

    pub(super) fn consumer(&mut self, name: &str) -> Arc<str> {
        if let Some((known, _)) = self.consumers.get_key_value(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.consumers.insert(Arc::clone(&name), Consumer::default());
        name
    }

    fn insert(&mut self, fresh: &Fresh, phase: Phase) {
        if self.messages.contains_key(&fresh.id) {
            return;
        }
        let key = fresh.key.as_deref().filter(|_| self.settings.order_key == OrderKey::Symbol).map(|key| {
            self.lanes.get_key_value(key).map_or_else(|| key.into(), |(known, _)| Arc::clone(known))
        });
        let message = Message {
            seq: fresh.seq,
            attempts: 0,
            phase: Phase::Waiting,
            holder: None,
            reason: None,
            is_replay: false,
            key,
        };
        self.messages.insert(fresh.id, message);
        self.undelivered += 1;
        if phase != Phase::Ready {
            self.set(fresh.id, phase);
        }
    }

    /// A message joins its lane.
    fn enter(&mut self, id: MessageId) {
        let Some(message) = self.messages.get(&id) else { return };
        let phase = match message.key.clone() {
            None => Phase::Ready,
            Some(key) => {
                let lane = self.lanes.entry(key).or_default();
                if lane.open.is_none_or(|open| open == id) {
                    lane.open = Some(id);
                    Phase::Ready
                } else {
                    lane.waiting.insert(id);
                    Phase::Waiting
                }
            }
        };
        self.set(id, phase);
    }

    fn restore(&mut self, held: &Held) {
        // Its phase comes last: what is counted by consumer needs the holder.
        self.insert(&held.f, Phase::Ready);
        let id = held.f.id;
        let holder = held.c.as_deref().map(|name| self.consumer(name));
        let Some(message) = self.messages.get_mut(&id) else { return };
        message.attempts = held.n;
        message.reason.clone_from(&held.r);
        message.is_replay = held.y;
        message.holder = holder;
        self.undelivered -= usize::from(held.n > 0);
        let key = message.key.clone();
        if let Some(key) = key.filter(|_| !matches!(held.p, Phase::Scheduled(_))) {
            let lane = self.lanes.entry(key).or_default();
            if held.p == Phase::Waiting {
                lane.waiting.insert(id);
            } else {
                lane.open = Some(id);
            }
        }
        self.set(id, held.p);
    }

    /// Takes a message out; the next one of its key is opened.
    pub(super) fn remove(&mut self, id: MessageId) -> Option<Message> {
        self.set(id, Phase::Waiting);
        let message = self.messages.remove(&id)?;
        self.undelivered -= usize::from(message.attempts == 0);
        if let Some(key) = &message.key
            && let Some(lane) = self.lanes.get_mut(key)
        {
            lane.waiting.remove(&id);
            if lane.open == Some(id) {
                lane.open = lane.waiting.pop_first();
                if let Some(next) = lane.open {
                    self.set(next, Phase::Ready);
                } else {
                    self.lanes.remove(key);
                }
            }
        }
        Some(message)
    }

    /// Puts a message into a phase, and into what is kept by phase.
    pub(super) fn set(&mut self, id: MessageId, phase: Phase) {
        let Some(message) = self.messages.get_mut(&id) else { return };
        let before = std::mem::replace(&mut message.phase, phase);
        for (one, is_new) in [(before, false), (phase, true)] {
            match one {
                Phase::Leased(ms) | Phase::Delayed(ms) | Phase::Scheduled(ms) if is_new => {
                    self.due.insert((ms, id));
                }
                Phase::Leased(ms) | Phase::Delayed(ms) | Phase::Scheduled(ms) => {
                    self.due.remove(&(ms, id));
                }
                Phase::Ready if is_new => {
                    self.ready.insert(id);
                }
                Phase::Ready => {
                    self.ready.remove(&id);
                }
                Phase::Doomed if is_new => {
                    self.doomed.insert(id);
                }
                Phase::Doomed => {
                    self.doomed.remove(&id);
                }
                Phase::Waiting => {}
            }
            if matches!(one, Phase::Leased(_))
                && let Some(consumer) =
                    message.holder.as_ref().and_then(|holder| self.consumers.get_mut(holder))
            {
                consumer.leased =
                    if is_new { consumer.leased + 1 } else { consumer.leased.saturating_sub(1) };
            }
        }
    }
}

impl Message {
    fn held(&self, id: MessageId) -> Held {
        Held {
            f: Fresh { id, seq: self.seq, key: self.key.as_deref().map(Into::into) },
            n: self.attempts,
            p: self.phase,
            c: self.holder.as_deref().map(Into::into),
            r: self.reason.clone(),
            y: self.is_replay,
        }
    }
}
