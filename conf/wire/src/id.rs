//! Request ids.

use std::fmt;

use uuid::Uuid;

/// Longest accepted request id, bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 128;

/// A well-formed request id: 8 to 128 of `[A-Za-z0-9._-]`, safe in a header and in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Accepts a client's id when it is well formed.
    pub fn parse(text: &str) -> Option<Self> {
        let well_formed = (8..=REQUEST_ID_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        well_formed.then(|| Self(text.to_owned()))
    }

    /// Makes a new one (UUIDv7).
    pub fn mint() -> Self {
        Self(Uuid::now_v7().to_string())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::RequestId;

    #[test]
    fn only_plain_ids_pass() {
        assert!(RequestId::parse("req-12345").is_some());
        for bad in ["short", "has space in it", "newline\nxxxx", "ünicode-id", &"x".repeat(129)] {
            assert!(RequestId::parse(bad).is_none(), "{bad:?}");
        }
        assert!(RequestId::parse(RequestId::mint().as_str()).is_some());
    }
}
