//! The edge's clocks: monotonic since the process started, and wall time for tokens and texts.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use sluice_policy::time::Nanos;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Monotonic time since the first call in this process.
pub(crate) fn now() -> Nanos {
    Nanos::from(START.elapsed())
}

/// The same moment as timers and as decisions see it: one look at the clock.
pub(crate) fn both() -> (tokio::time::Instant, Nanos) {
    let now = Instant::now();
    (now.into(), Nanos::from(now.saturating_duration_since(*START)))
}

/// Wall time, unix seconds.
pub(crate) fn unix_s() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Wall time, unix milliseconds.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// Wall time of a monotonic moment, as seen from now.
pub(crate) fn wall(at: Nanos) -> jiff::Timestamp {
    let (now, wall) = (now(), jiff::Timestamp::now());
    let shift = |by: Duration| jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::ZERO);
    if at > now {
        wall.saturating_add(shift(at.since(now))).unwrap_or(wall)
    } else {
        wall.saturating_sub(shift(now.since(at))).unwrap_or(wall)
    }
}

/// `Retry-After` seconds of a wait: rounded up, at least 1.
pub(crate) fn retry_after_s(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_round_up() {
        for (wait_ms, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (60_000, 60)] {
            assert_eq!(retry_after_s(Duration::from_millis(wait_ms)), seconds, "{wait_ms}");
        }
    }

    #[test]
    fn wall_time_follows_the_monotonic_clock() {
        let later = wall(now().plus(Duration::from_secs(60)));
        let ahead = later.duration_since(jiff::Timestamp::now()).as_secs();
        assert!((59..=60).contains(&ahead), "{ahead}");
    }
}
