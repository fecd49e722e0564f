//! How the edge ends: `/readyz` 503 and `Connection: close` at once, new connections taken until the
//! lame duck is over, then idle ones closed and the rest finished until the deadline.

use std::sync::Arc;
use std::time::Duration;

use sluice_schema::Drain as DrainTimes;
use tokio::sync::watch;
use tokio::time::Instant;

/// How far the end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Serving.
    Serving,
    /// Still accepting; answers carry `Connection: close`.
    LameDuck,
    /// Not accepting; idle connections close, the rest has until the deadline.
    Closing {
        /// When what is left is cut off.
        deadline: Instant,
    },
}

/// The phase, shared.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    phase: Arc<watch::Sender<Phase>>,
    closing: Arc<watch::Sender<bool>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Serving)),
            closing: Arc::new(watch::Sender::new(false)),
        }
    }
}

impl Drain {
    /// Whether the end has begun.
    pub(crate) fn has_begun(&self) -> bool {
        *self.closing.borrow()
    }

    /// Turns true when answers are to carry `Connection: close`; Pingora watches this.
    pub(crate) fn shutdown_watch(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// Follows the phase.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Runs through the phases; returns when accepting has ended.
    pub(crate) async fn run(&self, times: &DrainTimes) {
        let deadline = Instant::now() + times.deadline.max(Duration::from_millis(1));
        self.closing.send_replace(true);
        self.phase.send_replace(Phase::LameDuck);
        tokio::time::sleep_until((Instant::now() + times.lame_duck).min(deadline)).await;
        self.phase.send_replace(Phase::Closing { deadline });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_close_before_the_listener_does() {
        let drain = Drain::default();
        let mut phase = drain.phase();
        let times = DrainTimes { lame_duck: Duration::from_millis(5), deadline: Duration::from_secs(30) };
        let running = tokio::spawn({
            let drain = drain.clone();
            async move { drain.run(&times).await }
        });
        phase.changed().await.unwrap();
        assert!(drain.has_begun() && *drain.shutdown_watch().borrow());
        assert_eq!(*phase.borrow_and_update(), Phase::LameDuck);
        phase.changed().await.unwrap();
        assert!(matches!(*phase.borrow(), Phase::Closing { .. }));
        running.await.unwrap();
    }
}
