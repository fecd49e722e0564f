//! Partitions: which one an event belongs to, and the numbers it gets there.
//!
//! A partition is an order with numbers of its own, not a place: all partitions of a stream stand in one log, in one
//! order, and are made durable together. Which one an event belongs to is a hash of its key (its type or its symbol,
//! as UTF-8; empty where it has none) modulo their number: CRC-32C, its bits mixed by the last step of MurmurHash3
//! (`fmix32`), for the low bits of the CRC of keys alike are alike. That is fixed for ever: a stream keeps the division
//! that it began with.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use super::medium::Medium;
use super::record::{Labels, array};
use super::segment;

/// LIMIT: partitions of a stream.
pub const PARTITIONS_MAX: u8 = 64;

/// What an event's partition is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Its type.
    Type,
    /// Its symbol.
    Symbol,
}

/// How a stream is divided; a stream that is not has no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partitions {
    by: By,
    count: u8,
}

/// An event's place in its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// Which one, from 0.
    pub partition: u8,
    /// Contiguous number in it, from 1.
    pub seq: u64,
}

/// The numbers given last, of every partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heads {
    partitions: Option<Partitions>,
    /// Empty where the log is not divided.
    last: Vec<u64>,
}

impl Partitions {
    /// `None` for a number that is no division: below 2 or above [`PARTITIONS_MAX`].
    pub fn new(by: By, count: u8) -> Option<Self> {
        (2..=PARTITIONS_MAX).contains(&count).then_some(Self { by, count })
    }

    /// How many there are.
    pub fn count(self) -> u8 {
        self.count
    }

    /// What decides about an event's partition.
    pub fn key(self, labels: Labels<'_>) -> &str {
        match self.by {
            By::Type => labels.kind,
            By::Symbol => labels.symbol,
        }
    }

    /// An event's partition.
    pub fn of(self, labels: Labels<'_>) -> u8 {
        (hash(self.key(labels).as_bytes()) % u32::from(self.count)) as u8
    }

    /// As two bytes, for headers; `None` says that nothing is divided.
    pub(crate) fn to_bytes(divided: Option<Self>) -> [u8; 2] {
        divided.map_or([0, 0], |own| [if own.by == By::Type { 1 } else { 2 }, own.count])
    }

    /// Reads them back; `Err` for what no version wrote.
    pub(crate) fn from_bytes([by, count]: [u8; 2]) -> Result<Option<Self>, ()> {
        let by = match by {
            0 if count == 0 => return Ok(None),
            1 => By::Type,
            2 => By::Symbol,
            _ => return Err(()),
        };
        Self::new(by, count).map(Some).ok_or(())
    }
}

/// What a key's partition is found by.
fn hash(key: &[u8]) -> u32 {
    let mut mixed = crc32c::crc32c(key);
    mixed ^= mixed >> 16;
    mixed = mixed.wrapping_mul(0x85eb_ca6b);
    mixed ^= mixed >> 13;
    mixed = mixed.wrapping_mul(0xc2b2_ae35);
    mixed ^ mixed >> 16
}

impl Lane {
    /// Of an event in a stream that is not divided.
    pub fn whole(seq: u64) -> Self {
        Self { partition: 0, seq }
    }
}

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = if self.by == By::Type { "type" } else { "symbol" };
        write!(f, "{by}:{}", self.count)
    }
}

/// How a stream is divided, in a word: `symbol:4`, or `none`.
pub(crate) fn word(divided: Option<Partitions>) -> String {
    divided.map_or_else(|| "none".to_owned(), |partitions| partitions.to_string())
}

/// Size of the file of heads without them.
const HEADS_BYTES: usize = 24;
const HEADS_MAGIC: [u8; 8] = *b"SLUICEPT";
const HEADS_NAME: &str = "heads";

impl Heads {
    /// Nothing given yet.
    pub(crate) fn new(partitions: Option<Partitions>) -> Self {
        Self { partitions, last: vec![0; partitions.map_or(0, |own| usize::from(own.count))] }
    }

    /// The next place of an event in its partition; `None` where the log is not divided.
    pub(crate) fn give<'a>(&mut self, labels: impl FnOnce() -> Labels<'a>) -> Option<Lane> {
        let partition = self.partitions?.of(labels());
        let last = self.last.get_mut(usize::from(partition))?;
        *last += 1;
        Some(Lane { partition, seq: *last })
    }

    /// Takes the newest place of a partition back.
    pub(crate) fn take_back(&mut self, lane: Lane) {
        if let Some(last) = self.last.get_mut(usize::from(lane.partition)) {
            *last = lane.seq - 1;
        }
    }

    /// Notes a place that was given before.
    pub(crate) fn note(&mut self, lane: Lane) {
        if let Some(last) = self.last.get_mut(usize::from(lane.partition)) {
            *last = lane.seq;
        }
    }

    /// Where what was given before is not known: numbers go on behind all that can have been given.
    pub(crate) fn behind(partitions: Option<Partitions>, seq: u64) -> Self {
        let mut heads = Self::new(partitions);
        heads.last.fill(seq);
        heads
    }

    /// Writes them down as they are behind a seq, so that a start need not look further back.
    pub(crate) fn save(&self, medium: &dyn Medium, dir: &Path, seq: u64) -> io::Result<()> {
        let Some(partitions) = self.partitions else { return Ok(()) };
        let mut bytes = Vec::with_capacity(HEADS_BYTES + self.last.len() * 8 + 4);
        bytes.extend_from_slice(&HEADS_MAGIC);
        bytes.extend_from_slice(&seq.to_le_bytes());
        bytes.extend_from_slice(&Partitions::to_bytes(Some(partitions)));
        bytes.resize(HEADS_BYTES, 0);
        self.last.iter().for_each(|last| bytes.extend_from_slice(&last.to_le_bytes()));
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let (path, draft) = (dir.join(HEADS_NAME), dir.join("heads.tmp"));
        segment::remove_if_there(&draft)?;
        let file = medium.create(&draft)?;
        medium.write_all_at(&file, &bytes, 0)?;
        medium.sync(&file)?;
        fs::rename(&draft, &path)?;
        medium.sync_dir(dir)
    }

    /// What was written down and the seq behind which it holds; `None` when it is not there, damaged, or of another
    /// division: it can be found again.
    pub(crate) fn load(dir: &Path, partitions: Partitions) -> io::Result<Option<(u64, Self)>> {
        let bytes = match fs::read(dir.join(HEADS_NAME)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let whole = HEADS_BYTES + usize::from(partitions.count) * 8;
        if bytes.len() != whole + 4
            || bytes[..8] != HEADS_MAGIC
            || crc32c::crc32c(&bytes[..whole]).to_le_bytes() != bytes[whole..]
            || Partitions::from_bytes([bytes[16], bytes[17]]) != Ok(Some(partitions))
        {
            return Ok(None);
        }
        let last = bytes[HEADS_BYTES..whole].chunks_exact(8).map(|one| u64::from_le_bytes(array(one, 0)));
        let last = last.collect();
        Ok(Some((u64::from_le_bytes(array(&bytes, 8)), Self { partitions: Some(partitions), last })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Disk;

    fn labels<'a>(kind: &'a str, symbol: &'a str) -> Labels<'a> {
        Labels { kind, symbol, source: "" }
    }

    #[test]
    fn the_partition_of_a_key_never_changes() {
        // The check value of CRC-32C, mixed.
        assert_eq!((crc32c::crc32c(b"123456789"), hash(b"123456789")), (0xe306_9283, 0xac70_81cc));
        let by_symbol = Partitions::new(By::Symbol, 4).unwrap();
        let of = |symbol| by_symbol.of(labels("x", symbol));
        assert_eq!(["", "BTC/USDT", "ETH/USDT", "SOL/USDT", "AAPL"].map(of), [0, 0, 2, 0, 1]);
        let by_type = Partitions::new(By::Type, 64).unwrap();
        assert_eq!(by_type.of(labels("BTC/USDT", "y")), 8);
    }

    #[test]
    fn keys_alike_are_spread() {
        for count in [2, 3, 4, 7, 8, 16, 64] {
            let partitions = Partitions::new(By::Symbol, count).unwrap();
            let mut found = vec![0_u32; usize::from(count)];
            for n in 0..u32::from(count) * 100 {
                found[usize::from(partitions.of(labels("x", &format!("SYM{n}"))))] += 1;
            }
            assert!(found.iter().all(|keys| (60..150).contains(keys)), "{found:?}");
        }
    }

    #[test]
    fn a_division_has_2_to_64_parts_and_reads_back() {
        assert_eq!([0, 1, 65].map(|count| Partitions::new(By::Type, count)), [None; 3]);
        for divided in [None, Partitions::new(By::Type, 2), Partitions::new(By::Symbol, 64)] {
            assert_eq!(Partitions::from_bytes(Partitions::to_bytes(divided)), Ok(divided));
        }
        for odd in [[0, 1], [1, 0], [1, 1], [2, 65], [3, 4]] {
            assert_eq!(Partitions::from_bytes(odd), Err(()));
        }
        assert_eq!(word(Partitions::new(By::Symbol, 4)), "symbol:4");
        assert_eq!(word(None), "none");
    }

    #[test]
    fn heads_that_are_damaged_or_of_another_division_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let four = Partitions::new(By::Symbol, 4).unwrap();
        assert_eq!(Heads::load(dir.path(), four).unwrap(), None);
        let mut heads = Heads::new(Some(four));
        for symbol in ["BTC/USDT", "ETH/USDT", "BTC/USDT"] {
            heads.give(|| labels("x", symbol)).unwrap();
        }
        heads.save(&Disk, dir.path(), 3).unwrap();
        heads.save(&Disk, dir.path(), 3).unwrap();
        assert_eq!(Heads::load(dir.path(), four).unwrap(), Some((3, heads)));
        assert_eq!(Heads::load(dir.path(), Partitions::new(By::Type, 4).unwrap()).unwrap(), None);
        let path = dir.path().join(HEADS_NAME);
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, bad).unwrap();
            assert_eq!(Heads::load(dir.path(), four).unwrap(), None, "bit {bit}");
        }
    }
}
