//! An answer on its way, kept for the copies of its request.

use sluice_policy::idempotency::{ANSWER_BYTES_MAX, Answer, FIELDS_BYTES_MAX, keeps_field};

use crate::fields::Fields;

/// What is kept so far. LIMIT: [`ANSWER_BYTES_MAX`] and [`FIELDS_BYTES_MAX`]; past them the status alone.
pub(super) struct Capture {
    status: u16,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    fits: bool,
}

impl Capture {
    /// The head.
    pub(super) fn of(status: u16, answer: &impl Fields) -> Self {
        let mut fields: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut bytes = 0;
        for (name, value) in answer.each().filter(|(name, _)| keeps_field(name.as_str())) {
            bytes += name.as_str().len() + value.len() + 2;
            match fields.iter_mut().find(|(known, _)| known.as_slice() == name.as_str().as_bytes()) {
                // Fields that may come more than once are lists (RFC 9110 section 5.3).
                Some((_, list)) => {
                    list.extend_from_slice(b", ");
                    list.extend_from_slice(value.as_bytes());
                }
                None => fields.push((name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())),
            }
        }
        let fits = bytes <= FIELDS_BYTES_MAX;
        Self { status, fields, body: Vec::new(), fits }
    }

    /// A piece of the body.
    pub(super) fn add(&mut self, piece: &[u8]) {
        self.fits &= self.body.len() + piece.len() <= ANSWER_BYTES_MAX;
        if self.fits {
            self.body.extend_from_slice(piece);
        } else {
            self.body = Vec::new();
        }
    }

    /// What is kept of it.
    pub(super) fn into_answer(self) -> Answer {
        let Self { status, fields, body, fits } = self;
        if fits { Answer::Whole { status, fields, body } } else { Answer::Status(status) }
    }
}

#[cfg(test)]
mod tests {
    use pingora::http::ResponseHeader;

    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(201, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn lists_are_joined_and_cookies_left_out() {
        let mut capture = Capture::of(201, &head(&[("link", "<a>"), ("set-cookie", "s=1"), ("link", "<b>")]));
        capture.add(b"one");
        capture.add(b"two");
        let fields = vec![(b"link".to_vec(), b"<a>, <b>".to_vec())];
        assert_eq!(capture.into_answer(), Answer::Whole { status: 201, fields, body: b"onetwo".to_vec() });
    }

    #[test]
    fn of_what_is_too_large_the_status_is_kept() {
        let mut body = Capture::of(201, &head(&[]));
        body.add(&vec![0; ANSWER_BYTES_MAX]);
        body.add(b"");
        assert!(matches!(body.into_answer(), Answer::Whole { .. }));
        let mut more = Capture::of(201, &head(&[]));
        more.add(&vec![0; ANSWER_BYTES_MAX]);
        more.add(b"1");
        more.add(b"2");
        assert_eq!(more.into_answer(), Answer::Status(201));
        let mut fields = head(&[]);
        fields.append_header("x-long", "x".repeat(FIELDS_BYTES_MAX)).unwrap();
        assert_eq!(Capture::of(201, &fields).into_answer(), Answer::Status(201));
    }
}
