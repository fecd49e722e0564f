//! The events of a replay, read in pieces: memory does not grow with the window.

use crate::engine::{ReadError, Reader};
use crate::log::{Filter, Record, Trimmed};

/// Events read at once.
const PIECE_EVENTS: usize = 1_000;
/// Bytes read at once.
const PIECE_BYTES: usize = 256 * 1024;
/// Events looked at before others have their turn to read.
const PIECE_SCAN_MAX: u64 = 100_000;

/// What is replayed. It ends with what was the newest event when it was made, so that the same window has the same
/// events each time it is read.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Which events.
    pub(super) filter: Filter,
    /// Newest seq.
    pub(super) upto: u64,
}

/// The next events of a window.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// In the order of the log.
    pub(super) records: Vec<Record>,
    /// Where the next piece begins; beyond `upto` at the end.
    pub(super) next: u64,
    /// What retention took away from under the replay.
    pub(super) trimmed: Option<Trimmed>,
}

impl Window {
    /// Reads the events from a seq on.
    pub(super) fn read(&self, reader: &Reader, from: u64) -> Result<Piece, ReadError> {
        let mut scan = reader.forward(from, self.filter.clone()).pausing_after(PIECE_SCAN_MAX);
        let (mut piece, mut bytes) = (Piece::default(), 0);
        loop {
            if piece.records.len() >= PIECE_EVENTS || bytes >= PIECE_BYTES {
                piece.next = scan.position();
                break;
            }
            match scan.next()? {
                Some(record) if record.stamp.seq > self.upto => {
                    piece.next = self.upto + 1;
                    break;
                }
                Some(record) => {
                    bytes += record.json().len();
                    piece.records.push(record);
                }
                None => {
                    piece.next = scan.position();
                    break;
                }
            }
        }
        // Before the first event that was kept when the replay began there was nothing to lose.
        piece.trimmed = scan.trimmed().filter(|lost| lost.expected > 0 && lost.expected <= self.upto);
        Ok(piece)
    }

    /// Counts the events from a seq on, as many as are looked at in one turn; the count, and where to go on.
    pub(super) fn count(&self, reader: &Reader, from: u64) -> Result<(u64, u64), ReadError> {
        let mut scan = reader.forward(from, self.filter.clone()).pausing_after(PIECE_SCAN_MAX);
        let mut counted = 0;
        while counted < PIECE_SCAN_MAX {
            match scan.next()? {
                Some(record) if record.stamp.seq > self.upto => return Ok((counted, self.upto + 1)),
                Some(_) => counted += 1,
                None => break,
            }
        }
        Ok((counted, scan.position()))
    }

    /// Looks for the first event at or after an event time, in one turn: its seq, or where to go on looking.
    pub(super) fn seek(&self, reader: &Reader, from: u64, time_us: i64) -> Result<Sought, ReadError> {
        let mut filter = self.filter.clone();
        filter.from_us = Some(filter.from_us.map_or(time_us, |from| from.max(time_us)));
        let mut scan = reader.forward(from, filter).pausing_after(PIECE_SCAN_MAX);
        Ok(match scan.next()? {
            Some(record) => Sought::At(record.stamp.seq.min(self.upto + 1)),
            None if scan.paused() && scan.position() <= self.upto => Sought::Further(scan.position()),
            None => Sought::At(self.upto + 1),
        })
    }
}

/// What became of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sought {
    /// Found here, or at the end.
    At(u64),
    /// Not yet; go on here.
    Further(u64),
}

#[cfg(test)]
mod tests {
    use crate::log::{Draft, Fsync, Ground, Labels, Log, Options, Retention};

    use super::*;

    fn log(dir: &std::path::Path, events: u64) -> Log {
        let options = Options {
            fsync: Fsync::Interval(std::time::Duration::from_millis(1)),
            retention: Retention::default(),
            dedup_window_ms: 0,
            segment_bytes: 1 << 20,
            partitions: None,
        };
        let log = Log::open(dir, &options, Ground::default()).unwrap();
        for batch in 0..events / 1_000 {
            let drafts = (0..1_000)
                .map(|n| {
                    let at = batch * 1_000 + n;
                    let kind = ["a", "b"][(at % 2) as usize];
                    let labels = Labels { kind, symbol: "", source: "test" };
                    let json =
                        format!(r#"{{"data":{{"n":{at},"pad":"{}"}},"metadata":{{}}}}"#, "x".repeat(80));
                    Draft::new(labels, at as i64 * 1_000, u128::from(at), at, json.as_bytes()).unwrap()
                })
                .collect();
            log.append_blocking(drafts, false).unwrap();
        }
        while log.reader().durable_seq() < events {
            log.reader().wait_beyond(log.reader().durable_seq(), std::time::Duration::from_secs(5));
        }
        log
    }

    fn whole(window: &Window, reader: &Reader, mut from: u64) -> u64 {
        let mut events = 0;
        while from <= window.upto {
            let piece = window.read(reader, from).unwrap();
            events += piece.records.len() as u64;
            from = piece.next;
        }
        events
    }

    #[test]
    fn memory_does_not_grow_with_the_window() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), 60_000);
        let reader = Reader::Embedded(log.reader());
        let peak = |upto: u64| {
            let window = Window { filter: Filter::default(), upto };
            // Block tables are read once and kept, a bounded number of them.
            assert_eq!(whole(&window, &reader, 0), upto);
            let read = allocation_counter::measure(|| {
                std::hint::black_box(whole(&window, &reader, 0));
            });
            read.bytes_max
        };
        let (few, many) = (peak(6_000), peak(60_000));
        assert!(many < 8 << 20, "{many}");
        assert!(many < few * 2, "{few} bytes for 6000 events, {many} for 60000");
    }

    #[test]
    fn a_window_is_counted_and_searched() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(dir.path(), 2_000);
        let reader = Reader::Embedded(log.reader());
        let filter = Filter { kinds: vec!["b".into()], ..Filter::default() };
        let window = Window { filter, upto: 1_000 };
        assert_eq!(whole(&window, &reader, 0), 500);
        assert_eq!(window.count(&reader, 0).unwrap(), (500, 1_001));
        // Event n is at n ms and has the seq n + 1; every second one is wanted.
        assert_eq!(window.seek(&reader, 0, 100_000).unwrap(), Sought::At(102));
        assert_eq!(window.seek(&reader, 0, 101_000).unwrap(), Sought::At(102));
        assert_eq!(window.seek(&reader, 0, 1_500_000).unwrap(), Sought::At(1_001));
        assert_eq!(window.seek(&reader, 0, i64::MAX).unwrap(), Sought::At(1_001));
    }
}
