//! Reading the stream: one event, or what is stored. Scans are in [`super::scan`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use serde::Serialize;

use super::entry::{self, Entry};
use super::link::{Link, Trouble};
use super::scan::{Backward, Forward};
use super::script::{self, Scripts};
use super::shared::Shared;
use crate::log::{Filter, MessageId, Record, Stats};

/// LIMIT: newest events looked through for an event id that is no longer remembered.
const SCAN_MAX: u64 = 20_000;
/// LIMIT: entries of others skipped in search of one of ours.
const OTHERS_MAX: usize = 1_000;

/// Why an event cannot be served.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ReadTrouble {
    /// Redis did not do its part.
    #[error(transparent)]
    Redis(#[from] Trouble),
    /// The event id is not remembered any longer, and the newest events do not have it.
    #[error("this event id is not indexed any longer")]
    NotIndexed,
}

/// Reads the stream; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub(super) shared: Arc<Shared>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Seq of the newest event known to be stored; 0 without one.
    pub(crate) fn durable_seq(&self) -> u64 {
        self.shared.head()
    }

    /// Seq of the oldest event kept, or of the next one.
    pub(crate) fn first_seq(&self) -> u64 {
        self.shared.first_seq()
    }

    /// What was stored a second ago, with the newest event known.
    pub(crate) fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// What is stored now. Blocks.
    pub(crate) fn fresh_stats(&self) -> Result<Stats, ReadTrouble> {
        let stats = self.shared.with_link(|link, scripts| stats(&self.shared, link, scripts))?;
        self.shared.set_stats(stats.clone());
        Ok(stats)
    }

    /// The consumer groups that clients of Redis keep on the stream; not those of this worker. Blocks.
    pub(crate) fn stream_groups(&self) -> Result<Vec<StreamGroup>, ReadTrouble> {
        let groups = self.shared.with_link(|link, _| {
            let mut command = redis::cmd("XINFO");
            command.arg("GROUPS").arg(&self.shared.keys.stream);
            let groups: Vec<HashMap<String, Value>> = link.ask(&command)?;
            groups.iter().map(stream_group).collect::<Result<Vec<_>, Trouble>>()
        })?;
        Ok(groups)
    }

    /// Blocks until an event after `seq` was read; `false` when the time is up.
    pub(crate) fn wait_beyond(&self, seq: u64, limit: Duration) -> bool {
        self.shared.wait_beyond(seq, limit)
    }

    /// Events from `seq` on, up to the newest one now, oldest first.
    pub(crate) fn forward(&self, seq: u64, filter: Filter) -> Forward {
        Forward::new(Arc::clone(&self.shared), seq, filter)
    }

    /// Events before `seq`, newest first.
    pub(crate) fn backward(&self, seq: u64, filter: Filter) -> Backward {
        Backward::new(Arc::clone(&self.shared), seq, filter)
    }

    /// The seq of the first event after a message id.
    pub(crate) fn seq_after(&self, id: MessageId) -> Result<u64, ReadTrouble> {
        self.first_seq_from(&format!("({id}"))
    }

    /// The seq of the first event at or after a message id.
    pub(crate) fn seq_at(&self, id: MessageId) -> Result<u64, ReadTrouble> {
        self.first_seq_from(&id.to_string())
    }

    /// The event with a message id.
    pub(crate) fn by_message_id(&self, id: MessageId) -> Result<Option<Record>, ReadTrouble> {
        let id = id.to_string();
        let entries = self.shared.with_link(|link, _| range(&self.shared, link, &id, &id, 1))?;
        Ok(entries.into_iter().next().and_then(|entry| entry.record))
    }

    /// The newest event with an event id: by the ids of the dedup window, then among the newest events.
    pub(crate) fn by_event_id(&self, event_id: u128) -> Result<Option<Record>, ReadTrouble> {
        let name = format!("{event_id:032x}");
        for ids in &self.shared.keys.ids {
            let known = self
                .shared
                .with_link(|link, _| link.ask::<Option<String>>(redis::cmd("HGET").arg(ids).arg(&name)))?;
            let id =
                known.as_deref().and_then(|known| known.rsplit(':').next()).and_then(|id| id.parse().ok());
            if let Some(id) = id
                && let Some(record) = self.by_message_id(id)?.filter(|record| record.event_id == event_id)
            {
                return Ok(Some(record));
            }
        }
        let mut scan = self.backward(u64::MAX, Filter::default());
        for _ in 0..SCAN_MAX {
            match scan.next()? {
                Some(record) if record.event_id == event_id => return Ok(Some(record)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
        Err(ReadTrouble::NotIndexed)
    }

    fn first_seq_from(&self, from: &str) -> Result<u64, ReadTrouble> {
        let found = self.shared.with_link(|link, _| {
            let mut from = from.to_owned();
            // One after the other is enough: nobody else writes here, as a rule.
            let mut count = 1;
            for _ in 0..OTHERS_MAX {
                let entries = range(&self.shared, link, &from, "+", count)?;
                let Some(last) = entries.last().map(|entry| entry.id) else { return Ok(None) };
                if let Some(record) = entries.into_iter().find_map(|entry| entry.record) {
                    return Ok(Some(record.stamp.seq));
                }
                (from, count) = (format!("({last}"), 100);
            }
            Err(Trouble::Odd("too many entries of others"))
        })?;
        Ok(found.unwrap_or_else(|| self.shared.head() + 1))
    }
}

/// A consumer group that clients of Redis keep on the stream, as Redis tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StreamGroup {
    pub(crate) name: String,
    pub(crate) consumers: u64,
    pub(crate) pending: u64,
    #[serde(rename = "last-delivered-id")]
    pub(crate) last: String,
    /// `None` where Redis cannot tell.
    pub(crate) lag: Option<u64>,
}

fn stream_group(fields: &HashMap<String, Value>) -> Result<StreamGroup, Trouble> {
    let number = |name: &str| match fields.get(name) {
        Some(Value::Int(number)) => u64::try_from(*number).ok(),
        _ => None,
    };
    let text = |name: &str| fields.get(name).and_then(script::text);
    let odd = || Trouble::Odd("no group");
    Ok(StreamGroup {
        name: text("name").ok_or_else(odd)?,
        consumers: number("consumers").ok_or_else(odd)?,
        pending: number("pending").ok_or_else(odd)?,
        last: text("last-delivered-id").ok_or_else(odd)?,
        lag: number("lag"),
    })
}

/// A stretch of the stream, oldest first.
pub(super) fn range(
    shared: &Shared,
    link: &mut Link,
    from: &str,
    to: &str,
    count: usize,
) -> Result<Vec<Entry>, Trouble> {
    let mut command = redis::cmd("XRANGE");
    command.arg(&shared.keys.stream).arg(from).arg(to).arg("COUNT").arg(count);
    entry::entries(link.call(&command)?)
}

/// What is stored now.
pub(super) fn stats(shared: &Shared, link: &mut Link, scripts: &Scripts) -> Result<Stats, Trouble> {
    let odd = || Trouble::Odd("no figures");
    let Value::Array(values) = link.call(&scripts.stats(&shared.keys))? else { return Err(odd()) };
    let Some((head, types)) = values.split_first_chunk::<6>() else { return Err(odd()) };
    let [seq, last, first_seq, length, bytes, first] = head;
    let number = |value: &Value| match value {
        Value::Int(number) => u64::try_from(*number).map_err(|_| odd()),
        _ => Err(odd()),
    };
    let id = |value: &Value| -> Option<MessageId> { script::text(value)?.parse().ok() };
    let mut stats = Stats {
        length: number(length)?,
        first_seq: number(first_seq)?,
        last_seq: number(seq)?,
        first_id: id(first),
        last_id: id(last).filter(|id| *id != MessageId::default()),
        bytes: number(bytes)?,
        ..Stats::default()
    };
    for pair in types.as_chunks::<2>().0 {
        let kind = script::text(&pair[0]).ok_or_else(odd)?;
        if kind.is_empty() {
            stats.other_types = number(&pair[1])?;
        } else {
            stats.types.insert(kind.into(), number(&pair[1])?);
        }
    }
    Ok(stats)
}
