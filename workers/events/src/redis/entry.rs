//! Entries of the stream as events, and back.

use redis::{Cmd, Value};
use uuid::Uuid;

use super::link::Trouble;
use crate::log::{Draft, Labels, Lane, MessageId, Partitions, Record, Stamp};

/// Fields of an entry.
const NAMES: [&[u8]; 10] = [
    b"event",
    b"seq",
    b"type",
    b"symbol",
    b"source",
    b"time",
    b"event_id",
    b"print",
    b"partition",
    b"partition_seq",
];

/// An entry as it was read: its id, and the event when it is one of ours.
pub(super) struct Entry {
    pub(super) id: MessageId,
    /// `None` for what somebody else put into the stream.
    pub(super) record: Option<Record>,
}

/// Words of an event for the script.
pub(super) const WORDS: usize = 8;
/// About what they have beside labels and JSON.
pub(super) const WORDS_BYTES: usize = 80;

/// Adds the words of an event for the script.
pub(super) fn write(draft: &Draft, partitions: Option<Partitions>, command: &mut Cmd) {
    let labels @ Labels { kind, symbol, source } = draft.labels();
    let (mut id, mut print) = (Uuid::encode_buffer(), Uuid::encode_buffer());
    let id = &*Uuid::from_u128(draft.event_id).simple().encode_lower(&mut id);
    let print = &Uuid::from_u64_pair(0, draft.fingerprint).simple().encode_lower(&mut print)[16..];
    command.arg(id).arg(print).arg(kind).arg(symbol).arg(source).arg(draft.time_us).arg(draft.json());
    if let Some(partitions) = partitions {
        command.arg(partitions.of(labels));
    }
}

/// The entries of an answer to XRANGE, or of one stream of XREAD.
pub(super) fn entries(value: Value) -> Result<Vec<Entry>, Trouble> {
    match value {
        Value::Array(entries) => entries.into_iter().map(entry).collect(),
        Value::Nil => Ok(Vec::new()),
        _ => Err(Trouble::Odd("no list of entries")),
    }
}

fn entry(value: Value) -> Result<Entry, Trouble> {
    let Value::Array(parts) = value else { return Err(Trouble::Odd("no entry")) };
    let Ok([Value::BulkString(id), fields]) = <[Value; 2]>::try_from(parts) else {
        return Err(Trouble::Odd("no entry"));
    };
    let id = number_id(&id);
    let record = match fields {
        Value::Array(fields) => id.and_then(|id| record(id, &fields)),
        _ => None,
    };
    // An id with a counter beyond 32 bits is somebody else's: ours count from zero in each millisecond.
    Ok(Entry { id: id.unwrap_or(MessageId { ms: u64::MAX, n: u32::MAX }), record })
}

/// A message id as it is written.
pub(super) fn number_id(bytes: &[u8]) -> Option<MessageId> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn record(id: MessageId, fields: &[Value]) -> Option<Record> {
    let mut found: [Option<&str>; 10] = [None; 10];
    for pair in fields.chunks_exact(2) {
        let [Value::BulkString(name), Value::BulkString(value)] = pair else { return None };
        if let Some(at) = NAMES.iter().position(|known| known == name) {
            found[at] = Some(std::str::from_utf8(value).ok()?);
        }
    }
    let [event, seq, kind, symbol, source, time, event_id, print, partition, lane_seq] = found;
    let stamp = Stamp { seq: seq?.parse().ok()?, id };
    let lane = match partition {
        Some(partition) => Some(Lane { partition: partition.parse().ok()?, seq: lane_seq?.parse().ok()? }),
        None => None,
    };
    let event_id = u128::from_str_radix(event_id?, 16).ok()?;
    let fingerprint = u64::from_str_radix(print?, 16).ok()?;
    let labels = Labels { kind: kind?, symbol: symbol?, source: source? };
    let draft = Draft::new(labels, time?.parse().ok()?, event_id, fingerprint, event?.as_bytes()).ok()?;
    Some(Record::of(draft, stamp, lane))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn an_entry_of_a_partition_has_both_places() {
        let fields = [
            "event",
            "{}",
            "seq",
            "7",
            "type",
            "x",
            "symbol",
            "",
            "source",
            "me",
            "time",
            "5",
            "event_id",
            "ff",
            "print",
            "1f",
            "partition",
            "3",
            "partition_seq",
            "2",
        ];
        let read = |count: usize| {
            let fields = fields[..count].iter().map(|word| text(word)).collect();
            let entry = Value::Array(vec![text("5-1"), Value::Array(fields)]);
            entries(Value::Array(vec![entry])).unwrap().remove(0).record
        };
        let record = read(20).unwrap();
        assert_eq!((record.stamp.seq, record.lane), (7, Lane { partition: 3, seq: 2 }));
        assert!(read(18).is_none(), "a partition without a number in it is nothing of ours");
    }

    #[test]
    fn an_entry_is_an_event_or_somebody_elses() {
        let fields = [
            "event", "{}", "seq", "7", "type", "x", "symbol", "", "source", "me", "time", "-5", "event_id",
            "ff", "print", "1f", "more", "y",
        ];
        let ours =
            Value::Array(vec![text("5-1"), Value::Array(fields.iter().map(|word| text(word)).collect())]);
        let theirs = Value::Array(vec![text("6-0"), Value::Array(vec![text("event"), text("{}")])]);
        let found = entries(Value::Array(vec![ours, theirs])).unwrap();
        let record = found[0].record.as_ref().unwrap();
        assert_eq!(record.stamp, Stamp { seq: 7, id: MessageId { ms: 5, n: 1 } });
        assert_eq!((record.kind(), record.symbol(), record.source()), ("x", "", "me"));
        assert_eq!((record.time_us, record.event_id, record.fingerprint), (-5, 255, 31));
        assert_eq!(record.lane, Lane { partition: 0, seq: 7 });
        assert!(found[1].record.is_none());
        assert_eq!(found[1].id, MessageId { ms: 6, n: 0 });
        assert!(entries(Value::Nil).unwrap().is_empty());
        assert!(entries(Value::Int(1)).is_err());
    }
}
