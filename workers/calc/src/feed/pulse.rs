//! How the feed does: its figures, and what `/health` says of it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Registry};
use sluice_client::Progress;
use sluice_http::{Component, Status};
use sluice_telemetry::metric::{self, Name};

use crate::series::Applied;

/// Time without leases, from the start on too, or without an answer, after which the feed counts as broken.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// LIMIT: seconds that stored series may be behind before the worker says so.
const BEHIND_MAX_S: f64 = 60.0;

/// The state of the feed. Shared by who follows and by who is asked.
pub(crate) struct Pulse {
    state: Mutex<State>,
    following: IntGauge,
    lag: Gauge,
    last: Gauge,
    candles: IntCounterVec,
    dropped: IntCounter,
}

/// What was seen last; nothing where there is nothing to follow.
type State = Option<Seen>;

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// How far behind the series were when it was last looked.
    lag_s: f64,
    looked: Instant,
    /// Whether somebody answered when it was tried to look again.
    answers: bool,
    /// Since when no candles are leased.
    halted: Option<Instant>,
}

impl Seen {
    /// How far behind the series are now: while nobody answers, the time goes on.
    fn lag_s(&self, now: Instant) -> f64 {
        if self.answers { self.lag_s } else { self.lag_s + now.duration_since(self.looked).as_secs_f64() }
    }

    fn component(&self, now: Instant) -> Component {
        let silent = Some(self.looked).filter(|_| !self.answers);
        let halted = [silent, self.halted].into_iter().flatten().min().map(|since| now.duration_since(since));
        if let Some(halted) = halted.filter(|halted| *halted > SILENCE_MAX) {
            let text = format!("candles of the event worker have not come for {} s", halted.as_secs());
            return Component::new(Status::Degraded, text);
        }
        let lag_s = self.lag_s(now);
        if lag_s > BEHIND_MAX_S {
            return Component::new(Status::Degraded, format!("{lag_s:.0} s behind"));
        }
        Component::healthy()
    }
}

impl Pulse {
    /// Of a worker that does not follow yet.
    pub(crate) fn new(registry: &Registry) -> Self {
        Self {
            state: Mutex::new(None),
            following: metric::gauge(registry, Name::CalcFeedFollowing),
            lag: metric::gauge_f64(registry, Name::CalcFeedLag),
            last: metric::gauge_f64(registry, Name::CalcFeedLast),
            candles: metric::counters(registry, Name::CalcFeedCandles),
            dropped: metric::counter(registry, Name::CalcFeedDropped),
        }
    }

    /// It begins to follow.
    pub(super) fn begins(&self) {
        let now = Instant::now();
        *self.state() = Some(Seen { lag_s: 0.0, looked: now, answers: true, halted: Some(now) });
    }

    /// Candles are leased.
    pub(super) fn follows(&self) {
        self.following.set(1);
        self.change(|seen| seen.halted = None);
    }

    /// They are not, for now.
    pub(super) fn halts(&self) {
        self.following.set(0);
        self.change(|seen| {
            seen.halted.get_or_insert_with(Instant::now);
        });
    }

    /// It was looked how far behind the series are; nothing where nobody answered.
    pub(super) fn looked(&self, progress: Option<Progress>) {
        let now = Instant::now();
        self.change(|seen| {
            match progress {
                Some(progress) => {
                    *seen = Seen { lag_s: progress.lag_seconds, looked: now, answers: true, ..*seen };
                }
                None => seen.answers = false,
            }
            self.lag.set(seen.lag_s(now));
        });
    }

    /// Candles of a series were stored, or were there.
    pub(super) fn stored(&self, applied: &Applied) {
        let counts = [
            ("applied", applied.added),
            ("repeated", applied.repeated),
            ("conflict", applied.conflicts.len()),
            ("late", applied.late.len()),
        ];
        for (result, count) in counts {
            self.candles.with_label_values(&[result]).inc_by(count as u64);
        }
        if applied.added > 0 {
            self.last.set(Timestamp::now().as_millisecond() as f64 / 1e3);
        }
    }

    /// Candles could not be stored, and will not be.
    pub(super) fn dropped(&self, candles: usize) {
        self.dropped.inc_by(candles as u64);
    }

    /// What `/health` says.
    pub(crate) fn component(&self) -> Component {
        let state = *self.state();
        state.map_or_else(
            || Component::new(Status::Healthy, "there is no event worker to follow"),
            |seen| seen.component(Instant::now()),
        )
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        self.state().as_mut().map(change);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_excused_for_a_while_and_counts_as_lag() {
        let begun = Instant::now();
        let after = |s| begun + Duration::from_secs(s);
        let seen = Seen { lag_s: 3.0, looked: begun, answers: true, halted: None };
        let said = |seen: &Seen, s| seen.component(after(s)).detail;
        assert_eq!(said(&seen, 1_000), None);
        assert_eq!(said(&Seen { lag_s: 61.0, ..seen }, 0).as_deref(), Some("61 s behind"));
        let silent = Seen { answers: false, ..seen };
        assert_eq!((seen.lag_s(after(9)), silent.lag_s(after(9))), (3.0, 12.0));
        for broken in [silent, Seen { halted: Some(begun), ..seen }] {
            assert_eq!(broken.component(after(10)).status, Status::Healthy);
            assert_eq!(broken.component(after(12)).status, Status::Degraded);
            let text = "candles of the event worker have not come for 12 s";
            assert_eq!(said(&broken, 12).as_deref(), Some(text));
        }
    }
}
