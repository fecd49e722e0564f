//! The follower: reads what other workers stored, as it is stored, on a connection of its own. What this worker stores
//! itself comes from the writer ([`super::tail`]).

use std::time::Duration;

use redis::{Cmd, Value};

use super::entry;
use super::link::{Link, Trouble};
use super::shared::{AGAIN, Shared, State};
use super::tail::Want;
use crate::log::MessageId;

/// How long Redis holds an answer back while there is nothing new.
const BLOCK: Duration = Duration::from_millis(100);
/// For an answer, the time held back included.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Entries of one answer.
const COUNT: usize = 1_000;

/// Follows the stream until the engine is closed.
pub(super) fn run(shared: &Shared) {
    let mut doubted = None;
    while !shared.is_closing() {
        shared.await_up(AGAIN);
        if shared.state() == State::Up
            && let Err(trouble) = follow(shared, &mut doubted)
        {
            tracing::debug!(component = "redis", error = %trouble, "following the stream broke off");
            shared.pause(AGAIN);
        }
    }
}

/// Follows on one connection. `doubted` is before which event seqs were missing on the last one: a server that was
/// replaced meanwhile lacks what others stored on the new one, so they count as gone when two connections say so.
fn follow(shared: &Shared, doubted: &mut Option<MessageId>) -> Result<(), Trouble> {
    let (link, _) = shared.enter()?;
    let mut link: Link = link.answering_within(ANSWER_WITHIN)?;
    while let Some(want) = shared.next_read() {
        let answer = link.call(&command(want, &shared.keys.stream))?;
        let entries = entry::entries(stretch(want, answer)?)?;
        if entries.is_empty() && matches!(want, Want::Behind(_)) {
            continue;
        }
        let is_all = entries.len() < COUNT;
        let upto = entries.last().map(|entry| entry.id);
        let records: Vec<_> = entries.into_iter().filter_map(|entry| entry.record).collect();
        if let Want::Between(_, until) = want
            && is_all
            && shared.lacks(&records)
            && doubted.replace(until) != Some(until)
        {
            return Ok(());
        }
        shared.read(want, records, upto, is_all);
    }
    Ok(())
}

fn command(want: Want, stream: &str) -> Cmd {
    let mut command;
    match want {
        Want::Behind(id) => {
            command = redis::cmd("XREAD");
            command.arg("COUNT").arg(COUNT).arg("BLOCK").arg(BLOCK.as_millis() as u64);
            command.arg("STREAMS").arg(stream).arg(id.to_string());
        }
        Want::Between(from, until) => {
            command = redis::cmd("XRANGE");
            command.arg(stream).arg(format!("({from}")).arg(format!("({until}")).arg("COUNT").arg(COUNT);
        }
    }
    command
}

/// The entries of an answer.
fn stretch(want: Want, answer: Value) -> Result<Value, Trouble> {
    match (want, answer) {
        (Want::Between(..), answer) => Ok(answer),
        (Want::Behind(_), Value::Nil) => Ok(Value::Nil),
        (Want::Behind(_), Value::Array(streams)) => match streams.into_iter().next() {
            Some(Value::Array(mut parts)) if parts.len() == 2 => Ok(parts.pop().unwrap_or(Value::Nil)),
            _ => Err(Trouble::Odd("XREAD")),
        },
        (Want::Behind(_), _) => Err(Trouble::Odd("XREAD")),
    }
}
