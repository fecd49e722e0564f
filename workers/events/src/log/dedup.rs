//! Which event ids were stored lately.
//!
//! Two generations of a map from event id to seq. The young one is filled; when it is as old as the window, or
//! holds half of [`IDS_MAX`], it becomes the old one and the old one is dropped whole. So an id is known for at
//! least the window (fewer than [`IDS_MAX`] / 2 events in it given), memory is bounded, and nothing is evicted one
//! by one. Times are those of messages, which never go back, whatever the clock does. The caller reads the record
//! behind a hit and compares its time, which makes the end of the window exact.
//!
//! Ids that clients chose are in a hash map. Those that the worker made are most of a busy stream's and hardly ever
//! asked for: they are written one behind the other, and found by the millisecond that stands in them. A place in a
//! hash map is a miss of every cache, a place behind the last one is none.

use std::collections::BTreeSet;

use foldhash::{HashMap, HashMapExt};

/// LIMIT: ids remembered, both generations together: about 75 MiB.
pub const IDS_MAX: usize = 1_800_000;

/// The window of known event ids.
#[derive(Debug)]
pub(crate) struct Dedup {
    window_ms: u64,
    ids_max: usize,
    young: Generation,
    old: Generation,
    young_since_ms: u64,
}

#[derive(Debug, Default)]
struct Generation {
    /// By clients; their seqs.
    chosen: HashMap<u128, u64>,
    made: Made,
}

/// Ids that the worker made (UUIDv7, whose upper 48 bits are milliseconds).
#[derive(Debug, Default)]
struct Made {
    ids: Vec<MadeId>,
    /// Where ids of one millisecond begin to stand together.
    runs: BTreeSet<(u64, u32)>,
}

/// Halves, and the seq: a u128 would be laid out with eight bytes of nothing.
#[derive(Clone, Copy, Debug)]
struct MadeId {
    high: u64,
    low: u64,
    seq: u64,
}

impl Dedup {
    pub(crate) fn new(window_ms: u64, ids_max: usize) -> Self {
        let (young, old) = (Generation::default(), Generation::default());
        Self { window_ms, ids_max, young, old, young_since_ms: 0 }
    }

    /// The first message time inside the window of a message that gets this time.
    pub(crate) fn begin_ms(&self, ms: u64) -> u64 {
        ms.saturating_sub(self.window_ms)
    }

    /// Seq under which the id was stored, perhaps longer ago than the window.
    pub(crate) fn seq_of(&self, event_id: u128) -> Option<u64> {
        self.young.seq_of(event_id).or_else(|| self.old.seq_of(event_id))
    }

    /// Notes a stored event. `is_made`: its id was made for it, by this worker. `ms` is its message time: it never goes
    /// back.
    pub(crate) fn remember(&mut self, event_id: u128, is_made: bool, seq: u64, ms: u64) {
        if self.window_ms == 0 {
            return;
        }
        // What goes is then older than the window of this message, and of any after it.
        let aged = ms.saturating_sub(self.young_since_ms) > self.window_ms;
        if aged || self.young.len() >= (self.ids_max / 2).max(1) {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.begin_like(&self.old);
            self.young_since_ms = ms;
        }
        if is_made {
            self.young.made.note(event_id, seq);
        } else {
            self.young.chosen.insert(event_id, seq);
        }
    }
}

impl Generation {
    fn len(&self) -> usize {
        self.chosen.len() + self.made.ids.len()
    }

    fn seq_of(&self, event_id: u128) -> Option<u64> {
        // One that a client chose is newer, where both are there.
        self.chosen.get(&event_id).copied().or_else(|| self.made.seq_of(event_id))
    }

    /// Forgets everything; there is room for about as much as the last one held, for growing moves everything, in the
    /// middle of a commit. Memory that was used before spares that of the system: to fill fresh pages costs as much as
    /// to write them.
    fn begin_like(&mut self, last: &Self) {
        let fits = |capacity: usize, wanted: usize| (wanted..=wanted.max(1_024) * 4).contains(&capacity);
        self.chosen.clear();
        if !fits(self.chosen.capacity(), last.chosen.len()) {
            self.chosen = HashMap::with_capacity(last.chosen.len());
        }
        self.made.runs.clear();
        self.made.ids.clear();
        if !fits(self.made.ids.capacity(), last.made.ids.len()) {
            self.made.ids = Vec::with_capacity(last.made.ids.len());
        }
    }
}

impl Made {
    fn note(&mut self, event_id: u128, seq: u64) {
        let id = MadeId { high: (event_id >> 64) as u64, low: event_id as u64, seq };
        if self.ids.last().is_none_or(|last| last.ms() != id.ms()) {
            self.runs.insert((id.ms(), self.ids.len() as u32));
        }
        self.ids.push(id);
    }

    fn seq_of(&self, event_id: u128) -> Option<u64> {
        let (high, low) = ((event_id >> 64) as u64, event_id as u64);
        let ms = high >> 16;
        let runs = self.runs.range((ms, 0)..=(ms, u32::MAX)).rev();
        let mut ids = runs.flat_map(|(_, at)| self.ids[*at as usize..].iter().take_while(|id| id.ms() == ms));
        ids.find(|id| id.low == low && id.high == high).map(|id| id.seq)
    }
}

impl MadeId {
    fn ms(&self) -> u64 {
        self.high >> 16
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_known_as_a_map_knows_them(
            events in prop::collection::vec((0_u8..4, 0_u64..4, 0_u64..6, 0_u64..30), 1..200),
            ids_max in 4_usize..80,
        ) {
            let mut dedup = Dedup::new(100, ids_max);
            let (mut known, mut made, mut now) = (std::collections::HashMap::new(), Vec::new(), 0);
            for (seq, (kind, ms, low, later)) in (1_u64..).zip(events) {
                now += later;
                // A client may choose what was made before, or what was chosen before.
                let chosen = u128::from(ms) << 80 | u128::from(low);
                let id = match kind {
                    0 | 1 => u128::from(ms) << 80 | 1 << 40 | u128::from(seq),
                    2 => made.get(low as usize * 7).copied().unwrap_or(chosen),
                    _ => chosen,
                };
                dedup.remember(id, kind < 2, seq, now);
                if kind < 2 {
                    made.push(id);
                }
                known.insert(id, (seq, now));
                prop_assert!(dedup.young.len() + dedup.old.len() <= ids_max);
                for (id, (stored, at)) in &known {
                    let found = dedup.seq_of(*id);
                    prop_assert!(found.is_none_or(|found| found <= *stored));
                    if now - at <= 100 && seq - stored < ids_max as u64 / 2 {
                        prop_assert_eq!(found, Some(*stored));
                    }
                }
            }
        }

        #[test]
        fn made_ids_are_found_wherever_the_clock_went(ms in prop::collection::vec(0_u64..5, 1..100)) {
            let mut dedup = Dedup::new(1_000, IDS_MAX);
            let id = |ms: u64, seq: u64| u128::from(ms) << 80 | u128::from(seq);
            for (seq, ms) in (1..).zip(&ms) {
                dedup.remember(id(*ms, seq), true, seq, 7);
            }
            for (seq, ms) in (1..).zip(&ms) {
                prop_assert_eq!(dedup.seq_of(id(*ms, seq)), Some(seq));
                prop_assert_eq!(dedup.seq_of(id(*ms + 1, seq)), None);
                prop_assert_eq!(dedup.seq_of(id(*ms, seq) | 1 << 70), None);
            }
        }
    }

    #[test]
    fn an_id_is_known_for_the_whole_window() {
        let mut dedup = Dedup::new(100, IDS_MAX);
        for ms in 0..1_000_u64 {
            dedup.remember(u128::from(ms), false, ms, ms);
            let begin = dedup.begin_ms(ms);
            assert_eq!(dedup.seq_of(u128::from(begin)), Some(begin), "at {ms}");
        }
        assert_eq!(dedup.seq_of(1), None);
    }

    #[test]
    fn memory_is_bounded_whatever_the_rate() {
        let mut dedup = Dedup::new(1_000, 64);
        for id in 0..10_000_u64 {
            dedup.remember(u128::from(id), id.is_multiple_of(2), id, 1);
            assert!(dedup.young.len() + dedup.old.len() <= 64);
        }
        assert_eq!(dedup.seq_of(9_999), Some(9_999));
        assert_eq!(dedup.seq_of(9_999 - 31), Some(9_999 - 31));
    }

    #[test]
    fn no_window_remembers_nothing() {
        let mut dedup = Dedup::new(0, IDS_MAX);
        dedup.remember(1, false, 1, 1);
        assert_eq!(dedup.seq_of(1), None);
    }
}
