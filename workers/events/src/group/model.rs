//! The state of a group against what a naive observer writes down: random publishes, leases, acks, nacks, waits,
//! deaths, redrives, changes and crashes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::log::MessageId;

use super::fact::{Fact, Fresh, Phase};
use super::settings::{OrderKey, Settings};
use super::state::{State, paced};

const MAX_DELIVER: u32 = 3;
const ACK_WAIT_MS: u64 = 100;
const BACKOFF_MS: [u64; 2] = [10, 40];
const CONSUMERS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Op {
    Publish { symbol: u8, count: u8 },
    Lease { consumer: u8, max: u8 },
    Ack { pick: u8, consumer: u8 },
    Nack { pick: u8, delay_ms: Option<u8> },
    Extend { pick: u8 },
    Release { pick: u8 },
    Wait { ms: u8 },
    Redrive { per_s: bool },
    Snapshot,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0..4_u8, 1..4_u8).prop_map(|(symbol, count)| Op::Publish { symbol, count }),
        5 => (0..3_u8, 1..5_u8).prop_map(|(consumer, max)| Op::Lease { consumer, max }),
        3 => (any::<u8>(), 0..3_u8).prop_map(|(pick, consumer)| Op::Ack { pick, consumer }),
        2 => (any::<u8>(), any::<Option<u8>>()).prop_map(|(pick, delay_ms)| Op::Nack { pick, delay_ms }),
        1 => any::<u8>().prop_map(|pick| Op::Extend { pick }),
        1 => any::<u8>().prop_map(|pick| Op::Release { pick }),
        4 => any::<u8>().prop_map(|ms| Op::Wait { ms }),
        1 => any::<bool>().prop_map(|per_s| Op::Redrive { per_s }),
        1 => Just(Op::Snapshot),
        2 => Just(Op::Crash),
    ]
}

/// What the observer knows of a message.
#[derive(Clone, Debug, Default)]
struct Seen {
    symbol: u8,
    deliveries: u32,
    acked: bool,
    dead: bool,
    redriven: bool,
    /// Who has it, and until when.
    lease: Option<(&'static str, u64)>,
    /// It is not handed out before.
    not_before_ms: u64,
}

struct World {
    state: State,
    /// What a journal would hold since the last snapshot; `None` stands for a burial.
    journal: Vec<(Option<Fact>, MessageId)>,
    seen: BTreeMap<MessageId, Seen>,
    now_ms: u64,
    by_symbol: bool,
}

fn settings(by_symbol: bool) -> Settings {
    Settings {
        ack_wait_ms: ACK_WAIT_MS,
        max_deliver: MAX_DELIVER,
        backoff_ms: BACKOFF_MS.to_vec(),
        order_key: if by_symbol { OrderKey::Symbol } else { OrderKey::None },
        ..Settings::default()
    }
}

fn backoff_ms(deliveries: u32) -> u64 {
    BACKOFF_MS[(deliveries as usize - 1).min(BACKOFF_MS.len() - 1)]
}

impl World {
    fn new(by_symbol: bool) -> Self {
        let state = State::new(settings(by_symbol), 1, 0);
        let created = Fact::Created { settings: settings(by_symbol), place: 1, at_ms: 0 };
        let journal = vec![(Some(created), MessageId::default())];
        Self { state, journal, seen: BTreeMap::new(), now_ms: 1_000, by_symbol }
    }

    fn note(&mut self, facts: impl IntoIterator<Item = Fact>) {
        self.journal.extend(facts.into_iter().map(|fact| (Some(fact), MessageId::default())));
    }

    /// What the keeper does at the beginning of each turn.
    fn tick(&mut self) {
        let fact = self.state.expire(self.now_ms);
        self.note(fact);
        for id in self.state.doomed() {
            self.state.bury(id);
            self.journal.push((None, id));
            let seen = self.seen.get_mut(&id).unwrap();
            assert!(!seen.acked && !seen.dead, "{id} dies once");
            assert_eq!(seen.deliveries, MAX_DELIVER, "{id} dies after its last delivery");
            assert!(seen.lease.is_none_or(|(_, until_ms)| until_ms <= self.now_ms), "{id} is not in use");
            (seen.dead, seen.redriven, seen.lease) = (true, false, None);
        }
        for seen in self.seen.values_mut() {
            if let Some((_, until_ms)) = seen.lease.filter(|(_, until_ms)| *until_ms <= self.now_ms) {
                seen.not_before_ms = until_ms + backoff_ms(seen.deliveries);
                seen.lease = None;
            }
        }
    }

    fn leased(&self) -> Vec<MessageId> {
        self.seen.iter().filter(|(_, seen)| seen.lease.is_some()).map(|(id, _)| *id).collect()
    }

    fn picked(&self, pick: u8) -> Option<(MessageId, &'static str)> {
        let leased = self.leased();
        let id = *leased.get(usize::from(pick) % leased.len().max(1))?;
        Some((id, self.seen[&id].lease?.0))
    }

    fn deliver(&mut self, consumer: &'static str, max: usize) -> usize {
        let ids: Vec<MessageId> = self.state.ready().take(max).collect();
        for id in &ids {
            let seen = &self.seen[id];
            assert!(!seen.acked, "{id} comes after its ack");
            assert!(!seen.dead, "{id} comes after its death");
            assert!(seen.lease.is_none(), "{id} is somebody's");
            assert!(seen.not_before_ms <= self.now_ms, "{id} comes before its time");
            assert!(seen.deliveries < MAX_DELIVER, "{id} comes too often");
            if self.by_symbol && seen.symbol > 0 {
                let same = self
                    .seen
                    .iter()
                    .filter(|(other, seen)| *other != id && seen.symbol == self.seen[id].symbol);
                for (other, same) in same {
                    assert!(same.lease.is_none(), "{other} and {id} are out together");
                    let is_before = other < id && !same.redriven && !seen.redriven;
                    assert!(!is_before || same.acked || same.dead, "{id} overtakes {other}");
                }
            }
            // One of a symbol at a time, also within one lease.
            let seen = self.seen.get_mut(id).unwrap();
            seen.deliveries += 1;
            seen.lease = Some((consumer, self.now_ms + ACK_WAIT_MS));
        }
        if !ids.is_empty() {
            let fact = self.state.lease(consumer, &ids, self.now_ms);
            self.note([fact]);
        }
        ids.len()
    }

    fn publish(&mut self, symbol: u8, count: u8) {
        let fresh: Vec<Fresh> = (0..count)
            .map(|_| {
                let seq = self.seen.len() as u64 + 1;
                let id = MessageId { ms: seq, n: 0 };
                self.seen.insert(id, Seen { symbol, ..Seen::default() });
                let key = (self.by_symbol && symbol > 0).then(|| symbol.to_string().into());
                Fresh { id, seq, key }
            })
            .collect();
        let fact = Fact::Taken { upto: self.seen.len() as u64 + 1, fresh };
        self.state.apply(&fact, self.now_ms);
        self.note([fact]);
    }

    fn step(&mut self, op: &Op) {
        self.tick();
        match *op {
            Op::Publish { symbol, count } => self.publish(symbol, count),
            Op::Lease { consumer, max } => {
                self.deliver(CONSUMERS[usize::from(consumer)], usize::from(max));
            }
            Op::Ack { pick, consumer } => {
                let Some((id, holder)) = self.picked(pick) else { return };
                let consumer = CONSUMERS[usize::from(consumer)];
                let (settled, fact) = self.state.ack(consumer, &[id, id], self.now_ms);
                assert_eq!(settled.known.len(), usize::from(consumer == holder));
                assert_eq!(settled.unknown.len(), usize::from(consumer != holder));
                self.note(fact);
                if consumer == holder {
                    let seen = self.seen.get_mut(&id).unwrap();
                    (seen.acked, seen.lease) = (true, None);
                }
            }
            Op::Nack { pick, delay_ms } => {
                let Some((id, holder)) = self.picked(pick) else { return };
                let delay_ms = delay_ms.map(u64::from);
                let (settled, facts) = self.state.nack(holder, &[id], delay_ms, Some("no"), self.now_ms);
                assert_eq!(settled.known, [id]);
                self.note(facts);
                let seen = self.seen.get_mut(&id).unwrap();
                seen.lease = None;
                let last = seen.deliveries == MAX_DELIVER;
                let pause_ms = delay_ms.unwrap_or_else(|| backoff_ms(seen.deliveries));
                seen.not_before_ms = if last { u64::MAX } else { self.now_ms + pause_ms };
            }
            Op::Extend { pick } => {
                let Some((id, holder)) = self.picked(pick) else { return };
                let (settled, fact) = self.state.extend(holder, &[id], self.now_ms);
                assert_eq!(settled.known, [id]);
                self.note(fact);
                self.seen.get_mut(&id).unwrap().lease = Some((holder, self.now_ms + ACK_WAIT_MS));
            }
            Op::Release { pick } => {
                let Some((id, holder)) = self.picked(pick) else { return };
                let fact = self.state.release(holder, &[id], self.now_ms);
                self.note(fact);
                let seen = self.seen.get_mut(&id).unwrap();
                seen.deliveries -= 1;
                (seen.lease, seen.not_before_ms) = (None, 0);
            }
            Op::Wait { ms } => self.now_ms += u64::from(ms),
            Op::Redrive { per_s } => self.redrive(per_s),
            Op::Snapshot => {
                let facts = self.state.snapshot();
                self.journal.clear();
                self.note(facts);
            }
            Op::Crash => self.crash(),
        }
        self.check();
    }

    fn redrive(&mut self, per_s: bool) {
        let dead: Vec<Fresh> = self
            .seen
            .iter()
            .filter(|(_, seen)| seen.dead)
            .map(|(id, seen)| Fresh {
                id: *id,
                seq: id.ms,
                key: (self.by_symbol && seen.symbol > 0).then(|| seen.symbol.to_string().into()),
            })
            .collect();
        let letters = paced(dead, per_s.then_some(20.0), self.now_ms);
        for letter in &letters {
            let seen = self.seen.get_mut(&letter.fresh.id).unwrap();
            (seen.dead, seen.redriven, seen.deliveries) = (false, true, 0);
            seen.not_before_ms = letter.at_ms;
        }
        let fact = Fact::Redriven { letters };
        self.state.apply(&fact, self.now_ms);
        self.note([fact]);
    }

    /// Everything in memory is lost, and read back.
    fn crash(&mut self) {
        let mut state = State::new(settings(self.by_symbol), 1, 0);
        for (fact, id) in &self.journal {
            // Written and read, as the journal does it.
            let fact = fact.as_ref().map(|fact| serde_json::to_vec(fact).unwrap());
            match fact.map(|text| serde_json::from_slice::<Fact>(&text).unwrap()) {
                None => state.bury(*id),
                Some(Fact::Snapshot(snapshot)) => state = State::restored(*snapshot),
                Some(fact) => state.apply(&fact, self.now_ms),
            }
        }
        assert_eq!(state.expire(self.now_ms), None, "what enters is written down");
        assert_eq!(state.snapshot(), self.state.snapshot(), "the journal gives the state");
        let leased = |state: &State| state.consumers().values().map(|one| one.leased).sum::<usize>();
        assert_eq!(leased(&state), leased(&self.state));
        self.state = state;
    }

    fn check(&self) {
        let open = self.seen.iter().filter(|(_, seen)| !seen.acked && !seen.dead);
        let held: Vec<MessageId> = open.clone().map(|(id, _)| *id).collect();
        assert_eq!(self.state.held(), held.len());
        let delivered = open.clone().filter(|(_, seen)| seen.deliveries > 0).count();
        assert_eq!(self.state.pending(), delivered);
        for id in held {
            let message = self.state.message(id).unwrap_or_else(|| panic!("{id} is held"));
            assert_eq!(message.attempts, self.seen[&id].deliveries);
            let leased = matches!(message.phase, Phase::Leased(until_ms) if until_ms > self.now_ms);
            let known = self.seen[&id].lease.is_some_and(|(_, until_ms)| until_ms > self.now_ms);
            assert_eq!(leased, known, "{id} is {:?}", message.phase);
        }
        let leased: usize = self.state.consumers().values().map(|one| one.leased).sum();
        let phases = self.seen.keys().filter_map(|id| self.state.message(*id));
        assert_eq!(leased, phases.filter(|message| matches!(message.phase, Phase::Leased(_))).count());
    }

    /// Everything is handed out and acknowledged in the end: nothing is stuck.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            self.tick();
            if self.state.held() == 0 {
                break;
            }
            self.deliver("a", 100);
            for id in self.leased() {
                let holder = self.seen[&id].lease.unwrap().0;
                let (settled, fact) = self.state.ack(holder, &[id], self.now_ms);
                assert_eq!(settled.known, [id]);
                self.note(fact);
                let seen = self.seen.get_mut(&id).unwrap();
                (seen.acked, seen.lease) = (true, None);
            }
            self.now_ms += 50;
        }
        assert!(self.seen.values().all(|seen| seen.acked != seen.dead), "{:?}", self.seen);
        assert_eq!((self.state.held(), self.state.waiting(), self.state.pending()), (0, 0, 0));
        assert_eq!((self.state.ready_count(), self.state.next_due_ms()), (0, None));
        assert!((0..4_u8).all(|symbol| self.state.is_free(Some(&symbol.to_string()))), "no lane is left");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_message_is_acked_or_dead_once(by_symbol in any::<bool>(), ops in proptest::collection::vec(op(), 1..120)) {
        let mut world = World::new(by_symbol);
        for op in &ops {
            world.step(op);
        }
        world.tick();
        world.crash();
        world.drain();
    }
}

#[test]
fn a_late_ack_counts_until_somebody_else_has_the_message() {
    let mut world = World::new(false);
    world.publish(0, 2);
    world.deliver("a", 2);
    let ids: Vec<MessageId> = world.seen.keys().copied().collect();
    world.now_ms += ACK_WAIT_MS + 50;
    world.tick();
    let (settled, _) = world.state.ack("a", &ids[..1], world.now_ms);
    assert_eq!(settled.known, ids[..1]);
    let leased = world.state.lease("b", &ids[1..], world.now_ms);
    assert!(matches!(leased, Fact::Leased { ref messages, .. } if messages[0].attempts == 2));
    let (settled, _) = world.state.ack("a", &ids, world.now_ms);
    assert_eq!((settled.known.len(), settled.unknown.len()), (0, 2));
}

#[test]
fn order_can_be_given_up_for_what_waits() {
    let mut world = World::new(true);
    world.publish(1, 3);
    assert_eq!(world.state.ready_count(), 1);
    let fact = Fact::Changed { settings: settings(false) };
    world.state.apply(&fact, 0);
    assert_eq!(world.state.ready_count(), 3);
    world.state.apply(&Fact::Changed { settings: settings(true) }, 0);
    assert_eq!(world.state.ready_count(), 3);
}

#[test]
fn what_retention_took_is_told_once() {
    let mut world = World::new(false);
    world.state.apply(&Fact::Skipped { expected: 1, got: 5 }, 0);
    world.publish(0, 1);
    let id = *world.seen.keys().next().unwrap();
    world.state.apply(&Fact::Lost { ids: vec![id] }, 0);
    let gap = world.state.gap().unwrap();
    assert_eq!((gap.expected, gap.got, gap.events), (1, 5, 5));
    world.state.lease("a", &[], 0);
    assert_eq!((world.state.gap(), world.state.totals().skipped), (None, 5));
}
