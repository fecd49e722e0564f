//! The newest events of the stream, in its order, for who follows it.
//!
//! What this worker stored comes from memory: the script's answer names the seq before it, so a batch that begins
//! behind the newest event here is next in the stream. One that does not waits until what others wrote before it was
//! read: from the stream, and no more than that.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::log::{MessageId, Record, Stamp};

/// LIMIT: newest events held in memory for who follows the stream.
const EVENTS_MAX: usize = 16 * 1024;
/// LIMIT: bytes of them.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// LIMIT: own batches that wait for what is before them, and their bytes; older ones are read from the stream.
const WAITING_MAX: usize = 64;
/// While this worker stores events, its answers tell of those of others. So long after the last one the stream is asked.
const QUIET: Duration = Duration::from_millis(5);

/// The newest events.
#[derive(Debug, Default)]
pub(super) struct Tail {
    records: VecDeque<Record>,
    bytes: usize,
    /// Seq up to which everything is known.
    seq: u64,
    /// Message id up to which nothing needs to be read.
    id: MessageId,
    /// Who follows begins behind this event: it was stored before Redis was first reached.
    begin: u64,
    has_begun: bool,
    /// What this worker stored behind something that is not known yet: of each call contiguous, at least one.
    waiting: VecDeque<Vec<Record>>,
    waiting_bytes: usize,
    /// When this worker stored something last.
    wrote: Option<Instant>,
}

/// What is to be read of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// What stands between an own batch and what is known, both not included.
    Between(MessageId, MessageId),
    /// What comes behind a message id.
    Behind(MessageId),
}

impl Tail {
    /// Begins behind an event.
    pub(super) fn begin(&mut self, seq: u64, id: MessageId) {
        (self.seq, self.begin, self.id, self.has_begun) = (self.seq.max(seq), seq, id, true);
    }

    /// What is to be read next, and how long that may be put off; `None` before it begins.
    pub(super) fn want(&self, now: Instant) -> Option<(Want, Duration)> {
        let quiet_at = self.wrote.map_or(now, |wrote| wrote + QUIET);
        self.has_begun.then(|| match self.first_waiting() {
            Some(first) => (Want::Between(self.id, first.id), Duration::ZERO),
            None => (Want::Behind(self.id), quiet_at.saturating_duration_since(now)),
        })
    }

    /// Takes up what this worker stored with one call, in the order of the calls.
    pub(super) fn wrote(&mut self, records: Vec<Record>, now: Instant) {
        let Some(first) = records.first().map(|record| record.stamp) else { return };
        self.wrote = Some(now);
        if self.waiting.is_empty() && first.seq <= self.seq + 1 {
            return self.take(records);
        }
        self.waiting_bytes += bytes(&records);
        self.waiting.push_back(records);
        while self.waiting.len() > WAITING_MAX || self.waiting_bytes > BYTES_MAX {
            let Some(oldest) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= bytes(&oldest);
        }
    }

    /// Takes up what was read as [`Tail::want`] said; `upto` is where the read ended, `is_all` says that nothing more
    /// was there.
    pub(super) fn read(&mut self, want: Want, records: Vec<Record>, upto: Option<MessageId>, is_all: bool) {
        self.take(records);
        self.id = self.id.max(upto.unwrap_or_default());
        let reached = match want {
            // What is not there now was dropped, or lost: it does not come any more.
            Want::Between(_, until) if is_all => self.id.max(until),
            Want::Between(..) | Want::Behind(_) => self.id,
        };
        while let Some(first) = self.first_waiting()
            && (first.id <= reached || first.seq <= self.seq + 1)
            && let Some(next) = self.waiting.pop_front()
        {
            self.waiting_bytes -= bytes(&next);
            self.take(next);
        }
    }

    /// Whether seqs would be missing behind these, which are all that stands before what waits.
    pub(super) fn lacks(&self, records: &[Record]) -> bool {
        let seq = records.last().map_or(self.seq, |record| record.stamp.seq.max(self.seq));
        self.first_waiting().is_some_and(|first| first.seq > seq + 1)
    }

    fn first_waiting(&self) -> Option<Stamp> {
        self.waiting.front().and_then(|records| records.first()).map(|record| record.stamp)
    }

    /// In the order of the stream; what is known already is left out.
    fn take(&mut self, records: Vec<Record>) {
        for record in records {
            self.id = self.id.max(record.stamp.id);
            if record.stamp.seq <= self.seq {
                continue;
            }
            self.seq = record.stamp.seq;
            self.bytes += record.json().len();
            self.records.push_back(record);
        }
        while self.records.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.records.pop_front() else { break };
            self.bytes -= oldest.json().len();
        }
    }

    /// The events from `seq` on that stand here without a hole, at most `most`; empty when that one does not.
    pub(super) fn from(&self, seq: u64, most: usize) -> Vec<Record> {
        let at = self.records.partition_point(|record| record.stamp.seq < seq);
        let expected = (seq..).zip(self.records.range(at..)).take(most);
        expected
            .take_while(|(seq, record)| record.stamp.seq == *seq)
            .map(|(_, record)| record.clone())
            .collect()
    }

    /// Seq up to which everything is known.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Where who follows begins.
    pub(super) fn begins_at(&self) -> u64 {
        self.begin
    }
}

fn bytes(records: &[Record]) -> usize {
    records.iter().map(|record| record.json().len()).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::log::Labels;

    fn event(seq: u64) -> Record {
        let labels = Labels { kind: "x", symbol: "", source: "me" };
        let draft = crate::log::Draft::new(labels, 0, u128::from(seq), 0, b"{}").unwrap();
        Record::of(draft, Stamp { seq, id: MessageId { ms: 1, n: seq as u32 } }, None)
    }

    fn events(seqs: impl IntoIterator<Item = u64>) -> Vec<Record> {
        seqs.into_iter().map(event).collect()
    }

    fn seqs(tail: &Tail, from: u64) -> Vec<u64> {
        tail.from(from, usize::MAX).iter().map(|record| record.stamp.seq).collect()
    }

    fn begun() -> Tail {
        let mut tail = Tail::default();
        assert!(tail.want(Instant::now()).is_none());
        tail.begin(0, MessageId::default());
        tail
    }

    /// Reads as a follower does, so many entries at a time; what was read.
    fn read(tail: &mut Tail, stream: &[u64], count: usize) -> Vec<u64> {
        let (want, _) = tail.want(Instant::now()).unwrap();
        let wanted = stream.iter().copied().filter(|seq| match want {
            Want::Behind(id) => *seq > u64::from(id.n),
            Want::Between(from, until) => (u64::from(from.n) + 1..u64::from(until.n)).contains(seq),
        });
        let found: Vec<u64> = wanted.take(count).collect();
        let records = events(found.iter().copied());
        let upto = records.last().map(|record| record.stamp.id);
        tail.read(want, records, upto, found.len() < count);
        found
    }

    #[test]
    fn what_is_next_comes_from_memory_and_what_is_not_waits_for_that_of_others() {
        let (mut tail, now) = (begun(), Instant::now());
        tail.wrote(events(1..4), now);
        assert_eq!(seqs(&tail, 1), [1, 2, 3]);
        assert_eq!(tail.want(now), Some((Want::Behind(MessageId { ms: 1, n: 3 }), QUIET)));
        assert_eq!(tail.want(now + QUIET).unwrap().1, Duration::ZERO);
        // Others wrote 4 and 5.
        tail.wrote(events(6..8), now);
        assert_eq!(tail.seq(), 3);
        assert!(tail.lacks(&[]) && tail.lacks(&events([4])) && !tail.lacks(&events([4, 5])));
        assert_eq!(read(&mut tail, &[1, 2, 3, 4, 5, 6, 7], 1), [4]);
        assert_eq!(read(&mut tail, &[1, 2, 3, 4, 5, 6, 7], 1), [5]);
        assert_eq!(seqs(&tail, 2), [2, 3, 4, 5, 6, 7]);
        // What is gone is not waited for.
        tail.wrote(events([9]), now);
        assert_eq!(read(&mut tail, &[9], 10), Vec::<u64>::new());
        assert_eq!((seqs(&tail, 7), seqs(&tail, 8), seqs(&tail, 9)), (vec![7], vec![], vec![9]));
    }

    #[test]
    fn what_waits_is_bounded_and_what_was_dropped_is_read() {
        let (mut tail, now) = (begun(), Instant::now());
        let own = WAITING_MAX as u64 + 10;
        // The first event is somebody else's.
        for seq in 2..2 + own {
            tail.wrote(events([seq]), now);
        }
        assert_eq!((tail.waiting.len(), tail.waiting_bytes), (WAITING_MAX, WAITING_MAX * 2));
        let stream: Vec<u64> = (1..2 + own).collect();
        assert_eq!(read(&mut tail, &stream, 100).len(), 11);
        assert_eq!((seqs(&tail, 1), tail.waiting_bytes), (stream, 0));
    }

    proptest! {
        /// However calls and reads come, who follows has the stream in its order, without a hole.
        #[test]
        fn the_order_is_that_of_the_stream(steps in prop::collection::vec((0..4_u8, 1..5_u64), 1..80)) {
            let (mut tail, now) = (begun(), Instant::now());
            let (mut stream, mut answers) = (Vec::<u64>::new(), VecDeque::new());
            for (step, count) in steps {
                let next = stream.len() as u64 + 1;
                match step {
                    // Somebody else writes.
                    0 => stream.extend(next..next + count),
                    // A call is executed; its answer comes later.
                    1 => {
                        stream.extend(next..next + count);
                        answers.push_back(events(next..next + count));
                    }
                    2 => tail.wrote(answers.pop_front().unwrap_or_default(), now),
                    _ => drop(read(&mut tail, &stream, count as usize)),
                }
                let known: Vec<u64> = (1..=tail.seq()).collect();
                prop_assert!(tail.seq() <= stream.len() as u64);
                prop_assert_eq!(seqs(&tail, 1), known);
            }
            for answer in answers {
                tail.wrote(answer, now);
            }
            while tail.seq() < stream.len() as u64 {
                read(&mut tail, &stream, 7);
            }
            prop_assert_eq!(seqs(&tail, 1), stream);
            prop_assert!(tail.waiting_bytes == bytes(&tail.waiting.iter().flatten().cloned().collect::<Vec<_>>()));
        }
    }
}
