//! Where the events of a server-sent event stream end, so that a stream can be ended between two of them.
//!
//! An event ends with an empty line; a line ends with CR LF, LF or CR. What stands after the last empty
//! line is thrown away by a client whose connection ends, so a hint may be added only there. A pure state
//! machine; of a long piece only the last bytes are looked at.

/// The longest end of an event: CR LF CR LF.
const TAIL: usize = 4;

/// Follows one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    between: bool,
    line_is_empty: bool,
    after_cr: bool,
}

impl Default for Events {
    fn default() -> Self {
        Self { between: true, line_is_empty: true, after_cr: false }
    }
}

impl Events {
    /// Whether the last byte ended an event, or none came yet.
    pub fn are_between(&self) -> bool {
        self.between
    }

    /// Follows all of `bytes`.
    pub fn follow(&mut self, bytes: &[u8]) {
        let tail = &bytes[bytes.len().saturating_sub(TAIL)..];
        if tail.len() < bytes.len() {
            *self = Self { between: false, line_is_empty: false, after_cr: false };
        }
        for byte in tail {
            self.step(*byte);
        }
    }

    fn step(&mut self, byte: u8) {
        let ends_line = match byte {
            b'\n' => !std::mem::take(&mut self.after_cr),
            b'\r' => {
                self.after_cr = true;
                true
            }
            _ => {
                *self = Self { between: false, line_is_empty: false, after_cr: false };
                return;
            }
        };
        if ends_line {
            self.between = self.line_is_empty;
            self.line_is_empty = true;
        }
    }
}

/// What tells a client to come back after `wait_ms`.
pub fn retry_hint(wait_ms: u64) -> String {
    format!("retry: {wait_ms}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether a whole stream ends between two events, read line by line.
    fn naive(text: &str) -> bool {
        let plain = text.replace("\r\n", "\n").replace('\r', "\n");
        plain.is_empty() || plain == "\n" || plain.ends_with("\n\n")
    }

    #[test]
    fn events_end_with_an_empty_line_of_any_kind() {
        for (text, between) in [
            ("", true),
            ("data: 1", false),
            ("data: 1\n", false),
            ("data: 1\n\n", true),
            ("data: 1\r\n\r\n", true),
            ("data: 1\r\r", true),
            ("data: 1\n\r", true),
            ("data: 1\r\n", false),
            (": ping\n\nid: 7\n", false),
        ] {
            let mut events = Events::default();
            events.follow(text.as_bytes());
            assert_eq!((events.are_between(), naive(text)), (between, between), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_stream_is_followed_however_it_is_cut(text in "[a\r\n]{0,24}", step in 1_usize..9) {
            let mut events = Events::default();
            for piece in text.as_bytes().chunks(step) {
                events.follow(piece);
            }
            prop_assert_eq!(events.are_between(), naive(&text));
        }
    }
}
