//! Dead letters: putting messages aside that have had their last delivery, listing them, and making them messages
//! again.

use serde_json::value::RawValue;

use crate::frame;
use crate::log::{Labels, MessageId, Record};

use super::command::{Event, LetterPage, Letters, Notice, Redrive, Redriven};
use super::error::GroupError;
use super::fact::{Fact, Fresh};
use super::journal::{Entry, Head, Letter};
use super::keeper::Keeper;
use super::lease::event_of;
use super::settings::OrderKey;
use super::shelf::Kept;
use super::state::{Message, paced};

/// LIMIT: dead letters written in one turn.
const BURY_MAX: usize = 256;
/// LIMIT: bytes of a page of dead letters.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a message stays that finds no room among the dead letters, in milliseconds.
const FULL_PAUSE_MS: u64 = 1_000;

impl Keeper {
    /// Turns messages that have had their last delivery into dead letters; whether there are more of them.
    pub(super) fn bury(&mut self, name: &str) -> bool {
        let Some(group) = self.groups.get(name) else { return false };
        let doomed = group.state.doomed();
        for id in doomed.iter().take(BURY_MAX) {
            if self.batch.is_full() {
                return true;
            }
            let reason = self.groups.get(name).and_then(|group| group.state.message(*id)?.reason.clone());
            self.inter(name, *id, reason.as_deref().unwrap_or("lease_expired"));
        }
        doomed.len() > BURY_MAX
    }

    /// Turns one message into a dead letter, if there is room.
    pub(super) fn inter(&mut self, name: &str, id: MessageId, cause: &str) {
        let now_ms = self.now_ms();
        let Some(group) = self.groups.get_mut(name) else { return };
        let Some(message) = group.state.message(id).cloned() else { return };
        let rack = self.shelf.rack(name);
        let known = self.shelf.kept(name, id);
        let is_full = known.is_none()
            && (rack.is_some_and(|rack| rack.len() >= self.limits.letters)
                || self.shelf.bytes() >= self.limits.letters_bytes);
        if is_full {
            group.state.postpone(id, now_ms + FULL_PAUSE_MS);
            return;
        }
        let attempts = message.attempts + known.map_or(0, |kept| kept.attempts);
        let event = match event_of(name, id, &self.source, &self.shelf, &self.journal) {
            Ok(event) if message.is_replay => event.map(Event::replayed),
            Ok(event) => event,
            Err(error) => {
                crate::error::report(&error);
                None
            }
        };
        let head = head(name, id, &message, cause, attempts, now_ms);
        let labels = self.labels(name, id, event.as_ref());
        let notice = labels.notice(&head, id);
        let entry = labels.letter(head, event.as_ref());
        let kept = Kept { at: 0, bytes: entry.json_bytes(), attempts, at_ms: now_ms, out: false };
        self.batch.push(entry);
        self.batch.notices.push(notice);
        if let Some(before) = self.shelf.put(name, id, kept) {
            self.journal.forget(before);
        }
        if let Some(group) = self.groups.get_mut(name) {
            group.state.bury(id);
        }
    }

    /// A page of dead letters.
    pub(super) fn letters(&self, name: &str, page: &LetterPage) -> Result<Letters, GroupError> {
        self.groups.get(name).ok_or(GroupError::Unknown)?;
        let mut found = Letters::default();
        let Some(rack) = self.shelf.rack(name) else { return Ok(found) };
        let (mut bytes, mut last) = (0, page.after);
        for (id, kept) in rack.after(page.after) {
            if found.records.len() >= page.limit || bytes >= PAGE_BYTES_MAX {
                found.next = last;
                break;
            }
            last = Some(id);
            if let Some(record) = self.letter_at(kept.at)?.filter(|record| page.filter.admits(record)) {
                bytes += record.json().len();
                found.records.push(record);
            }
        }
        Ok(found)
    }

    /// Makes dead letters messages again, oldest first.
    pub(super) fn redrive(&mut self, name: &str, redrive: &Redrive) -> Result<Redriven, GroupError> {
        let now_ms = self.now_ms();
        let group = self.groups.get(name).ok_or(GroupError::Unknown)?;
        let by_symbol = group.state.settings().order_key == OrderKey::Symbol;
        let room = self.limits.waiting.saturating_sub(group.state.waiting());
        let (filter, mut fresh) = (redrive.filter.scan_filter(), Vec::new());
        for (id, kept) in self.shelf.rack(name).into_iter().flat_map(|rack| rack.after(None)) {
            if fresh.len() >= redrive.max.min(room) {
                break;
            }
            let record = self.letter_at(kept.at)?;
            let wanted = |record: &Record| filter.admits(record) && redrive.filter.admits(record);
            let Some(record) = record.filter(wanted) else { continue };
            // Without its event there is nothing to hand out.
            let Some(letter) = Letter::of(&record).filter(|letter| letter.event.get() != "null") else {
                continue;
            };
            let key = (by_symbol && !record.symbol().is_empty()).then(|| record.symbol().into());
            fresh.push(Fresh { id, seq: letter.head.seq, key });
        }
        let count = fresh.len();
        let letters = paced(fresh, redrive.per_s, now_ms);
        let last_ms = letters.last().map_or(now_ms, |letter| letter.at_ms);
        if count > 0 {
            for letter in &letters {
                self.shelf.lend(name, letter.fresh.id);
            }
            let fact = Fact::Redriven { letters };
            if let Some(group) = self.groups.get_mut(name) {
                group.state.apply(&fact, now_ms);
            }
            self.note(name, fact);
        }
        let remaining = self.shelf.rack(name).map_or(0, super::shelf::Rack::depth);
        Ok(Redriven { count, remaining, last_ms })
    }

    /// Drops the dead letters of a group.
    pub(super) fn purge(&mut self, name: &str) -> Result<u64, GroupError> {
        self.groups.get(name).ok_or(GroupError::Unknown)?;
        let gone = self.shelf.purge(name);
        for at in &gone {
            self.journal.forget(*at);
        }
        if !gone.is_empty() {
            self.note(name, Fact::Purged);
        }
        Ok(gone.len() as u64)
    }

    /// A dead letter as it is to be written again.
    pub(super) fn moved(&self, name: &str, id: MessageId, at: u64) -> Option<Entry> {
        let kept = self.shelf.kept(name, id)?;
        let record = self.letter_at(at).ok()??;
        let letter = Letter::of(&record)?;
        let head = Head { moved: true, out: kept.out, attempts: kept.attempts, ..letter.head };
        let labels = Labels { kind: record.kind(), symbol: record.symbol(), source: record.source() };
        Entry::letter(head, labels, record.time_us, letter.event)
    }

    /// What is told of the dead letter at a place in the journal.
    pub(super) fn notice_at(&self, at: u64) -> Option<Notice> {
        let record = self.letter_at(at).ok()??;
        let letter = Letter::of(&record)?;
        let id = MessageId { ms: letter.head.id.0, n: letter.head.id.1 };
        Some(Tags::of(&record).notice(&letter.head, id))
    }

    fn letter_at(&self, at: u64) -> Result<Option<Record>, crate::engine::ReadError> {
        self.journal.record(at)
    }

    fn labels(&self, name: &str, id: MessageId, event: Option<&Event>) -> Tags {
        match event {
            Some(Event::Stored(record)) => Tags::of(record),
            Some(Event::Kept { .. }) => {
                let kept = self.shelf.kept(name, id).and_then(|kept| self.letter_at(kept.at).ok().flatten());
                kept.as_ref().map_or_else(Tags::default, Tags::of)
            }
            None => Tags::default(),
        }
    }
}

/// The labels of an event, kept with its dead letter so that filters work on it.
#[derive(Default)]
struct Tags {
    kind: Box<str>,
    symbol: Box<str>,
    source: Box<str>,
    time_us: i64,
}

impl Tags {
    fn of(record: &Record) -> Self {
        Self {
            kind: record.kind().into(),
            symbol: record.symbol().into(),
            source: record.source().into(),
            time_us: record.time_us,
        }
    }

    fn notice(&self, head: &Head, id: MessageId) -> Notice {
        Notice {
            group: head.group.clone(),
            id,
            kind: self.kind.clone(),
            symbol: self.symbol.clone(),
            source: self.source.clone(),
            cause: head.cause.clone(),
            attempts: head.attempts,
            at_ms: head.at_ms,
        }
    }

    /// The record of a dead letter. An event that is gone, or too large for it, leaves null.
    fn letter(&self, head: Head, event: Option<&Event>) -> Entry {
        let labels = Labels { kind: &self.kind, symbol: &self.symbol, source: &self.source };
        let event = event.and_then(raw);
        event
            .and_then(|event| Entry::letter(head.clone(), labels, self.time_us, &event))
            .or_else(|| Entry::letter(head, labels, self.time_us, null()))
            .expect("a letter without its event fits into a record")
    }
}

fn raw(event: &Event) -> Option<Box<RawValue>> {
    let mut json = Vec::with_capacity(event.len() + 96);
    match event {
        Event::Stored(record) => frame::write_json(record, &mut json),
        Event::Kept { json: kept, .. } => json.extend_from_slice(kept),
    }
    serde_json::from_slice(&json).ok()
}

fn null() -> &'static RawValue {
    serde_json::from_str("null").expect("null is JSON")
}

fn head(name: &str, id: MessageId, message: &Message, cause: &str, attempts: u32, at_ms: u64) -> Head {
    Head {
        group: name.into(),
        id: (id.ms, id.n),
        seq: message.seq,
        cause: cause.into(),
        attempts,
        consumer: message.holder.as_deref().map(Into::into),
        at_ms,
        out: false,
        moved: false,
    }
}
