//! The follower: reads what any worker stored, as it is stored, on a connection of its own.

use std::time::Duration;

use redis::Value;

use super::entry;
use super::link::{Link, Trouble};
use super::shared::{AGAIN, Shared, State};
use crate::log::MessageId;

/// How long Redis holds an answer back while there is nothing new.
const BLOCK: Duration = Duration::from_millis(100);
/// For an answer, the time held back included.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Entries of one answer.
const COUNT: usize = 1_000;

/// Follows the stream until the engine is closed.
pub(super) fn run(shared: &Shared) {
    let mut from = None;
    while !shared.is_closing() {
        shared.await_up(AGAIN);
        from = from.or_else(|| shared.begin_id());
        let Some(from) = &mut from else { continue };
        if shared.state() == State::Up
            && let Err(trouble) = follow(shared, from)
        {
            tracing::debug!(component = "redis", error = %trouble, "following the stream broke off");
            shared.pause(AGAIN);
        }
    }
}

fn follow(shared: &Shared, from: &mut MessageId) -> Result<(), Trouble> {
    let (link, _) = shared.enter()?;
    let mut link: Link = link.answering_within(ANSWER_WITHIN)?;
    while !shared.is_closing() {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(COUNT).arg("BLOCK").arg(BLOCK.as_millis() as u64);
        command.arg("STREAMS").arg(&shared.keys.stream).arg(from.to_string());
        let entries = match link.call(&command)? {
            Value::Nil => continue,
            Value::Array(streams) => match streams.into_iter().next() {
                Some(Value::Array(mut parts)) if parts.len() == 2 => parts.pop().unwrap_or(Value::Nil),
                _ => return Err(Trouble::Odd("XREAD")),
            },
            _ => return Err(Trouble::Odd("XREAD")),
        };
        let entries = entry::entries(entries)?;
        if let Some(last) = entries.last() {
            *from = last.id;
        }
        shared.push(entries.into_iter().filter_map(|entry| entry.record).collect());
    }
    Ok(())
}
