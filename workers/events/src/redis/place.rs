//! What the script that stores a batch says of its events.

use redis::Value;

use super::link::Trouble;
use super::{entry, script};
use crate::log::{Draft, Lane, MessageId, Outcome, Partitions, Record, Stamp};

/// What became of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) outcome: Outcome,
    /// Its number in its partition, where it is stored and there are some.
    lane_seq: Option<u64>,
}

impl Place {
    /// The event where it is stored.
    pub(super) fn record(self, draft: Draft, stamp: Stamp, partitions: Option<Partitions>) -> Record {
        let lane = partitions.zip(self.lane_seq);
        let lane = lane.map(|(partitions, seq)| Lane { partition: partitions.of(draft.labels()), seq });
        Record::of(draft, stamp, lane)
    }
}

/// What became of each of so many events of a call.
pub(super) fn places(value: &Value, expected: usize) -> Result<Vec<Place>, Trouble> {
    let Value::Array(values) = value else { return Err(Trouble::Odd("no list of outcomes")) };
    let Some((before, values)) = values.split_first().filter(|(_, values)| values.len() == expected) else {
        return Err(Trouble::Odd("another number of outcomes"));
    };
    let mut seq = number(before)?;
    values.iter().map(|value| place(value, &mut seq)).collect()
}

/// What became of the next event; `seq` counts those that were stored.
fn place(value: &Value, seq: &mut u64) -> Result<Place, Trouble> {
    let (id, lane_seq) = match value {
        Value::BulkString(_) => (id(value)?, None),
        Value::Array(parts) => match parts.as_slice() {
            [id_of, lane_seq] => (id(id_of)?, Some(number(lane_seq)?)),
            [word, seq, id_of] => {
                let stamp = Stamp { seq: number(seq)?, id: id(id_of)? };
                let outcome = match script::text(word).as_deref() {
                    Some("D") => Outcome::Duplicate(stamp),
                    Some("C") => Outcome::Conflict(stamp),
                    Some("W") => Outcome::Withheld,
                    _ => return Err(Trouble::Odd("no outcome")),
                };
                return Ok(Place { outcome, lane_seq: None });
            }
            _ => return Err(Trouble::Odd("no outcome")),
        },
        _ => return Err(Trouble::Odd("no outcome")),
    };
    *seq += 1;
    Ok(Place { outcome: Outcome::Stored(Stamp { seq: *seq, id }), lane_seq })
}

fn number(value: &Value) -> Result<u64, Trouble> {
    match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| Trouble::Odd("a number")),
        _ => Err(Trouble::Odd("a number")),
    }
}

fn id(value: &Value) -> Result<MessageId, Trouble> {
    match value {
        Value::BulkString(text) => entry::number_id(text).ok_or(Trouble::Odd("a message id")),
        _ => Err(Trouble::Odd("a message id")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn stamp(seq: u64, n: u32) -> Stamp {
        Stamp { seq, id: MessageId { ms: 5, n } }
    }

    #[test]
    fn stored_events_are_counted_from_the_seq_before_them() {
        let other = |word: &str| Value::Array(vec![text(word), Value::Int(3), text("5-3")]);
        let lane = Value::Array(vec![text("5-8"), Value::Int(4)]);
        let said = Value::Array(vec![Value::Int(7), text("5-7"), other("D"), lane, other("C"), other("W")]);
        let found = places(&said, 5).unwrap();
        let outcomes: Vec<Outcome> = found.iter().map(|place| place.outcome).collect();
        let expected = [
            Outcome::Stored(stamp(8, 7)),
            Outcome::Duplicate(stamp(3, 3)),
            Outcome::Stored(stamp(9, 8)),
            Outcome::Conflict(stamp(3, 3)),
            Outcome::Withheld,
        ];
        assert_eq!(outcomes, expected);
        assert_eq!((found[0].lane_seq, found[2].lane_seq), (None, Some(4)));
        for odd in [
            Value::Nil,
            Value::Array(vec![Value::Int(7)]),
            Value::Array(vec![text("7"), text("5-7")]),
            Value::Array(vec![Value::Int(7), text("5")]),
            Value::Array(vec![Value::Int(7), other("S")]),
            Value::Array(vec![Value::Int(7), Value::Array(vec![text("5-8"), Value::Int(-4)])]),
        ] {
            assert!(places(&odd, 1).is_err(), "{odd:?}");
        }
    }
}
