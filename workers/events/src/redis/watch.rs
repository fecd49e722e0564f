//! The watch: looks every second whether Redis still has what is known, keeps what it was given, and how durably.

use std::time::Duration;

use redis::Value;

use super::link::{Link, Trouble};
use super::read;
use super::script::Scripts;
use super::shared::{Shared, State};
use crate::engine::Durability;
use crate::log::{Gone, Retention};

/// How often.
const PERIOD: Duration = Duration::from_secs(1);
/// LIMIT: calls of retention at a time.
const TRIM_CALLS_MAX: usize = 64;

/// Watches until the engine is closed.
pub(super) fn run(shared: &Shared) {
    let mut place = None;
    while !shared.is_closing() {
        if matches!(shared.state(), State::Up) {
            let looked = match &mut place {
                Some((link, scripts)) => look(shared, link, scripts),
                None => shared.enter().and_then(|(mut link, scripts)| {
                    let looked = look(shared, &mut link, &scripts);
                    place = Some((link, scripts));
                    looked
                }),
            };
            if let Err(trouble) = looked {
                // A second look on a new connection tells a broken one from a server that is gone.
                place = shared.enter().ok();
                if place.is_none() {
                    shared.set_state(State::Away(trouble.to_string()));
                }
                tracing::debug!(component = "redis", error = %trouble, "looking at Redis broke off");
            }
        } else {
            place = None;
        }
        shared.pause(PERIOD);
    }
}

fn look(shared: &Shared, link: &mut Link, scripts: &Scripts) -> Result<(), Trouble> {
    if let Some(why) = refusal(link)? {
        shared.set_state(State::Refused(why));
        return Ok(());
    }
    look_at_durability(shared, link)?;
    shared.attach(link, scripts)?;
    retain(shared, link, scripts, shared.options.retention)?;
    shared.set_stats(read::stats(shared, link, scripts)?);
    Ok(())
}

/// Why this Redis must not hold events.
pub(super) fn refusal(link: &mut Link) -> Result<Option<String>, Trouble> {
    let policy = setting(link, "maxmemory-policy")?;
    Ok(policy.filter(|policy| policy.starts_with("allkeys-")).map(|policy| {
        format!("its maxmemory-policy is {policy}, which throws the whole stream away when memory runs out; set it to noeviction")
    }))
}

/// Notes what Redis does with what it was given.
pub(super) fn look_at_durability(shared: &Shared, link: &mut Link) -> Result<(), Trouble> {
    let persistence: String = link.ask(redis::cmd("INFO").arg("persistence"))?;
    let is = |line: &str| persistence.lines().any(|found| found == line);
    let durability = if !is("aof_enabled:1") || is("aof_last_write_status:err") {
        Durability::Memory
    } else {
        match setting(link, "appendfsync")?.as_deref() {
            Some("always") => Durability::AofAlways,
            Some("everysec") => Durability::AofEverysec,
            // Whenever the operating system likes, or not to be found out.
            _ => Durability::Memory,
        }
    };
    shared.set_durability(durability);
    Ok(())
}

/// A setting of the server; `None` where it does not tell.
fn setting(link: &mut Link, name: &str) -> Result<Option<String>, Trouble> {
    let pairs = match link.call(redis::cmd("CONFIG").arg("GET").arg(name)) {
        Ok(Value::Array(pairs)) => pairs,
        Err(trouble) if trouble.breaks_link() => return Err(trouble),
        Ok(_) | Err(_) => return Ok(None),
    };
    Ok(pairs.get(1).and_then(super::script::text))
}

/// Removes the oldest events until the bounds hold; what went.
pub(super) fn trim(shared: &Shared, bounds: Retention) -> Result<Gone, Trouble> {
    shared.with_link(|link, scripts| {
        let before = read::stats(shared, link, scripts)?;
        let segments = retain(shared, link, scripts, bounds)?;
        let after = read::stats(shared, link, scripts)?;
        let events = after.first_seq.saturating_sub(before.first_seq);
        shared.set_stats(after.clone());
        Ok(Gone { segments, events, bytes: before.bytes.saturating_sub(after.bytes) })
    })
}

fn retain(
    shared: &Shared,
    link: &mut Link,
    scripts: &Scripts,
    Retention { age_ms, bytes, count }: Retention,
) -> Result<usize, Trouble> {
    if age_ms.is_none() && bytes.is_none() && count.is_none() {
        return Ok(0);
    }
    let mut all = 0;
    let word = |bound: Option<u64>| bound.map_or_else(|| "-1".to_owned(), |bound| bound.to_string());
    for _ in 0..TRIM_CALLS_MAX {
        let mut command = scripts.trim(&shared.keys);
        command.arg(word(age_ms)).arg(word(bytes)).arg(word(count));
        let (steps, more): (usize, u8) = link.ask(&command)?;
        all += steps;
        if more == 0 {
            break;
        }
    }
    Ok(all)
}
