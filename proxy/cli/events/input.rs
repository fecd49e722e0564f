//! Events out of a stream of bytes: one JSON object a line, or JSON objects one after the other, in a list or bare.
//! Memory is bounded by one event, however long the input is.

use std::io::{ErrorKind, Read};

use serde::de::IgnoredAny;

/// LIMIT: bytes of one event as it is written. What the worker takes is less, but laid out over lines it may be long.
pub(super) const ITEM_BYTES_MAX: usize = 1 << 20;
/// What some editors put in front of a text.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

/// Why an input cannot be read any further.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    /// Reading failed.
    #[error("the input cannot be read")]
    Read(#[source] std::io::Error),
    /// Not the beginning of an event.
    #[error("line {0}: an event is a JSON object; so is a line of NDJSON, or an item of a list")]
    NoEvent(u64),
    /// The input ends inside an event or a list.
    #[error("line {0}: the input ends in the middle")]
    Ends(u64),
    /// An event that has no end in sight.
    #[error("line {0}: the event that begins here has more than {ITEM_BYTES_MAX} bytes")]
    TooLong(u64),
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    /// An event, not yet looked at, and the line it begins on.
    Item { text: Vec<u8>, line: u64 },
    /// A line that is too long; the next one may be well.
    LongLine(u64),
    /// Nothing until more is read.
    More,
    /// The input is at its end.
    End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Not known before a line is there.
    Unknown,
    Lines,
    /// Objects one after the other.
    Values,
    /// Objects in a list; whether one was there.
    List {
        begun: bool,
    },
}

/// An input and what of it was read and not handed out.
pub(super) struct Input<R> {
    from: R,
    buffer: Vec<u8>,
    at: usize,
    ended: bool,
    form: Form,
    line: u64,
    /// The rest of a line that is too long is passed over.
    passing: bool,
    taken: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(from: R) -> Self {
        let (buffer, form) = (Vec::new(), Form::Unknown);
        Self { from, buffer, at: 0, ended: false, form, line: 1, passing: false, taken: 0 }
    }

    /// One that is known to have an event a line.
    pub(super) fn lines(from: R) -> Self {
        Self { form: Form::Lines, ..Self::new(from) }
    }

    /// Bytes handed out.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Waits for more, up to a bound.
    pub(super) fn fill(&mut self) -> Result<(), InputError> {
        self.buffer.drain(..self.at);
        self.at = 0;
        let from = self.buffer.len();
        self.buffer.resize(from + READ_BYTES, 0);
        let read = loop {
            match self.from.read(&mut self.buffer[from..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other.map_err(InputError::Read)?,
            }
        };
        self.buffer.truncate(from + read);
        self.ended = read == 0;
        Ok(())
    }

    /// The next event of what was read.
    pub(super) fn next(&mut self) -> Result<Step, InputError> {
        loop {
            let found = match self.form {
                Form::Unknown => self.look()?,
                Form::Lines => self.next_line(),
                Form::Values | Form::List { .. } => self.next_value()?,
            };
            if let Some(step) = found {
                return Ok(step);
            }
        }
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    fn take(&mut self, bytes: usize) -> &[u8] {
        let from = self.at;
        self.at += bytes;
        self.taken += bytes as u64;
        let taken = &self.buffer[from..self.at];
        self.line += taken.split(|byte| *byte == b'\n').count() as u64 - 1;
        taken
    }

    fn skip_space(&mut self) -> Option<u8> {
        let space = self.rest().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.take(space);
        self.rest().first().copied()
    }

    fn nothing(&self) -> Step {
        if self.ended { Step::End } else { Step::More }
    }

    /// Finds out what the input looks like.
    fn look(&mut self) -> Result<Option<Step>, InputError> {
        if self.rest().starts_with(MARK) {
            self.take(MARK.len());
        } else if MARK.starts_with(self.rest()) && !self.ended {
            return Ok(Some(Step::More));
        }
        match self.skip_space() {
            None => return Ok(Some(self.nothing())),
            Some(b'[') => {
                self.take(1);
                self.form = Form::List { begun: false };
            }
            Some(b'{') => match self.rest().iter().position(|byte| *byte == b'\n') {
                // Whole objects on a line of their own: a broken line says nothing about the next one.
                Some(end) if serde_json::from_slice::<IgnoredAny>(&self.rest()[..end]).is_ok() => {
                    self.form = Form::Lines;
                }
                None if !self.ended && self.rest().len() <= ITEM_BYTES_MAX => return Ok(Some(Step::More)),
                _ => self.form = Form::Values,
            },
            Some(_) => return Err(InputError::NoEvent(self.line)),
        }
        Ok(None)
    }

    fn next_line(&mut self) -> Option<Step> {
        let (end, whole) = match self.rest().iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (self.rest().len(), self.ended),
        };
        if !whole && end <= ITEM_BYTES_MAX {
            return Some(Step::More);
        }
        if end == 0 {
            return Some(Step::End);
        }
        let line = self.line;
        let passing = std::mem::replace(&mut self.passing, !whole);
        let text = self.take(end).trim_ascii();
        if passing || text.is_empty() {
            return None;
        }
        if text.len() > ITEM_BYTES_MAX {
            return Some(Step::LongLine(line));
        }
        let text = text.to_vec();
        Some(Step::Item { text, line })
    }

    fn next_value(&mut self) -> Result<Option<Step>, InputError> {
        let Some(first) = self.skip_space() else {
            let inside = matches!(self.form, Form::List { .. });
            return if self.ended && inside {
                Err(InputError::Ends(self.line))
            } else {
                Ok(Some(self.nothing()))
            };
        };
        match (self.form, first) {
            (Form::List { .. }, b']') => {
                self.take(1);
                self.form = Form::Values;
                return Ok(None);
            }
            (Form::List { begun: true }, b',') | (Form::Values, b'[') => {
                self.take(1);
                self.form = Form::List { begun: false };
                return Ok(None);
            }
            (Form::Values | Form::List { begun: false }, b'{') => {}
            _ => return Err(InputError::NoEvent(self.line)),
        }
        match object_end(self.rest()) {
            Some(end) if end <= ITEM_BYTES_MAX => {
                let line = self.line;
                if let Form::List { begun } = &mut self.form {
                    *begun = true;
                }
                let text = self.take(end).to_vec();
                Ok(Some(Step::Item { text, line }))
            }
            None if self.ended => Err(InputError::Ends(self.line)),
            None if self.rest().len() <= ITEM_BYTES_MAX => Ok(Some(Step::More)),
            _ => Err(InputError::TooLong(self.line)),
        }
    }
}

/// Where the object that begins the text ends: strings and nesting alone count, the rest is for the parser.
fn object_end(text: &[u8]) -> Option<usize> {
    let (mut depth, mut inside, mut escaped) = (0_u32, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if inside => escaped = true,
            b'"' => inside = !inside,
            b'{' | b'[' if !inside => depth += 1,
            b'}' | b']' if !inside => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out a few bytes at a time.
    struct Drip<'a>(&'a [u8], usize);

    impl Read for Drip<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let bytes = self.1.min(self.0.len()).min(into.len());
            into[..bytes].copy_from_slice(&self.0[..bytes]);
            self.0 = &self.0[bytes..];
            Ok(bytes)
        }
    }

    fn all(text: &[u8], drip: usize) -> Result<Vec<(String, u64)>, String> {
        let mut input = Input::new(Drip(text, drip));
        let mut found = Vec::new();
        loop {
            match input.next().map_err(|error| error.to_string())? {
                Step::Item { text, line } => found.push((String::from_utf8(text).unwrap(), line)),
                Step::LongLine(line) => found.push(("long".into(), line)),
                Step::More => input.fill().unwrap(),
                Step::End => {
                    assert_eq!(input.taken(), text.len() as u64);
                    return Ok(found);
                }
            }
        }
    }

    fn same(text: &str, expected: &[(&str, u64)]) {
        let expected: Vec<_> = expected.iter().map(|(text, line)| ((*text).to_owned(), *line)).collect();
        for drip in [1, 2, 3, 7, 1 << 20] {
            assert_eq!(all(text.as_bytes(), drip).unwrap(), expected, "{text:?} by {drip}");
        }
    }

    #[test]
    fn lines_lists_and_documents_are_told_apart() {
        same("", &[]);
        same(" \n\n", &[]);
        same("{\"a\":1}", &[("{\"a\":1}", 1)]);
        same("{\"a\":1}\n{\"b\":2}\n", &[("{\"a\":1}", 1), ("{\"b\":2}", 2)]);
        same(
            "\u{feff}{\"a\":1}\r\n\r\nbroken {\n{\"b\":2}",
            &[("{\"a\":1}", 1), ("broken {", 3), ("{\"b\":2}", 4)],
        );
        same("[]", &[]);
        same("[{\"a\":\"]}\"},\n {\"b\":[{}]}]\n", &[("{\"a\":\"]}\"}", 1), ("{\"b\":[{}]}", 2)]);
        same("{\n \"a\": \"\\\"{\"\n}\n{\"b\":\n2}", &[("{\n \"a\": \"\\\"{\"\n}", 1), ("{\"b\":\n2}", 4)]);
    }

    #[test]
    fn what_is_no_event_is_told_with_its_line() {
        for (text, says) in [
            ("\n7", "line 2: an event is a JSON object"),
            ("[{}, 7]", "line 1: an event is a JSON object"),
            ("[,{}]", "line 1: an event is"),
            ("[{} {}]", "line 1: an event is"),
            ("[{}\n", "line 2: the input ends"),
            ("{\n\"a\":", "line 1: the input ends"),
            ("{]}", "line 1: an event is a JSON object"),
        ] {
            for drip in [1, 1 << 20] {
                let error = all(text.as_bytes(), drip).unwrap_err();
                assert!(error.starts_with(says), "{text:?}: {error}");
            }
        }
    }

    #[test]
    fn no_event_is_longer_than_the_bound() {
        let long = "x".repeat(3 * ITEM_BYTES_MAX);
        let lines = format!("{{}}\n{{\"a\":\"{long}\"}}\n{{\"b\":1}}\n");
        let found = all(lines.as_bytes(), 100_000).unwrap();
        assert_eq!(found, [("{}".into(), 1), ("long".into(), 2), ("{\"b\":1}".to_owned(), 3)]);
        let error = all(format!("[{{\"a\":\"{long}").as_bytes(), 100_000).unwrap_err();
        assert!(error.starts_with("line 1: the event that begins here has more"), "{error}");
    }
}
