//! The signal that a process is to end.

use tokio::sync::watch;

/// Held by whoever ends the process.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Held by everything that has to end; cheap to clone.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stopper {
    /// A stopper and its signal.
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    /// Asks everything to end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Whether the process is to end: `true` as soon as [`wait`](Self::wait) returns.
    pub fn is_stopping(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Returns when the process is to end, also when the stopper is gone.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        let _stopper_gone_is_stop = receiver.wait_for(|stopping| *stopping).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waited_finds_the_end() {
        for is_told in [true, false] {
            let (stopper, stop) = Stopper::new();
            assert!(!stop.is_stopping());
            if is_told {
                stopper.stop();
            } else {
                drop(stopper);
            }
            stop.wait().await;
            assert!(stop.is_stopping(), "told: {is_told}");
        }
    }
}
