//! The newest events, each encoded once, for every subscriber that keeps up.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::log::{Filter, Record};

/// One event as subscribers get it.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) record: Record,
    /// The SSE frame, shared by all subscribers.
    pub(crate) bytes: Bytes,
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

/// What a subscriber finds at its place.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Frames that its filter admits, perhaps none, and the seq to go on from.
    Some {
        /// The wanted frames.
        frames: Vec<Frame>,
        /// Where to go on.
        next: u64,
    },
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

    /// Takes what a subscriber at `from` wants, of at most about `bytes`, looking at no more than `looks` frames.
    pub(crate) fn take(&self, from: u64, filter: &Filter, bytes: usize, looks: usize) -> Taken {
        if from < self.first {
            return Taken::Behind;
        }
        if from >= self.next() {
            return Taken::Nothing;
        }
        let (mut wanted, mut size, mut next) = (Vec::new(), 0, from);
        for frame in self.frames.range((from - self.first) as usize..).take(looks) {
            if size >= bytes {
                break;
            }
            next += 1;
            if filter.admits(&frame.record) {
                size += frame.bytes.len();
                wanted.push(frame.clone());
            }
        }
        Taken::Some { frames: wanted, next }
    }
}

/// The frames as one piece; a single frame is not copied.
pub(crate) fn joined(frames: &[Frame]) -> Bytes {
    if let [only] = frames {
        return only.bytes.clone();
    }
    let mut all = BytesMut::with_capacity(frames.iter().map(|frame| frame.bytes.len()).sum());
    for frame in frames {
        all.extend_from_slice(&frame.bytes);
    }
    all.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::tests::record;

    fn frame(seq: u64) -> Frame {
        Frame {
            record: record(seq, if seq.is_multiple_of(2) { "even" } else { "odd" }),
            bytes: vec![b'x'; 10].into(),
        }
    }

    fn seqs(taken: &Taken) -> (Vec<u64>, u64) {
        match taken {
            Taken::Some { frames, next } => {
                (frames.iter().map(|frame| frame.record.stamp.seq).collect(), *next)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_ring_keeps_the_newest_within_both_bounds() {
        let mut ring = Ring::new(5, 4, 1_000);
        ring.push((5..15).map(frame));
        assert!(matches!(ring.take(10, &Filter::default(), 1_000, 100), Taken::Behind));
        assert_eq!(seqs(&ring.take(11, &Filter::default(), 1_000, 100)), (vec![11, 12, 13, 14], 15));
        assert!(matches!(ring.take(15, &Filter::default(), 1_000, 100), Taken::Nothing));
        let mut ring = Ring::new(5, 100, 35);
        ring.push((5..15).map(frame));
        assert_eq!(seqs(&ring.take(12, &Filter::default(), 1_000, 100)), (vec![12, 13, 14], 15));
        ring.restart(40);
        assert!(matches!(ring.take(14, &Filter::default(), 1_000, 100), Taken::Behind));
        assert_eq!(ring.next(), 40);
    }

    #[test]
    fn a_subscriber_gets_what_it_wants_in_bounded_pieces() {
        let mut ring = Ring::new(1, 100, 10_000);
        ring.push((1..21).map(frame));
        let even = Filter { kinds: vec!["even".into()], ..Filter::default() };
        assert_eq!(seqs(&ring.take(1, &even, 30, 100)), (vec![2, 4, 6], 7));
        assert_eq!(seqs(&ring.take(1, &even, 1_000, 5)), (vec![2, 4], 6));
        let none = Filter { kinds: vec!["none".into()], ..Filter::default() };
        assert_eq!(seqs(&ring.take(1, &none, 1_000, 100)), (vec![], 21));
    }
}
