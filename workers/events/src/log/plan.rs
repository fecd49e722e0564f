//! What one commit will write, decided before anything is written, so that a write which fails leaves no trace in
//! the writer's state.

use std::ops::Range;

use bytes::Bytes;
use foldhash::HashMap;

use super::frame::{FRAME_BYTES, Label, OVERHEAD_BYTES, Sealer};
use super::id::MessageId;
use super::index::Entry;
use super::partition::{Heads, Lane};
use super::record::{self, BARRIER, Draft, FIRST, LAST, Stamp};

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

/// The records of a commit and the frames that hold them.
#[derive(Debug)]
pub(crate) struct Plan {
    buffer: Vec<u8>,
    scratch: Scratch,
    next_seq: u64,
    last_id: MessageId,
    heads: Heads,
}

/// What a plan works with; the next one uses its memory again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    framed: Vec<u8>,
    planned: Vec<Planned>,
    /// Places in `planned` by event id.
    local: HashMap<u128, usize>,
}

#[derive(Debug)]
struct Planned {
    stamp: Stamp,
    lane: Option<Lane>,
    range: Range<usize>,
    /// Its frame, in the framed bytes; empty until [`Plan::finish`].
    frame: Range<usize>,
    time_us: i64,
    event_id: u128,
    fingerprint: u64,
    is_fresh: bool,
}

impl Plan {
    /// An empty plan after the given place; its records are written into `buffer`, which is empty.
    pub(crate) fn new(next_seq: u64, last_id: MessageId, buffer: Vec<u8>, mut scratch: Scratch) -> Self {
        scratch.framed.clear();
        scratch.planned.clear();
        scratch.local.clear();
        Self { buffer, scratch, next_seq, last_id, heads: Heads::default() }
    }

    /// The same, of a log that is divided: numbers in its partitions go on behind these.
    pub(crate) fn divided(self, heads: Heads) -> Self {
        Self { heads, ..self }
    }

    /// Plans a submission. `known` finds stored events by event id.
    pub(crate) fn take<E>(
        &mut self,
        drafts: &[Draft],
        atomic: bool,
        now_ms: u64,
        mut known: impl FnMut(u128) -> Result<Option<Known>, E>,
    ) -> Result<Vec<Outcome>, E> {
        let (planned, bytes, last_id) = (self.scratch.planned.len(), self.buffer.len(), self.last_id);
        let mut outcomes = Vec::with_capacity(drafts.len());
        for draft in drafts {
            // Nobody can have used a fresh id, so it is not looked for: each look is a miss of the cache.
            let found = if draft.is_fresh {
                None
            } else if let Some(at) = self.scratch.local.get(&draft.event_id) {
                Some(self.scratch.planned[*at].known())
            } else {
                match known(draft.event_id) {
                    Ok(found) => found,
                    Err(error) => {
                        self.undo(planned, bytes, last_id);
                        return Err(error);
                    }
                }
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

    /// Makes the frames of a commit that will begin at `offset`.
    pub(crate) fn finish(&mut self, barrier: bool, offset: u64, sealer: &mut Sealer) {
        let mut begin = 0;
        while begin < self.scratch.planned.len() {
            let end = self.frame_end(begin);
            let records = self.scratch.planned[begin].range.start..self.scratch.planned[end - 1].range.end;
            let first = if begin == 0 { FIRST } else { 0 };
            let ordered = if begin == 0 && barrier { BARRIER } else { 0 };
            let last = if end == self.scratch.planned.len() { LAST } else { 0 };
            let label = Label {
                seq: self.scratch.planned[begin].stamp.seq,
                count: (end - begin) as u32,
                flags: first | ordered | last,
                plain: records.len(),
            };
            let at = self.scratch.framed.len();
            sealer.seal(&mut self.scratch.framed, offset + at as u64, &label, &self.buffer[records]);
            let frame = at..self.scratch.framed.len();
            self.scratch.planned[begin..end].iter_mut().for_each(|planned| planned.frame = frame.clone());
            begin = end;
        }
    }

    /// The first record of the next frame when one begins with the record `begin`.
    fn frame_end(&self, begin: usize) -> usize {
        let limit = self.scratch.planned[begin].range.start + FRAME_BYTES;
        let fitting = self.scratch.planned[begin..].partition_point(|planned| planned.range.end <= limit);
        begin + fitting.max(1)
    }

    /// The bytes to be written, once finished.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.scratch.framed
    }

    /// What the finished commit takes at most.
    pub(crate) fn bytes_max(&self) -> u64 {
        // Of two frames in a row, the second one's first record did not fit into the first.
        let frames = (self.buffer.len() / (FRAME_BYTES / 2) + 1).min(self.scratch.planned.len());
        (self.buffer.len() + frames * OVERHEAD_BYTES) as u64
    }

    /// Number of records.
    pub(crate) fn records(&self) -> usize {
        self.scratch.planned.len()
    }

    /// First stamp's message time, when there is a record.
    pub(crate) fn first_ms(&self) -> Option<u64> {
        self.scratch.planned.first().map(|planned| planned.stamp.id.ms)
    }

    /// The seq and id to go on from once the plan is carried out.
    pub(crate) fn after(&self) -> (u64, MessageId) {
        (self.next_seq, self.last_id)
    }

    /// The numbers in the partitions to go on from.
    pub(crate) fn heads(&self) -> &Heads {
        &self.heads
    }

    /// Index entries, for a finished commit that begins at `offset`: a record's place is its frame's.
    pub(crate) fn entries(&self, offset: u64) -> impl Iterator<Item = Entry<'_>> {
        let mut kind = "";
        self.scratch.planned.iter().map(move |planned| {
            // Neighbours are often alike, and looking whether they are is cheaper than looking at the text.
            kind = record::kind_like(&self.buffer[planned.range.clone()], kind);
            Entry {
                stamp: planned.stamp,
                offset: offset + planned.frame.start as u64,
                len: planned.frame.len() as u64,
                time_us: planned.time_us,
                event_id: planned.event_id,
                kind,
            }
        })
    }

    /// The event ids, where they will stand, and whether they were made for these events.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (u128, Stamp, bool)> {
        self.scratch.planned.iter().map(|planned| (planned.event_id, planned.stamp, planned.is_fresh))
    }

    /// The records as readers get them, and what the next plan works with.
    pub(crate) fn into_parts(self) -> (Bytes, Scratch) {
        (self.buffer.into(), self.scratch)
    }

    fn push(&mut self, draft: &Draft, now_ms: u64) -> Stamp {
        self.last_id = self.last_id.next(now_ms);
        let stamp = Stamp { seq: self.next_seq, id: self.last_id };
        self.next_seq += 1;
        let start = self.buffer.len();
        let lane = self.heads.give(|| draft.labels());
        draft.encode(stamp, lane, &mut self.buffer);
        if !draft.is_fresh {
            self.scratch.local.insert(draft.event_id, self.scratch.planned.len());
        }
        self.scratch.planned.push(Planned {
            stamp,
            lane,
            range: start..self.buffer.len(),
            frame: 0..0,
            time_us: draft.time_us,
            event_id: draft.event_id,
            fingerprint: draft.fingerprint,
            is_fresh: draft.is_fresh,
        });
        stamp
    }

    fn undo(&mut self, planned: usize, bytes: usize, last_id: MessageId) {
        for undone in self.scratch.planned.drain(planned..).rev() {
            self.scratch.local.remove(&undone.event_id);
            undone.lane.into_iter().for_each(|lane| self.heads.take_back(lane));
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
    use crate::log::partition::{By, Partitions};
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
        let mut plan = Plan::new(7, MessageId::default(), Vec::new(), Scratch::default());
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
    fn a_fresh_id_is_not_looked_for_and_a_named_one_is() {
        let mut plan = Plan::new(7, MessageId::default(), Vec::new(), Scratch::default());
        let mut drafts = [draft(1, 1), draft(2, 1), draft(2, 1)];
        drafts[0].is_fresh = true;
        let mut asked = Vec::new();
        let outcomes = plan.take(&drafts, true, 50, |id| {
            asked.push(id);
            Ok::<_, ()>(None)
        });
        let expected =
            [Outcome::Stored(stamp(7, 0)), Outcome::Stored(stamp(8, 1)), Outcome::Duplicate(stamp(8, 1))];
        assert_eq!((outcomes.unwrap(), asked), (expected.to_vec(), vec![2]));
        assert_eq!(plan.ids().collect::<Vec<_>>(), [(1, stamp(7, 0), true), (2, stamp(8, 1), false)]);
    }

    #[test]
    fn an_atomic_submission_with_a_conflict_leaves_nothing() {
        let mut plan = Plan::new(7, MessageId::default(), Vec::new(), Scratch::default());
        take(&mut plan, &[draft(1, 1)], false);
        let bytes = plan.buffer.len();
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
        assert_eq!((plan.records(), plan.buffer.len()), (1, bytes));
        assert_eq!(take(&mut plan, &[draft(2, 5)], false), [Outcome::Stored(stamp(8, 1))]);
    }

    #[test]
    fn numbers_of_partitions_are_taken_back_too() {
        let partitions = Partitions::new(By::Type, 2);
        let mut plan = Plan::new(7, MessageId::default(), Vec::new(), Scratch::default())
            .divided(Heads::new(partitions));
        take(&mut plan, &[draft(1, 1), draft(2, 1)], false);
        let before = plan.heads().clone();
        take(&mut plan, &[draft(3, 1), draft(4, 1), draft(1, 9)], true);
        assert_eq!(plan.heads(), &before);
        take(&mut plan, &[draft(5, 1)], false);
        assert_ne!(plan.heads(), &before);
    }

    #[test]
    fn frames_hold_whole_records_and_fit_what_was_reserved() {
        use crate::log::form::tests::encrypted;
        use crate::log::frame::parse;
        use crate::log::record::Parsed;
        let labels = Labels { kind: "a", symbol: "", source: "" };
        let mut plan = Plan::new(7, MessageId::default(), Vec::new(), Scratch::default());
        let sizes = [10, 9_000, 9_000, 100, 40_000, 3, 8_000, 8_000, 8_000];
        let drafts: Vec<Draft> = (1_u128..)
            .zip(sizes)
            .map(|(id, size)| Draft::new(labels, 0, id, 1, &vec![b'x'; size]).unwrap())
            .collect();
        take(&mut plan, &drafts, false);
        let most = plan.bytes_max();
        plan.finish(true, 64, &mut Sealer::begin(encrypted(1)));
        assert!(plan.bytes().len() as u64 <= most);
        let (mut at, mut seq, mut flags) = (0, 7, Vec::new());
        while let Some(rest) = plan.bytes().get(at..).filter(|rest| !rest.is_empty()) {
            let Parsed::Whole(frame) = parse(rest) else { panic!("no frame at {at}") };
            assert_eq!(frame.seq, seq);
            flags.push(frame.flags);
            (at, seq) = (at + frame.padded(), seq + u64::from(frame.count));
        }
        assert_eq!(seq, 16);
        assert_eq!((flags[0], flags[flags.len() - 1]), (FIRST | BARRIER, LAST));
        assert!(flags[1..flags.len() - 1].iter().all(|flags| *flags == 0));
        let offsets: Vec<u64> = plan.entries(64).map(|entry| entry.offset).collect();
        assert_eq!(offsets[0], 64);
        assert!(offsets.is_sorted() && offsets[1] == 64 && offsets[2] > 64);
    }

    #[test]
    fn a_lookup_that_fails_leaves_nothing() {
        let mut plan = Plan::new(7, MessageId::default(), Vec::new(), Scratch::default());
        let drafts = [draft(1, 1), draft(2, 1)];
        let failed = plan.take(&drafts, false, 50, |id| if id == 2 { Err("damaged") } else { Ok(None) });
        assert_eq!(failed, Err("damaged"));
        assert_eq!((plan.records(), plan.after()), (0, (7, MessageId::default())));
    }
}
