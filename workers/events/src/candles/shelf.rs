//! Which candles are stored, where the store does not find every event id by itself.
//!
//! In Redis an id that left the dedup window is found by reading alone. So what is stored is read once: from where the
//! trades are read again, or from the newest events where those begin later, and from there on whatever comes. A
//! candle's own event stands behind its trades, so one that was made of them before is there. Not seen: a trade so late
//! that its candle was stored before all that, and whose symbol was forgotten by a restart.

use foldhash::HashSet;

use super::{CANDLES, SOURCE};
use crate::engine::{ReadError, Reader};
use crate::log::Filter;

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
    /// Seq of the next event to look at.
    next: u64,
}

impl Shelf {
    /// Nothing was looked at yet; trades are read from this seq on.
    pub(super) fn new(reader: &Reader, resume_seq: u64) -> Self {
        let newest = reader.durable_seq().saturating_sub(LOOK_BACK_EVENTS);
        Self { ids: Default::default(), next: resume_seq.min(newest.max(reader.first_seq())) }
    }

    /// Looks at what came since; `true` when there is more. Blocks.
    pub(super) fn look(&mut self, reader: &Reader) -> Result<bool, ReadError> {
        let wanted = Filter { kinds: vec![CANDLES.into()], source: Some(SOURCE.into()), ..Filter::default() };
        let mut scan = reader.forward(self.next, wanted).pausing_after(SCAN_MAX);
        while let Some(record) = scan.next()? {
            self.add(record.event_id);
        }
        self.next = scan.position();
        Ok(scan.paused())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_ids_are_remembered_and_memory_is_bounded() {
        let mut shelf = Shelf { ids: Default::default(), next: 1 };
        let count = IDS_MAX as u128 * 3;
        for id in 0..count {
            shelf.add(id);
        }
        assert!((count - IDS_MAX as u128..count).all(|id| shelf.has(id)));
        assert!(!shelf.has(0));
        assert!(shelf.ids.iter().map(HashSet::len).sum::<usize>() <= 2 * IDS_MAX);
    }
}
