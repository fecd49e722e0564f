//! Which candles are stored, where the store does not find every event id by itself.
//!
//! In Redis an id that left the dedup window is found by reading alone. So what is stored is read once: from where the
//! trades are read again, or from the newest events where those begin later, and from there on whatever comes. A
//! candle's own event stands behind its trades, so one that was made of them before is there. Of a trade so late
//! that its candle may have been stored before all that, the events back to then are looked at too, once.

use foldhash::HashSet;

use super::book::AHEAD_MAX_MS;
use super::{CANDLES, SOURCE};
use crate::engine::{ReadError, Reader};
use crate::log::{Filter, MessageId};

/// Newest events that are read in any case.
const LOOK_BACK_EVENTS: u64 = 20_000;
/// Events looked at before others have their turn to read.
const SCAN_MAX: u64 = 100_000;
/// LIMIT: ids remembered, twice over: the oldest half makes room.
const IDS_MAX: usize = 500_000;

/// Ids of stored candles.
#[derive(Debug)]
pub(super) struct Shelf {
    ids: [HashSet<u128>; 2],
    /// Seq of the oldest event that was looked at.
    from: u64,
    /// Seq of the next event to look at.
    next: u64,
}

impl Shelf {
    /// Nothing was looked at yet; trades are read from this seq on.
    pub(super) fn new(reader: &Reader, resume_seq: u64) -> Self {
        let newest = reader.durable_seq().saturating_sub(LOOK_BACK_EVENTS);
        let next = resume_seq.min(newest.max(reader.first_seq()));
        Self { ids: Default::default(), from: next, next }
    }

    /// Looks at what came since; `true` when there is more. Blocks.
    pub(super) fn look(&mut self, reader: &Reader) -> Result<bool, ReadError> {
        let mut scan = reader.forward(self.next, wanted()).pausing_after(SCAN_MAX);
        while let Some(record) = scan.next()? {
            self.add(record.event_id);
        }
        self.next = scan.position();
        Ok(scan.paused())
    }

    /// Looks back to where a candle of trades of this time, milliseconds since 1970, can have been stored at the
    /// earliest: no trade is stored long before its own time. `true` when there is more. Blocks.
    pub(super) fn reach(&mut self, reader: &Reader, trade_ms: i64) -> Result<bool, ReadError> {
        let ms = u64::try_from(trade_ms.saturating_sub(AHEAD_MAX_MS)).unwrap_or(0);
        let earliest = reader.seq_at(MessageId { ms, n: 0 })?.max(reader.first_seq());
        if earliest >= self.from {
            return Ok(false);
        }
        let begin = earliest.max(self.from.saturating_sub(SCAN_MAX));
        let mut scan = reader.forward(begin, wanted());
        while let Some(record) = scan.next()?
            && record.stamp.seq < self.from
        {
            self.add(record.event_id);
        }
        self.from = begin;
        Ok(earliest < begin)
    }

    /// Whether a candle is stored, as far as was looked.
    pub(super) fn has(&self, id: u128) -> bool {
        self.ids.iter().any(|ids| ids.contains(&id))
    }

    fn add(&mut self, id: u128) {
        if self.ids[0].len() >= IDS_MAX {
            self.ids[1] = std::mem::take(&mut self.ids[0]);
        }
        self.ids[0].insert(id);
    }
}

fn wanted() -> Filter {
    Filter { kinds: vec![CANDLES.into()], source: Some(SOURCE.into()), ..Filter::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Draft, Fsync, Ground, Labels, Log, Options, Retention};

    const CANDLE: Labels<'_> = Labels { kind: CANDLES, symbol: "A", source: SOURCE };
    const OTHER: Labels<'_> = Labels { kind: "x", symbol: "A", source: "test" };

    /// A candle of long ago, as many events as are read in any case, another candle.
    #[tokio::test]
    async fn a_candle_of_long_ago_is_looked_for_where_it_can_have_been_stored() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            fsync: Fsync::Always,
            retention: Retention::default(),
            dedup_window_ms: 0,
            segment_bytes: 64 << 20,
            partitions: None,
        };
        let log = Log::open(dir.path(), &options, Ground::default()).unwrap();
        let count = LOOK_BACK_EVENTS + 10;
        let draft = |n: u64| {
            let labels = if n == 1 || n == count { CANDLE } else { OTHER };
            Draft::new(labels, 0, u128::from(n), n, b"{}").unwrap()
        };
        for first in (1..=count).step_by(1_000) {
            let drafts = (first..=count.min(first + 999)).map(draft).collect();
            log.submit(drafts, false).unwrap().await.unwrap().unwrap();
        }
        let reader = Reader::Embedded(log.reader());
        let stored_ms = reader.stats().first_id.unwrap().ms as i64;
        let mut shelf = Shelf::new(&reader, count);
        while shelf.look(&reader).unwrap() {}
        assert!(shelf.has(count.into()) && !shelf.has(1));
        // A trade of tomorrow has no candle yet.
        assert!(!shelf.reach(&reader, stored_ms + 86_400_000).unwrap());
        assert!(!shelf.has(1));
        while shelf.reach(&reader, stored_ms).unwrap() {}
        assert!(shelf.has(1));
        assert_eq!((shelf.from, shelf.next), (1, count + 1));
    }

    #[test]
    fn the_newest_ids_are_remembered_and_memory_is_bounded() {
        let mut shelf = Shelf { ids: Default::default(), from: 1, next: 1 };
        let count = IDS_MAX as u128 * 3;
        for id in 0..count {
            shelf.add(id);
        }
        assert!((count - IDS_MAX as u128..count).all(|id| shelf.has(id)));
        assert!(!shelf.has(0));
        assert!(shelf.ids.iter().map(HashSet::len).sum::<usize>() <= 2 * IDS_MAX);
    }
}
