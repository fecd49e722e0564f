//! The input buffer of a client connection.

/// First size; heads above it are rare.
const FIRST_BYTES: usize = 4 << 10;

/// Input that was read and not handed out, in a buffer whose every byte is initialised.
#[derive(Debug, Default)]
pub(crate) struct Inbound {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbound {
    /// What was read and not handed out.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether that is nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops the first `count` bytes of it.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Makes room for at least one byte, growing to at most `limit` bytes in all. False when full.
    pub(crate) fn make_room(&mut self, limit: usize) -> bool {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end < self.bytes.len() {
            return true;
        }
        let grown = (self.bytes.len() * 2).clamp(FIRST_BYTES, limit.max(FIRST_BYTES));
        if grown <= self.bytes.len() {
            return false;
        }
        self.bytes.resize(grown, 0);
        true
    }

    /// Grows where it is empty: the last read filled it.
    pub(crate) fn widen(&mut self, limit: usize) {
        let grown = (self.bytes.len() * 2).min(limit);
        if self.is_empty() && grown > self.bytes.len() {
            self.bytes.resize(grown, 0);
        }
    }

    /// Where the next bytes go.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    /// Notes that `count` bytes of the room were filled.
    pub(crate) fn filled_more(&mut self, count: usize) {
        self.end += count;
    }

    /// Gives back what a large head or body made it grow to.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() && self.bytes.len() > FIRST_BYTES {
            self.bytes = Vec::new();
        }
    }
}
