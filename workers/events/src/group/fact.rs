//! What happened to a group: the only thing that changes its state, and what is written down.
//!
//! A fact says what is so afterwards, never what was asked for: read back in order they give the same state.
//! The end of a lease or of a pause is no fact, it follows from the times in the facts before.

use serde::{Deserialize, Serialize};

use crate::log::MessageId;

use super::settings::Settings;

/// Something that happened to one group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Fact {
    /// The group exists, and begins at a place.
    Created { settings: Settings, place: u64, at_ms: u64 },
    /// Other settings apply from now on.
    Changed { settings: Settings },
    /// The group is gone, and its dead letters with it.
    Deleted,
    /// Events of the stream became messages of the group; everything before `upto` has been looked at.
    Taken { upto: u64, fresh: Vec<Fresh> },
    /// Retention took events before the group saw them.
    Skipped { expected: u64, got: u64 },
    /// Messages were handed to a consumer; with none, the consumer was told of a gap.
    Leased { consumer: Box<str>, until_ms: u64, messages: Vec<Leased> },
    /// Messages are done.
    Acked {
        #[serde(with = "ids")]
        ids: Vec<MessageId>,
    },
    /// Messages failed and are handed out again later.
    Delayed {
        until_ms: u64,
        reason: Option<Box<str>>,
        #[serde(with = "ids")]
        ids: Vec<MessageId>,
    },
    /// Leases go on.
    Extended {
        until_ms: u64,
        #[serde(with = "ids")]
        ids: Vec<MessageId>,
    },
    /// Leases that never reached their consumer: as if they had not been.
    Released {
        #[serde(with = "ids")]
        ids: Vec<MessageId>,
    },
    /// Retention took the events of messages before they were done.
    Lost {
        #[serde(with = "ids")]
        ids: Vec<MessageId>,
    },
    /// The stream ends before the group's place: it is another stream now, and the group goes on here.
    Rewound { place: u64 },
    /// Dead letters are messages again, each from its time on.
    Redriven { letters: Vec<Redriven> },
    /// Events that the group is past are messages of it again, marked as a replay.
    Replayed { fresh: Vec<Fresh> },
    /// The time of redriven messages has come.
    Entered {
        #[serde(with = "ids")]
        ids: Vec<MessageId>,
    },
    /// The dead letters are dropped.
    Purged,
    /// The whole state but the messages, which follow as [`Fact::Held`].
    Snapshot(Box<Snapshot>),
    /// Messages of a snapshot.
    Held { messages: Vec<Held> },
}

/// An event that became a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u32, u64, Option<Box<str>>)", into = "(u64, u32, u64, Option<Box<str>>)")]
pub(crate) struct Fresh {
    pub(crate) id: MessageId,
    pub(crate) seq: u64,
    /// What it is kept in order with.
    pub(crate) key: Option<Box<str>>,
}

/// A message handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u32, u32)", into = "(u64, u32, u32)")]
pub(crate) struct Leased {
    pub(crate) id: MessageId,
    /// Deliveries, this one included.
    pub(crate) attempts: u32,
}

/// A dead letter that is a message again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Redriven {
    pub(crate) fresh: Fresh,
    pub(crate) at_ms: u64,
}

/// The state of a group without its messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    pub(crate) settings: Settings,
    pub(crate) created_ms: u64,
    pub(crate) place: u64,
    pub(crate) last: Option<(u64, u32)>,
    pub(crate) totals: Totals,
    pub(crate) gap: Option<Gap>,
}

/// What has happened since the group was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Deliveries.
    pub(crate) delivered: u64,
    /// Deliveries that were not the first of their message.
    pub(crate) redelivered: u64,
    /// Messages done.
    pub(crate) acked: u64,
    /// Messages that became dead letters.
    pub(crate) dead: u64,
    /// Events that retention took before they were done.
    pub(crate) skipped: u64,
}

/// Events that retention took and no consumer has been told of yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gap {
    /// The seq that came next.
    pub(crate) expected: u64,
    /// The oldest seq that was kept.
    pub(crate) got: u64,
    /// How many events are missing.
    pub(crate) events: u64,
}

/// A message in a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) f: Fresh,
    /// Deliveries.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) n: u32,
    /// Where it stands.
    pub(crate) p: Phase,
    /// Who had it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) c: Option<Box<str>>,
    /// Why it failed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) r: Option<Box<str>>,
    /// It comes from a replay.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) y: bool,
}

/// Where a message stands. Times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// It can be handed out.
    #[serde(rename = "r")]
    Ready,
    /// It waits for the one before it with the same key.
    #[serde(rename = "w")]
    Waiting,
    /// A consumer has it until then.
    #[serde(rename = "l")]
    Leased(u64),
    /// It can be handed out again from then on.
    #[serde(rename = "d")]
    Delayed(u64),
    /// A redriven one: it joins the others then.
    #[serde(rename = "s")]
    Scheduled(u64),
    /// It has had its last delivery, and is to become a dead letter.
    #[serde(rename = "x")]
    Doomed,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(y: &bool) -> bool {
    !*y
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Fact {
    /// The same in pieces, each of which a record can hold whatever the labels are.
    pub(crate) fn pieces(self) -> Vec<Self> {
        /// LIMIT: elements with a key or a reason in one record.
        const LABELLED_MAX: usize = 64;
        /// LIMIT: ids in one record.
        const IDS_MAX: usize = 5_000;
        match self {
            Self::Taken { upto, fresh } if fresh.len() > LABELLED_MAX => {
                fresh.chunks(LABELLED_MAX).map(|part| Self::Taken { upto, fresh: part.to_vec() }).collect()
            }
            Self::Replayed { fresh } if fresh.len() > LABELLED_MAX => {
                fresh.chunks(LABELLED_MAX).map(|part| Self::Replayed { fresh: part.to_vec() }).collect()
            }
            Self::Redriven { letters } if letters.len() > LABELLED_MAX => {
                letters.chunks(LABELLED_MAX).map(|part| Self::Redriven { letters: part.to_vec() }).collect()
            }
            Self::Held { messages } if messages.len() > LABELLED_MAX => {
                messages.chunks(LABELLED_MAX).map(|part| Self::Held { messages: part.to_vec() }).collect()
            }
            Self::Entered { ids } if ids.len() > IDS_MAX => {
                ids.chunks(IDS_MAX).map(|part| Self::Entered { ids: part.to_vec() }).collect()
            }
            Self::Lost { ids } if ids.len() > IDS_MAX => {
                ids.chunks(IDS_MAX).map(|part| Self::Lost { ids: part.to_vec() }).collect()
            }
            one => vec![one],
        }
    }
}

impl From<(u64, u32, u64, Option<Box<str>>)> for Fresh {
    fn from((ms, n, seq, key): (u64, u32, u64, Option<Box<str>>)) -> Self {
        Self { id: MessageId { ms, n }, seq, key }
    }
}

impl From<Fresh> for (u64, u32, u64, Option<Box<str>>) {
    fn from(fresh: Fresh) -> Self {
        (fresh.id.ms, fresh.id.n, fresh.seq, fresh.key)
    }
}

impl From<(u64, u32, u32)> for Leased {
    fn from((ms, n, attempts): (u64, u32, u32)) -> Self {
        Self { id: MessageId { ms, n }, attempts }
    }
}

impl From<Leased> for (u64, u32, u32) {
    fn from(leased: Leased) -> Self {
        (leased.id.ms, leased.id.n, leased.attempts)
    }
}

/// Message ids as pairs of numbers.
mod ids {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::MessageId;

    pub(super) fn serialize<S: Serializer>(ids: &[MessageId], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ids.iter().map(|id| (id.ms, id.n)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<MessageId>, D::Error> {
        let pairs = Vec::<(u64, u32)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(ms, n)| MessageId { ms, n }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_back_as_written() {
        let id = MessageId { ms: 7, n: 1 };
        let fresh = Fresh { id, seq: 3, key: Some("BTC".into()) };
        for fact in [
            Fact::Created { settings: Settings::default(), place: 1, at_ms: 2 },
            Fact::Deleted,
            Fact::Taken { upto: 9, fresh: vec![fresh.clone()] },
            Fact::Leased { consumer: "a".into(), until_ms: 4, messages: vec![Leased { id, attempts: 2 }] },
            Fact::Delayed { until_ms: 5, reason: Some("no".into()), ids: vec![id] },
            Fact::Redriven { letters: vec![Redriven { fresh: fresh.clone(), at_ms: 8 }] },
            Fact::Replayed { fresh: vec![fresh.clone()] },
            Fact::Purged,
            Fact::Held {
                messages: vec![Held {
                    f: fresh,
                    n: 0,
                    p: Phase::Leased(4),
                    c: Some("a".into()),
                    r: None,
                    y: true,
                }],
            },
        ] {
            let text = serde_json::to_vec(&fact).unwrap();
            assert_eq!(serde_json::from_slice::<Fact>(&text).unwrap(), fact);
        }
    }
}
