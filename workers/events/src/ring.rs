//! The newest events, each encoded once, for every subscriber that keeps up.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::log::Record;
use crate::metrics::Kind;

/// One event as subscribers get it.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) record: Record,
    /// The SSE frame, shared by all subscribers.
    pub(crate) bytes: Bytes,
    /// Where in it the JSON begins.
    pub(crate) json_at: usize,
    /// What its delivery is counted as.
    pub(crate) kind: Kind,
}

/// A bounded run of frames with contiguous seqs.
#[derive(Debug)]
pub(crate) struct Ring {
    frames: VecDeque<Frame>,
    /// Seq of the first frame, or of the one to come.
    first: u64,
    bytes: usize,
    frames_max: usize,
    bytes_max: usize,
}

/// What a subscriber found at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It looked at frames, and goes on from this seq.
    Upto(u64),
    /// Nothing new.
    Nothing,
    /// Its place is no longer in the ring.
    Behind,
}

impl Ring {
    pub(crate) fn new(first: u64, frames_max: usize, bytes_max: usize) -> Self {
        Self { frames: VecDeque::new(), first, bytes: 0, frames_max, bytes_max }
    }

    /// Adds the next frames; the oldest make room.
    pub(crate) fn push(&mut self, frames: impl IntoIterator<Item = Frame>) {
        for frame in frames {
            debug_assert_eq!(frame.record.stamp.seq, self.next(), "frames are contiguous");
            self.bytes += frame.bytes.len();
            self.frames.push_back(frame);
            while self.frames.len() > self.frames_max || self.bytes > self.bytes_max {
                let Some(oldest) = self.frames.pop_front() else { break };
                self.bytes -= oldest.bytes.len();
                self.first += 1;
            }
        }
    }

    /// Begins again at a seq, with nothing.
    pub(crate) fn restart(&mut self, first: u64) {
        self.frames.clear();
        (self.first, self.bytes) = (first, 0);
    }

    /// Seq of the frame to come.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// The frames from a seq on.
    pub(crate) fn since(&self, from: u64) -> impl Iterator<Item = &Frame> {
        self.frames.range((from.saturating_sub(self.first) as usize).min(self.frames.len())..)
    }

    /// Shows a subscriber at `from` the frames there, at most `looks` of them, until it wants no more.
    pub(crate) fn see(&self, from: u64, looks: usize, mut goes_on: impl FnMut(&Frame) -> bool) -> Seen {
        if from < self.first {
            return Seen::Behind;
        }
        if from >= self.next() {
            return Seen::Nothing;
        }
        let mut next = from;
        for frame in self.frames.range((from - self.first) as usize..).take(looks) {
            next += 1;
            if !goes_on(frame) {
                break;
            }
        }
        Seen::Upto(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::record;

    fn frame(seq: u64) -> Frame {
        let record = record(seq, if seq.is_multiple_of(2) { "even" } else { "odd" });
        Frame { record, bytes: vec![b'x'; 10].into(), json_at: 0, kind: Kind::default() }
    }

    fn seqs(ring: &Ring, from: u64, looks: usize, most: usize) -> (Vec<u64>, Seen) {
        let mut seqs = Vec::new();
        let seen = ring.see(from, looks, |frame| {
            seqs.push(frame.record.stamp.seq);
            seqs.len() < most
        });
        (seqs, seen)
    }

    #[test]
    fn the_ring_keeps_the_newest_within_both_bounds() {
        let mut ring = Ring::new(5, 4, 1_000);
        ring.push((5..15).map(frame));
        assert_eq!(seqs(&ring, 10, 100, 100), (vec![], Seen::Behind));
        assert_eq!(seqs(&ring, 11, 100, 100), (vec![11, 12, 13, 14], Seen::Upto(15)));
        assert_eq!(seqs(&ring, 15, 100, 100), (vec![], Seen::Nothing));
        let mut ring = Ring::new(5, 100, 35);
        ring.push((5..15).map(frame));
        assert_eq!(seqs(&ring, 12, 100, 100), (vec![12, 13, 14], Seen::Upto(15)));
        ring.restart(40);
        assert_eq!(seqs(&ring, 14, 100, 100), (vec![], Seen::Behind));
        assert_eq!(ring.next(), 40);
    }

    #[test]
    fn a_subscriber_looks_at_a_bounded_number_and_stops_where_it_has_enough() {
        let mut ring = Ring::new(1, 100, 10_000);
        ring.push((1..21).map(frame));
        assert_eq!(seqs(&ring, 1, 5, 100), (vec![1, 2, 3, 4, 5], Seen::Upto(6)));
        assert_eq!(seqs(&ring, 6, 100, 2), (vec![6, 7], Seen::Upto(8)));
    }
}
