//! The sparse index of a segment: where a seq, an id, a time can be.
//!
//! While a segment is written its index is in memory ([`Index`]). When it is sealed, the summary stays in memory
//! and the block table and the id filter go to a file beside the segment (see [`super::sidecar`]).

use std::collections::BTreeMap;

use super::id::MessageId;
use super::record::Stamp;

/// Distance of index entries: a lookup reads one block of about this size.
pub(crate) const BLOCK_BYTES: u64 = 4 * 1024;
/// LIMIT: event types counted by name in one segment; more are counted together.
pub(crate) const TYPES_MAX: usize = 512;

/// What is known of a whole segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Records in the segment; their seqs are contiguous from its base.
    pub(crate) records: u64,
    /// Offset after the last record.
    pub(crate) end: u64,
    /// First message id; meaningless without records.
    pub(crate) first: MessageId,
    /// Last message id; meaningless without records.
    pub(crate) last: MessageId,
    /// Smallest event time.
    pub(crate) time_min_us: i64,
    /// Largest event time.
    pub(crate) time_max_us: i64,
    /// Records of each event type.
    pub(crate) types: BTreeMap<Box<str>, u64>,
    /// Records of types beyond [`TYPES_MAX`].
    pub(crate) other_types: u64,
}

/// One entry of the sparse index: the records from `offset` to the next entry's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// First record's seq, counted from the segment's base.
    pub(crate) seq_delta: u32,
    /// Its offset.
    pub(crate) offset: u64,
    /// Its message id.
    pub(crate) id: MessageId,
    /// Smallest event time in the block.
    pub(crate) time_min_us: i64,
    /// Largest event time in the block.
    pub(crate) time_max_us: i64,
}

/// What the index learns of one record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) stamp: Stamp,
    pub(crate) offset: u64,
    /// Bytes on disk.
    pub(crate) len: u64,
    pub(crate) time_us: i64,
    pub(crate) event_id: u128,
    pub(crate) kind: &'a str,
}

/// The index of a segment, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    base_seq: u64,
    pub(crate) summary: Summary,
    pub(crate) blocks: Vec<Block>,
    /// Event ids folded to 64 bits, by position.
    pub(crate) ids: Vec<u64>,
}

impl Index {
    /// An index of no records; the first will be at `start`.
    pub(crate) fn new(base_seq: u64, start: u64) -> Self {
        let summary = Summary {
            records: 0,
            end: start,
            first: MessageId::default(),
            last: MessageId::default(),
            time_min_us: i64::MAX,
            time_max_us: i64::MIN,
            types: BTreeMap::new(),
            other_types: 0,
        };
        Self { base_seq, summary, blocks: Vec::new(), ids: Vec::new() }
    }

    /// Takes up the next record.
    pub(crate) fn add(&mut self, entry: &Entry<'_>) {
        self.summary.count_type(entry.kind, 1);
        self.place(entry);
    }

    /// Takes up the next records; those of one type that stand together are counted together.
    pub(crate) fn add_all<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>>) {
        let mut alike = ("", 0);
        for entry in entries {
            if alike.0 != entry.kind {
                let (kind, count) = std::mem::replace(&mut alike, (entry.kind, 0));
                self.summary.count_type(kind, count);
            }
            alike.1 += 1;
            self.place(&entry);
        }
        self.summary.count_type(alike.0, alike.1);
    }

    fn place(&mut self, entry: &Entry<'_>) {
        let summary = &mut self.summary;
        debug_assert_eq!(entry.stamp.seq, self.base_seq + summary.records, "seqs are contiguous");
        if summary.records == 0 {
            summary.first = entry.stamp.id;
        }
        summary.records += 1;
        summary.last = entry.stamp.id;
        summary.end = entry.offset + entry.len;
        summary.time_min_us = summary.time_min_us.min(entry.time_us);
        summary.time_max_us = summary.time_max_us.max(entry.time_us);
        self.ids.push(fold(entry.event_id));
        match self.blocks.last_mut() {
            Some(block) if entry.offset - block.offset < BLOCK_BYTES => {
                block.time_min_us = block.time_min_us.min(entry.time_us);
                block.time_max_us = block.time_max_us.max(entry.time_us);
            }
            _ => self.blocks.push(Block {
                seq_delta: (entry.stamp.seq - self.base_seq) as u32,
                offset: entry.offset,
                id: entry.stamp.id,
                time_min_us: entry.time_us,
                time_max_us: entry.time_us,
            }),
        }
    }

    /// The seq that the next record must have.
    pub(crate) fn next_seq(&self) -> u64 {
        self.base_seq + self.summary.records
    }

    /// Seqs at which an event id may stand, newest first.
    pub(crate) fn seqs_of(&self, event_id: u128) -> impl Iterator<Item = u64> {
        let wanted = fold(event_id);
        let base = self.base_seq;
        self.ids
            .iter()
            .enumerate()
            .rev()
            .filter(move |(_, id)| **id == wanted)
            .map(move |(at, _)| base + at as u64)
    }
}

impl Summary {
    fn count_type(&mut self, kind: &str, records: u64) {
        if records == 0 {
            return;
        }
        if let Some(count) = self.types.get_mut(kind) {
            *count += records;
        } else if self.types.len() < TYPES_MAX {
            self.types.insert(kind.into(), records);
        } else {
            self.other_types += records;
        }
    }
}

/// The block in which a seq stands; the table is not empty and begins at or before it.
pub(crate) fn block_of_seq(blocks: &[Block], seq_delta: u64) -> usize {
    blocks.partition_point(|block| u64::from(block.seq_delta) <= seq_delta).saturating_sub(1)
}

/// The block in which a message id stands or would stand.
pub(crate) fn block_of_id(blocks: &[Block], id: MessageId) -> usize {
    blocks.partition_point(|block| block.id <= id).saturating_sub(1)
}

/// 64 bits of an event id; random UUIDs keep their randomness.
pub(crate) fn fold(event_id: u128) -> u64 {
    (event_id >> 64) as u64 ^ event_id as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn indexed(records: u64) -> Index {
        let mut index = Index::new(10, 64);
        for i in 0..records {
            index.add(&Entry {
                stamp: Stamp { seq: 10 + i, id: MessageId { ms: 100 + i / 3, n: (i % 3) as u32 } },
                offset: 64 + i * 1_000,
                len: 1_000,
                time_us: 5_000 - i as i64,
                event_id: u128::from(i),
                kind: if i % 2 == 0 { "even" } else { "odd" },
            });
        }
        index
    }

    #[test]
    fn records_taken_up_together_are_those_taken_up_one_by_one() {
        let entry = |i: u64, kind| Entry {
            stamp: Stamp { seq: 10 + i, id: MessageId { ms: 100 + i, n: 0 } },
            offset: 64 + i * 1_000,
            len: 1_000,
            time_us: 0,
            event_id: u128::from(i),
            kind,
        };
        let kinds = ["a", "a", "b", "", "", "a", "c", "c"];
        let all = || (0..).zip(kinds).map(|(i, kind)| entry(i, kind));
        let (mut together, mut one_by_one) = (Index::new(10, 64), Index::new(10, 64));
        together.add_all(all());
        all().for_each(|entry| one_by_one.add(&entry));
        assert_eq!(together, one_by_one);
        together.add_all(std::iter::empty());
        assert_eq!(together, one_by_one);
    }

    #[test]
    fn a_block_begins_every_four_kib() {
        let index = indexed(12);
        let starts: Vec<u32> = index.blocks.iter().map(|block| block.seq_delta).collect();
        assert_eq!(starts, [0, 5, 10]);
        assert_eq!(index.blocks[1].time_max_us, 4_995);
        assert_eq!(index.blocks[1].time_min_us, 4_991);
        assert_eq!((index.summary.records, index.summary.end), (12, 64 + 12_000));
        assert_eq!(index.summary.types[&Box::from("odd")], 6);
    }

    #[test]
    fn lookups_land_in_the_right_block() {
        let index = indexed(12);
        assert_eq!(block_of_seq(&index.blocks, 0), 0);
        assert_eq!(block_of_seq(&index.blocks, 4), 0);
        assert_eq!(block_of_seq(&index.blocks, 5), 1);
        assert_eq!(block_of_id(&index.blocks, MessageId { ms: 0, n: 0 }), 0);
        assert_eq!(block_of_id(&index.blocks, MessageId { ms: 101, n: 2 }), 1);
        assert_eq!(index.seqs_of(7).collect::<Vec<_>>(), [17]);
    }

    #[test]
    fn types_beyond_the_limit_are_counted_together() {
        let mut index = Index::new(1, 64);
        for i in 0..(TYPES_MAX as u64 + 5) {
            let kind = format!("type-{i}");
            index.add(&Entry {
                stamp: Stamp { seq: 1 + i, id: MessageId { ms: i, n: 0 } },
                offset: 64 + i,
                len: 1,
                time_us: 0,
                event_id: 0,
                kind: &kind,
            });
        }
        assert_eq!((index.summary.types.len(), index.summary.other_types), (TYPES_MAX, 5));
    }
}
