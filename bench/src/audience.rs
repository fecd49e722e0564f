//! Subscribers: who hears of what is stored, how late, and whether anything is missing.
//!
//! A subscriber's bytes are not parsed: in whatever protocol an event arrives, its text is in it as it was stored,
//! with the intended time of its send.

use std::time::Duration;

use anyhow::Context as _;
use memchr::memmem;

use crate::load::{Link, Place};
use crate::voice::{BEFORE_STAMP, STAMP};

/// In the closed loop the next events are stored when subscribers are at most so many behind, on average.
const BEHIND_MAX: u64 = 2_000;
const HEAR_BYTES: usize = 256 * 1024;
const GATHER_LIMIT: Duration = Duration::from_secs(10);

/// What a request adds that asks for a WebSocket. Nobody checks the key but for its length: what is measured is not the
/// handshake.
pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                                  Sec-WebSocket-Key: c2x1aWNlLWJlbmNoLWtleQ==\r\n\r\n";

/// The subscribers of a target.
#[derive(Debug, Clone)]
pub(crate) struct Audience {
    pub subscribers: u32,
    /// Events that a request stores.
    pub batch: u32,
    /// Where they listen, if not where is published.
    pub place: Option<Place>,
    /// What each says until it hears everything.
    pub steps: Vec<Step>,
}

/// Something said, and what is awaited then.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub say: Vec<u8>,
    /// The end of the answer; the first bytes, without one.
    pub end: &'static [u8],
    /// What the answer must hold.
    pub must: &'static str,
}

impl Step {
    /// Words, and the end of their answer.
    pub(crate) fn plain((words, end): (String, &'static [u8])) -> Self {
        Self { say: words.into_bytes(), end, must: "" }
    }
}

/// One subscriber's connection.
#[derive(Debug)]
pub(crate) struct Ear {
    link: Link,
    buffer: Vec<u8>,
}

/// What all subscribers together have heard.
#[derive(Debug)]
pub(crate) struct Hearing {
    subscribers: u64,
    batch: u64,
    stored: u64,
    heard: u64,
}

/// A frame of a WebSocket with a text, masked with zeros: a mask hides nothing here.
pub(crate) fn frame(text: &str) -> anyhow::Result<Vec<u8>> {
    let length = u16::try_from(text.len()).context("more than 65535 bytes for a WebSocket")?;
    let mut frame = match length {
        0..126 => vec![0x81, 0x80 | length as u8],
        _ => [&[0x81, 0xfe], &length.to_be_bytes()[..]].concat(),
    };
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    Ok(frame)
}

impl Audience {
    /// Opens every subscriber's connection, at `beside` unless they listen elsewhere.
    pub(crate) async fn gather(&self, beside: &Place) -> anyhow::Result<Vec<Ear>> {
        let place = self.place.as_ref().unwrap_or(beside);
        let mut ears = Vec::new();
        for _ in 0..self.subscribers {
            let opened = tokio::time::timeout(GATHER_LIMIT, async {
                let link = place.link(None).await?;
                let mut buffer = Vec::new();
                for Step { say, end, must } in &self.steps {
                    buffer = link.take_step(say, end, must).await?;
                }
                anyhow::Ok(Ear { link, buffer })
            });
            ears.push(opened.await.context("a subscriber was not let in")?.context("subscribe")?);
        }
        Ok(ears)
    }

    /// Nothing heard yet.
    pub(crate) fn hearing(&self) -> Hearing {
        let (subscribers, batch) = (self.subscribers.into(), self.batch.into());
        Hearing { subscribers, batch, stored: 0, heard: 0 }
    }
}

impl Ear {
    /// Waits for bytes and takes them; an error when there will be no more.
    pub(crate) async fn hear(&mut self) -> std::io::Result<()> {
        match self.link.receive_pieces(&mut self.buffer, HEAR_BYTES).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

impl Hearing {
    /// A request's events are stored.
    pub(crate) fn stored(&mut self) {
        self.stored += self.batch;
    }

    /// Takes the whole events out of a subscriber's buffer; tells the intended time of each.
    pub(crate) fn take(&mut self, ear: &mut Ear, told: impl FnMut(u64)) {
        self.heard += stamps(&mut ear.buffer, told);
    }

    /// Deliveries until now.
    pub(crate) fn heard(&self) -> u64 {
        self.heard
    }

    /// Deliveries that one request causes.
    pub(crate) fn each(&self) -> u64 {
        self.subscribers * self.batch
    }

    /// Deliveries that are still to come of what is stored.
    pub(crate) fn missing(&self) -> u64 {
        (self.stored * self.subscribers).saturating_sub(self.heard)
    }

    /// Whether the subscribers are near what is stored.
    pub(crate) fn is_near(&self) -> bool {
        self.missing() <= BEHIND_MAX * self.subscribers
    }
}

/// Finds the stamps in a buffer, tells them, and leaves what may be the beginning of another one; their number.
fn stamps(buffer: &mut Vec<u8>, mut told: impl FnMut(u64)) -> u64 {
    let (mut count, mut at) = (0, 0);
    let before = BEFORE_STAMP.as_bytes();
    while let Some(found) = memmem::find(&buffer[at..], before) {
        let begin = at + found + before.len();
        let Some(digits) = buffer.get(begin..begin + STAMP.len()) else {
            at += found;
            buffer.drain(..at);
            return count;
        };
        if let Some(intended_ns) = hexadecimal(digits) {
            told(intended_ns);
            count += 1;
        }
        at = begin + STAMP.len();
    }
    // What is left may end in the middle of the word before a stamp.
    let keep = (buffer.len() - at).min(before.len() - 1);
    buffer.drain(..buffer.len() - keep);
    count
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = char::from(*digit).to_digit(16)?;
        Some(value << 4 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_found_once_however_the_bytes_arrive() {
        let text: String =
            (0..50).map(|n| format!("id: {n}\n{{{BEFORE_STAMP}{n:016x}\",\"pad\":\"at\"}}\n\n")).collect();
        for step in [1, 3, 7, 16, 40, 1_000, text.len()] {
            let (mut buffer, mut found, mut count) = (Vec::new(), Vec::new(), 0);
            for piece in text.as_bytes().chunks(step) {
                buffer.extend_from_slice(piece);
                count += stamps(&mut buffer, |at| found.push(at));
                assert!(buffer.len() <= BEFORE_STAMP.len() + STAMP.len() + step);
            }
            assert_eq!(found, (0..50).collect::<Vec<u64>>(), "{step}");
            assert_eq!(count, 50);
        }
    }

    #[test]
    fn what_is_stored_is_missed_until_every_subscriber_has_it() {
        let audience = Audience { subscribers: 3, batch: 2, place: None, steps: Vec::new() };
        let mut hearing = audience.hearing();
        assert_eq!((hearing.missing(), hearing.each()), (0, 6));
        hearing.stored();
        assert_eq!(hearing.missing(), 6);
        hearing.heard = 5;
        assert_eq!(hearing.missing(), 1);
        assert!(hearing.is_near());
        (hearing.stored, hearing.heard) = (BEHIND_MAX + 1, 0);
        assert!(!hearing.is_near());
    }
}
