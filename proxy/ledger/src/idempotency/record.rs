//! Records as bytes: on the disk, in Redis and on the way to a successor. Numbers are big-endian.
//!
//! A record begins with its version. One of another version is not read: whoever finds it must not go on.

use sluice_policy::idempotency::{Answer, End, Owner, Record, State, Verdict};

/// Version of a record.
const VERSION: u8 = 1;

/// Appends to a text of bytes.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(super) fn number(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(&mut self, bytes: &[u8]) -> &mut Self {
        let length = u32::try_from(bytes.len()).expect("an answer is bounded");
        self.raw(&length.to_be_bytes()).raw(bytes)
    }

    pub(super) fn owner(&mut self, owner: Owner) -> &mut Self {
        self.number(owner.run).number(owner.request)
    }

    fn answer(&mut self, answer: &Answer) -> &mut Self {
        match answer {
            Answer::Whole { status, fields, body } => {
                self.byte(0).raw(&status.to_be_bytes());
                self.raw(&u32::try_from(fields.len()).expect("a head is bounded").to_be_bytes());
                for (name, value) in fields {
                    self.text(name).text(value);
                }
                self.text(body)
            }
            Answer::Status(status) => self.byte(1).raw(&status.to_be_bytes()),
        }
    }

    pub(super) fn end(&mut self, end: &End) -> &mut Self {
        match end {
            End::NotSent => self.byte(0),
            End::Unknown => self.byte(1),
            End::Answered(answer) => self.byte(2).answer(answer),
        }
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict) -> &mut Self {
        match verdict {
            Verdict::Claim => self.byte(0),
            Verdict::InFlight => self.byte(1),
            Verdict::Unknown => self.byte(2),
            Verdict::Mismatch => self.byte(3),
            Verdict::Replay(answer) => self.byte(4).answer(answer),
        }
    }
}

/// Reads from the front; `None` where that is not there.
pub(super) struct Reader<'b>(pub(super) &'b [u8]);

impl<'b> Reader<'b> {
    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn hash(&mut self) -> Option<[u8; 32]> {
        self.array()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn status(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        self.array().map(u32::from_be_bytes).and_then(|length| usize::try_from(length).ok())
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        let length = self.length()?;
        self.take(length).map(<[u8]>::to_vec)
    }

    pub(super) fn owner(&mut self) -> Option<Owner> {
        Some(Owner { run: self.number()?, request: self.number()? })
    }

    fn answer(&mut self) -> Option<Answer> {
        match self.byte()? {
            0 => {
                let status = self.status()?;
                let count = self.length()?;
                let mut fields = Vec::new();
                for _ in 0..count {
                    fields.push((self.text()?, self.text()?));
                }
                Some(Answer::Whole { status, fields, body: self.text()? })
            }
            1 => Some(Answer::Status(self.status()?)),
            _ => None,
        }
    }

    pub(super) fn end(&mut self) -> Option<End> {
        Some(match self.byte()? {
            0 => End::NotSent,
            1 => End::Unknown,
            2 => End::Answered(self.answer()?),
            _ => return None,
        })
    }

    pub(super) fn verdict(&mut self) -> Option<Verdict> {
        Some(match self.byte()? {
            0 => Verdict::Claim,
            1 => Verdict::InFlight,
            2 => Verdict::Unknown,
            3 => Verdict::Mismatch,
            4 => Verdict::Replay(self.answer()?),
            _ => return None,
        })
    }

    /// Whether nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

/// A record as bytes.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut bytes = Writer::default();
    bytes.byte(VERSION).raw(&record.fingerprint).number(record.expires_at_ms);
    match &record.state {
        State::InFlight { owner, until_ms } => bytes.byte(0).owner(*owner).number(*until_ms),
        State::Unknown => bytes.byte(1),
        State::Done(answer) => bytes.byte(2).answer(answer),
    };
    bytes.0
}

/// Reads a record; `None` where it is none of this version.
pub(super) fn decode(bytes: &[u8]) -> Option<Record> {
    let mut reader = Reader(bytes);
    if reader.byte()? != VERSION {
        return None;
    }
    let (fingerprint, expires_at_ms) = (reader.hash()?, reader.number()?);
    let state = match reader.byte()? {
        0 => State::InFlight { owner: reader.owner()?, until_ms: reader.number()? },
        1 => State::Unknown,
        2 => State::Done(reader.answer()?),
        _ => return None,
    };
    reader.is_done().then_some(Record { fingerprint, expires_at_ms, state })
}
