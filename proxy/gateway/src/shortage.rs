//! When this process itself has run short of what a connection takes: descriptors, memory.
//!
//! A connect that fails for it says nothing about the instance: it counts neither for ejection nor for the breaker
//! nor as a probe, and is not tried again elsewhere, where it would fail alike. Local ports are another matter: they
//! run out towards one address, or there is no route of its family; another instance helps then.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use pingora::Error;
use rustix::io::Errno;

use crate::clock;

/// What the system says then.
const SHORT_OF: [Errno; 4] = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
/// Between two lines of the log about it.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether a connection could not be made because this process is short of something.
pub(crate) fn is_own(error: &Error) -> bool {
    number(error.root_cause())
        .is_some_and(|number| SHORT_OF.iter().any(|errno| errno.raw_os_error() == number))
}

/// What the system said, where an error or a cause of it is the system's.
fn number(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    match error.downcast_ref::<io::Error>() {
        Some(error) => error.raw_os_error(),
        None => number(error.source()?),
    }
}

/// Says so in the log, once a second.
pub(crate) fn tell(error: &Error) {
    static SAID: AtomicU64 = AtomicU64::new(0);
    let (now, said) = (clock::now().0.max(1), SAID.load(Relaxed));
    let due = said == 0 || now.saturating_sub(said) >= PAUSE.as_nanos() as u64;
    if due && SAID.compare_exchange(said, now, Relaxed, Relaxed).is_ok() {
        let cause = error.root_cause().to_string();
        tracing::error!(component = "upstream", cause, "this process can open no more connections");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora::ErrorType;

    #[test]
    fn what_this_process_lacks_is_told_from_what_an_instance_does() {
        let failed = |errno: Errno| {
            let cause = io::Error::from_raw_os_error(errno.raw_os_error());
            let inner = Error::because(ErrorType::SocketError, "failed to create socket", cause);
            Error::because(ErrorType::InternalError, "Fail to establish TCP connection", inner)
        };
        for errno in SHORT_OF {
            assert!(is_own(&failed(errno)), "{errno}");
        }
        for errno in [Errno::CONNREFUSED, Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::ADDRNOTAVAIL] {
            assert!(!is_own(&failed(errno)), "{errno}");
        }
        assert!(!is_own(&Error::new(ErrorType::ConnectTimedout)));
    }
}
