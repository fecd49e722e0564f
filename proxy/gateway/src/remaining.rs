//! How much of the request in hand is still to come: a head, then a body of known length or of chunks.

use sluice_policy::framing::BodyFraming;

use crate::chunks::{ChunkFault, ChunkScanner};

/// What is still to be handed out of one request.
#[derive(Debug)]
pub(crate) struct Remaining {
    head: usize,
    body: Body,
}

#[derive(Debug)]
enum Body {
    /// Between requests: nobody reads.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Chunks: bytes checked and not handed out, and the checker of the next ones.
    Chunked { checked: usize, scanner: ChunkScanner },
    /// All of it was handed out.
    Done,
}

impl Remaining {
    /// Between requests.
    pub(crate) const fn nothing() -> Self {
        Self { head: 0, body: Body::Nothing }
    }

    /// A request whose head has `head` bytes; `rest` are the bytes behind it that came along. Chunks among
    /// them are checked at once, so that a fault is seen before anything is forwarded.
    pub(crate) fn of(head: usize, framing: BodyFraming, rest: &[u8]) -> Result<Self, ChunkFault> {
        let body = match framing {
            BodyFraming::None | BodyFraming::Length(0) => Body::Done,
            BodyFraming::Length(length) => Body::Length(length),
            BodyFraming::Chunked => {
                let mut scanner = ChunkScanner::default();
                let checked = scanner.scan(rest)?;
                Body::Chunked { checked, scanner }
            }
        };
        Ok(Self { head, body })
    }

    /// Bytes of the head that are still to be handed out.
    pub(crate) const fn head(&self) -> usize {
        self.head
    }

    /// How many of the buffered bytes may be handed out now.
    pub(crate) fn available(&mut self, buffered: &[u8]) -> Result<usize, ChunkFault> {
        if self.head > 0 {
            return Ok(self.head.min(buffered.len()));
        }
        match &mut self.body {
            Body::Nothing | Body::Done => Ok(0),
            Body::Length(left) => Ok(usize::try_from(*left).unwrap_or(usize::MAX).min(buffered.len())),
            Body::Chunked { checked, scanner } => {
                *checked += scanner.scan(&buffered[*checked..])?;
                Ok(*checked)
            }
        }
    }

    /// Notes that `count` bytes were handed out.
    pub(crate) fn hand_out(&mut self, count: usize) {
        if self.head > 0 {
            self.head -= count;
            return;
        }
        match &mut self.body {
            Body::Length(left) => {
                *left -= count as u64;
                if *left == 0 {
                    self.body = Body::Done;
                }
            }
            Body::Chunked { checked, scanner } => {
                *checked -= count;
                if *checked == 0 && scanner.is_done() {
                    self.body = Body::Done;
                }
            }
            Body::Nothing | Body::Done => {}
        }
    }

    /// Whether more bytes of the client belong to this request.
    pub(crate) const fn awaits_bytes(&self) -> bool {
        self.head > 0 || matches!(self.body, Body::Length(_) | Body::Chunked { .. })
    }

    /// Whether what comes next is a piece of the body.
    pub(crate) const fn is_in_body(&self) -> bool {
        self.head == 0 && matches!(self.body, Body::Length(_) | Body::Chunked { .. })
    }

    /// Whether at least `count` bytes of a body of known length are to come, and nothing before them.
    pub(crate) const fn awaits_plain(&self, count: usize) -> bool {
        matches!(self.body, Body::Length(left) if self.head == 0 && left >= count as u64)
    }

    /// Whether all of a request was handed out.
    pub(crate) const fn is_done(&self) -> bool {
        self.head == 0 && matches!(self.body, Body::Done)
    }

    /// Ends the request: how many buffered bytes of it nobody wants any more, or `None` where some are
    /// still to come, so that no new head can follow.
    pub(crate) fn end(&mut self) -> Option<usize> {
        let unwanted = match &self.body {
            Body::Nothing | Body::Done => 0,
            Body::Chunked { checked, scanner } if scanner.is_done() => *checked,
            Body::Length(_) | Body::Chunked { .. } => return None,
        };
        *self = Self::nothing();
        Some(unwanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_comes_before_its_body_and_no_byte_behind_it() {
        let bytes = b"HEADhelloNEXT";
        let mut remaining = Remaining::of(4, BodyFraming::Length(5), &bytes[4..]).unwrap();
        assert_eq!(remaining.available(bytes), Ok(4));
        remaining.hand_out(3);
        assert_eq!(remaining.available(&bytes[3..]), Ok(1));
        remaining.hand_out(1);
        assert!(remaining.awaits_plain(5) && !remaining.awaits_plain(6));
        assert_eq!(remaining.available(&bytes[4..]), Ok(5));
        remaining.hand_out(5);
        assert!(remaining.is_done() && !remaining.awaits_bytes());
        assert_eq!(remaining.available(&bytes[9..]), Ok(0));
        assert_eq!(remaining.end(), Some(0));
    }

    #[test]
    fn chunks_are_handed_out_checked_and_end_by_themselves() {
        let body = b"3\r\nabc\r\n0\r\n\r\nNEXT";
        let mut remaining = Remaining::of(0, BodyFraming::Chunked, &body[..4]).unwrap();
        assert_eq!(remaining.available(&body[..4]), Ok(4));
        assert_eq!(remaining.end(), None, "the rest is still to come");
        remaining.hand_out(4);
        assert_eq!(remaining.available(&body[4..]), Ok(9));
        assert_eq!(remaining.end(), Some(9));
        assert!(Remaining::of(0, BodyFraming::Chunked, b"x").is_err());
    }
}
