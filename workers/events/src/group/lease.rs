//! Handing out messages: looking ahead in the stream for new ones, and reading the events of those that are due.

use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};

use crate::engine::{ReadError, Reader};
use crate::log::{MessageId, Record};

use super::Limits;
use super::command::{Ask, Delivery, Event, Lease};
use super::error::GroupError;
use super::fact::{Fact, Fresh};
use super::journal::{Journal, Letter};
use super::keeper::Keeper;
use super::settings::OrderKey;
use super::shelf::Shelf;
use super::state::State;

/// LIMIT: events looked at in one step, whether or not they are wanted. A group far behind goes on in the next one.
const LOOKS_MAX: u64 = 20_000;
/// LIMIT: events taken up in one step.
const FRESH_MAX: usize = 2_000;
/// LIMIT: bytes of the events of one lease.
const LEASE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What looking ahead found.
struct Look {
    facts: Vec<Fact>,
    records: HashMap<MessageId, Record>,
    /// There is nothing more to look at for now.
    ended: bool,
}

/// What can be handed out.
#[derive(Default)]
struct Pick {
    messages: Vec<Delivery>,
    /// Their events are gone.
    lost: Vec<MessageId>,
    /// Their events cannot be read.
    unreadable: Vec<MessageId>,
}

impl Keeper {
    /// Hands out what there is for a consumer; whether there is nothing more to look at for now.
    pub(super) fn lease(&mut self, name: &str, ask: &Ask) -> Result<(Lease, bool), GroupError> {
        let now_ms = self.now_ms();
        let group = self.groups.get_mut(name).ok_or(GroupError::Unknown)?;
        let state = &mut group.state;
        let mut look = look_ahead(state, &self.source, &self.limits, ask.max, self.room)?;
        let mut facts = std::mem::take(&mut look.facts);
        let pick = pick(name, state, ask, &self.limits, |id| match look.records.remove(&id) {
            Some(record) => Ok(Some(Event::Stored(record))),
            None => event_of(name, id, &self.source, &self.shelf, &self.journal),
        });
        if !pick.lost.is_empty() {
            tracing::warn!(
                component = "groups",
                group = name,
                messages = pick.lost.len(),
                "retention took events before they were acknowledged"
            );
            let fact = Fact::Lost { ids: pick.lost.clone() };
            state.apply(&fact, now_ms);
            facts.push(fact);
        }
        let gap = state.gap();
        let mut lease = Lease { messages: pick.messages, until_ms: 0, gap };
        if !lease.messages.is_empty() || gap.is_some() {
            let ids: Vec<MessageId> = lease.messages.iter().map(|message| message.id).collect();
            let fact = state.lease(&ask.consumer, &ids, now_ms);
            if let Fact::Leased { until_ms, .. } = &fact {
                lease.until_ms = *until_ms;
            }
            facts.push(fact);
        }
        for fact in facts {
            if let Fact::Taken { fresh, .. } = &fact {
                self.room = self.room.saturating_sub(fresh.len());
            }
            self.note(name, fact);
        }
        self.done(name, &pick.lost);
        for id in pick.unreadable {
            self.inter(name, id, "unreadable");
        }
        Ok((lease, look.ended))
    }
}

/// Takes up new events until so many messages can be handed out.
fn look_ahead(
    state: &mut State,
    source: &Reader,
    limits: &Limits,
    want: usize,
    room: usize,
) -> Result<Look, ReadError> {
    let mut look = Look { facts: Vec::new(), records: HashMap::new(), ended: true };
    let most = limits.waiting.saturating_sub(state.waiting()).min(FRESH_MAX).min(room);
    let room = limits.pending.saturating_sub(state.pending());
    let want = want.min(room);
    let mut free = state.ready_count();
    if free >= want || most == 0 {
        return Ok(look);
    }
    let settings = state.settings();
    let (selector, by_symbol) = (settings.filter.clone(), settings.order_key == OrderKey::Symbol);
    let mut scan = source.forward(state.place(), selector.scan_filter()).pausing_after(LOOKS_MAX);
    let (mut fresh, mut keys, mut bytes, mut looks) = (Vec::new(), HashSet::new(), 0, 0);
    let upto = loop {
        let Some(record) = scan.next()? else {
            look.ended = !scan.paused();
            break scan.position();
        };
        looks += 1;
        let seq = record.stamp.seq;
        if selector.admits(&record) {
            let id = record.stamp.id;
            let key: Option<Box<str>> =
                (by_symbol && !record.symbol().is_empty()).then(|| record.symbol().into());
            let is_free =
                state.is_free(key.as_deref()) && key.as_ref().is_none_or(|key| keys.insert(key.clone()));
            fresh.push(Fresh { id, seq, key });
            if is_free {
                free += 1;
                bytes += record.json().len();
                look.records.insert(id, record);
            }
        }
        if free >= want || fresh.len() >= most || bytes >= LEASE_BYTES_MAX || looks >= LOOKS_MAX {
            look.ended = false;
            break seq + 1;
        }
    };
    if let Some(trimmed) = scan.trimmed() {
        tracing::warn!(
            component = "groups",
            expected = trimmed.expected,
            got = trimmed.got,
            "retention passed the place of a consumer group"
        );
        look.facts.push(Fact::Skipped { expected: trimmed.expected, got: trimmed.got });
    }
    if !fresh.is_empty() {
        look.facts.push(Fact::Taken { upto, fresh });
    }
    for fact in &look.facts {
        state.apply(fact, 0);
    }
    state.advance(upto);
    Ok(look)
}

/// Chooses among the messages that can be handed out, oldest first.
fn pick(
    name: &str,
    state: &State,
    ask: &Ask,
    limits: &Limits,
    mut event: impl FnMut(MessageId) -> Result<Option<Event>, ReadError>,
) -> Pick {
    let mut pick = Pick::default();
    let (mut bytes, mut first_ones) = (0, limits.pending.saturating_sub(state.pending()));
    // Some may be of a type that this caller may not read: those are left to others.
    for id in state.ready().take(2 * ask.max + 64) {
        if pick.messages.len() >= ask.max || bytes >= LEASE_BYTES_MAX {
            break;
        }
        let Some(message) = state.message(id) else { continue };
        if message.attempts == 0 && first_ones == 0 {
            continue;
        }
        let marked = |event: Event| if message.is_replay { event.replayed() } else { event };
        match event(id).map(|event| event.map(marked)) {
            Ok(Some(event)) if ask.readable.admits_type(event.kind()) => {
                first_ones -= usize::from(message.attempts == 0);
                bytes += event.len();
                pick.messages.push(Delivery { id, attempts: message.attempts + 1, event });
            }
            Ok(Some(_)) => {}
            Ok(None) => pick.lost.push(id),
            Err(error) => {
                tracing::error!(
                    component = "groups",
                    group = name,
                    error = &error as &dyn std::error::Error,
                    "the event of a message cannot be read"
                );
                pick.unreadable.push(id);
            }
        }
    }
    pick
}

/// The event of a message: of a dead letter for a redriven one, else of the stream.
pub(super) fn event_of(
    name: &str,
    id: MessageId,
    source: &Reader,
    shelf: &Shelf,
    journal: &Journal,
) -> Result<Option<Event>, ReadError> {
    if let Some(kept) = shelf.kept(name, id) {
        let Some(record) = journal.record(kept.at)? else { return Ok(None) };
        let Some(letter) = Letter::of(&record) else { return Ok(None) };
        let json = bytes::Bytes::copy_from_slice(letter.event.get().as_bytes());
        return Ok(Some(Event::Kept { kind: record.kind().into(), json }));
    }
    Ok(source.by_message_id(id)?.map(Event::Stored))
}
