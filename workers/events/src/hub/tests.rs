//! Subscribers that come, look, sleep and go between any two steps of the fan-out.

use std::task::{Context, Waker};

use proptest::prelude::*;

use super::*;
use crate::bell::Wants;
use crate::log::tests::labelled;
use crate::metrics::Kind;

const NAMES: [&str; 3] = ["a", "b", "c"];

/// What the fan-out's thread does, in the steps between which others have their turn.
enum Stage {
    Idle,
    Sifted(Range<u64>, Vec<Record>, bool),
    Shown(Range<u64>),
}

/// What a subscriber and the fan-out share.
struct Stream {
    log: Vec<&'static str>,
    ring: Ring,
    bells: Bells,
    head: u64,
    stage: Stage,
}

impl Stream {
    /// The next step; `false` where there is none.
    fn step(&mut self) -> bool {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => {
                let seqs = self.head + 1..self.log.len() as u64 + 1;
                if seqs.is_empty() {
                    return false;
                }
                let record = |seq: u64| labelled(seq, self.log[seq as usize - 1], "");
                let mut records = seqs.clone().map(record).collect();
                let is_heard = self.bells.sift(seqs.end - 1, &mut records);
                Stage::Sifted(seqs, records, is_heard)
            }
            Stage::Sifted(seqs, records, is_heard) => {
                let frame = |record| Frame { record, bytes: Bytes::new(), json_at: 0, kind: Kind::default() };
                let frames = records.into_iter().map(frame).collect();
                take_up(&mut self.ring, seqs.clone(), frames, is_heard);
                self.head = seqs.end - 1;
                Stage::Shown(seqs)
            }
            Stage::Shown(seqs) => {
                let frames = self.ring.since(seqs.start).map(|frame| &frame.record);
                self.bells.ring(seqs.start, seqs.end - 1, frames);
                Stage::Idle
            }
        };
        true
    }
}

/// A subscriber as [`crate::stream::feed`] has it, without what it writes.
struct Viewer {
    bell: Arc<Bell>,
    kinds: Vec<Box<str>>,
    begun: u64,
    next: u64,
    live: bool,
    resting: bool,
    seen: Vec<u64>,
}

impl Viewer {
    fn wants(&self) -> Wants<'_> {
        if self.kinds.is_empty() { Wants::Events } else { Wants::Types(&self.kinds) }
    }

    fn open(stream: &Stream, kinds: [bool; 3], back: u64) -> Self {
        let named = NAMES.iter().zip(kinds).filter(|(_, is_wanted)| *is_wanted);
        let kinds: Vec<Box<str>> = named.map(|(name, _)| (*name).into()).collect();
        let next = (stream.log.len() as u64 + 1).saturating_sub(back).max(1);
        let bell = Bell::new();
        let seen = Vec::new();
        let viewer = Self { bell, kinds, begun: next, next, live: false, resting: false, seen };
        stream.bells.hang(&viewer.bell, viewer.wants());
        viewer
    }

    fn is_awake(&self) -> bool {
        !self.resting || self.bell.is_rung()
    }

    fn look(&mut self, stream: &Stream) {
        if std::mem::take(&mut self.resting) {
            self.next = stream.bells.rouse(&self.bell, self.next);
        }
        let Self { kinds, seen, .. } = self;
        let mut take = |seq: u64| {
            let kind = stream.log[seq as usize - 1];
            if kinds.is_empty() || kinds.iter().any(|wanted| **wanted == *kind) {
                seen.push(seq);
            }
        };
        let found = stream.ring.see(self.next, self.bell.since(), 2, |frame| {
            take(frame.record.stamp.seq);
            true
        });
        match found {
            Seen::Upto(next) => (self.next, self.live, self.resting) = (next, true, next > stream.head),
            Seen::Nothing => (self.live, self.resting) = (true, true),
            Seen::Behind | Seen::Passed => {
                assert!(!self.live || found == Seen::Passed, "it never left the ring");
                let next = stream.log.len() as u64 + 1;
                (self.next..next).for_each(take);
                (self.next, self.live) = (next, false);
            }
        }
        self.bell.listen(&Context::from_waker(Waker::noop()));
    }
}

#[derive(Clone, Debug)]
enum Act {
    Publish(usize),
    Step,
    Open([bool; 3], u64),
    Look(usize),
    Leave(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0_usize..3).prop_map(Act::Publish),
        4 => Just(Act::Step),
        1 => (any::<[bool; 3]>(), 0_u64..8).prop_map(|(kinds, back)| Act::Open(kinds, back)),
        3 => (0_usize..5).prop_map(Act::Look),
        1 => (0_usize..8).prop_map(Act::Leave),
    ];
    prop::collection::vec(act, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whenever a subscriber comes, looks and sleeps, in the middle of a batch too: it sees what it wants, once, in
    /// order, and is not taken for one that was too slow.
    #[test]
    fn who_is_there_misses_nothing_of_what_passes(acts in acts()) {
        let mut stream = Stream {
            log: Vec::new(),
            ring: Ring::new(1, 1_000, 1_000),
            bells: Bells::new(0),
            head: 0,
            stage: Stage::Idle,
        };
        let mut viewers: Vec<Viewer> = Vec::new();
        for act in acts {
            match act {
                Act::Publish(kind) => stream.log.push(NAMES[kind]),
                Act::Step => drop(stream.step()),
                Act::Open(kinds, back) => viewers.push(Viewer::open(&stream, kinds, back)),
                Act::Look(at) => {
                    if let Some(viewer) = viewers.get_mut(at) {
                        viewer.look(&stream);
                    }
                }
                Act::Leave(at) => {
                    if at < viewers.len() {
                        let gone = viewers.swap_remove(at);
                        stream.bells.take_down(&gone.bell, gone.wants());
                    }
                }
            }
        }
        while stream.step() {}
        for viewer in &mut viewers {
            while viewer.is_awake() {
                viewer.look(&stream);
            }
            let is_wanted = |seq: &u64| {
                let kind = stream.log[*seq as usize - 1];
                viewer.kinds.is_empty() || viewer.kinds.iter().any(|wanted| **wanted == *kind)
            };
            let expected: Vec<u64> = (viewer.begun..=stream.log.len() as u64).filter(is_wanted).collect();
            prop_assert_eq!(&viewer.seen, &expected);
        }
    }
}
