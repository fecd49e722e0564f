//! Reading through whichever engine there is.

use std::time::Duration;

use crate::log::{self, Filter, MessageId, Record, Stats, Trimmed};
use crate::redis::{self, ReadTrouble, StreamGroup};

/// Why an event cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The embedded log says why.
    #[error(transparent)]
    Log(#[from] log::ReadError),
    /// Redis did not answer, or does not know.
    #[error(transparent)]
    Redis(#[from] ReadTrouble),
}

impl ReadError {
    /// Whether the same read may succeed a little later.
    pub(crate) fn passes(&self) -> bool {
        matches!(self, Self::Redis(_))
    }
}

/// Reads a store; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Reader {
    /// Of the embedded log.
    Embedded(log::Reader),
    /// Of the stream in Redis.
    Redis(redis::Reader),
}

/// A scan towards newer events.
#[derive(Debug)]
pub(crate) enum Forward {
    /// Of the embedded log.
    Embedded(log::Forward),
    /// Of the stream in Redis.
    Redis(redis::Forward),
}

/// A scan towards older events.
#[derive(Debug)]
pub(crate) enum Backward {
    /// Of the embedded log.
    Embedded(log::Backward),
    /// Of the stream in Redis.
    Redis(redis::Backward),
}

impl Reader {
    /// Seq of the newest event that readers see; 0 without one. Does not block.
    pub(crate) fn durable_seq(&self) -> u64 {
        match self {
            Self::Embedded(reader) => reader.durable_seq(),
            Self::Redis(reader) => reader.durable_seq(),
        }
    }

    /// Seq of the oldest event kept, or of the next one when there is none. Does not block.
    pub(crate) fn first_seq(&self) -> u64 {
        match self {
            Self::Embedded(reader) => reader.first_seq(),
            Self::Redis(reader) => reader.first_seq(),
        }
    }

    /// What the store holds; sizes may be a second old. Does not block.
    pub(crate) fn stats(&self) -> Stats {
        match self {
            Self::Embedded(reader) => reader.stats(),
            Self::Redis(reader) => reader.stats(),
        }
    }

    /// What the store holds now. Blocks.
    pub(crate) fn fresh_stats(&self) -> Result<Stats, ReadError> {
        match self {
            Self::Embedded(reader) => Ok(reader.stats()),
            Self::Redis(reader) => Ok(reader.fresh_stats()?),
        }
    }

    /// The consumer groups that others keep on the stream beside those of this worker. Blocks.
    pub(crate) fn stream_groups(&self) -> Result<Vec<StreamGroup>, ReadError> {
        match self {
            Self::Embedded(_) => Ok(Vec::new()),
            Self::Redis(reader) => Ok(reader.stream_groups()?),
        }
    }

    /// Blocks until an event after `seq` can be read; `false` when the time is up.
    pub(crate) fn wait_beyond(&self, seq: u64, limit: Duration) -> bool {
        match self {
            Self::Embedded(reader) => reader.wait_beyond(seq, limit),
            Self::Redis(reader) => reader.wait_beyond(seq, limit),
        }
    }

    /// Events from `seq` on, up to the newest one now, oldest first.
    pub(crate) fn forward(&self, seq: u64, filter: Filter) -> Forward {
        match self {
            Self::Embedded(reader) => Forward::Embedded(reader.forward(seq, filter)),
            Self::Redis(reader) => Forward::Redis(reader.forward(seq, filter)),
        }
    }

    /// All events from `seq` on, for who follows the store closely.
    pub(crate) fn follow(&self, seq: u64) -> Forward {
        match self {
            Self::Embedded(reader) => Forward::Embedded(reader.follow(seq)),
            Self::Redis(reader) => Forward::Redis(reader.forward(seq, Filter::default())),
        }
    }

    /// Events before `seq`, newest first.
    pub(crate) fn backward(&self, seq: u64, filter: Filter) -> Backward {
        match self {
            Self::Embedded(reader) => Backward::Embedded(reader.backward(seq, filter)),
            Self::Redis(reader) => Backward::Redis(reader.backward(seq, filter)),
        }
    }

    /// The seq of the first event after a message id.
    pub(crate) fn seq_after(&self, id: MessageId) -> Result<u64, ReadError> {
        match self {
            Self::Embedded(reader) => Ok(reader.seq_after(id)?),
            Self::Redis(reader) => Ok(reader.seq_after(id)?),
        }
    }

    /// The seq of the first event at or after a message id.
    pub(crate) fn seq_at(&self, id: MessageId) -> Result<u64, ReadError> {
        match self {
            Self::Embedded(reader) => Ok(reader.seq_at(id)?),
            Self::Redis(reader) => Ok(reader.seq_at(id)?),
        }
    }

    /// The event with a message id.
    pub(crate) fn by_message_id(&self, id: MessageId) -> Result<Option<Record>, ReadError> {
        match self {
            Self::Embedded(reader) => Ok(reader.by_message_id(id)?),
            Self::Redis(reader) => Ok(reader.by_message_id(id)?),
        }
    }

    /// Whether every event is found by its event id, however old it is.
    pub(crate) fn finds_every_id(&self) -> bool {
        matches!(self, Self::Embedded(_))
    }

    /// The newest event with an event id.
    pub(crate) fn by_event_id(&self, event_id: u128) -> Result<Option<Record>, ReadError> {
        match self {
            Self::Embedded(reader) => Ok(reader.by_event_id(event_id)?),
            Self::Redis(reader) => Ok(reader.by_event_id(event_id)?),
        }
    }
}

impl Forward {
    /// The next event that the filter admits; `None` at the end. After an error there is nothing more.
    #[allow(clippy::should_implement_trait, reason = "an iterator of results invites to skip errors")]
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ReadError> {
        match self {
            Self::Embedded(scan) => Ok(scan.next()?),
            Self::Redis(scan) => Ok(scan.next()?),
        }
    }

    /// The seq from which the scan goes on.
    pub(crate) fn position(&self) -> u64 {
        match self {
            Self::Embedded(scan) => scan.position(),
            Self::Redis(scan) => scan.position(),
        }
    }

    /// For who follows the store closely: what was just written is not read back.
    #[must_use]
    pub(crate) fn following(self) -> Self {
        match self {
            Self::Embedded(scan) => Self::Embedded(scan.following()),
            Self::Redis(scan) => Self::Redis(scan.following()),
        }
    }

    /// Lets the scan pause after so many records that the filter refused.
    #[must_use]
    pub(crate) fn pausing_after(self, records: u64) -> Self {
        match self {
            Self::Embedded(scan) => Self::Embedded(scan.pausing_after(records)),
            Self::Redis(scan) => Self::Redis(scan.pausing_after(records)),
        }
    }

    /// Whether the scan ended early, to go on at [`Forward::position`].
    pub(crate) fn paused(&self) -> bool {
        match self {
            Self::Embedded(scan) => scan.paused(),
            Self::Redis(scan) => scan.paused(),
        }
    }

    /// Moves the end of the scan to the newest event that can be read.
    pub(crate) fn extend(&mut self) {
        match self {
            Self::Embedded(scan) => scan.extend(),
            Self::Redis(scan) => scan.extend(),
        }
    }

    /// What retention took away from under the scan since the last call.
    pub(crate) fn trimmed(&mut self) -> Option<Trimmed> {
        match self {
            Self::Embedded(scan) => scan.trimmed(),
            Self::Redis(scan) => scan.trimmed(),
        }
    }
}

impl Backward {
    /// The next older event that the filter admits; `None` at the end. After an error there is nothing more.
    #[allow(clippy::should_implement_trait, reason = "an iterator of results invites to skip errors")]
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ReadError> {
        match self {
            Self::Embedded(scan) => Ok(scan.next()?),
            Self::Redis(scan) => Ok(scan.next()?),
        }
    }

    /// The seq before which the scan goes on.
    pub(crate) fn position(&self) -> u64 {
        match self {
            Self::Embedded(scan) => scan.position(),
            Self::Redis(scan) => scan.position(),
        }
    }

    /// Lets the scan pause after so many records.
    #[must_use]
    pub(crate) fn pausing_after(self, records: u64) -> Self {
        match self {
            Self::Embedded(scan) => Self::Embedded(scan.pausing_after(records)),
            Self::Redis(scan) => Self::Redis(scan.pausing_after(records)),
        }
    }

    /// Whether the scan ended early, to go on at [`Backward::position`].
    pub(crate) fn paused(&self) -> bool {
        match self {
            Self::Embedded(scan) => scan.paused(),
            Self::Redis(scan) => scan.paused(),
        }
    }
}
