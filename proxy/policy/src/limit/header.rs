//! Header values about a limit.
//!
//! `RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers-10: a structured list
//! of one item with the policy's name. The legacy triple `X-RateLimit-Limit/Remaining/Reset` are plain
//! integers, Reset in epoch seconds. The writers append to the caller's buffer and allocate only where
//! it must grow.

use std::ops::Range;
use std::time::Duration;

use super::{Decision, Limit};
use crate::digits::push_number;

/// Value of `RateLimit`: `"name";r=remaining;t=seconds`, of a name that is [`quoted`]. Says where the number that
/// remains stands in `out`, as `X-RateLimit-Remaining` is the same.
pub fn write_rate_limit(out: &mut Vec<u8>, quoted: &str, decision: &Decision) -> Range<usize> {
    out.extend_from_slice(quoted.as_bytes());
    out.extend_from_slice(b";r=");
    let start = out.len();
    push_number(out, decision.remaining);
    let remaining = start..out.len();
    out.extend_from_slice(b";t=");
    push_number(out, seconds(decision.reset_after));
    remaining
}

/// Value of `RateLimit-Policy`: `"name";q=quota;w=window seconds`, of a name that is [`quoted`].
pub fn policy(quoted: &str, limit: &Limit) -> String {
    format!("{quoted};q={};w={}", limit.requests, seconds(limit.per).max(1))
}

/// Value of `Retry-After`: whole seconds, rounded up, at least 1.
pub fn retry_after_s(wait: Duration) -> u64 {
    seconds(wait).max(1)
}

/// Value of `X-RateLimit-Reset`: the epoch second at which the burst is whole again.
pub fn reset_epoch_s(now_unix_s: u64, decision: &Decision) -> u64 {
    now_unix_s.saturating_add(seconds(decision.reset_after))
}

/// Rounded up.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// A structured-field string. A service name needs no escape; anything else is dropped from it.
pub fn quoted(name: &str) -> String {
    let plain = |letter: &char| matches!(letter, ' '..='~') && !matches!(letter, '"' | '\\');
    format!("\"{}\"", name.chars().filter(plain).collect::<String>())
}
