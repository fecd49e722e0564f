//! Reading one event, or what the log holds; scans are in [`super::scan`]. Readers take no lock that the writer holds across a disk access, and
//! see durable records alone. Every record's checksum is checked at every read: damage is an error, never data.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::filter::Filter;
use super::id::MessageId;
use super::record::Record;
use super::scan::{Backward, Block, Forward};
use super::segment::Segment;
use super::store::Store;

/// Why a record cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The disk refused.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What is on the disk is not what was written.
    #[error("{} is damaged at offset {offset}: {why}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What was found.
        why: &'static str,
    },
}

/// Reads an open log; cheap to clone.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) store: Arc<Store>,
}

/// What the log holds, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events.
    pub length: u64,
    /// Seq of the oldest event kept, or of the next one.
    pub first_seq: u64,
    /// Seq of the newest durable event, 0 without one.
    pub last_seq: u64,
    /// Oldest message id.
    pub first_id: Option<MessageId>,
    /// Newest message id.
    pub last_id: Option<MessageId>,
    /// Bytes of all records and headers.
    pub bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Events of each type.
    pub types: BTreeMap<Box<str>, u64>,
    /// Events of types beyond the number counted by name.
    pub other_types: u64,
}

impl Reader {
    /// Seq of the newest durable event; 0 without one.
    pub fn durable_seq(&self) -> u64 {
        self.store.durable_seq()
    }

    /// Seq of the oldest event kept, or of the next one when there is none.
    pub fn first_seq(&self) -> u64 {
        self.store.first_seq()
    }

    /// Blocks until an event after `seq` is durable; `false` when the time is up.
    pub fn wait_beyond(&self, seq: u64, limit: Duration) -> bool {
        self.store.wait_beyond(seq, limit)
    }

    /// Events from `seq` on, up to the newest one now, oldest first.
    pub fn forward(&self, seq: u64, filter: Filter) -> Forward {
        Forward::new(&self.store, seq, self.durable_seq(), filter)
    }

    /// The same for who follows the log closely: what was just written comes from memory.
    pub fn follow(&self, seq: u64) -> Forward {
        self.forward(seq, Filter::default()).following()
    }

    /// Events before `seq`, newest first.
    pub fn backward(&self, seq: u64, filter: Filter) -> Backward {
        Backward::new(&self.store, seq.min(self.durable_seq() + 1), filter)
    }

    /// The event with a seq; `None` when it is not kept (any longer).
    pub fn record(&self, seq: u64) -> Result<Option<Record>, ReadError> {
        if seq > self.durable_seq() {
            return Ok(None);
        }
        record_at(&self.store, seq)
    }

    /// The seq of the first event after a message id.
    pub fn seq_after(&self, id: MessageId) -> Result<u64, ReadError> {
        self.seq_where(id, |other| other > id)
    }

    /// The seq of the first event at or after a message id.
    pub fn seq_at(&self, id: MessageId) -> Result<u64, ReadError> {
        self.seq_where(id, |other| other >= id)
    }

    /// The event with a message id.
    pub fn by_message_id(&self, id: MessageId) -> Result<Option<Record>, ReadError> {
        let found = self.record(self.seq_at(id)?)?;
        Ok(found.filter(|record| record.stamp.id == id))
    }

    /// The newest event with an event id, however old: segments are asked from the newest to the oldest.
    pub fn by_event_id(&self, event_id: u128) -> Result<Option<Record>, ReadError> {
        for segment in self.store.segments().iter().rev() {
            let candidates = segment.candidates(event_id).map_err(|source| read_error(segment, source))?;
            let found = match candidates {
                Some(seqs) => self.first_of(&seqs, event_id)?,
                None => self.scan_for(segment, event_id)?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// What the log holds.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats { last_seq: self.durable_seq(), ..Stats::default() };
        let segments = self.store.segments();
        stats.first_seq = segments.first().map_or(1, |segment| segment.base_seq);
        stats.length = (stats.last_seq + 1).saturating_sub(stats.first_seq);
        stats.segments = segments.len() as u64;
        for segment in &segments {
            segment.with_summary(|summary| {
                stats.bytes += summary.end;
                stats.other_types += summary.other_types;
                if summary.records > 0 {
                    stats.first_id = stats.first_id.or(Some(summary.first));
                    stats.last_id = Some(summary.last);
                }
                for (kind, count) in &summary.types {
                    *stats.types.entry(kind.clone()).or_default() += count;
                }
            });
        }
        stats
    }

    fn seq_where(&self, id: MessageId, wanted: impl Fn(MessageId) -> bool) -> Result<u64, ReadError> {
        let segment = self.store.segment_of_id(id);
        self.store.touch(&segment);
        let block = segment.block_of_id(id).map_err(|source| read_error(&segment, source))?;
        let mut after = segment.base_seq;
        for record in Block::read(&segment, block)? {
            let stamp = record?.stamp;
            if wanted(stamp.id) {
                return Ok(stamp.seq);
            }
            after = stamp.seq + 1;
        }
        Ok(after)
    }

    fn first_of(&self, seqs: &[u64], event_id: u128) -> Result<Option<Record>, ReadError> {
        for seq in seqs {
            if let Some(record) = self.record(*seq)?
                && record.event_id == event_id
            {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    fn scan_for(&self, segment: &Arc<Segment>, event_id: u128) -> Result<Option<Record>, ReadError> {
        let records = segment.with_summary(|summary| summary.records);
        let mut found = None;
        let upto = self.durable_seq().min((segment.base_seq + records).saturating_sub(1));
        let mut scan = Forward::new(&self.store, segment.base_seq, upto, Filter::default());
        while let Some(record) = scan.next()? {
            if record.event_id == event_id {
                found = Some(record);
            }
        }
        Ok(found)
    }
}

/// Reads one record whether or not it is durable yet; for the writer's own look at what it wrote.
pub(crate) fn record_at(store: &Arc<Store>, seq: u64) -> Result<Option<Record>, ReadError> {
    if seq < store.first_seq() {
        return Ok(None);
    }
    Forward::new(store, seq, seq, Filter::default()).of_one_block().next()
}

pub(super) fn read_error(segment: &Segment, source: io::Error) -> ReadError {
    ReadError::Read { path: segment.path.clone(), source }
}
