//! The body of an instance's answer: how it ends there, and as it goes to the client.

use std::io;

use http::StatusCode;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use pingora::Result;
use sluice_policy::method::Method;

use super::head::{Head, invalid};
use crate::chunks::ChunkScanner;
use crate::fields::Fields as _;

/// How a body ends.
#[derive(Debug)]
enum End {
    /// There is none, or all of it has come.
    Done,
    /// After so many bytes.
    Length(u64),
    /// After its last chunk.
    Chunked(Box<ChunkScanner>),
    /// With the connection.
    Closed,
}

/// A body on its way.
#[derive(Debug)]
pub(super) struct AnswerBody {
    end: End,
    chunked: bool,
}

/// What of an instance's bytes goes to the client.
pub(super) struct Piece {
    /// Bytes used of those at hand.
    pub(super) used: usize,
    /// Bytes of the body among them.
    pub(super) data: usize,
}

impl AnswerBody {
    /// The body behind a head whose framing fields were judged.
    pub(super) fn of(head: &Head, method: Method) -> Result<Self> {
        let bodiless = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let end = if bodiless || method == Method::Head {
            End::Done
        } else if head.fields.has(&TRANSFER_ENCODING) {
            End::Chunked(Box::default())
        } else if let Some(length) = head.fields.first(&CONTENT_LENGTH) {
            match length.to_str().ok().and_then(|text| text.parse().ok()).ok_or_else(invalid)? {
                0 => End::Done,
                length => End::Length(length),
            }
        } else {
            End::Closed
        };
        let chunked = matches!(end, End::Chunked(_) | End::Closed);
        Ok(Self { end, chunked })
    }

    /// Whether it goes to the client in chunks.
    pub(super) const fn is_chunked(&self) -> bool {
        self.chunked
    }

    /// Whether all of it has come.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self.end, End::Done)
    }

    /// The instance has closed its connection: the end of the body, or a broken one.
    pub(super) fn close(&mut self) -> io::Result<()> {
        if !matches!(self.end, End::Closed) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end = End::Done;
        Ok(())
    }

    /// Moves on by the bytes at hand. `data` is called with each part of the body.
    pub(super) fn take(&mut self, bytes: &[u8], mut data: impl FnMut(&[u8])) -> io::Result<Piece> {
        let mut count = 0;
        let mut counted = |part: &[u8]| {
            count += part.len();
            data(part);
        };
        let (used, done) = match &mut self.end {
            End::Done => (0, true),
            End::Closed => {
                counted(bytes);
                (bytes.len(), false)
            }
            End::Length(left) => {
                let used = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= used as u64;
                counted(&bytes[..used]);
                (used, *left == 0)
            }
            End::Chunked(scanner) => {
                let used = scanner
                    .read(bytes, &mut counted)
                    .map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
                (used, scanner.is_done())
            }
        };
        if done {
            self.end = End::Done;
        }
        Ok(Piece { used, data: count })
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Version};

    use super::*;
    use crate::fields::List;

    fn body(fields: &[(&'static str, &str)], method: Method) -> AnswerBody {
        let mut list = List::default();
        for (name, value) in fields {
            list.push(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let head = Head { status: StatusCode::OK, version: Version::HTTP_11, fields: list };
        AnswerBody::of(&head, method).unwrap()
    }

    /// What comes of `bytes`, given in two parts.
    fn taken(mut body: AnswerBody, bytes: &[u8], cut: usize) -> (Vec<u8>, usize, bool) {
        let (mut data, mut used) = (Vec::new(), 0);
        for part in [&bytes[..cut], &bytes[cut..]] {
            let piece = body.take(part, |part| data.extend_from_slice(part)).unwrap();
            used += piece.used;
            if piece.used < part.len() {
                break;
            }
        }
        (data, used, body.is_done())
    }

    #[test]
    fn a_body_ends_where_its_head_says_however_it_comes() {
        let chunks = b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: u\r\n\r\nNEXT";
        for cut in 0..chunks.len() {
            let chunked = body(&[("transfer-encoding", "chunked")], Method::Get);
            assert_eq!(taken(chunked, chunks, cut), (b"abcde".to_vec(), chunks.len() - 4, true), "{cut}");
        }
        for cut in 0..9 {
            let five = body(&[("content-length", "5")], Method::Get);
            assert_eq!(taken(five, b"helloNEXT", cut), (b"hello".to_vec(), 5, true), "{cut}");
        }
        assert!(body(&[("content-length", "5")], Method::Head).is_done());
        assert!(body(&[("content-length", "0")], Method::Get).is_done());
        assert_eq!(taken(body(&[], Method::Get), b"all of it", 4), (b"all of it".to_vec(), 9, false));
    }

    #[test]
    fn only_a_body_without_another_end_may_end_with_the_connection() {
        assert!(body(&[], Method::Get).close().is_ok());
        assert!(body(&[("content-length", "5")], Method::Get).close().is_err());
        assert!(body(&[("transfer-encoding", "chunked")], Method::Get).close().is_err());
    }
}
