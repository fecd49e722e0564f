//! What one commit will write, decided before anything is written, so that a write which fails leaves no trace in
//! the writer's state.

use std::ops::Range;

use foldhash::{HashMap, HashMapExt};

use super::id::MessageId;
use super::index::Entry;
use super::record::{self, BARRIER, Draft, FIRST, LAST, Stamp, seal};

/// What became of one event of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored, under this stamp.
    Stored(Stamp),
    /// Its event id is known with the same content; this is the first one's stamp.
    Duplicate(Stamp),
    /// Its event id is known with another content; this is the first one's stamp. Nothing was stored.
    Conflict(Stamp),
    /// Not stored, because the submission was atomic and another event of it conflicted.
    Withheld,
}

/// A stored event with the same event id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) stamp: Stamp,
    pub(crate) fingerprint: u64,
}

/// The bytes of a commit and what they hold.
#[derive(Debug)]
pub(crate) struct Plan {
    buffer: Vec<u8>,
    planned: Vec<Planned>,
    next_seq: u64,
    last_id: MessageId,
    local: HashMap<u128, usize>,
}

#[derive(Debug)]
struct Planned {
    stamp: Stamp,
    range: Range<usize>,
    time_us: i64,
    event_id: u128,
    fingerprint: u64,
}

impl Plan {
    /// An empty plan after the given place; `buffer` is used again.
    pub(crate) fn new(next_seq: u64, last_id: MessageId, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        Self { buffer, planned: Vec::new(), next_seq, last_id, local: HashMap::new() }
    }

    /// Plans a submission. `known` finds stored events by event id.
    pub(crate) fn take<E>(
        &mut self,
        drafts: &[Draft],
        atomic: bool,
        now_ms: u64,
        mut known: impl FnMut(u128) -> Result<Option<Known>, E>,
    ) -> Result<Vec<Outcome>, E> {
        let (planned, bytes, last_id) = (self.planned.len(), self.buffer.len(), self.last_id);
        let mut outcomes = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let found = match self.local.get(&draft.event_id) {
                Some(at) => Some(self.planned[*at].known()),
                None => match known(draft.event_id) {
                    Ok(found) => found,
                    Err(error) => {
                        self.undo(planned, bytes, last_id);
                        return Err(error);
                    }
                },
            };
            outcomes.push(match found {
                None => Outcome::Stored(self.push(draft, now_ms)),
                Some(known) if known.fingerprint == draft.fingerprint => Outcome::Duplicate(known.stamp),
                Some(known) => Outcome::Conflict(known.stamp),
            });
        }
        if atomic && outcomes.iter().any(|outcome| matches!(outcome, Outcome::Conflict(_))) {
            self.undo(planned, bytes, last_id);
            let first_undone = self.next_seq;
            for outcome in &mut outcomes {
                match outcome {
                    Outcome::Stored(_) => *outcome = Outcome::Withheld,
                    Outcome::Duplicate(stamp) if stamp.seq >= first_undone => *outcome = Outcome::Withheld,
                    _ => {}
                }
            }
        }
        Ok(outcomes)
    }

    /// Completes the records' flags and checksums.
    pub(crate) fn finish(&mut self, barrier: bool) {
        let count = self.planned.len();
        for (i, planned) in self.planned.iter().enumerate() {
            let first = if i == 0 { FIRST } else { 0 };
            let ordered = if i == 0 && barrier { BARRIER } else { 0 };
            let last = if i + 1 == count { LAST } else { 0 };
            seal(&mut self.buffer[planned.range.clone()], first | ordered | last);
        }
    }

    /// The bytes to be written.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Number of records.
    pub(crate) fn records(&self) -> usize {
        self.planned.len()
    }

    /// First stamp's message time, when there is a record.
    pub(crate) fn first_ms(&self) -> Option<u64> {
        self.planned.first().map(|planned| planned.stamp.id.ms)
    }

    /// The seq and id to go on from once the plan is carried out.
    pub(crate) fn after(&self) -> (u64, MessageId) {
        (self.next_seq, self.last_id)
    }

    /// Index entries, for a commit that begins at `offset`.
    pub(crate) fn entries(&self, offset: u64) -> impl Iterator<Item = Entry<'_>> {
        self.planned.iter().map(move |planned| Entry {
            stamp: planned.stamp,
            offset: offset + planned.range.start as u64,
            len: planned.range.len() as u64,
            time_us: planned.time_us,
            event_id: planned.event_id,
            kind: record::kind_of(&self.buffer[planned.range.clone()]),
        })
    }

    /// Gives the buffer back.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    fn push(&mut self, draft: &Draft, now_ms: u64) -> Stamp {
        self.last_id = self.last_id.next(now_ms);
        let stamp = Stamp { seq: self.next_seq, id: self.last_id };
        self.next_seq += 1;
        let start = self.buffer.len();
        draft.encode(stamp, &mut self.buffer);
        self.local.insert(draft.event_id, self.planned.len());
        self.planned.push(Planned {
            stamp,
            range: start..self.buffer.len(),
            time_us: draft.time_us,
            event_id: draft.event_id,
            fingerprint: draft.fingerprint,
        });
        stamp
    }

    fn undo(&mut self, planned: usize, bytes: usize, last_id: MessageId) {
        for undone in self.planned.drain(planned..) {
            self.local.remove(&undone.event_id);
            self.next_seq -= 1;
        }
        self.buffer.truncate(bytes);
        self.last_id = last_id;
    }
}

impl Planned {
    fn known(&self) -> Known {
        Known { stamp: self.stamp, fingerprint: self.fingerprint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::record::Labels;

    fn draft(event_id: u128, fingerprint: u64) -> Draft {
        Draft::new(Labels { kind: "a", symbol: "", source: "" }, 0, event_id, fingerprint, b"{}").unwrap()
    }

    fn take(plan: &mut Plan, drafts: &[Draft], atomic: bool) -> Vec<Outcome> {
        plan.take(drafts, atomic, 50, |_| Ok::<_, ()>(None)).unwrap()
    }

    fn stamp(seq: u64, n: u32) -> Stamp {
        Stamp { seq, id: MessageId { ms: 50, n } }
    }

    #[test]
    fn repeats_within_a_commit_are_found() {
        let mut plan = Plan::new(7, MessageId::default(), Vec::new());
        assert_eq!(
            take(&mut plan, &[draft(1, 1), draft(1, 1), draft(1, 2), draft(2, 1)], false),
            [
                Outcome::Stored(stamp(7, 0)),
                Outcome::Duplicate(stamp(7, 0)),
                Outcome::Conflict(stamp(7, 0)),
                Outcome::Stored(stamp(8, 1)),
            ]
        );
        assert_eq!(plan.records(), 2);
    }

    #[test]
    fn an_atomic_submission_with_a_conflict_leaves_nothing() {
        let mut plan = Plan::new(7, MessageId::default(), Vec::new());
        take(&mut plan, &[draft(1, 1)], false);
        let bytes = plan.bytes().len();
        let outcomes = take(&mut plan, &[draft(2, 1), draft(2, 1), draft(1, 9), draft(1, 1)], true);
        assert_eq!(
            outcomes,
            [
                Outcome::Withheld,
                Outcome::Withheld,
                Outcome::Conflict(stamp(7, 0)),
                Outcome::Duplicate(stamp(7, 0)),
            ]
        );
        assert_eq!((plan.records(), plan.bytes().len()), (1, bytes));
        assert_eq!(take(&mut plan, &[draft(2, 5)], false), [Outcome::Stored(stamp(8, 1))]);
    }

    #[test]
    fn a_lookup_that_fails_leaves_nothing() {
        let mut plan = Plan::new(7, MessageId::default(), Vec::new());
        let drafts = [draft(1, 1), draft(2, 1)];
        let failed = plan.take(&drafts, false, 50, |id| if id == 2 { Err("damaged") } else { Ok(None) });
        assert_eq!(failed, Err("damaged"));
        assert_eq!((plan.records(), plan.after()), (0, (7, MessageId::default())));
    }
}
