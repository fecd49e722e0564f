//! Signals that wait in the kernel while nobody listens.
//!
//! A signal that comes between the old program's last look and the new program's first would be lost, or end
//! the process and with it every role. So it is held: blocked signals stay so over `exec`, and stay pending.

use nix::sys::signal::{SigSet, Signal};

/// What a supervisor listens to.
const HELD: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR2];

/// Signals are held back from this thread, and from threads that it starts, until it is dropped.
pub(crate) struct Hold(SigSet);

impl Hold {
    /// Holds them; where they are held already, by the program before this one, they stay so.
    pub(crate) fn take() -> Self {
        let held: SigSet = HELD.into_iter().collect();
        let _cannot_fail = held.thread_block();
        Self(held)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _cannot_fail = self.0.thread_unblock();
    }
}
