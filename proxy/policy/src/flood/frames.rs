//! The heads of HTTP/2 frames in a stream of bytes, without their payload.

/// LIMIT: payload bytes kept of a frame.
const WORD_BYTES: u8 = 4;
const HEAD_BYTES: u8 = 9;

/// A frame's head and the first bytes of its payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Its kind, as the wire tells it.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// Payload, bytes.
    pub length: u32,
    /// Its first four payload bytes; zeros where it has fewer.
    pub word: u32,
}

impl Frame {
    /// DATA.
    pub const DATA: u8 = 0;
    /// HEADERS.
    pub const HEADERS: u8 = 1;
    /// PRIORITY.
    pub const PRIORITY: u8 = 2;
    /// `RST_STREAM`.
    pub const RESET: u8 = 3;
    /// SETTINGS.
    pub const SETTINGS: u8 = 4;
    /// PING.
    pub const PING: u8 = 6;
    /// `WINDOW_UPDATE`.
    pub const WINDOW_UPDATE: u8 = 8;
    /// CONTINUATION.
    pub const CONTINUATION: u8 = 9;

    const END_STREAM: u8 = 0x1;
    const END_HEADERS: u8 = 0x4;
    const PADDED: u8 = 0x8;
    /// `PROTOCOL_ERROR`, `FLOW_CONTROL_ERROR`, `FRAME_SIZE_ERROR`.
    const BREACHES: [u32; 3] = [0x1, 0x3, 0x6];

    /// Whether it ends its side of the stream.
    pub const fn ends_stream(&self) -> bool {
        self.flags & Self::END_STREAM != 0
    }

    /// Whether a header block goes on behind it.
    pub const fn opens_block(&self) -> bool {
        matches!(self.kind, Self::HEADERS | Self::CONTINUATION) && self.flags & Self::END_HEADERS == 0
    }

    /// Bytes of a DATA frame without its padding.
    pub const fn data_bytes(&self) -> u32 {
        if self.flags & Self::PADDED == 0 {
            return self.length;
        }
        self.length.saturating_sub(1 + (self.word >> 24))
    }

    /// Whether a reset blames the other side.
    pub fn is_breach(&self) -> bool {
        Self::BREACHES.contains(&self.word)
    }
}

/// Follows a stream of frames, wherever it is cut.
#[derive(Clone, Debug, Default)]
pub struct FrameScanner {
    head: [u8; HEAD_BYTES as usize],
    head_bytes: u8,
    frame: Frame,
    word_bytes: u8,
    told: bool,
    left: u64,
    block: bool,
}

impl FrameScanner {
    /// Frames that begin after `bytes` others.
    pub fn after(bytes: u64) -> Self {
        Self { left: bytes, told: true, ..Self::default() }
    }

    /// Whether a header block has begun and not ended.
    pub const fn is_in_block(&self) -> bool {
        self.block
    }

    /// Whether no frame has begun that has not ended, nor a header block: another frame may stand here.
    pub const fn is_between(&self) -> bool {
        self.left == 0 && self.head_bytes == 0 && !self.block
    }

    /// Reads the next bytes and tells each frame as soon as its head and word are known.
    ///
    /// # Errors
    /// What `tell` returns; nothing more is read then.
    pub fn scan<E>(
        &mut self,
        mut bytes: &[u8],
        mut tell: impl FnMut(&Frame) -> Result<(), E>,
    ) -> Result<(), E> {
        while !bytes.is_empty() {
            if self.left == 0 {
                bytes = self.take_head(bytes);
            } else if self.told {
                let skip = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
                self.left -= skip as u64;
                bytes = &bytes[skip..];
            } else {
                self.frame.word |= u32::from(bytes[0]) << (24 - 8 * u32::from(self.word_bytes));
                self.word_bytes += 1;
                self.left -= 1;
                bytes = &bytes[1..];
            }
            if !self.told && (self.left == 0 || self.word_bytes == WORD_BYTES) && self.head_bytes == 0 {
                self.told = true;
                tell(&self.frame)?;
            }
            if self.left == 0 && self.told && self.head_bytes == 0 {
                self.end_frame();
            }
        }
        Ok(())
    }

    /// Collects a frame head; the frame begins when it is whole.
    fn take_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let from = usize::from(self.head_bytes);
        let count = bytes.len().min(usize::from(HEAD_BYTES) - from);
        self.head[from..from + count].copy_from_slice(&bytes[..count]);
        self.head_bytes += u8::try_from(count).unwrap_or(HEAD_BYTES);
        if self.head_bytes == HEAD_BYTES {
            let [a, b, c, kind, flags, s1, s2, s3, s4] = self.head;
            let length = u32::from_be_bytes([0, a, b, c]);
            let stream = u32::from_be_bytes([s1, s2, s3, s4]) & 0x7fff_ffff;
            self.frame = Frame { kind, flags, stream, length, word: 0 };
            (self.head_bytes, self.word_bytes, self.told, self.left) = (0, 0, false, u64::from(length));
            if matches!(kind, Frame::HEADERS | Frame::CONTINUATION) {
                self.block = true;
            }
        }
        &bytes[count..]
    }

    fn end_frame(&mut self) {
        if self.block && matches!(self.frame.kind, Frame::HEADERS | Frame::CONTINUATION) {
            self.block = self.frame.opens_block();
        }
    }
}
