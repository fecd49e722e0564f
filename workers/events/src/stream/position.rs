//! Places in the stream, as clients write them: `Last-Event-ID`, `from`, a seek. Everything that knows how a place
//! is written is here.

use std::fmt;
use std::str::FromStr;

use http::HeaderMap;
use serde_json::{Value, json};
use sluice_wire::header::LAST_EVENT_ID;

use super::choice::Misfit;
use crate::engine::{ReadError, Reader};
use crate::log::{Filter, MessageId, Stamp};
use crate::params::{Params, bad, time};

/// Behind an event: what a client has had. Message ids rise over all partitions, so one says it of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position(MessageId);

impl From<Stamp> for Position {
    fn from(stamp: Stamp) -> Self {
        Self(stamp.id)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Position {
    type Err = crate::log::MessageIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl Position {
    /// The seq of the last event at or before it: what a confirmation covers.
    pub(crate) fn covers(self, reader: &Reader) -> Result<u64, ReadError> {
        Ok(reader.seq_after(self.0)?.saturating_sub(1))
    }
}

/// Where a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Now,
    Earliest,
    /// With the first event that was stored at this time or later.
    Time {
        ms: u64,
    },
    /// Behind what the subscriber has had.
    After(Position),
}

/// What a subscriber does not get: message ids where it named one, else positions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Gap {
    expected: Value,
    got: Value,
    reason: &'static str,
}

impl Gap {
    /// Retention has passed its place.
    pub(crate) fn trimmed(expected: u64, got: u64) -> Self {
        Self { expected: json!(expected), got: json!(got), reason: "trimmed" }
    }

    /// The store lost events, some of which it may have had: what follows is another stretch.
    pub(crate) fn failover(expected: u64, got: u64) -> Self {
        Self { expected: json!(expected), got: json!(got), reason: "failover" }
    }

    /// It was too slow, and wants the present.
    pub(crate) fn overrun(expected: u64, got: u64) -> Self {
        Self { expected: json!(expected), got: json!(got), reason: "overrun" }
    }

    /// As clients get it.
    pub(crate) fn data(&self) -> Value {
        json!({ "expected": self.expected, "got": self.got, "reason": self.reason })
    }
}

impl Start {
    /// Takes `from` and `last_event_id`; the header wins over both, an id over `from`.
    pub(crate) fn parse(params: &mut Params, headers: &HeaderMap) -> Result<Self, Misfit> {
        let from = params.one("from").map_err(Misfit::at("/from"))?;
        let header = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
        let header = header.map(|value| value.to_str().map(str::to_owned).unwrap_or_default());
        let last = header.or(params.one("last_event_id").map_err(Misfit::at("/last_event_id"))?);
        match last {
            Some(last) => {
                let position = last.parse().map_err(|error| bad(format!("last event id: {error}")));
                position.map(Self::After).map_err(Misfit::at("/last_event_id"))
            }
            None => Self::from_text(from.as_deref()).map_err(Misfit::at("/from")),
        }
    }

    /// Reads a place: `now`, `earliest`, an id, or a time.
    pub(crate) fn from_text(text: Option<&str>) -> Result<Self, sluice_http::Reject> {
        match text {
            None | Some("now") => Ok(Self::Now),
            Some("earliest") => Ok(Self::Earliest),
            Some(text) => {
                if let Ok(position) = text.parse() {
                    return Ok(Self::After(position));
                }
                let ms = time("from", text)?.as_millisecond();
                Ok(Self::Time { ms: u64::try_from(ms).unwrap_or(0) })
            }
        }
    }

    /// The first seq, and the gap when the position is not of this stream or no longer kept, or when events were lost
    /// behind it or with it: some of those up to `lost_upto` were, 0 being none.
    pub(crate) fn place(self, reader: &Reader, lost_upto: u64) -> Result<(u64, Option<Gap>), ReadError> {
        let newest = reader.durable_seq();
        match self {
            Self::Now => Ok((newest + 1, None)),
            Self::Earliest => Ok((reader.first_seq(), None)),
            Self::Time { ms } => Ok((reader.seq_at(MessageId { ms, n: 0 })?, None)),
            Self::After(Position(id)) => {
                let stats = reader.fresh_stats()?;
                let gap = |got: Option<MessageId>, reason| {
                    Some(Gap {
                        expected: json!(id.to_string()),
                        got: json!(got.map(|id| id.to_string())),
                        reason,
                    })
                };
                if id > stats.last_id.unwrap_or_default() {
                    // The log was replaced by another one, or the id was never given.
                    return Ok((newest + 1, gap(stats.last_id, "unknown_position")));
                }
                let next = reader.seq_after(id)?;
                let trimmed =
                    stats.first_id.is_none_or(|first| id < first) && next == reader.first_seq() && next > 1;
                if trimmed {
                    return Ok((next, gap(stats.first_id, "trimmed")));
                }
                if lost_upto > 0 && next <= lost_upto + 1 {
                    let comes = reader.forward(next, Filter::default()).next()?;
                    return Ok((next, gap(comes.map(|record| record.stamp.id), "failover")));
                }
                Ok((next, None))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(pairs: &[(&str, &str)], last: Option<&str>) -> Result<Start, Misfit> {
        let mut headers = HeaderMap::new();
        if let Some(last) = last {
            headers.insert(LAST_EVENT_ID, last.parse().unwrap());
        }
        let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Start::parse(&mut Params::new(pairs), &headers)
    }

    #[test]
    fn the_last_event_id_wins_over_from() {
        let id = Position(MessageId { ms: 17, n: 2 });
        assert_eq!(start(&[], None).unwrap(), Start::Now);
        assert_eq!(start(&[("from", "earliest")], None).unwrap(), Start::Earliest);
        assert_eq!(start(&[("from", "17-2")], None).unwrap(), Start::After(id));
        assert_eq!(start(&[("from", "1970-01-01T00:00:02Z")], None).unwrap(), Start::Time { ms: 2_000 });
        assert_eq!(start(&[("from", "earliest")], Some("17-2")).unwrap(), Start::After(id));
        assert_eq!(start(&[("last_event_id", "17-2")], None).unwrap(), Start::After(id));
        assert_eq!(start(&[], Some("")).unwrap(), Start::Now);
        assert_eq!(start(&[], Some("seventeen")).unwrap_err().pointer, "/last_event_id");
        assert_eq!(start(&[("from", "someday")], None).unwrap_err().pointer, "/from");
    }
}
