//! The scripts, and the keys that they work on.

use redis::{Cmd, Value};

use super::link::{Link, Trouble};
use crate::log::{MessageId, Partitions, partitions_word};

const APPEND: &str = include_str!("append.lua");
const ATTACH: &str = include_str!("attach.lua");
const TRIM: &str = include_str!("trim.lua");
const STATS: &str = include_str!("stats.lua");

/// The keys of a stream, all in one slot of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    pub(super) stream: String,
    meta: String,
    pub(super) anchors: String,
    marks: String,
    types: String,
    pub(super) latest: String,
    pub(super) ids: [String; 2],
}

/// The names under which a server knows the scripts.
#[derive(Clone, Debug)]
pub(super) struct Scripts {
    append: String,
    attach: String,
    trim: String,
    stats: String,
}

/// What a server says of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    pub(super) epoch: String,
    pub(super) seq: u64,
    pub(super) id: MessageId,
    /// Events that the caller knew of are gone.
    pub(super) lost: bool,
}

impl Keys {
    pub(super) fn new(stream: &str) -> Self {
        let key = |what: &str| format!("{{{stream}}}:{what}");
        Self {
            stream: stream.to_owned(),
            meta: key("meta"),
            anchors: key("anchors"),
            marks: key("marks"),
            types: key("types"),
            latest: key("latest"),
            ids: [key("ids:0"), key("ids:1")],
        }
    }
}

impl Scripts {
    /// Makes the scripts known to a server, which tells whether it has what they need.
    pub(super) fn load(link: &mut Link) -> Result<Self, Trouble> {
        let mut load = |text: &str| link.ask(redis::cmd("SCRIPT").arg("LOAD").arg(text));
        Ok(Self { append: load(APPEND)?, attach: load(ATTACH)?, trim: load(TRIM)?, stats: load(STATS)? })
    }

    /// The call that stores a batch; the rest of its words, so many and about so many bytes, are the batch.
    pub(super) fn append(&self, keys: &Keys, words: usize, bytes: usize) -> Cmd {
        let Keys { stream, meta, anchors, marks, types, latest, ids: [even, odd] } = keys;
        let keys = [stream, meta, anchors, marks, types, latest, even, odd];
        let head = 64 + keys.iter().map(|key| key.len()).sum::<usize>();
        evaluate_in(Cmd::with_capacity(3 + keys.len() + words, head + bytes), &self.append, &keys)
    }

    /// Compares what is stored with the newest event known.
    pub(super) fn attach(
        &self,
        link: &mut Link,
        keys: &Keys,
        epoch: &str,
        (seq, id): (u64, MessageId),
        group: &str,
        partitions: Option<Partitions>,
    ) -> Result<Attached, Trouble> {
        let names = [&keys.stream, &keys.meta, &keys.anchors, &keys.marks, &keys.types];
        let mut command = evaluate(&self.attach, &names);
        command.arg(epoch).arg(seq).arg(id.ms).arg(id.n).arg(group).arg(partitions_word(partitions));
        let (epoch, seq, id, lost): (String, u64, String, u8) = link.ask(&command)?;
        let id = id.parse().map_err(|_| Trouble::Odd("a message id"))?;
        Ok(Attached { epoch, seq, id, lost: lost == 1 })
    }

    /// The call that applies retention.
    pub(super) fn trim(&self, keys: &Keys) -> Cmd {
        evaluate(&self.trim, &[&keys.stream, &keys.meta, &keys.anchors, &keys.marks])
    }

    /// The call that tells what is stored.
    pub(super) fn stats(&self, keys: &Keys) -> Cmd {
        evaluate(&self.stats, &[&keys.stream, &keys.meta, &keys.anchors, &keys.marks, &keys.types])
    }
}

fn evaluate(script: &str, keys: &[&String]) -> Cmd {
    evaluate_in(Cmd::new(), script, keys)
}

fn evaluate_in(mut command: Cmd, script: &str, keys: &[&String]) -> Cmd {
    command.arg("EVALSHA").arg(script).arg(keys.len());
    for key in keys {
        command.arg(key.as_str());
    }
    command
}

/// A text of an answer.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}
