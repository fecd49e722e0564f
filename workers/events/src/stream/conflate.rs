//! The newest event of each type and symbol, for who wants the present rather than all of the past.
//!
//! Holds seqs, not events: what is due is read from the ring or the log when it goes out, so a subscriber that
//! takes nothing keeps no event in memory. Events without a symbol have no successor that stands for them: each of
//! them goes out.

use foldhash::{HashMap, HashMapExt as _};

/// LIMIT: events that wait to go out. Beyond it the stream is not read on until they have gone.
pub(crate) const WAITING_MAX: usize = 16_384;

/// An event that is to go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) seq: u64,
    /// Events of its type and symbol that it stands for, itself left out.
    pub(crate) conflated: u64,
}

/// What waits.
#[derive(Debug, Default)]
pub(crate) struct Conflation {
    /// By type and symbol: where it is in `waiting`.
    places: HashMap<Box<str>, usize>,
    waiting: Vec<Due>,
    key: String,
}

impl Conflation {
    pub(crate) fn new() -> Self {
        Self { places: HashMap::new(), waiting: Vec::new(), key: String::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether nothing more can be taken before what waits has gone out.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting.len() >= WAITING_MAX
    }

    /// Takes the next event of the stream, unless it is full.
    pub(crate) fn take(&mut self, kind: &str, symbol: &str, seq: u64) {
        if symbol.is_empty() {
            self.waiting.push(Due { seq, conflated: 0 });
            return;
        }
        self.key.clear();
        self.key.push_str(kind);
        // No type has it.
        self.key.push('\n');
        self.key.push_str(symbol);
        if let Some(place) = self.places.get(self.key.as_str()) {
            let due = &mut self.waiting[*place];
            *due = Due { seq, conflated: due.conflated + 1 };
        } else {
            self.places.insert(self.key.as_str().into(), self.waiting.len());
            self.waiting.push(Due { seq, conflated: 0 });
        }
    }

    /// All that waits, in the order of the stream: whoever resumes behind one of them misses no later one.
    pub(crate) fn drain(&mut self) -> Vec<Due> {
        self.places.clear();
        let mut due = std::mem::take(&mut self.waiting);
        due.sort_unstable_by_key(|due| due.seq);
        due
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Every event goes out itself or is counted by the newest of its type and symbol.
        #[test]
        fn nothing_is_lost_uncounted(
            events in prop::collection::vec((0_u8..3, 0_u8..4, prop::bool::weighted(0.1)), 0..200),
        ) {
            let mut conflation = Conflation::new();
            let mut model: BTreeMap<(u8, u8, u64), (u64, u64)> = BTreeMap::new();
            let mut out = Vec::new();
            let mut seq = 0;
            for (kind, symbol, flush) in events {
                seq += 1;
                let text = if symbol == 0 { String::new() } else { symbol.to_string() };
                conflation.take(&kind.to_string(), &text, seq);
                // Without a symbol each is its own key.
                let entry = model.entry((kind, symbol, if symbol == 0 { seq } else { 0 })).or_insert((0, 0));
                *entry = (seq, entry.1 + 1);
                if flush {
                    let due = conflation.drain();
                    let mut expected: Vec<Due> = std::mem::take(&mut model)
                        .into_values()
                        .map(|(seq, count)| Due { seq, conflated: count - 1 })
                        .collect();
                    expected.sort_by_key(|due| due.seq);
                    prop_assert_eq!(&due, &expected);
                    prop_assert!(conflation.is_empty());
                    out.extend(due);
                }
            }
            out.extend(conflation.drain());
            prop_assert!(out.windows(2).all(|two| two[0].seq < two[1].seq));
            prop_assert_eq!(out.iter().map(|due| due.conflated + 1).sum::<u64>(), seq);
        }
    }

    #[test]
    fn what_waits_is_bounded_by_keys_not_by_events() {
        let mut conflation = Conflation::new();
        for seq in 0..1_000_000 {
            conflation.take("market_data_update", "BTC/USDT", seq);
        }
        assert!(!conflation.is_full());
        for seq in 0..WAITING_MAX as u64 {
            conflation.take("risk_alert", "", 1_000_000 + seq);
        }
        assert!(conflation.is_full());
        assert_eq!(conflation.drain()[0], Due { seq: 999_999, conflated: 999_999 });
    }
}
