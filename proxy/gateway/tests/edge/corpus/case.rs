//! What one case is: bytes in one or several writes, the answers, and what the upstream may see of it.
//!
//! Texts stand for bytes: `\xHH` is one byte, `/api` becomes the prefix of the lane that runs the case,
//! `TAG00` its own mark; the length stays.

/// What the client does next.
#[derive(Clone, Debug)]
pub enum Step {
    Send(Vec<u8>),
    /// Waits until the upstream has the mark.
    Arrived,
    /// Reads the next of the answers.
    Answer,
    /// Sends no more, and says so.
    Finish,
}

/// How the bytes of a step leave the client.
#[derive(Clone, Copy, Debug)]
pub enum Writes {
    One,
    /// Cut in two at this byte.
    Two(usize),
    /// A byte a write.
    Each,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub steps: Vec<Step>,
    pub writes: Writes,
    /// Status and machine word of each answer; no word where the upstream gave it.
    pub answers: Vec<(u16, &'static str)>,
    /// Request lines and bodies that reach the upstream, whole and in this order.
    pub seen: Vec<(String, Vec<u8>)>,
    /// Fields the first of them has, once each.
    pub has: Vec<(&'static str, &'static str)>,
    /// Fields none of them has.
    pub lacks: Vec<&'static str>,
    /// The edge closes after the last answer.
    pub closes: bool,
    /// A part of a request reaches the upstream, and its connection ends before the rest.
    pub cut: bool,
    /// The answers have no body.
    pub bodiless: bool,
}

/// A well-formed request that follows every refused one in the same write: it must never be seen.
pub const VICTIM: &str = "GET /api/victim/TAG00 HTTP/1.1\r\nHost: edge\r\n\r\n";

impl Case {
    /// Refused with this answer, then closed; the upstream sees nothing of it.
    pub fn refused(name: impl Into<String>, status: u16, code: &'static str, raw: &str) -> Self {
        let mut case = Self::answered(name, status, code, &format!("{raw}{VICTIM}"));
        case.closes = true;
        case
    }

    /// Answered by the edge, and the connection stays open.
    pub fn answered(name: impl Into<String>, status: u16, code: &'static str, raw: &str) -> Self {
        Self {
            name: name.into(),
            steps: vec![Step::Send(bytes(raw))],
            writes: Writes::One,
            answers: vec![(status, code)],
            seen: Vec::new(),
            has: Vec::new(),
            lacks: Vec::new(),
            closes: false,
            cut: false,
            bodiless: false,
        }
    }

    /// Forwarded as this request line with this body; the connection stays open.
    pub fn passed(name: impl Into<String>, raw: &str, line: &str, body: &str) -> Self {
        Self { seen: vec![(line.to_owned(), bytes(body))], ..Self::answered(name, 200, "", raw) }
    }

    /// Bytes after which the client ends its side: closed without an answer; the upstream sees nothing.
    pub fn left(name: impl Into<String>, raw: &str) -> Self {
        let steps = vec![Step::Send(bytes(raw)), Step::Finish];
        Self { steps, answers: Vec::new(), closes: true, ..Self::answered(name, 0, "", "") }
    }

    /// The same, inside a body: what reached the upstream is cut off.
    pub fn left_inside(name: impl Into<String>, raw: &str) -> Self {
        let steps = vec![Step::Send(bytes(raw)), Step::Arrived, Step::Finish];
        Self { steps, cut: true, ..Self::left(name, raw) }
    }

    /// A head that is forwarded, then bytes that break its body.
    pub fn cut(name: impl Into<String>, status: u16, code: &'static str, head: &str, bad: &str) -> Self {
        let steps =
            vec![Step::Send(bytes(head)), Step::Arrived, Step::Send(bytes(&format!("{bad}{VICTIM}")))];
        Self { steps, closes: true, cut: true, ..Self::answered(name, status, code, "") }
    }

    pub fn has(mut self, name: &'static str, value: &'static str) -> Self {
        self.has.push((name, value));
        self
    }

    pub fn lacks(mut self, name: &'static str) -> Self {
        self.lacks.push(name);
        self
    }

    pub fn closing(mut self) -> Self {
        self.closes = true;
        self
    }

    pub fn bodiless(mut self) -> Self {
        self.bodiless = true;
        self
    }

    /// The same bytes, one a write.
    pub fn dripped(mut self) -> Self {
        self.writes = Writes::Each;
        self.name.push_str(", a byte a write");
        self
    }
}

/// Reads `\xHH`.
pub fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let byte = u8::from_str_radix(&rest[at + 2..at + 4], 16).expect("two hexadecimal digits");
        out.push(byte);
        rest = &rest[at + 4..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}
