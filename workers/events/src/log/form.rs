//! How the bytes of one segment are to be read: what its header says.
//!
//! Header (64 bytes): magic "SLUICELG", u16 format version, then
//!
//! ```text
//! version 1   10 6 zero bytes                        version 2   10 u8 1: encrypted   11 u8 1: compressed
//!             16 u64 base seq                                    12 u32 number of the key, 0 without one
//!             24 u64, u32 message id before                      16 base seq   24 message id before, as in 1
//!             36 24 zero bytes                                   36 u64 check of the key   44 16 bytes log id
//! 60 u32 crc32c of the 60 bytes before
//! ```
//!
//! Version 3 is version 2 of a log that is divided into partitions: their number stands in the upper seven bits of
//! byte 10, and in the upper seven bits of byte 11 what divides it (1 type, 2 symbol). A log that is not divided is
//! written as version 2.
//!
//! The message id before the first record is what keeps ids rising when retention has emptied the log. The log id
//! is drawn when a log is first encrypted: a segment of another log is told by it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use ring::aead::LessSafeKey;

use super::id::MessageId;
use super::keyring::{AtRest, Epoch, Keyring, random};
use super::partition::Partitions;
use super::record::array;

/// Size of a segment's header; what it holds follows.
pub(crate) const HEADER_BYTES: usize = 64;
/// The newest version of the format that this code reads, and the one it writes for a log that is divided.
pub const FORMAT_VERSION: u16 = 3;
/// The version that it writes for a log that is not.
const UNDIVIDED_VERSION: u16 = 2;

const MAGIC: [u8; 8] = *b"SLUICELG";

/// What distinguishes one log's files from another's.
pub(crate) type LogId = [u8; 16];

/// Why a file's header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged(&'static str),
    Version(u16),
    /// Encrypted with a key that is not there.
    NoKey(u32),
    /// Encrypted with another key of that number.
    OtherKey(u32),
}

/// The form of a segment.
#[derive(Debug)]
pub(crate) struct Form {
    header: [u8; HEADER_BYTES],
    version: u16,
    keys: Option<(Arc<Keyring>, u32)>,
}

/// How new segments of a log are written.
#[derive(Clone, Debug)]
pub(crate) struct Style {
    keys: Option<Arc<Keyring>>,
    log_id: LogId,
    partitions: Option<Partitions>,
}

impl Style {
    /// `log_id`: of the segments that are there already.
    pub(crate) fn new(at_rest: &AtRest, log_id: Option<LogId>, partitions: Option<Partitions>) -> Self {
        let keys = at_rest.keys.clone().filter(|_| at_rest.encrypt);
        let log_id = match &keys {
            Some(_) => log_id.unwrap_or_else(random),
            None => LogId::default(),
        };
        Self { keys, log_id, partitions }
    }

    fn version(&self) -> u16 {
        if self.partitions.is_some() { FORMAT_VERSION } else { UNDIVIDED_VERSION }
    }

    /// The form of a new segment.
    pub(crate) fn form(&self, base_seq: u64, before: MessageId) -> Form {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..10].copy_from_slice(&self.version().to_le_bytes());
        let [by, count] = Partitions::to_bytes(self.partitions);
        (header[10], header[11]) = (count << 1, by << 1);
        header[16..24].copy_from_slice(&base_seq.to_le_bytes());
        header[24..32].copy_from_slice(&before.ms.to_le_bytes());
        header[32..36].copy_from_slice(&before.n.to_le_bytes());
        let keys = self.keys.clone().map(|keys| {
            let id = keys.current();
            let check = keys.check(id).unwrap_or_default();
            header[10] |= 1;
            header[12..16].copy_from_slice(&id.to_le_bytes());
            header[36..44].copy_from_slice(&check.to_le_bytes());
            header[44..60].copy_from_slice(&self.log_id);
            (keys, id)
        });
        Form::checked(header, self.version(), keys)
    }

    /// Whether what is written now may follow in a segment of that form.
    pub(crate) fn continues(&self, form: &Form) -> bool {
        let own = self.keys.as_ref().map(|keys| keys.current());
        form.version == self.version()
            && form.partitions() == self.partitions
            && !form.is_packed()
            && form.keys.as_ref().map(|(_, id)| *id) == own
    }
}

impl Form {
    fn checked(mut header: [u8; HEADER_BYTES], version: u16, keys: Option<(Arc<Keyring>, u32)>) -> Self {
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
        Self { header, version, keys }
    }

    /// Reads a segment's header.
    pub(crate) fn read(
        file: &File,
        base_seq: u64,
        keys: Option<&Arc<Keyring>>,
    ) -> io::Result<Result<Self, HeaderFault>> {
        if file.metadata()?.len() < HEADER_BYTES as u64 {
            return Ok(Err(HeaderFault::Damaged("header cut short")));
        }
        let mut header = [0; HEADER_BYTES];
        file.read_exact_at(&mut header, 0)?;
        Ok(Self::parse(header, base_seq, keys))
    }

    fn parse(
        header: [u8; HEADER_BYTES],
        base_seq: u64,
        keys: Option<&Arc<Keyring>>,
    ) -> Result<Self, HeaderFault> {
        if header[..8] != MAGIC {
            return Err(HeaderFault::Damaged("not a segment of this log"));
        }
        if crc32c::crc32c(&header[..60]) != u32::from_le_bytes(array(&header, 60)) {
            return Err(HeaderFault::Damaged("checksum error in the header"));
        }
        let version = u16::from_le_bytes(array(&header, 8));
        if !(1..=FORMAT_VERSION).contains(&version) {
            return Err(HeaderFault::Version(version));
        }
        if u64::from_le_bytes(array(&header, 16)) != base_seq {
            return Err(HeaderFault::Damaged("name and header disagree"));
        }
        let divided = Partitions::from_bytes([header[11] >> 1, header[10] >> 1]);
        if version >= 2 && divided.map(|divided| divided.is_some()) != Ok(version >= 3) {
            return Err(HeaderFault::Damaged("a form that this version does not know"));
        }
        let keys = if version >= 2 && header[10] & 1 == 1 {
            let id = u32::from_le_bytes(array(&header, 12));
            let found = keys.and_then(|keys| Some((keys, keys.check(id)?)));
            let (keys, check) = found.ok_or(HeaderFault::NoKey(id))?;
            if check != u64::from_le_bytes(array(&header, 36)) {
                return Err(HeaderFault::OtherKey(id));
            }
            Some((Arc::clone(keys), id))
        } else {
            None
        };
        Ok(Self { header, version, keys })
    }

    /// The same segment, compressed; with the current key where it is encrypted.
    pub(crate) fn packed(&self) -> Self {
        let mut header = self.header;
        header[11] |= 1;
        let keys = self.keys.as_ref().map(|(keys, _)| {
            let id = keys.current();
            header[12..16].copy_from_slice(&id.to_le_bytes());
            header[36..44].copy_from_slice(&keys.check(id).unwrap_or_default().to_le_bytes());
            (Arc::clone(keys), id)
        });
        Self::checked(header, self.version, keys)
    }

    /// The header's bytes.
    pub(crate) fn header(&self) -> &[u8; HEADER_BYTES] {
        &self.header
    }

    /// Whether it holds frames; version 1 held bare records.
    pub(crate) fn is_framed(&self) -> bool {
        self.version >= 2
    }

    /// Whether it is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.keys.is_some()
    }

    /// Whether it was written anew, compressed.
    pub(crate) fn is_packed(&self) -> bool {
        self.version >= 2 && self.header[11] & 1 == 1
    }

    /// How its log is divided.
    pub(crate) fn partitions(&self) -> Option<Partitions> {
        let [count, by] = [self.header[10] >> 1, self.header[11] >> 1];
        // What is no division was refused when the header was read.
        if self.version >= 3 { Partitions::from_bytes([by, count]).ok().flatten() } else { None }
    }

    /// The message id before the first record.
    pub(crate) fn before(&self) -> MessageId {
        let n = u32::from_le_bytes(array(&self.header, 32));
        MessageId { ms: u64::from_le_bytes(array(&self.header, 24)), n }
    }

    /// The log it belongs to; `None` where that is not said.
    pub(crate) fn log_id(&self) -> Option<LogId> {
        self.is_encrypted().then(|| array(&self.header, 44))
    }

    /// Number of its key, 0 without one.
    pub(crate) fn key_id(&self) -> u32 {
        self.keys.as_ref().map_or(0, |(_, id)| *id)
    }

    /// The key of an epoch; `None` where nothing is encrypted.
    pub(crate) fn data_key(&self, epoch: &Epoch) -> Option<Arc<LessSafeKey>> {
        let (keys, id) = self.keys.as_ref()?;
        keys.data_key(*id, epoch)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::log::partition::By;

    fn keyring(key: u8) -> Arc<Keyring> {
        Arc::new(Keyring::new(3, [(3, &[key; 32])]).unwrap())
    }

    fn style(keys: Option<Arc<Keyring>>) -> Style {
        divided(keys, None)
    }

    fn divided(keys: Option<Arc<Keyring>>, partitions: Option<Partitions>) -> Style {
        let at_rest = AtRest { encrypt: keys.is_some(), keys, ..AtRest::default() };
        Style::new(&at_rest, Some([9; 16]), partitions)
    }

    /// The form of a segment without keys.
    pub(crate) fn plain(base_seq: u64) -> Arc<Form> {
        Arc::new(style(None).form(base_seq, MessageId::default()))
    }

    /// The form of an encrypted segment.
    pub(crate) fn encrypted(base_seq: u64) -> Arc<Form> {
        Arc::new(style(Some(keyring(7))).form(base_seq, MessageId::default()))
    }

    /// A form of version 1.
    pub(crate) fn version_1(base_seq: u64) -> Arc<Form> {
        let mut header = style(None).form(base_seq, MessageId::default()).header;
        header[8] = 1;
        Arc::new(Form::checked(header, 1, None))
    }

    #[test]
    fn a_header_reads_back_with_its_key_alone() {
        let before = MessageId { ms: 9, n: 8 };
        let form = style(Some(keyring(7))).form(5, before);
        let parse = |keys: Option<&Arc<Keyring>>| Form::parse(*form.header(), 5, keys);
        let read = parse(Some(&keyring(7))).unwrap();
        assert_eq!((read.before(), read.is_encrypted(), read.log_id()), (before, true, Some([9; 16])));
        assert_eq!(parse(None).unwrap_err(), HeaderFault::NoKey(3));
        assert_eq!(parse(Some(&keyring(8))).unwrap_err(), HeaderFault::OtherKey(3));
        let other = Arc::new(Keyring::new(1, [(1, &[7; 32])]).unwrap());
        assert_eq!(parse(Some(&other)).unwrap_err(), HeaderFault::NoKey(3));
        assert!(!form.is_packed() && read.packed().is_packed());
    }

    #[test]
    fn a_damaged_or_newer_header_is_refused() {
        let good = *plain(7).header();
        assert!(Form::parse(good, 7, None).is_ok());
        assert!(matches!(Form::parse(good, 8, None), Err(HeaderFault::Damaged(_))));
        for bit in 0..good.len() * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Form::parse(bad, 7, None).is_err(), "bit {bit}");
        }
        let mut newer = good;
        newer[8..10].copy_from_slice(&4_u16.to_le_bytes());
        let newer = Form::checked(newer, 4, None).header;
        // Partitions in version 2, none in version 3, and a number of them that cannot be.
        for (version, [count, by]) in [(2, [4, 1]), (3, [0, 0]), (3, [65, 1])] {
            let mut other = good;
            (other[8], other[10], other[11]) = (version, count << 1, by << 1);
            let other = Form::checked(other, version.into(), None).header;
            assert!(matches!(Form::parse(other, 7, None), Err(HeaderFault::Damaged(_))));
        }
        assert_eq!(Form::parse(newer, 7, None).unwrap_err(), HeaderFault::Version(4));
    }

    #[test]
    fn a_header_says_how_its_log_is_divided() {
        for keys in [None, Some(keyring(7))] {
            let partitions = Partitions::new(By::Symbol, 64);
            let (own, other) = (divided(keys.clone(), partitions), style(keys.clone()));
            let form = own.form(5, MessageId::default());
            let read = Form::parse(*form.header(), 5, keys.as_ref()).unwrap();
            assert_eq!((read.partitions(), read.is_encrypted()), (partitions, keys.is_some()));
            assert!(read.is_framed() && !read.is_packed());
            let packed = read.packed();
            assert_eq!((packed.partitions(), packed.is_packed()), (partitions, true));
            assert!(own.continues(&read) && !other.continues(&read));
            assert!(!own.continues(&other.form(5, MessageId::default())));
            assert!(!divided(keys, Partitions::new(By::Type, 64)).continues(&read));
        }
    }

    #[test]
    fn a_segment_goes_on_only_as_it_began() {
        let (open, closed) = (style(None), style(Some(keyring(7))));
        let rotated = style(Some(Arc::new(Keyring::new(4, [(3, &[7; 32]), (4, &[8; 32])]).unwrap())));
        let form = closed.form(1, MessageId::default());
        assert!(closed.continues(&form) && !open.continues(&form) && !rotated.continues(&form));
        assert!(open.continues(&plain(1)) && !closed.continues(&plain(1)));
        assert!(!open.continues(&version_1(1)) && !closed.continues(&form.packed()));
    }
}
