//! What becomes of a request that carries an `Idempotency-Key`.
//!
//! Purpose: a client that does not know whether its order arrived may send it again. It is executed once.
//!
//! A key belongs to one caller and one route. Its life:
//!
//! ```text
//!             claimed, recorded                 an upstream answered
//!   absent ─────────────────────► in flight ──────────────────────────► done: every copy gets that answer
//!     ▲                            │      │
//!     │  nothing was sent          │      │  sent, and no answer; the process died
//!     └────────────────────────────┘      └───────────────────────────► unknown: every copy gets 409
//! ```
//!
//! Exact conditions, in this order (the first that holds decides):
//! 1. a record whose time is over counts as absent, unless its request is still under way here;
//! 2. another fingerprint (method, path, query, content type, body) is another request: [`Verdict::Mismatch`];
//! 3. done: [`Verdict::Replay`]; unknown: [`Verdict::Unknown`];
//! 4. in flight: [`Verdict::InFlight`] while its process lives and its lease runs, else [`Verdict::Unknown`].
//!
//! `unknown` is final until the record's time is over: nobody can tell any more whether the order was executed,
//! so it is never sent again. A claim counts once it is recorded; what cannot be recorded is not sent.
//!
//! Limits: [`KEY_BYTES_MAX`], [`BODY_BYTES_MAX`], [`ANSWER_BYTES_MAX`], [`FIELDS_BYTES_MAX`].
//! Cost: O(1); parsing a key allocates it once.

use sluice_schema::Idempotency;
use thiserror::Error;

use crate::method::Method;

/// LIMIT: bytes of a key, without its quotes.
pub const KEY_BYTES_MAX: usize = 255;
/// LIMIT: bytes of a request's body, which is held until its answer is there.
pub const BODY_BYTES_MAX: u64 = 64 << 10;
/// LIMIT: bytes of an answer's body that are kept; of a larger answer the status alone is.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;
/// LIMIT: bytes of an answer's header fields that are kept, likewise.
pub const FIELDS_BYTES_MAX: usize = 16 << 10;

/// SHA-256 of caller, route and key.
pub type KeyId = [u8; 32];
/// SHA-256 of method, path, query, content type and body.
pub type Fingerprint = [u8; 32];

/// Who holds a key: a process, by the number it drew when it started, and one of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The process.
    pub run: u64,
    /// Its request.
    pub request: u64,
}

/// What a store keeps under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The request it was claimed for.
    pub fingerprint: Fingerprint,
    /// When it is forgotten: wall time, milliseconds since the epoch.
    pub expires_at_ms: u64,
    /// How far that request has come.
    pub state: State,
}

/// How far the request of a key has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It is under way.
    InFlight {
        /// Whose it is.
        owner: Owner,
        /// Past this wall time nobody is waiting for its answer any more, milliseconds since the epoch.
        until_ms: u64,
    },
    /// An upstream answered.
    Done(Answer),
    /// It was sent and no answer came.
    Unknown,
}

/// The answer to a request, as it is given to every copy of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All of it.
    Whole {
        /// Its status.
        status: u16,
        /// Its header fields, each name once.
        fields: Vec<(Vec<u8>, Vec<u8>)>,
        /// Its body.
        body: Vec<u8>,
    },
    /// The status alone: it was too large, or broke off.
    Status(u16),
}

/// How the request of a key ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing of it was sent: its key is free again.
    NotSent,
    /// It was sent, and nobody knows what became of it.
    Unknown,
    /// An upstream answered.
    Answered(Answer),
}

/// What a request that carries a key is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The key is free: claim it, then go on.
    Claim,
    /// A copy of it is under way.
    InFlight,
    /// A copy of it was sent, and nobody knows what became of it.
    Unknown,
    /// The key belongs to another request.
    Mismatch,
    /// It was answered before.
    Replay(Answer),
}

/// What the end of a request changes in its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: the record is not its own any more.
    Keep,
    /// It goes.
    Remove,
    /// This one takes its place.
    Put(Record),
}

/// Why a key cannot be honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum KeyFault {
    /// The route wants one.
    #[error("this route needs an Idempotency-Key")]
    Missing,
    /// The field came more than once.
    #[error("Idempotency-Key is there more than once")]
    Repeated,
    /// No byte, or too many.
    #[error("Idempotency-Key has 1 to {KEY_BYTES_MAX} characters")]
    Length,
    /// Not a string of structured fields, nor a bare word.
    #[error("Idempotency-Key is a quoted string or a bare word of visible ASCII without \" \\ , ;")]
    Form,
}

/// Whether a route honours the keys of such requests: POST and PATCH, where a second execution is a second order.
/// The other methods say by themselves that they may be repeated; a call of gRPC has no body that ends before its
/// answer begins.
pub fn honours(rule: Idempotency, method: Method, call: bool) -> bool {
    rule != Idempotency::Off && !method.is_idempotent() && !call
}

/// The key of a request whose route honours it; `None` where there is none and none is needed.
///
/// # Errors
/// [`KeyFault`].
pub fn key<'v>(
    rule: Idempotency,
    mut values: impl Iterator<Item = &'v [u8]>,
) -> Result<Option<String>, KeyFault> {
    match (values.next(), values.next()) {
        (None, _) if rule == Idempotency::Required => Err(KeyFault::Missing),
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(KeyFault::Repeated),
        (Some(value), None) => parse(value).map(Some),
    }
}

/// Reads a key: a string of structured fields (RFC 9651, 3.3.3), as the draft wants it, or the bare word that many
/// clients send. Both name the same key.
fn parse(value: &[u8]) -> Result<String, KeyFault> {
    let value = value.trim_ascii();
    let key = match value {
        [b'"', inside @ .., b'"'] => unquoted(inside)?,
        bare if bare.iter().all(|byte| byte.is_ascii_graphic() && !b"\"\\,;".contains(byte)) => bare.to_vec(),
        _ => return Err(KeyFault::Form),
    };
    if !(1..=KEY_BYTES_MAX).contains(&key.len()) {
        return Err(KeyFault::Length);
    }
    String::from_utf8(key).map_err(|_| KeyFault::Form)
}

fn unquoted(inside: &[u8]) -> Result<Vec<u8>, KeyFault> {
    let mut key = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        key.push(match byte {
            b'\\' => *bytes.next().filter(|escaped| b"\"\\".contains(escaped)).ok_or(KeyFault::Form)?,
            b'"' => return Err(KeyFault::Form),
            b' '..=b'~' => *byte,
            _ => return Err(KeyFault::Form),
        });
    }
    Ok(key)
}

impl End {
    /// The end of a request that came to no whole answer: the status of one that broke off or was not kept, and whether
    /// an instance may have acted on it.
    pub const fn without_answer(status: Option<u16>, may_have_acted: bool) -> Self {
        match (status, may_have_acted) {
            (Some(status), _) => Self::Answered(Answer::Status(status)),
            (None, true) => Self::Unknown,
            (None, false) => Self::NotSent,
        }
    }
}

impl Record {
    /// The record of a request that goes on now.
    pub fn claimed(fingerprint: Fingerprint, owner: Owner, until_ms: u64, expires_at_ms: u64) -> Self {
        Self { fingerprint, expires_at_ms, state: State::InFlight { owner, until_ms } }
    }

    /// Whether its request is under way: its process lives and still waits for the answer.
    fn is_under_way(&self, now_ms: u64, lives: impl Fn(u64) -> bool) -> bool {
        matches!(self.state, State::InFlight { owner, until_ms } if now_ms < until_ms && lives(owner.run))
    }

    /// Whether it may be forgotten.
    pub fn is_over(&self, now_ms: u64, lives: impl Fn(u64) -> bool) -> bool {
        self.expires_at_ms <= now_ms && !self.is_under_way(now_ms, lives)
    }
}

/// Decides about a request by what is kept under its key. `lives` tells whether a process still answers for its
/// requests.
pub fn judge(
    record: Option<&Record>,
    fingerprint: &Fingerprint,
    now_ms: u64,
    lives: impl Fn(u64) -> bool,
) -> Verdict {
    let Some(record) = record.filter(|record| !record.is_over(now_ms, &lives)) else { return Verdict::Claim };
    match &record.state {
        _ if record.fingerprint != *fingerprint => Verdict::Mismatch,
        State::Done(answer) => Verdict::Replay(answer.clone()),
        State::InFlight { .. } if record.is_under_way(now_ms, lives) => Verdict::InFlight,
        State::InFlight { .. } | State::Unknown => Verdict::Unknown,
    }
}

/// What the end of a request changes. Only its own record, still in flight, is touched: a late result never
/// overwrites what somebody else holds.
pub fn conclude(record: Option<&Record>, owner: Owner, end: End) -> Change {
    let Some(record) = record else { return Change::Keep };
    if !matches!(record.state, State::InFlight { owner: holder, .. } if holder == owner) {
        return Change::Keep;
    }
    let state = match end {
        End::NotSent => return Change::Remove,
        End::Unknown => State::Unknown,
        End::Answered(answer) => State::Done(answer),
    };
    Change::Put(Record { state, ..record.clone() })
}

impl Answer {
    /// Its status.
    pub const fn status(&self) -> u16 {
        match self {
            Self::Whole { status, .. } | Self::Status(status) => *status,
        }
    }

    /// Bytes that it takes in a store, about.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Whole { fields, body, .. } => {
                body.len() + fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum::<usize>()
            }
            Self::Status(_) => 0,
        }
    }
}

/// Whether a header field of an answer is kept for its copies. Left out is what belongs to one exchange or one
/// connection, what the edge sets anew, and cookies, which are credentials.
pub fn keeps_field(name: &str) -> bool {
    const LEFT_OUT: [&str; 19] = [
        "age",
        "alt-svc",
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "server-timing",
        "set-cookie",
        "set-cookie2",
        "strict-transport-security",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-request-id",
        "idempotency-replayed",
        "www-authenticate",
    ];
    let made_anew = ["ratelimit", "x-ratelimit-", "access-control-"];
    !LEFT_OUT.contains(&name) && !made_anew.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests;
