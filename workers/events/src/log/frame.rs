//! What a segment of version 2 is made of: records together, compressed or not, encrypted or not.
//!
//! Layout (little endian, 64 bytes of header, the payload, the tag when encrypted, one byte 0xff, then zeros up to
//! a multiple of 8):
//!
//! ```text
//!  0 u32 len        header, payload, tag and the 0xff, without the padding
//!  4 u32 crc32c     of len, then of everything from byte 8 to the end of the padding
//!  8 u64 seq        of the first record         16 u64 nonce: counts within its epoch
//! 24 u32 records    28 u8 flags                 29 3 zero bytes
//! 32 u32 bytes of the records, uncompressed     36 4 zero bytes
//! 40 16 bytes epoch, zeros when not encrypted   56 8 zero bytes
//! 64 payload: records as in version 1, their own flags and checksums zero
//! ```
//!
//! The fields that recovery looks at stand where those of a record of version 1 do. The checksum is over what lies
//! on the disk, so what a crash left is told from what was stored without any key. What is authenticated with a
//! frame is its segment's header, its offset and its own header: a frame moved, copied to another segment or log, or
//! changed anywhere does not open. The 0xff makes the last written byte of a frame one that is not zero.

use bytes::Bytes;
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use std::sync::Arc;

use super::form::Form;
use super::keyring::{Epoch, random};
use super::record::{self, HEADER_BYTES, Parsed, RECORD_BYTES_MAX, array, checksum, padded};

/// Records are gathered in a frame up to this size, unless one alone is larger: what a reader of one event reads.
pub(crate) const FRAME_BYTES: usize = 16 * 1024;
/// The same in a compressed segment, before compression: smaller ones compress worse.
pub(crate) const PACK_BYTES: usize = 64 * 1024;
/// LIMIT: records of a frame, uncompressed.
pub(crate) const PLAIN_BYTES_MAX: usize = PACK_BYTES + RECORD_BYTES_MAX;
/// LIMIT: a frame with its header.
pub(crate) const FRAME_BYTES_MAX: usize = HEADER_BYTES + PLAIN_BYTES_MAX + TAG_BYTES + MARK_BYTES;
/// What a frame costs beside its records, padding included, at most.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES + MARK_BYTES + record::ALIGN;

/// The payload is compressed; the other flags are those of records.
pub(crate) const PACKED: u8 = 8;

pub(crate) const TAG_BYTES: usize = 16;
const MARK_BYTES: usize = 1;
const MARK: u8 = 0xff;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Bytes without the padding.
    pub(crate) len: usize,
    /// Seq of the first record.
    pub(crate) seq: u64,
    /// Records.
    pub(crate) count: u32,
    pub(crate) flags: u8,
    plain: usize,
    epoch: Epoch,
    nonce: u64,
}

/// What the writer says of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    pub(crate) seq: u64,
    pub(crate) count: u32,
    pub(crate) flags: u8,
    /// Bytes of the records, uncompressed.
    pub(crate) plain: usize,
}

/// Makes frames of one segment in one epoch.
pub(crate) struct Sealer {
    form: Arc<Form>,
    epoch: Epoch,
    key: Option<Arc<LessSafeKey>>,
    /// INVARIANT: only rises, also when what was written is cut off again.
    nonce: u64,
}

impl Sealer {
    /// Begins an epoch of a segment.
    pub(crate) fn begin(form: Arc<Form>) -> Self {
        let epoch = if form.is_encrypted() { random() } else { Epoch::default() };
        let key = form.data_key(&epoch);
        Self { form, epoch, key, nonce: 0 }
    }

    /// Appends a frame that will stand at `offset` of the segment.
    pub(crate) fn seal(&mut self, out: &mut Vec<u8>, offset: u64, label: &Label, payload: &[u8]) {
        let start = out.len();
        let tag = if self.key.is_some() { TAG_BYTES } else { 0 };
        let len = HEADER_BYTES + payload.len() + tag + MARK_BYTES;
        out.reserve(padded(len));
        out.extend_from_slice(&(len as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&label.seq.to_le_bytes());
        out.extend_from_slice(&self.nonce.to_le_bytes());
        out.extend_from_slice(&label.count.to_le_bytes());
        out.extend_from_slice(&[label.flags, 0, 0, 0]);
        out.extend_from_slice(&(label.plain as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.epoch);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(payload);
        if let Some(key) = &self.key {
            let (head, payload) = out[start..].split_at_mut(HEADER_BYTES);
            let aad = aad(&self.form, offset, head);
            let tag = key
                .seal_in_place_separate_tag(nonce(self.nonce), Aad::from(aad), payload)
                .expect("a frame is far below the cipher's length limit");
            out.extend_from_slice(tag.as_ref());
        }
        self.nonce += 1;
        out.push(MARK);
        out.resize(start + padded(len), 0);
        let crc = checksum(&out[start..]);
        out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }
}

impl Frame {
    /// Bytes on disk, padding included.
    pub(crate) fn padded(&self) -> usize {
        padded(self.len)
    }

    /// The records of the frame that stands at `at` of `bytes` and at `offset` of its segment.
    pub(crate) fn open(
        &self,
        form: &Form,
        offset: u64,
        bytes: &Bytes,
        at: usize,
    ) -> Result<Bytes, &'static str> {
        let payload = bytes.slice(at + HEADER_BYTES..at + self.len - MARK_BYTES);
        let payload = if form.is_encrypted() {
            let key = form.data_key(&self.epoch).ok_or("its key is not known")?;
            let aad = aad(form, offset, &bytes[at..at + HEADER_BYTES]);
            let mut plain = payload.to_vec();
            let len = key
                .open_in_place(nonce(self.nonce), Aad::from(aad), &mut plain)
                .map_err(|_| "it is not what was encrypted here")?
                .len();
            plain.truncate(len);
            Bytes::from(plain)
        } else {
            payload
        };
        let records = if self.flags & PACKED == 0 { payload } else { unpack(&payload, self.plain)? };
        if records.len() == self.plain { Ok(records) } else { Err("records of another length than named") }
    }
}

/// Judges what stands at the beginning of `bytes`, without any key.
pub(crate) fn parse(bytes: &[u8]) -> Parsed<Frame> {
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
        return if bytes.iter().all(|b| *b == 0) { Parsed::Blank } else { Parsed::Short };
    };
    let u32_at = |at: usize| u32::from_le_bytes(array(head, at));
    let len = u32_at(0) as usize;
    if len == 0 {
        return Parsed::Blank;
    }
    if !(HEADER_BYTES + MARK_BYTES..=FRAME_BYTES_MAX).contains(&len) {
        return Parsed::Damaged("impossible length");
    }
    let Some(whole) = bytes.get(..padded(len)) else { return Parsed::Short };
    if checksum(whole) != u32_at(4) {
        return Parsed::Damaged("checksum error");
    }
    let frame = Frame {
        len,
        seq: u64::from_le_bytes(array(head, 8)),
        count: u32_at(24),
        flags: head[28],
        plain: u32_at(32) as usize,
        epoch: array(head, 40),
        nonce: u64::from_le_bytes(array(head, 16)),
    };
    if frame.count == 0 || frame.plain > PLAIN_BYTES_MAX || whole[len - 1] != MARK {
        return Parsed::Damaged("a frame that cannot be");
    }
    Parsed::Whole(frame)
}

/// Segment header, offset, length, and the frame's header behind its checksum.
fn aad(form: &Form, offset: u64, head: &[u8]) -> [u8; 2 * HEADER_BYTES + 4] {
    let mut aad = [0; 2 * HEADER_BYTES + 4];
    aad[..64].copy_from_slice(form.header());
    aad[64..72].copy_from_slice(&offset.to_le_bytes());
    aad[72..76].copy_from_slice(&head[..4]);
    aad[76..132].copy_from_slice(&head[8..64]);
    aad
}

pub(crate) fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn unpack(payload: &[u8], plain: usize) -> Result<Bytes, &'static str> {
    thread_local! {
        // Its tables are large: made once a thread, not once a frame.
        static CONTEXT: std::cell::RefCell<Option<zstd::bulk::Decompressor<'static>>> =
            const { std::cell::RefCell::new(None) };
    }
    let failed = "compressed records that do not decompress";
    CONTEXT.with_borrow_mut(|context| {
        if context.is_none() {
            *context = Some(zstd::bulk::Decompressor::new().map_err(|_| failed)?);
        }
        let context = context.as_mut().ok_or(failed)?;
        context.decompress(payload, plain).map(Bytes::from).map_err(|_| failed)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::form::tests::{encrypted, plain};

    fn sealed(form: &Arc<Form>, payload: &[u8], flags: u8, plain: usize) -> Bytes {
        let mut out = Vec::new();
        Sealer::begin(Arc::clone(form)).seal(
            &mut out,
            640,
            &Label { seq: 9, count: 2, flags, plain },
            payload,
        );
        out.into()
    }

    fn opened(form: &Form, offset: u64, bytes: &Bytes) -> Result<Bytes, &'static str> {
        let Parsed::Whole(frame) = parse(bytes) else { panic!("not whole") };
        assert_eq!((frame.seq, frame.count, frame.padded()), (9, 2, bytes.len()));
        frame.open(form, offset, bytes, 0)
    }

    #[test]
    fn a_frame_opens_in_its_place_alone() {
        let text = b"some records of a trading desk";
        for form in [plain(1), encrypted(1)] {
            let bytes = sealed(&form, text, 0, text.len());
            assert_eq!(opened(&form, 640, &bytes).unwrap(), &text[..]);
        }
        let form = encrypted(1);
        let bytes = sealed(&form, text, 0, text.len());
        assert!(!bytes.windows(7).any(|window| window == b"trading"), "it lies there in the clear");
        assert!(opened(&form, 648, &bytes).is_err(), "another offset");
        assert!(opened(&encrypted(2), 640, &bytes).is_err(), "another segment");
    }

    #[test]
    fn compressed_records_come_back_and_never_more_than_named() {
        let text = vec![b'x'; 50_000];
        let packed = zstd::bulk::compress(&text, 1).unwrap();
        for form in [plain(1), encrypted(1)] {
            let bytes = sealed(&form, &packed, PACKED, text.len());
            assert!(bytes.len() < 1_000);
            assert_eq!(opened(&form, 640, &bytes).unwrap(), &text[..]);
            for plain in [text.len() - 1, text.len() + 1] {
                assert!(opened(&form, 640, &sealed(&form, &packed, PACKED, plain)).is_err());
            }
        }
    }

    #[test]
    fn no_nonce_and_no_epoch_comes_twice() {
        let form = encrypted(1);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..8 {
            let mut sealer = Sealer::begin(Arc::clone(&form));
            for _ in 0..8 {
                let mut out = Vec::new();
                sealer.seal(&mut out, 64, &Label { seq: 1, count: 1, flags: 0, plain: 1 }, b"x");
                let Parsed::Whole(frame) = parse(&out) else { panic!("not whole") };
                assert!(seen.insert((frame.epoch, frame.nonce)));
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_seen_without_a_key() {
        for form in [plain(1), encrypted(1)] {
            let good = sealed(&form, b"records", 0, 7);
            for bit in 0..good.len() * 8 {
                let mut bad = good.to_vec();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(!matches!(parse(&bad), Parsed::Whole(_)), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_change_that_keeps_the_checksum_does_not_open() {
        let form = encrypted(1);
        let good = sealed(&form, b"records", 0, 7);
        for at in (0..4).chain(8..HEADER_BYTES + 7 + TAG_BYTES) {
            let mut bad = good.to_vec();
            bad[at] ^= 1;
            let crc = checksum(&bad);
            bad[4..8].copy_from_slice(&crc.to_le_bytes());
            let bad = Bytes::from(bad);
            if let Parsed::Whole(frame) = parse(&bad) {
                assert!(frame.open(&form, 640, &bad, 0).is_err(), "byte {at}");
            }
        }
    }
}
