//! Where the frames of a WebSocket end (RFC 6455 section 5.2), so that the edge can say goodbye between
//! two of them.
//!
//! Only lengths are read. A reserved opcode or bit, an oversize control frame, a missing or needless
//! mask is none of the edge's business: the two ends have agreed on extensions that it does not know,
//! and each judges the other. A control frame may stand between the fragments of a message, so the end of
//! any frame will do. A pure state machine: where the input is cut makes no difference; the data of a
//! frame costs one subtraction.

/// Status code of a close: the server restarts, come again (RFC 6455 registry).
pub const SERVICE_RESTART: u16 = 1012;
/// Status code of a close: the caller may no longer be here.
pub const POLICY_VIOLATION: u16 = 1008;
/// Status code of a close: the other end has gone away.
pub const GOING_AWAY: u16 = 1001;

/// The opcode of a close.
const CLOSE: u8 = 0x8;
/// LIMIT: payload of a control frame.
const CONTROL_BYTES: usize = 125;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between two frames.
    Boundary,
    /// After the first byte of a header.
    Length,
    /// Inside an extended length; so many bytes of it are left, so long it is so far.
    Extended { left: u8, length: u64, masked: bool },
    /// Inside the mask; so many bytes of it are left.
    Mask { left: u8, length: u64 },
    /// Inside the payload; so many bytes of it are left.
    Payload { left: u64 },
}

/// Follows the frames of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frames {
    state: State,
    closes: bool,
    closed: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self { state: State::Boundary, closes: false, closed: false }
    }
}

impl Frames {
    /// Whether the last byte ended a frame, or none came yet.
    pub fn is_at_boundary(&self) -> bool {
        self.state == State::Boundary
    }

    /// Whether a whole close frame has passed: nothing that matters follows it.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Follows all of `bytes`.
    pub fn follow(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            rest = &rest[self.step(rest)..];
        }
    }

    /// Follows `bytes` up to the end of the frame that is under way; returns how many bytes that were.
    /// Nothing is taken at a boundary; all of `bytes` where the frame goes on behind them.
    pub fn finish_frame(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while !self.is_at_boundary() && at < bytes.len() {
            at += self.step(&bytes[at..]);
        }
        at
    }

    /// Takes one byte of a header, or what there is of a payload; returns how many bytes. `bytes` is not
    /// empty.
    fn step(&mut self, bytes: &[u8]) -> usize {
        let byte = bytes[0];
        let (state, taken) = match self.state {
            State::Boundary => {
                self.closes = byte & 0x0f == CLOSE;
                (State::Length, 1)
            }
            State::Length => (after_length(byte), 1),
            State::Extended { left, length, masked } => {
                let length = length << 8 | u64::from(byte);
                match left - 1 {
                    0 => (after_header(length, masked), 1),
                    left => (State::Extended { left, length, masked }, 1),
                }
            }
            State::Mask { left: 1, length } => (after_header(length, false), 1),
            State::Mask { left, length } => (State::Mask { left: left - 1, length }, 1),
            State::Payload { left } => {
                let taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                (payload(left - taken as u64), taken)
            }
        };
        self.state = state;
        self.closed |= self.closes && self.is_at_boundary();
        taken
    }
}

fn after_length(byte: u8) -> State {
    let masked = byte & 0x80 != 0;
    match byte & 0x7f {
        126 => State::Extended { left: 2, length: 0, masked },
        127 => State::Extended { left: 8, length: 0, masked },
        length => after_header(u64::from(length), masked),
    }
}

fn after_header(length: u64, masked: bool) -> State {
    if masked { State::Mask { left: 4, length } } else { payload(length) }
}

fn payload(left: u64) -> State {
    if left == 0 { State::Boundary } else { State::Payload { left } }
}

/// A close frame with a reason of at most 123 bytes; masked where a client sends it.
pub fn close_frame(code: u16, reason: &str, mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut payload = code.to_be_bytes().to_vec();
    payload.extend(reason.bytes().take(CONTROL_BYTES - 2));
    let mut frame = vec![0x80 | CLOSE, payload.len() as u8 | if mask.is_some() { 0x80 } else { 0 }];
    if let Some(mask) = mask {
        frame.extend(mask);
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The length of the first frame of `bytes` and whether it is a close, read all at once.
    fn naive(bytes: &[u8]) -> Option<(usize, bool)> {
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let mut at = 2_usize;
        let length = match second & 0x7f {
            126 => {
                at += 2;
                u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()))
            }
            127 => {
                at += 8;
                u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap())
            }
            short => u64::from(short),
        };
        at += if second & 0x80 != 0 { 4 } else { 0 };
        let end = at.checked_add(usize::try_from(length).ok()?)?;
        (bytes.len() >= end).then_some((end, first & 0x0f == 8))
    }

    /// Where every frame of `bytes` ends, and whether a close was among them.
    fn naive_ends(bytes: &[u8]) -> (Vec<usize>, bool) {
        let (mut ends, mut at, mut closed) = (vec![0], 0, false);
        while let Some((length, closes)) = naive(&bytes[at..]) {
            at += length;
            closed |= closes;
            ends.push(at);
        }
        (ends, closed)
    }

    /// A frame whose length is told in the form `form` (0: shortest).
    fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>, form: u8) -> Vec<u8> {
        let masked = if mask.is_some() { 0x80 } else { 0 };
        let mut frame = vec![first];
        match (payload.len(), form) {
            (short @ 0..=125, 0) => frame.push(short as u8 | masked),
            (length @ 0..=65_535, 0 | 1) => {
                frame.push(0x7e | masked);
                frame.extend((length as u16).to_be_bytes());
            }
            (length, _) => {
                frame.push(0x7f | masked);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(mask.iter().flatten());
        frame.extend(payload);
        frame
    }

    fn frames() -> impl Strategy<Value = Vec<u8>> {
        let payload = prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..130),
            (0_usize..70_000).prop_map(|length| vec![0x88; length]),
        ];
        let one = (any::<u8>(), payload, any::<Option<[u8; 4]>>(), 0_u8..3)
            .prop_map(|(first, payload, mask, form)| frame(first, &payload, mask, form));
        proptest::collection::vec(one, 0..6).prop_map(|frames| frames.concat())
    }

    proptest! {
        #[test]
        fn every_boundary_is_found_however_the_bytes_are_cut(
            bytes in frames(), cut in any::<proptest::sample::Index>(), step in 1_usize..5000,
        ) {
            let bytes = &bytes[..cut.index(bytes.len() + 1)];
            let (ends, closed) = naive_ends(bytes);
            let (mut frames, mut at) = (Frames::default(), 0);
            for piece in bytes.chunks(step) {
                frames.follow(piece);
                at += piece.len();
                prop_assert_eq!(frames.is_at_boundary(), ends.contains(&at), "at {}", at);
            }
            prop_assert_eq!(frames.is_closed(), closed);
        }

        #[test]
        fn a_frame_is_finished_and_no_byte_more(bytes in frames(), cut in any::<proptest::sample::Index>()) {
            let cut = cut.index(bytes.len() + 1);
            let (ends, _) = naive_ends(&bytes);
            let next = ends.iter().copied().find(|end| *end >= cut).unwrap_or(bytes.len());
            let mut frames = Frames::default();
            frames.follow(&bytes[..cut]);
            prop_assert_eq!(cut + frames.finish_frame(&bytes[cut..]), next);
        }

        #[test]
        fn any_bytes_are_followed(bytes in proptest::collection::vec(any::<u8>(), 0..300), step in 1_usize..20) {
            let (mut whole, mut cut) = (Frames::default(), Frames::default());
            whole.follow(&bytes);
            bytes.chunks(step).for_each(|piece| cut.follow(piece));
            prop_assert_eq!(whole, cut);
        }
    }

    #[test]
    fn a_length_of_64_bits_does_not_wrap() {
        let mut frames = Frames::default();
        frames.follow(&[0x82, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        frames.follow(&[0; 1000]);
        assert!(!frames.is_at_boundary());
        assert_eq!(frames.finish_frame(&[0; 50]), 50);
    }

    #[test]
    fn a_close_is_one_whole_frame_and_is_seen() {
        for mask in [None, Some([1, 2, 3, 4])] {
            let close = close_frame(SERVICE_RESTART, "service restart", mask);
            assert_eq!(naive(&close), Some((close.len(), true)));
            let mut frames = Frames::default();
            frames.follow(&close[..close.len() - 1]);
            assert!(!frames.is_closed());
            frames.follow(&close[close.len() - 1..]);
            assert!(frames.is_closed() && frames.is_at_boundary());
        }
        assert_eq!(close_frame(1000, "", None), [0x88, 2, 0x03, 0xe8]);
        assert_eq!(close_frame(1001, &"x".repeat(500), None).len(), 127);
        assert_eq!(close_frame(1000, "", Some([0xff; 4])), [0x88, 0x82, 255, 255, 255, 255, 0xfc, 0x17]);
    }
}
