//! Frames of a WebSocket (RFC 6455), the server's end: what comes in is masked, what goes out is not.
//!
//! Of our own, since a frame that goes out is a head before bytes that all subscribers share, and an idle
//! connection needs no buffer. No extension is agreed on, so the reserved bits are errors.

/// LIMIT: a message of a client, its fragments together.
pub(crate) const MESSAGE_MAX: usize = 16 * 1024;
/// Longest payload of a control frame.
const CONTROL_MAX: usize = 125;

/// Why a connection is closed, with what a client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Close {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
}

impl Close {
    pub(crate) const PROTOCOL: Self = Self { code: 1002, reason: "protocol_error" };
    pub(crate) const BINARY: Self = Self { code: 1003, reason: "text_only" };
    pub(crate) const NOT_UTF8: Self = Self { code: 1007, reason: "not_utf8" };
    pub(crate) const TOO_BIG: Self = Self { code: 1009, reason: "message_too_big" };
}

/// What a client said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Text(String),
    Ping(Vec<u8>),
    Pong,
    /// Its code, when it gave one.
    Close(Option<u16>),
}

/// Puts a client's bytes together to messages.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    bytes: Vec<u8>,
    /// The fragments so far of a message that is not whole.
    partial: Option<Vec<u8>>,
}

/// One frame.
struct Frame {
    last: bool,
    opcode: u8,
    payload: Vec<u8>,
}

impl Decoder {
    /// Where bytes from the connection go.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The next message, when it is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, Close> {
        while let Some(frame) = self.frame()? {
            let message = match frame.opcode {
                0x8 => Some(closing(&frame.payload)?),
                0x9 => Some(Message::Ping(frame.payload)),
                0xA => Some(Message::Pong),
                0x2 => return Err(Close::BINARY),
                0x0 | 0x1 => self.fragment(frame)?,
                _ => return Err(Close::PROTOCOL),
            };
            if message.is_some() {
                return Ok(message);
            }
        }
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
        Ok(None)
    }

    fn fragment(&mut self, frame: Frame) -> Result<Option<Message>, Close> {
        let begins = frame.opcode == 0x1;
        let whole = match (begins, self.partial.take()) {
            (true, None) => frame.payload,
            (false, Some(mut partial)) => {
                partial.extend_from_slice(&frame.payload);
                partial
            }
            _ => return Err(Close::PROTOCOL),
        };
        if whole.len() > MESSAGE_MAX {
            return Err(Close::TOO_BIG);
        }
        if frame.last {
            return String::from_utf8(whole)
                .map(|text| Some(Message::Text(text)))
                .map_err(|_| Close::NOT_UTF8);
        }
        self.partial = Some(whole);
        Ok(None)
    }

    fn frame(&mut self) -> Result<Option<Frame>, Close> {
        let [first, second, rest @ ..] = self.bytes.as_slice() else { return Ok(None) };
        let (last, opcode, control) = (first & 0x80 != 0, first & 0x0F, first & 0x08 != 0);
        if first & 0x70 != 0 || second & 0x80 == 0 {
            return Err(Close::PROTOCOL);
        }
        let (length, rest) = match second & 0x7F {
            126 => {
                let Some((length, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
                (u64::from(u16::from_be_bytes(*length)), rest)
            }
            127 => {
                let Some((length, rest)) = rest.split_first_chunk::<8>() else { return Ok(None) };
                (u64::from_be_bytes(*length), rest)
            }
            length => (u64::from(length), rest),
        };
        if control && (length > CONTROL_MAX as u64 || !last) {
            return Err(Close::PROTOCOL);
        }
        if length > MESSAGE_MAX as u64 {
            return Err(Close::TOO_BIG);
        }
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let Some(masked) = rest.get(..length as usize) else { return Ok(None) };
        let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        let used = self.bytes.len() - rest.len() + length as usize;
        self.bytes.drain(..used);
        Ok(Some(Frame { last, opcode, payload }))
    }
}

fn closing(payload: &[u8]) -> Result<Message, Close> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(Message::Close(None)) } else { Err(Close::PROTOCOL) };
    };
    let code = u16::from_be_bytes(*code);
    let is_said = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    if !is_said {
        return Err(Close::PROTOCOL);
    }
    std::str::from_utf8(reason).map(|_| Message::Close(Some(code))).map_err(|_| Close::NOT_UTF8)
}

fn write_head(opcode: u8, length: usize, out: &mut Vec<u8>) {
    out.push(0x80 | opcode);
    match length {
        0..=125 => out.push(length as u8),
        126..=0xFFFF => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Appends a text message made of parts.
pub(crate) fn write_text(parts: &[&[u8]], out: &mut Vec<u8>) {
    let length = parts.iter().map(|part| part.len()).sum();
    out.reserve(length + 10);
    write_head(0x1, length, out);
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Appends a ping.
pub(crate) fn write_ping(out: &mut Vec<u8>) {
    write_head(0x9, 0, out);
}

/// Appends the answer to a ping.
pub(crate) fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    write_head(0xA, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a close; the reason is cut to what fits.
pub(crate) fn write_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let reason = &reason.as_bytes()[..reason.len().min(CONTROL_MAX - 2)];
    write_head(0x8, reason.len() + 2, out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame as a client writes it.
    fn masked(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
        let mut out = Vec::new();
        write_head(0, payload.len(), &mut out);
        (out[0], out[1]) = (first, out[1] | 0x80);
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        out
    }

    fn all(bytes: &[u8], cut: usize) -> Result<Vec<Message>, Close> {
        let (mut decoder, mut messages) = (Decoder::default(), Vec::new());
        for piece in bytes.chunks(cut) {
            decoder.buffer().extend_from_slice(piece);
            while let Some(message) = decoder.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// However a message is cut into fragments, with pings between them, and however the bytes arrive.
        #[test]
        fn messages_come_together(
            text in ".{0,300}",
            fragments in 1_usize..6,
            mask in any::<[u8; 4]>(),
            cut in 1_usize..50,
        ) {
            let size = text.len() / fragments + 1;
            let parts: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            let parts = if parts.is_empty() { vec![&b""[..]] } else { parts };
            let mut bytes = Vec::new();
            for (at, part) in parts.iter().enumerate() {
                let first = u8::from(at == 0);
                let last = if at + 1 == parts.len() { 0x80 } else { 0 };
                bytes.extend(masked(first | last, part, mask));
                if last == 0 {
                    bytes.extend(masked(0x89, b"hi", mask));
                }
            }
            let messages = all(&bytes, cut).unwrap();
            prop_assert_eq!(messages.len(), parts.len());
            prop_assert_eq!(messages.last().unwrap(), &Message::Text(text));
            let pinged = messages[..messages.len() - 1].iter().all(|one| *one == Message::Ping(b"hi".to_vec()));
            prop_assert!(pinged);
        }

        /// Whatever comes in, it is judged within the bounds.
        #[test]
        fn no_bytes_break_it(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1_usize..50) {
            let mut decoder = Decoder::default();
            for piece in bytes.chunks(cut) {
                decoder.buffer().extend_from_slice(piece);
                match decoder.next() {
                    Ok(_) => prop_assert!(decoder.partial.as_ref().is_none_or(|part| part.len() <= MESSAGE_MAX)),
                    Err(_) => return Ok(()),
                }
            }
        }
    }

    #[test]
    fn what_is_against_the_protocol_is_named() {
        let mask = [1, 2, 3, 4];
        let unmasked = [0x81, 0x01, b'a'];
        for (bytes, close) in [
            (unmasked.to_vec(), Close::PROTOCOL),
            (masked(0xC1, b"a", mask), Close::PROTOCOL),
            (masked(0x80, b"a", mask), Close::PROTOCOL),
            (masked(0x09, b"", mask), Close::PROTOCOL),
            (masked(0x83, b"a", mask), Close::PROTOCOL),
            (masked(0x88, &[0x03, 0xED], mask), Close::PROTOCOL),
            (masked(0x88, &[0x03], mask), Close::PROTOCOL),
            (masked(0x89, &[0; 126], mask), Close::PROTOCOL),
            (masked(0x82, b"a", mask), Close::BINARY),
            (masked(0x81, &[0xFF], mask), Close::NOT_UTF8),
            (masked(0x81, &vec![b'a'; MESSAGE_MAX + 1], mask)[..14].to_vec(), Close::TOO_BIG),
            ([masked(0x01, b"a", mask), masked(0x81, b"b", mask)].concat(), Close::PROTOCOL),
        ] {
            assert_eq!(all(&bytes, 1_000_000), Err(close), "{bytes:?}");
        }
        let mut many = masked(0x01, &vec![b'a'; MESSAGE_MAX], mask);
        many.extend(masked(0x80, b"b", mask));
        assert_eq!(all(&many, 1_000_000), Err(Close::TOO_BIG));
        let closes = all(&masked(0x88, &[0x03, 0xE8, b'x'], mask), 1).unwrap();
        assert_eq!(closes, [Message::Close(Some(1000))]);
    }

    #[test]
    fn what_goes_out_has_the_length_in_its_head() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let (mut out, text) = (Vec::new(), "x".repeat(length));
            write_text(&[text.as_bytes()], &mut out);
            let head = match length {
                0..=125 => 2,
                126..=65_535 => 4,
                _ => 10,
            };
            assert_eq!((out.len(), out[0]), (head + length, 0x81));
        }
    }
}
