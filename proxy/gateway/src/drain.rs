//! How the edge ends, or makes room for its successor.
//!
//! - **End** (SIGTERM): `/readyz` 503 and `Connection: close` at once, new connections taken until the lame
//!   duck is over; then idle connections close and the rest finishes until the deadline.
//! - **Handover**: told to yield, it accepts no more and serves what is open as before, for the successor may
//!   fail and it resume. Told to retire, answers carry `Connection: close`, so clients in full flow move over
//!   by themselves; idle connections are kept for the lame duck, at least [`RETIRE_IDLE`]. `/readyz` stays
//!   200: behind the port somebody serves.
//!
//! A connection counts as idle only after [`QUIET`] without a byte, and never with half a head read: who is
//! just sending a request must not find the connection closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sluice_schema::Drain as DrainTimes;
use tokio::sync::watch;
use tokio::time::Instant;

/// Least time that idle connections are kept after a successor took over.
const RETIRE_IDLE: Duration = Duration::from_secs(1);
/// Silence that makes a connection idle.
const QUIET: Duration = Duration::from_millis(100);
/// Of the time until this process is killed: kept for what comes after the connections.
const MARGIN: Duration = Duration::from_millis(500);

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Serving.
    Serving,
    /// Not accepting; what is open is served as before.
    Yielded,
    /// Still accepting; answers carry `Connection: close`.
    LameDuck,
    /// Not accepting; idle connections close, the rest has until the deadline.
    Closing {
        /// From when on idle connections close.
        idle_from: Instant,
        /// When what is left is cut off.
        deadline: Instant,
    },
}

impl Phase {
    /// Whether new connections are taken.
    pub(crate) const fn accepts(self) -> bool {
        matches!(self, Self::Serving | Self::LameDuck)
    }
}

/// The phase, shared.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    phase: Arc<watch::Sender<Phase>>,
    closing: Arc<watch::Sender<bool>>,
    ending: Arc<AtomicBool>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Serving)),
            closing: Arc::new(watch::Sender::new(false)),
            ending: Arc::default(),
        }
    }
}

impl Drain {
    /// Whether the end has begun: this process goes and leaves no successor.
    pub(crate) fn has_begun(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// Whether another process takes over, or has: configuration and files are its business.
    pub(crate) fn has_successor(&self) -> bool {
        let phase = *self.phase.borrow();
        !self.has_begun() && matches!(phase, Phase::Yielded | Phase::Closing { .. })
    }

    /// Returns once it is settled who serves: at once, unless this process has just yielded.
    pub(crate) async fn handed_over_or_back(&self) {
        drop(self.phase().wait_for(|phase| *phase != Phase::Yielded).await);
    }

    /// Turns true when answers are to carry `Connection: close`; Pingora watches this.
    pub(crate) fn shutdown_watch(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Whether answers are to carry `Connection: close`: one that begins now says so, whenever it was asked for.
    pub(crate) fn closes_answers(&self) -> bool {
        *self.closing.borrow()
    }

    /// Follows the phase.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Ends when connections are to close.
    pub(crate) fn closes(&self) -> impl Future<Output = ()> + use<> {
        let mut phase = self.phase();
        async move { drop(phase.wait_for(|phase| matches!(phase, Phase::Closing { .. })).await) }
    }

    /// Stops accepting; everything else goes on.
    pub(crate) fn yield_doors(&self) {
        self.phase.send_replace(Phase::Yielded);
    }

    /// Accepts, for the first time or again.
    pub(crate) fn serve(&self) {
        self.phase.send_replace(Phase::Serving);
    }

    /// A successor serves: finish what is open.
    pub(crate) fn retire(&self, times: &DrainTimes) {
        let now = Instant::now();
        self.closing.send_replace(true);
        let idle_from = now + times.lame_duck.max(RETIRE_IDLE);
        self.phase
            .send_replace(Phase::Closing { idle_from, deadline: now + times.deadline.max(RETIRE_IDLE) });
    }

    /// Runs through the phases of an end; returns when accepting has ended.
    pub(crate) async fn run(&self, times: &DrainTimes) {
        let deadline = Instant::now() + times.deadline.max(Duration::from_millis(1));
        // Whoever sees `/readyz` turn finds answers closing already.
        self.closing.send_replace(true);
        self.ending.store(true, Ordering::Release);
        if self.phase.borrow().accepts() {
            self.phase.send_replace(Phase::LameDuck);
            tokio::time::sleep_until((Instant::now() + times.lame_duck).min(deadline)).await;
        }
        self.phase.send_replace(Phase::Closing { idle_from: Instant::now(), deadline });
    }
}

/// Drain times within the time that is granted, so that draining is over before the process is killed. Where they
/// do not fit, a third of it at most is lame duck.
pub(crate) fn fit(times: &DrainTimes, granted: Option<Duration>) -> DrainTimes {
    let Some(granted) = granted else { return times.clone() };
    let within = granted.saturating_sub(MARGIN);
    if times.deadline <= within {
        return times.clone();
    }
    DrainTimes { lame_duck: times.lame_duck.min(within / 3), deadline: times.deadline.min(within) }
}

/// Returns when a connection on which nothing has come since `quiet_since` may be closed.
pub(crate) async fn idle_may_close(phase: &mut watch::Receiver<Phase>, quiet_since: Instant) {
    until(phase, |idle_from, _| idle_from.max(quiet_since + QUIET)).await;
}

/// Returns when whatever is still open is cut off.
pub(crate) async fn cut_off(phase: &mut watch::Receiver<Phase>) {
    until(phase, |_, deadline| deadline).await;
}

/// Waits for the closing phase, and in it for a moment; the phase's times may move meanwhile.
async fn until(phase: &mut watch::Receiver<Phase>, moment: impl Fn(Instant, Instant) -> Instant) {
    loop {
        let present = *phase.borrow_and_update();
        let Phase::Closing { idle_from, deadline } = present else {
            if phase.changed().await.is_err() {
                return;
            }
            continue;
        };
        tokio::select! {
            () = tokio::time::sleep_until(moment(idle_from, deadline).min(deadline)) => return,
            changed = phase.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(lame_duck_ms: u64, deadline_ms: u64) -> DrainTimes {
        DrainTimes {
            lame_duck: Duration::from_millis(lame_duck_ms),
            deadline: Duration::from_millis(deadline_ms),
        }
    }

    #[tokio::test]
    async fn answers_close_before_the_listener_does() {
        let drain = Drain::default();
        let mut phase = drain.phase();
        let running = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run(&times(5, 30_000)).await }
        });
        phase.changed().await.unwrap();
        assert!(drain.has_begun() && !drain.has_successor() && *drain.shutdown_watch().borrow());
        assert_eq!(*phase.borrow_and_update(), Phase::LameDuck);
        phase.changed().await.unwrap();
        assert!(matches!(*phase.borrow(), Phase::Closing { .. }));
        running.await.unwrap();
    }

    #[tokio::test]
    async fn who_yielded_ends_without_accepting_again() {
        let drain = Drain::default();
        drain.yield_doors();
        let mut phase = drain.phase();
        phase.mark_unchanged();
        drain.run(&times(60_000, 60_000)).await;
        assert!(matches!(*phase.borrow(), Phase::Closing { .. }));
    }

    #[tokio::test]
    async fn a_retiring_edge_keeps_idle_connections_and_stays_ready() {
        let drain = Drain::default();
        drain.yield_doors();
        assert!(!drain.phase().borrow().accepts() && !*drain.shutdown_watch().borrow());
        let began = Instant::now();
        drain.retire(&times(0, 1_300));
        assert!(drain.has_successor() && !drain.has_begun() && *drain.shutdown_watch().borrow());
        idle_may_close(&mut drain.phase(), began).await;
        assert!(began.elapsed() >= RETIRE_IDLE, "{:?}", began.elapsed());
        let quiet_since = Instant::now();
        idle_may_close(&mut drain.phase(), quiet_since).await;
        assert!(quiet_since.elapsed() >= QUIET, "{:?}", quiet_since.elapsed());
        cut_off(&mut drain.phase()).await;
        assert!(began.elapsed() >= Duration::from_millis(1_300), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn an_end_cuts_a_retirement_short() {
        let drain = Drain::default();
        drain.yield_doors();
        drain.retire(&times(60_000, 600_000));
        let mut phase = drain.phase();
        let cut = tokio::spawn(async move { cut_off(&mut phase).await });
        drain.run(&times(60_000, 20)).await;
        tokio::time::timeout(Duration::from_secs(10), cut).await.unwrap().unwrap();
    }

    #[test]
    fn times_fit_into_what_is_granted() {
        assert_eq!(fit(&times(5_000, 30_000), None), times(5_000, 30_000));
        assert_eq!(fit(&times(5_000, 30_000), Some(Duration::from_millis(6_500))), times(2_000, 6_000));
        assert_eq!(fit(&times(1, 2), Some(Duration::from_secs(6))), times(1, 2));
        assert_eq!(fit(&times(8_000, 12_000), Some(Duration::from_millis(12_500))), times(8_000, 12_000));
    }
}
