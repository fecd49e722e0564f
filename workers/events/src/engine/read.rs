//! Reading through whichever engine there is.

use std::time::Duration;

use crate::log::{self, Filter, MessageId, Record, Stats, Trimmed};

/// Why an event cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The embedded log says why.
    #[error(transparent)]
    Log(#[from] log::ReadError),
}

/// Reads a store; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) enum Reader {
    /// Of the embedded log.
    Embedded(log::Reader),
}

/// A scan towards newer events.
#[derive(Debug)]
pub(crate) enum Forward {
    /// Of the embedded log.
    Embedded(log::Forward),
}

/// A scan towards older events.
#[derive(Debug)]
pub(crate) enum Backward {
    /// Of the embedded log.
    Embedded(log::Backward),
}

impl Reader {
    /// Seq of the newest event that readers see; 0 without one. Does not block.
    pub(crate) fn durable_seq(&self) -> u64 {
        match self {
            Self::Embedded(reader) => reader.durable_seq(),
        }
    }

    /// Seq of the oldest event kept, or of the next one when there is none. Does not block.
    pub(crate) fn first_seq(&self) -> u64 {
        match self {
            Self::Embedded(reader) => reader.first_seq(),
        }
    }

    /// What the store holds. Does not block.
    pub(crate) fn stats(&self) -> Stats {
        match self {
            Self::Embedded(reader) => reader.stats(),
        }
    }

    /// Blocks until an event after `seq` can be read; `false` when the time is up.
    pub(crate) fn wait_beyond(&self, seq: u64, limit: Duration) -> bool {
        match self {
            Self::Embedded(reader) => reader.wait_beyond(seq, limit),
        }
    }

    /// Events from `seq` on, up to the newest one now, oldest first.
    pub(crate) fn forward(&self, seq: u64, filter: Filter) -> Forward {
        match self {
            Self::Embedded(reader) => Forward::Embedded(reader.forward(seq, filter)),
        }
    }

    /// Events before `seq`, newest first.
    pub(crate) fn backward(&self, seq: u64, filter: Filter) -> Backward {
        match self {
            Self::Embedded(reader) => Backward::Embedded(reader.backward(seq, filter)),
        }
    }

    /// The seq of the first event after a message id.
    pub(crate) fn seq_after(&self, id: MessageId) -> Result<u64, ReadError> {
        match self {
            Self::Embedded(reader) => Ok(reader.seq_after(id)?),
        }
    }

    /// The seq of the first event at or after a message id.
    pub(crate) fn seq_at(&self, id: MessageId) -> Result<u64, ReadError> {
        match self {
            Self::Embedded(reader) => Ok(reader.seq_at(id)?),
        }
    }

    /// The event with a message id.
    pub(crate) fn by_message_id(&self, id: MessageId) -> Result<Option<Record>, ReadError> {
        match self {
            Self::Embedded(reader) => Ok(reader.by_message_id(id)?),
        }
    }

    /// The newest event with an event id.
    pub(crate) fn by_event_id(&self, event_id: u128) -> Result<Option<Record>, ReadError> {
        match self {
            Self::Embedded(reader) => Ok(reader.by_event_id(event_id)?),
        }
    }
}

impl Forward {
    /// The next event that the filter admits; `None` at the end. After an error there is nothing more.
    #[allow(clippy::should_implement_trait, reason = "an iterator of results invites to skip errors")]
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ReadError> {
        match self {
            Self::Embedded(scan) => Ok(scan.next()?),
        }
    }

    /// The seq from which the scan goes on.
    pub(crate) fn position(&self) -> u64 {
        match self {
            Self::Embedded(scan) => scan.position(),
        }
    }

    /// Lets the scan pause after so many records that the filter refused.
    #[must_use]
    pub(crate) fn pausing_after(self, records: u64) -> Self {
        match self {
            Self::Embedded(scan) => Self::Embedded(scan.pausing_after(records)),
        }
    }

    /// Whether the scan ended early, to go on at [`Forward::position`].
    pub(crate) fn paused(&self) -> bool {
        match self {
            Self::Embedded(scan) => scan.paused(),
        }
    }

    /// Moves the end of the scan to the newest event that can be read.
    pub(crate) fn extend(&mut self) {
        match self {
            Self::Embedded(scan) => scan.extend(),
        }
    }

    /// What retention took away from under the scan since the last call.
    pub(crate) fn trimmed(&mut self) -> Option<Trimmed> {
        match self {
            Self::Embedded(scan) => scan.trimmed(),
        }
    }
}

impl Backward {
    /// The next older event that the filter admits; `None` at the end. After an error there is nothing more.
    #[allow(clippy::should_implement_trait, reason = "an iterator of results invites to skip errors")]
    pub(crate) fn next(&mut self) -> Result<Option<Record>, ReadError> {
        match self {
            Self::Embedded(scan) => Ok(scan.next()?),
        }
    }

    /// The seq before which the scan goes on.
    pub(crate) fn position(&self) -> u64 {
        match self {
            Self::Embedded(scan) => scan.position(),
        }
    }

    /// Lets the scan pause after so many records.
    #[must_use]
    pub(crate) fn pausing_after(self, records: u64) -> Self {
        match self {
            Self::Embedded(scan) => Self::Embedded(scan.pausing_after(records)),
        }
    }

    /// Whether the scan ended early, to go on at [`Backward::position`].
    pub(crate) fn paused(&self) -> bool {
        match self {
            Self::Embedded(scan) => scan.paused(),
        }
    }
}
