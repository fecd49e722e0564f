//! One audit record: its fields, its canonical bytes and the hash that chains it to the one before.

use std::borrow::Cow;
use std::fmt;

use jiff::Timestamp;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// LIMIT: longest field kept, in bytes; longer text is cut and ends in `…`.
pub const FIELD_BYTES_MAX: usize = 1_100;
/// LIMIT: longest line a reader accepts: six fields whose every byte is escaped as `\u00xx`, and the rest.
pub(crate) const LINE_BYTES_MAX: usize = 64 * 1024;

/// What policy and the operation made of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Permitted and carried out.
    Allow,
    /// Refused by policy.
    Deny,
    /// Permitted, but not carried out (not found, conflict, damaged record).
    Error,
}

/// What a caller asks to have recorded. Never put a value (secret, token, key) into any field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The area: `secret`, `token`, `credential`, `admin`, …
    pub kind: Cow<'static, str>,
    /// The request's id, or empty for the role's own acts.
    pub request_id: String,
    /// Who asked: a subject, a role, or `anonymous`.
    pub actor: String,
    /// The verb: `read`, `write`, `issue`, `revoke`, …
    pub op: Cow<'static, str>,
    /// What it was about, never a value.
    pub path: String,
    /// The outcome.
    pub decision: Decision,
    /// The peer's address, or empty.
    pub remote: String,
    /// A number the role binds into the chain (0: none); the log keeps the largest seen.
    pub anchor: u64,
}

impl Entry {
    /// An entry of `kind` and `op` with every other field empty, decision `allow`.
    pub fn new(kind: impl Into<Cow<'static, str>>, op: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: kind.into(),
            request_id: String::new(),
            actor: String::new(),
            op: op.into(),
            path: String::new(),
            decision: Decision::Allow,
            remote: String::new(),
            anchor: 0,
        }
    }

    /// The same entry about `path`.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = path.into();
        self
    }

    /// The same entry by `actor`.
    #[must_use]
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.actor = actor.into();
        self
    }

    /// The same entry with `decision`.
    #[must_use]
    pub fn decision(mut self, decision: Decision) -> Self {
        self.decision = decision;
        self
    }

    /// The same entry for the request `request_id` from `remote`.
    #[must_use]
    pub fn request(mut self, request_id: impl Into<String>, remote: impl Into<String>) -> Self {
        self.request_id = request_id.into();
        self.remote = remote.into();
        self
    }

    /// The same entry with `anchor` bound into the chain.
    #[must_use]
    pub fn anchor(mut self, anchor: u64) -> Self {
        self.anchor = anchor;
        self
    }
}

/// A SHA-256 value; hexadecimal in JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(pub [u8; 32]);

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Position in the log, from 1.
    pub seq: u64,
    /// When, UTC, microseconds.
    #[serde(with = "micros")]
    pub ts: Timestamp,
    /// The area; `type` in JSON.
    #[serde(rename = "type")]
    pub kind: String,
    /// The request's id or empty.
    pub request_id: String,
    /// Who asked.
    pub actor: String,
    /// The verb.
    pub op: String,
    /// What it was about.
    pub path: String,
    /// The outcome.
    pub decision: Decision,
    /// The peer's address or empty.
    pub remote: String,
    /// The role whose log this is.
    pub role: String,
    /// The largest anchor the role has bound so far.
    pub anchor: u64,
    /// Hash of the record before.
    pub prev: Digest,
    /// Hash of this record.
    pub hash: Digest,
}

/// The canonical part of a record: everything the hash covers besides `prev`.
#[derive(Serialize)]
struct Canonical<'a> {
    seq: u64,
    #[serde(with = "micros")]
    ts: Timestamp,
    r#type: &'a str,
    request_id: &'a str,
    actor: &'a str,
    op: &'a str,
    path: &'a str,
    decision: Decision,
    remote: &'a str,
    role: &'a str,
    anchor: u64,
}

impl Record {
    /// Appends record `seq` to `lines`, made of `entry`, continuing the chain after `prev`; its hash.
    pub(crate) fn seal_into(
        lines: &mut Vec<u8>,
        entry: &Entry,
        (seq, ts, anchor): (u64, Timestamp, u64),
        role: &str,
        prev: Digest,
    ) -> Digest {
        let canonical = Canonical {
            seq,
            ts: truncate_to_micros(ts),
            r#type: &cut(&entry.kind),
            request_id: &cut(&entry.request_id),
            actor: &cut(&entry.actor),
            op: &cut(&entry.op),
            path: &cut(&entry.path),
            decision: entry.decision,
            remote: &cut(&entry.remote),
            role,
            anchor,
        };
        let begin = lines.len();
        serde_json::to_writer(&mut *lines, &canonical).expect("strings and numbers always serialise");
        let mut context = Context::new(&SHA256);
        context.update(&prev.0);
        context.update(&lines[begin..]);
        let hash = Digest::finish(context);
        // The line is the canonical bytes with two more members: what is hashed need not be written twice.
        lines.pop();
        lines.extend_from_slice(b",\"prev\":\"");
        prev.write_hex(lines);
        lines.extend_from_slice(b"\",\"hash\":\"");
        hash.write_hex(lines);
        lines.extend_from_slice(b"\"}\n");
        hash
    }

    /// The hash the other fields demand: SHA-256 over `prev` and the canonical bytes.
    pub(crate) fn computed_hash(&self) -> Digest {
        let canonical = Canonical {
            seq: self.seq,
            ts: self.ts,
            r#type: &self.kind,
            request_id: &self.request_id,
            actor: &self.actor,
            op: &self.op,
            path: &self.path,
            decision: self.decision,
            remote: &self.remote,
            role: &self.role,
            anchor: self.anchor,
        };
        let mut context = Context::new(&SHA256);
        context.update(&self.prev.0);
        context.update(&to_json(&canonical));
        Digest::finish(context)
    }

    /// Reads one line (without its newline). `None` when it is not exactly what [`Record::seal_into`] writes
    /// or its hash does not fit: then somebody else wrote it.
    pub(crate) fn from_line(line: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(line).ok()?;
        (to_json(&record) == line && record.computed_hash() == record.hash).then_some(record)
    }
}

impl Digest {
    /// The `prev` of a role's first record.
    pub(crate) fn genesis(role: &str) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(b"sluice-audit/1\0");
        context.update(role.as_bytes());
        Self::finish(context)
    }

    fn write_hex(&self, text: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        text.extend(
            self.0.iter().flat_map(|byte| [byte >> 4, byte & 15].map(|half| DIGITS[usize::from(half)])),
        );
    }

    pub(crate) fn finish(context: Context) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.as_bytes();
        let mut bytes = [0; 32];
        if text.len() != 64 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Some(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not 64 lower-case hexadecimal digits"))
    }
}

/// Timestamps with six decimals, so that a parsed record serialises to the same bytes.
mod micros {
    use std::borrow::Cow;

    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(ts: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{ts:.6}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

fn truncate_to_micros(ts: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(ts.as_microsecond()).unwrap_or(ts)
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("strings and numbers always serialise")
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn cut(text: &str) -> Cow<'_, str> {
    if text.len() <= FIELD_BYTES_MAX {
        return text.into();
    }
    let mut end = FIELD_BYTES_MAX - '…'.len_utf8();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str) -> Vec<u8> {
        let ts = "2026-11-21T07:32:00.123456789Z".parse().unwrap();
        let entry = Entry::new("secret", "read").path(path).actor("svc").request("r-1", "127.0.0.1");
        let mut line = Vec::new();
        Record::seal_into(&mut line, &entry, (1, ts, 0), "vault", Digest::genesis("vault"));
        line
    }

    fn record(line: &[u8]) -> Record {
        Record::from_line(line.strip_suffix(b"\n").unwrap()).expect("read back to the same bytes")
    }

    #[test]
    fn line_reads_back_to_what_was_entered() {
        let path = "services/a/\"q\"\n\u{1b}[31m";
        let mut lines = line(path);
        assert_eq!(
            lines.iter().position(|byte| *byte == b'\n'),
            Some(lines.len() - 1),
            "a newline in a field is escaped"
        );
        let first = record(&lines);
        assert_eq!((first.path.as_str(), first.actor.as_str(), first.seq), (path, "svc", 1));
        let at = lines.len();
        let hash =
            Record::seal_into(&mut lines, &Entry::new("a", "b"), (2, first.ts, 7), "vault", first.hash);
        let second = record(&lines[at..]);
        assert_eq!((second.prev, second.hash, second.anchor), (first.hash, hash, 7));
    }

    #[test]
    fn respelled_line_is_refused_even_when_its_meaning_is_the_same() {
        let line = String::from_utf8(line("a")).unwrap();
        let respelled = line.trim_end().replacen("\"seq\":1", "\"seq\": 1", 1);
        assert_eq!(Record::from_line(respelled.as_bytes()), None);
    }

    #[test]
    fn long_fields_are_cut_on_a_character_border() {
        let line = line(&"ü".repeat(4_000));
        let path = record(&line).path;
        assert!(path.len() <= FIELD_BYTES_MAX && path.ends_with('…') && line.len() < LINE_BYTES_MAX);
    }
}
