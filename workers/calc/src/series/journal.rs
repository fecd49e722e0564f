//! Records of the journal: what was added to a series since its last checkpoint.
//!
//! ```text
//! u32 bytes of what follows the crc   u32 crc32c of the length and of what follows
//! u8 length of the key   the key, as `BTC/USDT/1m`   u64 generation   u64 row
//! u8 1: there is an open bar   the open bar, 48 bytes, if there is   candles, 48 bytes each
//! ```
//!
//! A record says what is so after it, not what is to be done: these rows stand from `row` on, nothing stands behind
//! them, and this bar is open. Replayed twice, or over columns that already have it, it changes nothing.

use super::candle::{CANDLE_BYTES, Candle};
use super::key::SeriesKey;

const PREFIX: usize = 8;

/// One change of one series.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    pub(crate) key: SeriesKey,
    /// Of which file; a record of another one is of a series that was replaced or deleted.
    pub(crate) generation: u64,
    /// Where its rows stand.
    pub(crate) row: u64,
    pub(crate) rows: Vec<Candle>,
    /// The bar that is open after it.
    pub(crate) open: Option<Candle>,
}

impl Record {
    /// Appends the record to a buffer.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let begin = out.len();
        let key = self.key.text();
        out.extend_from_slice(&[0; PREFIX]);
        out.push(key.len() as u8);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.row.to_le_bytes());
        out.push(u8::from(self.open.is_some()));
        for candle in self.open.iter().chain(&self.rows) {
            out.extend_from_slice(&candle.encode());
        }
        let length = ((out.len() - begin - PREFIX) as u32).to_le_bytes();
        let crc = crc(length, &out[begin + PREFIX..]);
        out[begin..begin + 4].copy_from_slice(&length);
        out[begin + 4..begin + PREFIX].copy_from_slice(&crc.to_le_bytes());
    }

    fn decode(payload: &[u8]) -> Option<Self> {
        let (&length, rest) = payload.split_first()?;
        let (key, rest) = rest.split_at_checked(length.into())?;
        let (generation, rest) = rest.split_first_chunk()?;
        let (row, rest) = rest.split_first_chunk()?;
        let (&has_open, rest) = rest.split_first()?;
        let (candles, rest) = rest.as_chunks::<CANDLE_BYTES>();
        let mut candles = candles.iter().map(Candle::decode);
        let open = if has_open == 1 { Some(candles.next()?) } else { None };
        rest.is_empty().then_some(Self {
            key: SeriesKey::parse(str::from_utf8(key).ok()?)?,
            generation: u64::from_le_bytes(*generation),
            row: u64::from_le_bytes(*row),
            rows: candles.collect(),
            open,
        })
    }
}

fn crc(length: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&length), payload)
}

/// The whole records at the beginning of a journal, oldest first.
pub(crate) struct Records<'a> {
    rest: &'a [u8],
}

impl<'a> Records<'a> {
    pub(crate) const fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes behind the last whole record: what was being written when the process ended.
    pub(crate) const fn torn(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self) -> Option<Record> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let (sum, rest) = rest.split_first_chunk::<4>()?;
        let (payload, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let record =
            (crc(*length, payload) == u32::from_le_bytes(*sum)).then(|| Record::decode(payload))??;
        self.rest = rest;
        Some(record)
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candle(time_ms: i64) -> Candle {
        Candle::of(time_ms, [1.0, 2.0, 0.5, 1.5, time_ms as f64])
    }

    fn record(at: u64, rows: u8, is_open: bool) -> Record {
        Record {
            key: SeriesKey::parse(if at.is_multiple_of(2) { "BTC/USDT/1m" } else { "AAPL/1d" }).unwrap(),
            generation: at,
            row: 3 * at,
            rows: (0..i64::from(rows)).map(candle).collect(),
            open: is_open.then(|| candle(99)),
        }
    }

    #[test]
    fn cut_at_any_byte_the_whole_records_before_it_are_read() {
        let records: Vec<Record> = (0..6).map(|at| record(at, at as u8 % 3, at % 4 < 2)).collect();
        let mut bytes = Vec::new();
        let ends: Vec<usize> = records
            .iter()
            .map(|record| {
                record.encode(&mut bytes);
                bytes.len()
            })
            .collect();
        for cut in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let mut read = Records::of(&bytes[..cut]);
            assert_eq!(read.by_ref().collect::<Vec<_>>(), records[..whole], "{cut}");
            assert_eq!(read.torn(), cut - ends[..whole].last().unwrap_or(&0));
        }
    }

    proptest! {
        #[test]
        fn a_changed_byte_ends_the_journal_there(rows in prop::collection::vec((0u8..3, any::<bool>()), 1..5), at: prop::sample::Index, bit in 0u8..8) {
            let records: Vec<Record> = rows.iter().zip(0..).map(|((rows, open), at)| record(at, *rows, *open)).collect();
            let mut bytes = Vec::new();
            for record in &records {
                record.encode(&mut bytes);
            }
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let read: Vec<Record> = Records::of(&bytes).collect();
            prop_assert!(read.len() < records.len());
            prop_assert_eq!(&read[..], &records[..read.len()]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Records::of(&bytes).count() <= bytes.len());
        }
    }
}
