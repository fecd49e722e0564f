//! The first page of a series' file: two slots, of which the newest whole one counts.
//!
//! ```text
//!   0 "SLSERIES"   8 u32 version   12 u32 crc32c of the key's text   16 u64 seq   24 u64 generation
//!  32 u64 capacity, rows   40 u64 rows   48 u64 1: there is an open bar   56 the open bar, 48 bytes   252 u32 crc32c
//! ```
//!
//! A slot lies at 0 and one at 2,048, in sectors of their own: while one is written the other stays whole. A slot is
//! written at checkpoints alone; what came after it is in the journal.

use super::candle::{CANDLE_BYTES, Candle};

/// Bytes before the columns.
pub(crate) const HEAD_BYTES: usize = 4_096;
/// Bytes of a slot.
pub(crate) const SLOT_BYTES: usize = 256;
const MAGIC: &[u8; 8] = b"SLSERIES";
const VERSION: u32 = 1;
const OPEN: usize = 56;
const CRC: usize = SLOT_BYTES - 4;

/// What a file says of its columns.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Head {
    /// Counts the slots written.
    pub(crate) seq: u64,
    /// Told apart by it: a series, and one of its name that was there before.
    pub(crate) generation: u64,
    /// Rows that there is room for.
    pub(crate) capacity: u64,
    pub(crate) rows: u64,
    /// The bar that is still forming. It is nowhere else: an update of it cannot tear a row.
    pub(crate) open: Option<Candle>,
}

impl Head {
    /// Where in the file its slot lies.
    pub(crate) const fn offset(&self) -> u64 {
        (self.seq % 2) * 2_048
    }

    pub(crate) fn encode(&self, key: &str) -> [u8; SLOT_BYTES] {
        let mut slot = [0; SLOT_BYTES];
        let mut put = |at: usize, bytes: &[u8]| slot[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(8, &VERSION.to_le_bytes());
        put(12, &crc32c::crc32c(key.as_bytes()).to_le_bytes());
        let figures = [self.seq, self.generation, self.capacity, self.rows, u64::from(self.open.is_some())];
        for (at, figure) in figures.into_iter().enumerate() {
            put(16 + 8 * at, &figure.to_le_bytes());
        }
        if let Some(open) = &self.open {
            put(OPEN, &open.encode());
        }
        let crc = crc32c::crc32c(&slot[..CRC]);
        slot[CRC..].copy_from_slice(&crc.to_le_bytes());
        slot
    }

    fn decode(slot: &[u8; SLOT_BYTES], key: &str) -> Option<Self> {
        let u32_at = |at: usize| slot[at..].first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let u64_at = |at: usize| slot[at..].first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
        let is_whole = slot.starts_with(MAGIC)
            && u32_at(8)? == VERSION
            && u32_at(12)? == crc32c::crc32c(key.as_bytes())
            && u32_at(CRC)? == crc32c::crc32c(&slot[..CRC]);
        let open: &[u8; CANDLE_BYTES] = slot[OPEN..].first_chunk()?;
        let open = (u64_at(48)? == 1).then(|| Candle::decode(open));
        let head = Self {
            seq: u64_at(16)?,
            generation: u64_at(24)?,
            capacity: u64_at(32)?,
            rows: u64_at(40)?,
            open,
        };
        (is_whole && head.rows <= head.capacity).then_some(head)
    }

    /// The newest whole slot of a page.
    pub(crate) fn newest(page: &[u8; HEAD_BYTES], key: &str) -> Option<Self> {
        let slot = |at: usize| Self::decode(page[at..].first_chunk()?, key);
        [slot(0), slot(2_048)].into_iter().flatten().max_by_key(|head| head.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(seq: u64) -> Head {
        let open = (seq % 2 == 1).then(|| Candle::of(-5, [1.0, 2.0, 0.5, 1.5, seq as f64]));
        Head { seq, generation: 7, capacity: 1_024, rows: seq, open }
    }

    fn page(heads: &[Head]) -> [u8; HEAD_BYTES] {
        let mut page = [0; HEAD_BYTES];
        for head in heads {
            let at = head.offset() as usize;
            page[at..at + SLOT_BYTES].copy_from_slice(&head.encode("A/1m"));
        }
        page
    }

    #[test]
    fn the_newest_whole_slot_counts() {
        assert_eq!(Head::newest(&page(&[]), "A/1m"), None);
        assert_eq!(Head::newest(&page(&[head(4)]), "A/1m"), Some(head(4)));
        let both = page(&[head(4), head(5)]);
        assert_eq!(Head::newest(&both, "A/1m"), Some(head(5)));
        assert_eq!(Head::newest(&both, "B/1m"), None, "a file under another name");
        // Torn at any byte, the slot before it counts; a page of zeros in its place is no slot.
        for at in 0..SLOT_BYTES {
            let mut torn = both;
            torn[2_048 + at] ^= 1;
            assert_eq!(Head::newest(&torn, "A/1m"), Some(head(4)), "{at}");
        }
    }
}
