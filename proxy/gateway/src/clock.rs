//! The edge's clocks: monotonic since the process started, and wall time for tokens and texts.
//!
//! A request is a few polls of some microseconds, and dozens of decisions in each want to know the time. Within
//! [`one_poll`] they share one look at the clock; where a stage ends whose duration is told, [`look`] takes another.

use std::cell::Cell;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use sluice_policy::time::Nanos;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// A moment as timers and as decisions see it.
#[derive(Clone, Copy)]
struct Moment(tokio::time::Instant, Nanos);

/// What this thread has seen of the clock in the present poll.
#[derive(Clone, Copy)]
enum Seen {
    /// No poll that shares a moment.
    Outside,
    /// Nobody has looked yet.
    Nothing,
    At(Moment),
}

thread_local! {
    static SEEN: Cell<Seen> = const { Cell::new(Seen::Outside) };
    /// Wall time of the present poll, once somebody asked for it.
    static WALL: Cell<Option<SystemTime>> = const { Cell::new(None) };
}

/// Polls a request once: everything in it that asks for the time gets the same.
pub(crate) fn one_poll<T>(poll: impl FnOnce() -> T) -> T {
    struct Ends;
    impl Drop for Ends {
        fn drop(&mut self) {
            SEEN.set(Seen::Outside);
            WALL.set(None);
        }
    }
    SEEN.set(Seen::Nothing);
    let _ends = Ends;
    poll()
}

/// Looks at the clock; the rest of the poll goes by it.
pub(crate) fn look() -> (tokio::time::Instant, Nanos) {
    let now = Instant::now();
    let moment = Moment(now.into(), Nanos::from(now.saturating_duration_since(*START)));
    if !matches!(SEEN.get(), Seen::Outside) {
        SEEN.set(Seen::At(moment));
    }
    (moment.0, moment.1)
}

/// The present moment as timers and as decisions see it.
pub(crate) fn both() -> (tokio::time::Instant, Nanos) {
    match SEEN.get() {
        Seen::At(Moment(instant, nanos)) => (instant, nanos),
        Seen::Nothing | Seen::Outside => look(),
    }
}

/// Monotonic time since the first call in this process.
pub(crate) fn now() -> Nanos {
    both().1
}

/// The present moment as timers see it. Tests that stop time stop it too.
pub(crate) fn instant() -> tokio::time::Instant {
    match SEEN.get() {
        Seen::Outside => tokio::time::Instant::now(),
        Seen::Nothing | Seen::At(_) => both().0,
    }
}

/// A moment as timers see it.
pub(crate) fn instant_of(at: Nanos) -> tokio::time::Instant {
    (*START + Duration::from_nanos(at.0)).into()
}

/// Wall time. Within a poll it is read once: unlike a duration, nobody tells it to the microsecond.
fn wall_now() -> SystemTime {
    if matches!(SEEN.get(), Seen::Outside) {
        return SystemTime::now();
    }
    WALL.get().unwrap_or_else(|| {
        let now = SystemTime::now();
        WALL.set(Some(now));
        now
    })
}

/// Wall time since 1970.
fn unix() -> Duration {
    wall_now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Wall time, unix seconds.
pub(crate) fn unix_s() -> i64 {
    unix().as_secs() as i64
}

/// Wall time, unix milliseconds.
pub(crate) fn unix_ms() -> u64 {
    unix().as_millis() as u64
}

/// Wall time, as texts tell it.
pub(crate) fn timestamp() -> jiff::Timestamp {
    jiff::Timestamp::try_from(wall_now()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// Wall time of a monotonic moment, as seen from now.
pub(crate) fn wall(at: Nanos) -> jiff::Timestamp {
    let (now, wall) = (now(), timestamp());
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
    fn a_poll_has_one_moment_until_somebody_looks() {
        let passes = |since: Nanos| while Nanos::from(START.elapsed()) == since {};
        let (first, later) = one_poll(|| {
            let first = both();
            passes(first.1);
            assert_eq!((instant(), now()), first);
            let later = look();
            passes(later.1);
            assert_eq!((instant(), now()), later);
            (first, later)
        });
        assert!(later.0 > first.0 && later.1 > first.1);
        passes(later.1);
        assert!(now() > later.1 && instant() > later.0, "outside it goes on");
        let next = one_poll(now);
        assert!(next > later.1, "the next poll has its own");
    }

    #[test]
    fn a_poll_has_one_wall_time() {
        let passes = |since: SystemTime| while SystemTime::now() <= since {};
        let first = one_poll(|| {
            let first = wall_now();
            passes(first);
            look();
            assert_eq!(wall_now(), first, "also where a stage ends");
            first
        });
        assert!(wall_now() > first, "outside it goes on");
    }

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
