//! What is kept of the consumer groups, where several workers share a Redis: a second stream, written in turns.
//!
//! Whoever decides something about groups takes the turn first, reads what others wrote since, writes down what
//! follows from its decisions, and gives the turn back. The script that writes looks whether the turn is still its
//! caller's: who was held up for longer than a turn lasts writes nothing. The id of a note is its seq.

use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::entry;
use super::link::{Link, Trouble};
use super::shared::{Shared, State};
use crate::log::{Draft, Labels, MessageId, Record, Stamp};

const TURN: &str = include_str!("turn.lua");
const NOTE: &str = include_str!("note.lua");
const LEAVE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";
/// How long a turn lasts that is not given back: the worker may have been killed.
const TURN_LASTS: Duration = Duration::from_secs(5);
/// How long a turn is waited for.
const TURN_WITHIN: Duration = Duration::from_secs(8);
/// A connection that breaks within this time was broken before; one that is silent for longer leads nowhere.
const ONCE_MORE_WITHIN: Duration = Duration::from_secs(1);
/// Between two looks whether the turn is free.
const LOOK: Duration = Duration::from_millis(2);
/// Notes of one answer.
const COUNT: usize = 1_000;

/// The newest note known: its seq, and the mark of the call that wrote it.
pub(crate) type Known = (u64, u128);

/// A turn that was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    /// Seq of the newest note.
    pub(crate) seq: u64,
    /// The newest note known is not there: everything is to be read again.
    pub(crate) lost: bool,
    /// The time of Redis, in milliseconds since 1970.
    pub(crate) now_ms: u64,
}

/// The notes of the groups of a stream.
#[derive(Debug)]
pub(crate) struct Notes {
    shared: Arc<Shared>,
    turn: String,
    meta: String,
    key: String,
    stream_meta: String,
    place: Option<Place>,
    worker: Uuid,
    turns: u64,
    /// Who writes, while the turn is taken.
    who: Option<String>,
}

#[derive(Debug)]
struct Place {
    link: Link,
    take: String,
    write: String,
    leave: String,
}

impl Notes {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let key = |what: &str| format!("{{{}}}:{what}", shared.options.stream);
        let [turn, meta, notes] = ["groups:turn", "groups:meta", "groups"].map(key);
        let stream_meta = key("meta");
        let worker = Uuid::new_v4();
        Self { turn, meta, key: notes, stream_meta, place: None, worker, turns: 0, who: None, shared }
    }

    /// Takes the turn, waiting for it. What is known of the stream then includes everything that any worker knew in
    /// its turn.
    pub(crate) fn enter(&mut self, known: Known) -> Result<Turn, Trouble> {
        self.turns += 1;
        let who = format!("{}:{}", self.worker.simple(), self.turns);
        let begun = Instant::now();
        loop {
            let known_link = self.place.is_some();
            let asked = self.ask(|notes, place| {
                let mut command = redis::cmd("EVALSHA");
                command.arg(&place.take).arg(4).arg(&notes.turn).arg(&notes.meta).arg(&notes.key);
                command.arg(&notes.stream_meta).arg(&who).arg(TURN_LASTS.as_millis() as u64);
                command.arg(known.0).arg(format!("{:032x}", known.1));
                command
            });
            let answer: Vec<redis::Value> = match asked {
                // A connection that was idle may have broken meanwhile; to ask once more does no harm.
                Err(trouble) if known_link && trouble.breaks_link() && begun.elapsed() < ONCE_MORE_WITHIN => {
                    continue;
                }
                asked => asked?,
            };
            if let Ok((1, seq, lost, now_ms, head, id)) =
                redis::from_redis_value::<(u8, u64, u8, u64, u64, String)>(redis::Value::Array(answer))
            {
                let id: MessageId = id.parse().map_err(|_| Trouble::Odd("a message id"))?;
                self.shared.learn(Stamp { seq: head, id });
                self.who = Some(who);
                return Ok(Turn { seq, lost: lost == 1, now_ms });
            }
            if begun.elapsed() > TURN_WITHIN || self.shared.is_closing() {
                return Err(Trouble::Away("another worker has its turn over the groups".to_owned()));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Gives the turn back. One that cannot be given back ends by itself.
    pub(crate) fn leave(&mut self) {
        let Some(who) = self.who.take() else { return };
        let left: Result<u8, Trouble> = self.ask(|notes, place| {
            let mut command = redis::cmd("EVALSHA");
            command.arg(&place.leave).arg(1).arg(&notes.turn).arg(&who);
            command
        });
        if let Err(error) = left {
            tracing::debug!(component = "groups", error = %error, "the turn was not given back");
        }
    }

    /// Notes from a seq on, oldest first, a stretch; empty at the end.
    pub(crate) fn read(&mut self, from: u64) -> Result<Vec<Record>, Trouble> {
        let value = self.ask(|notes, _| {
            let mut command = redis::cmd("XRANGE");
            command.arg(&notes.key).arg(format!("{from}-0")).arg("+").arg("COUNT").arg(COUNT);
            command
        })?;
        Ok(entry::entries(value)?.into_iter().filter_map(|entry| entry.record).collect())
    }

    /// The note with a seq.
    pub(crate) fn record(&self, seq: u64) -> Result<Option<Record>, Trouble> {
        let entries = self.shared.with_link(|link, _| {
            let mut command = redis::cmd("XRANGE");
            command.arg(&self.key).arg(format!("{seq}-0")).arg(format!("{seq}-0"));
            entry::entries(link.call(&command)?)
        })?;
        Ok(entries.into_iter().next().and_then(|entry| entry.record))
    }

    /// Writes notes, all or none; seq of the last one, and the mark on all of them.
    pub(crate) fn append(&mut self, drafts: &[Draft]) -> Result<Known, Trouble> {
        let who = self.who.clone().ok_or_else(|| Trouble::Away("the turn was not taken".to_owned()))?;
        let mark = Uuid::new_v4().as_u128();
        let last: u64 = self.ask(|notes, place| {
            let mut command = redis::cmd("EVALSHA");
            command.arg(&place.write).arg(3).arg(&notes.turn).arg(&notes.meta).arg(&notes.key);
            command.arg(&who).arg(TURN_LASTS.as_millis() as u64).arg(format!("{mark:032x}"));
            for draft in drafts {
                let Labels { kind, symbol, source } = draft.labels();
                command.arg(kind).arg(symbol).arg(source).arg(draft.time_us).arg(draft.json());
            }
            command
        })?;
        Ok((last, mark))
    }

    /// Drops notes before a seq.
    pub(crate) fn trim_before(&mut self, seq: u64) -> Result<(), Trouble> {
        let _: u64 = self.ask(|notes, _| {
            let mut command = redis::cmd("XTRIM");
            command.arg(&notes.key).arg("MINID").arg("=").arg(format!("{seq}-0"));
            command
        })?;
        Ok(())
    }

    fn ask<T: redis::FromRedisValue>(
        &mut self,
        command: impl Fn(&Self, &Place) -> redis::Cmd,
    ) -> Result<T, Trouble> {
        let known = self.place.is_some();
        let mut place = match self.place.take() {
            Some(place) => place,
            None => self.connect()?,
        };
        let answered = place.link.ask(&command(self, &place));
        match &answered {
            // Somebody flushed the scripts: they are loaded with a new connection.
            Err(trouble) if trouble.is("NOSCRIPT") && known => return self.ask(command),
            Err(trouble) if trouble.breaks_link() => {}
            _ => self.place = Some(place),
        }
        answered
    }

    fn connect(&self) -> Result<Place, Trouble> {
        if let State::Away(why) | State::Refused(why) = self.shared.state() {
            return Err(Trouble::Away(why));
        }
        let (mut link, _) = self.shared.enter()?;
        let mut load = |text: &str| link.ask(redis::cmd("SCRIPT").arg("LOAD").arg(text));
        let (take, write, leave) = (load(TURN)?, load(NOTE)?, load(LEAVE)?);
        Ok(Place { link, take, write, leave })
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        self.leave();
    }
}
