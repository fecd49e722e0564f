//! Which segments may go. Pure: sizes and times in, a count out.

/// What the log keeps. A bound that is absent does not bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// A segment goes when its newest event is older than this.
    pub age_ms: Option<u64>,
    /// The oldest segments go until the rest has at most so many bytes.
    pub bytes: Option<u64>,
    /// The oldest segments go while the rest still holds so many events.
    pub count: Option<u64>,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// Segments.
    pub segments: usize,
    /// Events in them.
    pub events: u64,
    /// Bytes of their records and headers.
    pub bytes: u64,
}

/// What retention needs to know of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    /// Message time of the newest event.
    pub(crate) last_ms: u64,
}

impl Retention {
    /// Size at which a segment is closed: an eighth of what is kept, so that bounds are kept within an eighth.
    pub(crate) fn segment_bytes(&self, default: u64) -> u64 {
        self.bytes.map_or(default, |bytes| (bytes / 8).clamp(4 * 1024, default))
    }

    /// Events after which a segment is closed.
    pub(crate) fn segment_records(&self) -> u64 {
        self.count.map_or(u64::MAX, |count| (count / 8).max(1))
    }

    /// Age at which a segment is closed, in milliseconds between its first message and now.
    pub(crate) fn segment_age_ms(&self) -> u64 {
        self.age_ms.map_or(u64::MAX, |age| (age / 8).max(1))
    }

    /// How many of the oldest segments may be unlinked. The last one is the one being written: it stays.
    pub(crate) fn expired(&self, segments: &[Extent], now_ms: u64) -> usize {
        let mut bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let mut records: u64 = segments.iter().map(|segment| segment.records).sum();
        let sealed = segments.split_last().map_or(segments, |(_, sealed)| sealed);
        let mut gone = 0;
        for segment in sealed {
            let too_old = self.age_ms.is_some_and(|age| segment.last_ms.saturating_add(age) < now_ms);
            let too_large = self.bytes.is_some_and(|bound| bytes > bound);
            let too_many = self.count.is_some_and(|bound| records - segment.records >= bound);
            if !(too_old || too_large || too_many) {
                break;
            }
            bytes -= segment.bytes;
            records -= segment.records;
            gone += 1;
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(n: u64) -> Vec<Extent> {
        (1..=n).map(|i| Extent { records: 10, bytes: 1_000, last_ms: i * 100 }).collect()
    }

    #[test]
    fn without_bounds_nothing_goes() {
        assert_eq!(Retention::default().expired(&segments(50), u64::MAX), 0);
    }

    #[test]
    fn age_counts_from_the_newest_event_of_a_segment() {
        let keep = Retention { age_ms: Some(200), ..Retention::default() };
        assert_eq!(keep.expired(&segments(5), 500), 2);
        assert_eq!(keep.expired(&segments(5), 501), 3);
    }

    #[test]
    fn bytes_are_an_upper_bound_and_count_a_lower_one() {
        let keep = Retention { bytes: Some(2_500), ..Retention::default() };
        assert_eq!(keep.expired(&segments(5), 0), 3);
        let keep = Retention { count: Some(25), ..Retention::default() };
        assert_eq!(keep.expired(&segments(5), 0), 2);
    }

    #[test]
    fn the_segment_being_written_stays() {
        let keep = Retention { age_ms: Some(1), bytes: Some(0), count: Some(0) };
        assert_eq!(keep.expired(&segments(5), u64::MAX), 4);
        assert_eq!(keep.expired(&segments(1), u64::MAX), 0);
        assert_eq!(keep.expired(&[], u64::MAX), 0);
    }
}
