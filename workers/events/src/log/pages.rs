//! The index file of an encrypted segment: the bytes of a plain one, in pages that are encrypted one by one.
//!
//! ```text
//!  0 magic "SLUICEIE"   8 u16 version   10 u16 0   12 u32 number of the key
//! 16 u64 base seq      24 u64 bytes inside         32 16 bytes epoch
//! 48 zeros             60 u32 crc32c of the 60 bytes before
//! 64 pages: 4096 bytes and a tag of 16 each, the last one shorter
//! ```
//!
//! What is authenticated with a page is the segment's header, this header and the page's number, which is also its
//! nonce: an index is written once under its epoch. A page that does not open counts as damaged, and an index is
//! derived data: it is made again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use ring::aead::{Aad, LessSafeKey};

use super::form::Form;
use super::frame::{TAG_BYTES, nonce};
use super::keyring::{Epoch, random};
use super::record::array;

const MAGIC: [u8; 8] = *b"SLUICEIE";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 64;
const PAGE_BYTES: usize = 4_096;
const STORED_BYTES: usize = PAGE_BYTES + TAG_BYTES;

/// An index file, open for reading.
#[derive(Debug)]
pub(crate) struct IndexFile {
    file: File,
    /// Bytes inside.
    len: u64,
    sealed: Option<Sealed>,
}

#[derive(Debug)]
struct Sealed {
    key: Arc<LessSafeKey>,
    aad: [u8; 64 + HEAD_BYTES],
}

/// The bytes of the file that holds `index` beside a segment of that form.
pub(crate) fn encode(form: &Form, base_seq: u64, index: Vec<u8>) -> Vec<u8> {
    let epoch: Epoch = if form.is_encrypted() { random() } else { Epoch::default() };
    let Some(key) = form.data_key(&epoch) else { return index };
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    head[8..10].copy_from_slice(&VERSION.to_le_bytes());
    head[12..16].copy_from_slice(&form.key_id().to_le_bytes());
    head[16..24].copy_from_slice(&base_seq.to_le_bytes());
    head[24..32].copy_from_slice(&(index.len() as u64).to_le_bytes());
    head[32..48].copy_from_slice(&epoch);
    let crc = crc32c::crc32c(&head[..60]);
    head[60..].copy_from_slice(&crc.to_le_bytes());
    let aad = aad(form, &head);
    let mut out = Vec::with_capacity(HEAD_BYTES + index.len() + index.len() / PAGE_BYTES * TAG_BYTES + 32);
    out.extend_from_slice(&head);
    for (number, page) in (0_u64..).zip(index.chunks(PAGE_BYTES)) {
        let at = out.len();
        out.extend_from_slice(page);
        let tag = key
            .seal_in_place_separate_tag(nonce(number), Aad::from(aad), &mut out[at..])
            .expect("a page is far below the cipher's length limit");
        out.extend_from_slice(tag.as_ref());
    }
    out
}

impl IndexFile {
    /// Opens the index beside a segment of that form; `None` when it is not one of it.
    pub(crate) fn open(file: File, form: &Form, base_seq: u64) -> io::Result<Option<Self>> {
        let stored = file.metadata()?.len();
        if !form.is_encrypted() {
            return Ok(Some(Self { file, len: stored, sealed: None }));
        }
        if stored < HEAD_BYTES as u64 {
            return Ok(None);
        }
        let mut head = [0; HEAD_BYTES];
        file.read_exact_at(&mut head, 0)?;
        let len = u64::from_le_bytes(array(&head, 24));
        let pages = len.div_ceil(PAGE_BYTES as u64);
        let known = head[..8] == MAGIC
            && crc32c::crc32c(&head[..60]) == u32::from_le_bytes(array(&head, 60))
            && u16::from_le_bytes(array(&head, 8)) == VERSION
            && u32::from_le_bytes(array(&head, 12)) == form.key_id()
            && u64::from_le_bytes(array(&head, 16)) == base_seq
            && len.checked_add(pages * TAG_BYTES as u64) == stored.checked_sub(HEAD_BYTES as u64);
        let key = form.data_key(&array(&head, 32)).filter(|_| known);
        Ok(key.map(|key| Self { file, len, sealed: Some(Sealed { key, aad: aad(form, &head) }) }))
    }

    /// Bytes inside.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `out` from `at` on; `false` when what lies there is damaged. Reading beyond the end is an error.
    pub(crate) fn read_at(&self, out: &mut [u8], at: u64) -> io::Result<bool> {
        let Some(sealed) = &self.sealed else {
            return self.file.read_exact_at(out, at).map(|()| true);
        };
        let end = at + out.len() as u64;
        if end > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut filled = 0;
        while filled < out.len() {
            let from = at + filled as u64;
            let Some(page) = self.page(sealed, from / PAGE_BYTES as u64)? else { return Ok(false) };
            let begin = (from % PAGE_BYTES as u64) as usize;
            let count = (page.len() - begin).min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&page[begin..begin + count]);
            filled += count;
        }
        Ok(true)
    }

    fn page(&self, sealed: &Sealed, number: u64) -> io::Result<Option<Vec<u8>>> {
        let plain = (self.len - number * PAGE_BYTES as u64).min(PAGE_BYTES as u64) as usize;
        let mut page = vec![0; plain + TAG_BYTES];
        self.file.read_exact_at(&mut page, HEAD_BYTES as u64 + number * STORED_BYTES as u64)?;
        let opened = sealed.key.open_in_place(nonce(number), Aad::from(sealed.aad), &mut page).is_ok();
        page.truncate(plain);
        Ok(opened.then_some(page))
    }
}

fn aad(form: &Form, head: &[u8; HEAD_BYTES]) -> [u8; 64 + HEAD_BYTES] {
    let mut aad = [0; 64 + HEAD_BYTES];
    aad[..64].copy_from_slice(form.header());
    aad[64..].copy_from_slice(head);
    aad
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::log::form::tests::{encrypted, plain};

    fn opened(form: &Form, bytes: &[u8]) -> Option<IndexFile> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        IndexFile::open(file, form, 1).unwrap()
    }

    #[test]
    fn every_range_reads_back() {
        let inside: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
        for form in [plain(1), encrypted(1)] {
            let file = opened(&form, &encode(&form, 1, inside.clone())).unwrap();
            assert_eq!(file.len(), 10_000);
            for (at, count) in [(0, 10_000), (0, 1), (4_095, 2), (4_096, 4_096), (9_999, 1), (8_000, 2_000)] {
                let mut out = vec![0; count];
                assert!(file.read_at(&mut out, at as u64).unwrap());
                assert_eq!(out, inside[at..at + count]);
            }
            assert!(file.read_at(&mut [0; 2], 9_999).is_err());
        }
    }

    #[test]
    fn nothing_of_it_is_readable_and_no_change_is_taken() {
        let form = encrypted(1);
        let inside = b"market_data_update".repeat(400);
        let bytes = encode(&form, 1, inside.clone());
        assert!(!bytes.windows(6).any(|window| window == b"market"));
        assert!(opened(&encrypted(2), &bytes).is_none_or(|file| !file.read_at(&mut [0], 0).unwrap()));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 16;
            let mut out = vec![0; inside.len()];
            let taken = opened(&form, &bad).is_some_and(|file| file.read_at(&mut out, 0).unwrap());
            assert!(!taken, "byte {at}");
        }
        assert!(opened(&form, &bytes[..bytes.len() - 1]).is_none());
    }

    #[test]
    fn pages_do_not_change_places() {
        let form = encrypted(1);
        let bytes = encode(&form, 1, vec![7; 2 * PAGE_BYTES]);
        let (one, two) = (HEAD_BYTES, HEAD_BYTES + STORED_BYTES);
        let mut swapped = bytes.clone();
        swapped[one..two].copy_from_slice(&bytes[two..]);
        swapped[two..].copy_from_slice(&bytes[one..two]);
        assert!(!opened(&form, &swapped).unwrap().read_at(&mut [0; 8], 0).unwrap());
    }
}
