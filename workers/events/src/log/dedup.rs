//! Which event ids were stored lately.
//!
//! Two generations of a map from event id to seq. The young one is filled; when it is as old as the window, or
//! holds half of [`IDS_MAX`], it becomes the old one and the old one is dropped whole. So an id is known for at
//! least the window (fewer than [`IDS_MAX`] / 2 events in it given), memory is bounded, and nothing is evicted one
//! by one. Times are those of messages, which never go back, whatever the clock does. The caller reads the record
//! behind a hit and compares its time, which makes the end of the window exact.

use foldhash::{HashMap, HashMapExt};

/// LIMIT: ids remembered, both generations together: about 50 MiB.
pub const IDS_MAX: usize = 1_800_000;

/// The window of known event ids.
#[derive(Debug)]
pub(crate) struct Dedup {
    window_ms: u64,
    ids_max: usize,
    young: HashMap<u128, u64>,
    old: HashMap<u128, u64>,
    young_since_ms: u64,
}

impl Dedup {
    pub(crate) fn new(window_ms: u64, ids_max: usize) -> Self {
        Self { window_ms, ids_max, young: HashMap::new(), old: HashMap::new(), young_since_ms: 0 }
    }

    /// The first message time inside the window of a message that gets this time.
    pub(crate) fn begin_ms(&self, ms: u64) -> u64 {
        ms.saturating_sub(self.window_ms)
    }

    /// Seq under which the id was stored, perhaps longer ago than the window.
    pub(crate) fn seq_of(&self, event_id: u128) -> Option<u64> {
        self.young.get(&event_id).or_else(|| self.old.get(&event_id)).copied()
    }

    /// Notes a stored event. `ms` is its message time: it never goes back.
    pub(crate) fn remember(&mut self, event_id: u128, seq: u64, ms: u64) {
        if self.window_ms == 0 {
            return;
        }
        // What goes is then older than the window of this message, and of any after it.
        let aged = ms.saturating_sub(self.young_since_ms) > self.window_ms;
        if aged || self.young.len() >= (self.ids_max / 2).max(1) {
            // As large as the last one was: growing moves everything, in the middle of a commit.
            let room = HashMap::with_capacity(self.young.len());
            self.old = std::mem::replace(&mut self.young, room);
            self.young_since_ms = ms;
        }
        self.young.insert(event_id, seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_known_for_the_whole_window() {
        let mut dedup = Dedup::new(100, IDS_MAX);
        for ms in 0..1_000_u64 {
            dedup.remember(u128::from(ms), ms, ms);
            let begin = dedup.begin_ms(ms);
            assert_eq!(dedup.seq_of(u128::from(begin)), Some(begin), "at {ms}");
        }
        assert_eq!(dedup.seq_of(1), None);
    }

    #[test]
    fn memory_is_bounded_whatever_the_rate() {
        let mut dedup = Dedup::new(1_000, 64);
        for id in 0..10_000_u64 {
            dedup.remember(u128::from(id), id, 1);
            assert!(dedup.young.len() + dedup.old.len() <= 64);
        }
        assert_eq!(dedup.seq_of(9_999), Some(9_999));
        assert_eq!(dedup.seq_of(9_999 - 31), Some(9_999 - 31));
    }

    #[test]
    fn no_window_remembers_nothing() {
        let mut dedup = Dedup::new(0, IDS_MAX);
        dedup.remember(1, 1, 1);
        assert_eq!(dedup.seq_of(1), None);
    }
}
