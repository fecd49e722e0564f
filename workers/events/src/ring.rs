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

/// A bounded run of events: frames of those that somebody wants. The others passed, and take no room.
#[derive(Debug)]
pub(crate) struct Ring {
    /// By rising seqs.
    frames: VecDeque<Frame>,
    /// Everything from this seq on has a frame or passed.
    first: u64,
    /// Seq of the event to come.
    next: u64,
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
    /// Its place is before its coming, and what passed there nobody asked whether it wants.
    Passed,
}

impl Ring {
    /// An empty one that begins at a seq and spans at most so many events, and bytes of frames.
    pub(crate) fn new(first: u64, frames_max: usize, bytes_max: usize) -> Self {
        Self { frames: VecDeque::new(), first, next: first, bytes: 0, frames_max, bytes_max }
    }

    /// Takes up the events before `next`, with the frames of those that somebody wants; the oldest make room.
    pub(crate) fn push(&mut self, frames: impl IntoIterator<Item = Frame>, next: u64) {
        for frame in frames {
            debug_assert!((self.next..next).contains(&frame.seq()), "frames are in their order");
            self.next = frame.seq() + 1;
            self.bytes += frame.bytes.len();
            self.frames.push_back(frame);
            self.make_room();
        }
        self.next = next;
        self.make_room();
    }

    /// Events that passed count too: what nobody looks at any more must not stay for want of others.
    fn make_room(&mut self) {
        let oldest = self.next.saturating_sub(self.frames_max as u64);
        while let Some(frame) = self.frames.front()
            && (frame.seq() < oldest || self.bytes > self.bytes_max)
        {
            self.first = frame.seq() + 1;
            self.bytes -= frame.bytes.len();
            self.frames.pop_front();
        }
        self.first = self.first.max(oldest);
    }

    /// Begins again at a seq, with nothing.
    pub(crate) fn restart(&mut self, first: u64) {
        self.frames.clear();
        (self.first, self.next, self.bytes) = (first, first, 0);
    }

    /// Seq of the event to come.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// The frames from a seq on.
    pub(crate) fn since(&self, from: u64) -> impl Iterator<Item = &Frame> {
        self.frames.range(self.place(from)..)
    }

    /// Shows a subscriber at `from` the frames there, at most `looks` of them, until it wants no more. What passed
    /// from `since` on it does not want.
    pub(crate) fn see(
        &self,
        from: u64,
        since: u64,
        looks: usize,
        mut goes_on: impl FnMut(&Frame) -> bool,
    ) -> Seen {
        if from < since.min(self.next) && !self.has_all(from, since.min(self.next)) {
            return Seen::Passed;
        }
        if from < self.first {
            return Seen::Behind;
        }
        if from >= self.next {
            return Seen::Nothing;
        }
        for (looked, frame) in self.since(from).enumerate() {
            if looked == looks {
                return Seen::Upto(frame.seq());
            }
            if !goes_on(frame) {
                return Seen::Upto(frame.seq() + 1);
            }
        }
        Seen::Upto(self.next)
    }

    /// The frame of an event, where it has one.
    pub(crate) fn get(&self, seq: u64) -> Option<&Frame> {
        self.frames.get(self.place(seq)).filter(|frame| frame.seq() == seq)
    }

    /// Whether every event from `from` to before `to` has a frame.
    fn has_all(&self, from: u64, to: u64) -> bool {
        from >= self.first && (self.place(to) - self.place(from)) as u64 == to - from
    }

    /// Where the first frame from a seq on stands.
    fn place(&self, seq: u64) -> usize {
        if self.frames.len() as u64 == self.next - self.first {
            // Nothing has passed.
            return (seq.saturating_sub(self.first) as usize).min(self.frames.len());
        }
        self.frames.partition_point(|frame| frame.seq() < seq)
    }
}

impl Frame {
    fn seq(&self) -> u64 {
        self.record.stamp.seq
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
        let seen = ring.see(from, 0, looks, |frame| {
            seqs.push(frame.record.stamp.seq);
            seqs.len() < most
        });
        (seqs, seen)
    }

    #[test]
    fn the_ring_keeps_the_newest_within_both_bounds() {
        let mut ring = Ring::new(5, 4, 1_000);
        ring.push((5..15).map(frame), 15);
        assert_eq!(seqs(&ring, 10, 100, 100), (vec![], Seen::Behind));
        assert_eq!(seqs(&ring, 11, 100, 100), (vec![11, 12, 13, 14], Seen::Upto(15)));
        assert_eq!(seqs(&ring, 15, 100, 100), (vec![], Seen::Nothing));
        let mut ring = Ring::new(5, 100, 35);
        ring.push((5..15).map(frame), 15);
        assert_eq!(seqs(&ring, 12, 100, 100), (vec![12, 13, 14], Seen::Upto(15)));
        ring.restart(40);
        assert_eq!(seqs(&ring, 14, 100, 100), (vec![], Seen::Behind));
        assert_eq!(ring.next(), 40);
    }

    #[test]
    fn a_subscriber_looks_at_a_bounded_number_and_stops_where_it_has_enough() {
        let mut ring = Ring::new(1, 100, 10_000);
        ring.push((1..21).map(frame), 21);
        assert_eq!(seqs(&ring, 1, 5, 100), (vec![1, 2, 3, 4, 5], Seen::Upto(6)));
        assert_eq!(seqs(&ring, 6, 100, 2), (vec![6, 7], Seen::Upto(8)));
    }

    #[test]
    fn what_passed_is_stepped_over_by_who_was_there() {
        let mut ring = Ring::new(5, 100, 1_000);
        ring.push([6, 9].map(frame), 12);
        assert_eq!(seqs(&ring, 5, 100, 100), (vec![6, 9], Seen::Upto(12)));
        assert_eq!(seqs(&ring, 5, 1, 100), (vec![6], Seen::Upto(9)));
        assert_eq!(seqs(&ring, 7, 100, 1), (vec![9], Seen::Upto(10)));
        assert_eq!(seqs(&ring, 10, 100, 1), (vec![], Seen::Upto(12)));
        assert_eq!((ring.get(9).map(Frame::seq), ring.get(8).map(Frame::seq)), (Some(9), None));
        let late = |from, since| ring.see(from, since, 100, |_| true);
        assert_eq!(
            (late(6, 12), late(6, 7), late(7, 12), late(7, 7)),
            (Seen::Passed, Seen::Upto(12), Seen::Passed, Seen::Upto(12))
        );
        assert_eq!((late(3, 4), late(3, 3), late(12, 20)), (Seen::Passed, Seen::Behind, Seen::Nothing));
    }

    #[test]
    fn what_passed_pushes_old_frames_out_too() {
        let mut ring = Ring::new(5, 4, 1_000);
        ring.push([5, 6].map(frame), 9);
        assert_eq!(seqs(&ring, 5, 100, 100), (vec![5, 6], Seen::Upto(9)));
        ring.push([], 10);
        assert_eq!(seqs(&ring, 5, 100, 100), (vec![], Seen::Behind));
        assert_eq!(seqs(&ring, 6, 100, 100), (vec![6], Seen::Upto(10)));
        ring.push([], 30);
        assert_eq!((seqs(&ring, 25, 100, 100), ring.bytes), ((vec![], Seen::Behind), 0));
        assert_eq!(seqs(&ring, 26, 100, 100), (vec![], Seen::Upto(30)));
    }
}
