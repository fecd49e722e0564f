//! Message ids: the names of events in the log.

use std::fmt;
use std::str::FromStr;

/// Name of an event in the log, written `<ms>-<n>`; strictly increasing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Milliseconds since 1970 at commit, never smaller than the id before.
    pub ms: u64,
    /// Counts within one millisecond.
    pub n: u32,
}

/// A message id that is not of the form `<ms>-<n>`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a message id of the form <ms>-<n>")]
pub struct MessageIdError;

impl MessageId {
    /// The id after this one at the given wall clock: time never goes back.
    #[must_use]
    pub fn next(self, now_ms: u64) -> Self {
        if now_ms > self.ms {
            Self { ms: now_ms, n: 0 }
        } else if self.n == u32::MAX {
            Self { ms: self.ms + 1, n: 0 }
        } else {
            Self { ms: self.ms, n: self.n + 1 }
        }
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.n)
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let (ms, n) = text.split_once('-').ok_or(MessageIdError)?;
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(ms) || !digits(n) {
            return Err(MessageIdError);
        }
        Ok(Self { ms: ms.parse().map_err(|_| MessageIdError)?, n: n.parse().map_err(|_| MessageIdError)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_repeat_nor_go_back() {
        let id = MessageId { ms: 10, n: 4 };
        assert_eq!(id.next(11), MessageId { ms: 11, n: 0 });
        assert_eq!(id.next(10), MessageId { ms: 10, n: 5 });
        assert_eq!(id.next(3), MessageId { ms: 10, n: 5 });
        assert_eq!(MessageId { ms: 10, n: u32::MAX }.next(9), MessageId { ms: 11, n: 0 });
    }

    #[test]
    fn ids_read_back_as_written_and_nothing_else_does() {
        assert_eq!("17-2".parse(), Ok(MessageId { ms: 17, n: 2 }));
        for bad in
            ["", "17", "17-", "-2", "+17-2", "17-2-3", "17-4294967296", "18446744073709551616-0", "a-b"]
        {
            assert_eq!(bad.parse::<MessageId>(), Err(MessageIdError), "{bad}");
        }
    }
}
