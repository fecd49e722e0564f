//! The index of a sealed segment on disk: `<base seq>.idx` beside `<base seq>.seg`.
//!
//! It is derived data: absent, torn or damaged, it is built again from the segment. Opening reads its head (the
//! summary) alone; the block table is loaded when a reader comes, and of the id filter one line is read a lookup.
//!
//! ```text
//!  0 magic "SLUICEIX"   8 u16 version   10 u16 0   12 u32 summary bytes
//! 16 u64 base seq      24 u32 blocks    28 u32 filter lines
//! 32 u32 crc32c of the block table      36 u32 crc32c of bytes 0..36 and of the summary
//! 40 summary, zeros up to a multiple of 64, filter lines (64 bytes each), block table (40 bytes each)
//! ```
//!
//! Beside an encrypted segment these bytes lie in encrypted pages (see [`super::pages`]).

use std::collections::BTreeMap;
use std::io;

use super::id::MessageId;
use super::index::{Block, Index, Summary};
use super::pages::IndexFile;
use super::record::array;

const MAGIC: [u8; 8] = *b"SLUICEIX";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 40;
const BLOCK_BYTES: usize = 40;
const LINE_BYTES: usize = 64;
/// Bits of a line that hold marks; the last four bytes are the line's own checksum.
const LINE_BITS: u64 = 480;
/// Ids a line is made for: 12 bits each, four marks: about one false answer in a hundred.
const IDS_PER_LINE: usize = 40;
const MARKS: u32 = 4;
/// LIMIT: a summary cannot be larger than its types allow.
const SUMMARY_BYTES_MAX: usize = 256 * 1024;

/// What is kept in memory of a sealed segment's index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) summary: Summary,
    blocks: usize,
    blocks_at: u64,
    blocks_crc: u32,
    lines: u64,
    lines_at: u64,
}

/// Writes the whole file's bytes.
pub(crate) fn encode(base_seq: u64, index: &Index) -> Vec<u8> {
    let summary = encode_summary(&index.summary);
    let lines = encode_lines(&index.ids);
    let blocks = encode_blocks(&index.blocks);
    let mut out = Vec::with_capacity(HEAD_BYTES + summary.len() + LINE_BYTES + lines.len() + blocks.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&(summary.len() as u32).to_le_bytes());
    out.extend_from_slice(&base_seq.to_le_bytes());
    out.extend_from_slice(&(index.blocks.len() as u32).to_le_bytes());
    out.extend_from_slice(&((lines.len() / LINE_BYTES) as u32).to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&blocks).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &summary);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&summary);
    out.resize(out.len().next_multiple_of(LINE_BYTES), 0);
    out.extend_from_slice(&lines);
    out.extend_from_slice(&blocks);
    out
}

/// Reads the head; `None` when this is not the whole, undamaged index of that segment.
pub(crate) fn read_head(file: &IndexFile, base_seq: u64) -> io::Result<Option<Head>> {
    let mut head = [0; HEAD_BYTES];
    let len = file.len();
    if len < HEAD_BYTES as u64 || !file.read_at(&mut head, 0)? {
        return Ok(None);
    }
    let u32_at = |at: usize| u32::from_le_bytes(array(&head, at));
    let known = head[..8] == MAGIC
        && u16::from_le_bytes(array(&head, 8)) == VERSION
        && u64::from_le_bytes(array(&head, 16)) == base_seq;
    let summary_bytes = u32_at(12) as usize;
    if !known || summary_bytes > SUMMARY_BYTES_MAX || len < (HEAD_BYTES + summary_bytes) as u64 {
        return Ok(None);
    }
    let mut summary = vec![0; summary_bytes];
    if !file.read_at(&mut summary, HEAD_BYTES as u64)? {
        return Ok(None);
    }
    if crc32c::crc32c_append(crc32c::crc32c(&head[..36]), &summary) != u32_at(36) {
        return Ok(None);
    }
    let lines_at = ((HEAD_BYTES + summary_bytes).next_multiple_of(LINE_BYTES)) as u64;
    let (blocks, lines) = (u32_at(24) as usize, u64::from(u32_at(28)));
    let blocks_at = lines_at + lines * LINE_BYTES as u64;
    if len != blocks_at + (blocks * BLOCK_BYTES) as u64 {
        return Ok(None);
    }
    let Some(summary) = decode_summary(&summary) else { return Ok(None) };
    Ok(Some(Head { summary, blocks, blocks_at, blocks_crc: u32_at(32), lines, lines_at }))
}

impl Head {
    /// Loads the block table; `None` when it is damaged.
    pub(crate) fn read_blocks(&self, file: &IndexFile) -> io::Result<Option<Vec<Block>>> {
        let mut bytes = vec![0; self.blocks * BLOCK_BYTES];
        if !file.read_at(&mut bytes, self.blocks_at)? || crc32c::crc32c(&bytes) != self.blocks_crc {
            return Ok(None);
        }
        Ok(Some(bytes.chunks_exact(BLOCK_BYTES).map(decode_block).collect()))
    }

    /// Whether the segment may hold an id; `true` also when the line cannot be trusted.
    pub(crate) fn may_hold(&self, file: &IndexFile, folded_id: u64) -> io::Result<bool> {
        if self.lines == 0 {
            return Ok(false);
        }
        let (line, marks) = place(folded_id, self.lines);
        let mut bytes = [0; LINE_BYTES];
        let whole = file.read_at(&mut bytes, self.lines_at + line * LINE_BYTES as u64)?;
        if !whole || line_checksum(&bytes) != u32::from_le_bytes(array(&bytes, 60)) {
            return Ok(true);
        }
        Ok(marks.iter().all(|bit| bytes[bit / 8] & (1 << (bit % 8)) != 0))
    }
}

fn encode_summary(summary: &Summary) -> Vec<u8> {
    let mut out = Vec::with_capacity(80 + summary.types.len() * 32);
    for word in [summary.records, summary.end, summary.first.ms, summary.last.ms, summary.other_types] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&summary.first.n.to_le_bytes());
    out.extend_from_slice(&summary.last.n.to_le_bytes());
    out.extend_from_slice(&summary.time_min_us.to_le_bytes());
    out.extend_from_slice(&summary.time_max_us.to_le_bytes());
    for (kind, count) in &summary.types {
        // A label has at most 255 bytes.
        out.push(kind.len() as u8);
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(&count.to_le_bytes());
    }
    out
}

fn decode_summary(bytes: &[u8]) -> Option<Summary> {
    let (fixed, mut rest) = bytes.split_at_checked(64)?;
    let u64_at = |at: usize| u64::from_le_bytes(array(fixed, at));
    let u32_at = |at: usize| u32::from_le_bytes(array(fixed, at));
    let mut types = BTreeMap::new();
    while let Some((len, tail)) = rest.split_first() {
        let (name, tail) = tail.split_at_checked(usize::from(*len))?;
        let (count, tail) = tail.split_at_checked(8)?;
        types.insert(std::str::from_utf8(name).ok()?.into(), u64::from_le_bytes(array(count, 0)));
        rest = tail;
    }
    Some(Summary {
        records: u64_at(0),
        end: u64_at(8),
        first: MessageId { ms: u64_at(16), n: u32_at(40) },
        last: MessageId { ms: u64_at(24), n: u32_at(44) },
        other_types: u64_at(32),
        time_min_us: u64_at(48) as i64,
        time_max_us: u64_at(56) as i64,
        types,
    })
}

fn encode_blocks(blocks: &[Block]) -> Vec<u8> {
    let mut out = Vec::with_capacity(blocks.len() * BLOCK_BYTES);
    for block in blocks {
        out.extend_from_slice(&block.seq_delta.to_le_bytes());
        out.extend_from_slice(&block.id.n.to_le_bytes());
        out.extend_from_slice(&block.offset.to_le_bytes());
        out.extend_from_slice(&block.id.ms.to_le_bytes());
        out.extend_from_slice(&block.time_min_us.to_le_bytes());
        out.extend_from_slice(&block.time_max_us.to_le_bytes());
    }
    out
}

fn decode_block(bytes: &[u8]) -> Block {
    Block {
        seq_delta: u32::from_le_bytes(array(bytes, 0)),
        offset: u64::from_le_bytes(array(bytes, 8)),
        id: MessageId { ms: u64::from_le_bytes(array(bytes, 16)), n: u32::from_le_bytes(array(bytes, 4)) },
        time_min_us: i64::from_le_bytes(array(bytes, 24)),
        time_max_us: i64::from_le_bytes(array(bytes, 32)),
    }
}

/// A Bloom filter in lines of 64 bytes: an id's marks are all in one line, so a lookup reads one line.
fn encode_lines(ids: &[u64]) -> Vec<u8> {
    let count = ids.len().div_ceil(IDS_PER_LINE) as u64;
    let mut out = vec![0_u8; count as usize * LINE_BYTES];
    for id in ids {
        let (line, marks) = place(*id, count);
        for bit in marks {
            out[line as usize * LINE_BYTES + bit / 8] |= 1 << (bit % 8);
        }
    }
    for line in out.chunks_exact_mut(LINE_BYTES) {
        let crc = line_checksum(line);
        line[60..].copy_from_slice(&crc.to_le_bytes());
    }
    out
}

fn line_checksum(line: &[u8]) -> u32 {
    crc32c::crc32c(&line[..60])
}

/// The line of an id and its marks in it. Event ids can be chosen by clients, so the bits are mixed first.
fn place(folded_id: u64, lines: u64) -> (u64, [usize; MARKS as usize]) {
    let mixed = mix(folded_id);
    let line = ((u128::from(mixed) * u128::from(lines)) >> 64) as u64;
    let bits = mix(mixed);
    let marks = std::array::from_fn(|i| ((((bits >> (16 * i)) & 0xffff) * LINE_BITS) >> 16) as usize);
    (line, marks)
}

/// A fixed mixing of 64 bits (multiply and fold); part of the format.
fn mix(value: u64) -> u64 {
    let wide = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * u128::from(0xd6e8_feb8_6659_fd93_u64);
    (wide >> 64) as u64 ^ wide as u64
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::log::form::tests::plain;
    use crate::log::index::{Entry, fold};
    use crate::log::record::Stamp;

    fn indexed(records: u64) -> Index {
        let mut index = Index::new(10, 64);
        for i in 0..records {
            index.add(&Entry {
                stamp: Stamp { seq: 10 + i, id: MessageId { ms: 100 + i, n: 7 } },
                offset: 64 + i * 400,
                len: 400,
                time_us: -5 + i as i64,
                event_id: u128::from(mix(i)),
                kind: ["a", "bb"][(i % 2) as usize],
            });
        }
        index
    }

    fn file_of(bytes: &[u8]) -> IndexFile {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        IndexFile::open(file, &plain(10), 10).unwrap().unwrap()
    }

    #[test]
    fn an_index_reads_back_as_written() {
        let index = indexed(500);
        let file = file_of(&encode(10, &index));
        let head = read_head(&file, 10).unwrap().unwrap();
        assert_eq!(head.summary, index.summary);
        assert_eq!(head.read_blocks(&file).unwrap().unwrap(), index.blocks);
        assert!(read_head(&file, 11).unwrap().is_none(), "another segment's index");
    }

    #[test]
    fn the_filter_never_denies_a_stored_id_and_seldom_claims_another() {
        let index = indexed(2_000);
        let file = file_of(&encode(10, &index));
        let head = read_head(&file, 10).unwrap().unwrap();
        for id in &index.ids {
            assert!(head.may_hold(&file, *id).unwrap());
        }
        let false_claims = (0..2_000_u64)
            .filter(|i| head.may_hold(&file, fold(u128::from(mix(i + 1_000_000)))).unwrap())
            .count();
        assert!(false_claims < 100, "{false_claims} of 2000");
    }

    #[test]
    fn any_flipped_bit_is_seen_or_harmless() {
        let index = indexed(60);
        let good = encode(10, &index);
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let file = file_of(&bad);
            let Some(head) = read_head(&file, 10).unwrap() else { continue };
            assert_eq!(head.summary, index.summary, "bit {bit}");
            if let Some(blocks) = head.read_blocks(&file).unwrap() {
                assert_eq!(blocks, index.blocks, "bit {bit}");
            }
            assert!(index.ids.iter().all(|id| head.may_hold(&file, *id).unwrap()), "bit {bit}");
        }
    }

    #[test]
    fn a_cut_file_is_no_index() {
        let good = encode(10, &indexed(60));
        for len in (0..good.len()).step_by(7) {
            assert!(read_head(&file_of(&good[..len]), 10).unwrap().is_none(), "{len}");
        }
    }
}
