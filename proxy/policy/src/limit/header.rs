//! Header values about a limit.
//!
//! `RateLimit` and `RateLimit-Policy` follow draft-ietf-httpapi-ratelimit-headers-10: a structured list
//! of one item with the policy's name. The legacy triple `X-RateLimit-Limit/Remaining/Reset` are plain
//! integers, Reset in epoch seconds. The writers append to the caller's buffer and allocate only where
//! it must grow.

use std::fmt::Write;
use std::time::Duration;

use super::{Decision, Limit};

/// Value of `RateLimit`: `"name";r=remaining;t=seconds`.
pub fn write_rate_limit(out: &mut String, name: &str, decision: &Decision) {
    write_name(out, name);
    write_all(out, format_args!(";r={};t={}", decision.remaining, seconds(decision.reset_after)));
}

/// Value of `RateLimit-Policy`: `"name";q=quota;w=window seconds`.
pub fn write_policy(out: &mut String, name: &str, limit: &Limit) {
    write_name(out, name);
    write_all(out, format_args!(";q={};w={}", limit.requests, seconds(limit.per).max(1)));
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
fn write_name(out: &mut String, name: &str) {
    out.push('"');
    out.extend(name.chars().filter(|letter| matches!(letter, ' '..='~') && !matches!(letter, '"' | '\\')));
    out.push('"');
}

fn write_all(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}
