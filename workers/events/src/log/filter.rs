//! What a reader wants to see: decided on a record's labels and times alone.

use sluice_identity::grants::glob_matches;

use super::index::{Block, Summary};
use super::record::Record;

/// Conditions that must all hold; the default lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Event types; empty means every type.
    pub kinds: Vec<Box<str>>,
    /// Types that the reader may see, as globs; `None` means every type.
    pub granted: Option<Vec<Box<str>>>,
    /// Source.
    pub source: Option<Box<str>>,
    /// Symbol.
    pub symbol: Option<Box<str>>,
    /// First event time, in microseconds since 1970.
    pub from_us: Option<i64>,
    /// Last event time, in microseconds since 1970.
    pub to_us: Option<i64>,
}

impl Filter {
    /// Whether a record is wanted.
    pub fn admits(&self, record: &Record) -> bool {
        (self.kinds.is_empty() || self.kinds.iter().any(|wanted| record.is_kind(wanted)))
            && (self.granted.is_none() || self.is_granted(record.kind()))
            && self.symbol.as_deref().is_none_or(|wanted| wanted == record.symbol())
            && self.source.as_deref().is_none_or(|wanted| wanted == record.source())
            && self.from_us.is_none_or(|from| from <= record.time_us)
            && self.to_us.is_none_or(|to| record.time_us <= to)
    }

    /// Whether events of a type can be wanted.
    pub fn admits_type(&self, kind: &str) -> bool {
        (self.kinds.is_empty() || self.kinds.iter().any(|wanted| &**wanted == kind)) && self.is_granted(kind)
    }

    fn is_granted(&self, kind: &str) -> bool {
        self.granted.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob_matches(glob, kind)))
    }

    /// Whether a segment may hold a wanted record.
    pub(crate) fn may_be_in(&self, summary: &Summary) -> bool {
        self.may_be_within(summary.time_min_us, summary.time_max_us)
            && (summary.other_types > 0 || summary.types.keys().any(|kind| self.admits_type(kind)))
    }

    /// Whether a block may hold a wanted record.
    pub(crate) fn may_be_in_block(&self, block: &Block) -> bool {
        self.may_be_within(block.time_min_us, block.time_max_us)
    }

    fn may_be_within(&self, min_us: i64, max_us: i64) -> bool {
        self.from_us.is_none_or(|from| from <= max_us) && self.to_us.is_none_or(|to| min_us <= to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::record;

    #[test]
    fn all_conditions_must_hold() {
        let filter = Filter {
            kinds: vec!["a".into(), "b".into()],
            symbol: Some("BTC/USDT".into()),
            source: Some("test".into()),
            from_us: Some(5),
            to_us: Some(9),
            ..Filter::default()
        };
        // The records' event time is their seq.
        assert!(filter.admits(&record(5, "a")) && filter.admits(&record(9, "b")));
        for (seq, kind) in [(5, "c"), (4, "a"), (10, "a")] {
            assert!(!filter.admits(&record(seq, kind)));
        }
        let other = Filter { symbol: Some("ETH/USDT".into()), ..filter.clone() };
        assert!(!other.admits(&record(5, "a")));
        let other = Filter { source: Some("ml".into()), ..filter };
        assert!(!other.admits(&record(5, "a")));
    }

    #[test]
    fn grants_narrow_what_was_asked_for() {
        let filter = Filter { granted: Some(vec!["order_*".into()]), ..Filter::default() };
        assert!(filter.admits(&record(1, "order_executed")));
        assert!(!filter.admits(&record(1, "trading_signal")));
    }
}
