//! Failed authentications of one address: past [`FAILURES_A_MINUTE`] no credential of it is looked at.
//!
//! It spares the edge the signatures of someone who guesses, and makes guessing slow. A success gives
//! nothing back; time does. LIMIT: [`ADDRESSES_MAX`] addresses; past it those are forgotten whose
//! budget is whole again, and when none is, all are: forgetting errs towards letting callers in.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foldhash::HashMap;
use sluice_policy::limit::Gcra;
use sluice_policy::time::Nanos;

use sluice_http::address_key;

/// Failed authentications of one address in a minute.
pub(crate) const FAILURES_A_MINUTE: u64 = 60;
/// LIMIT: addresses remembered.
const ADDRESSES_MAX: usize = 16 << 10;

/// The budgets of all addresses.
pub(crate) struct AuthThrottle {
    gcra: Gcra,
    /// False until the first failure: the common request takes no lock.
    used: AtomicBool,
    failed: Mutex<HashMap<IpAddr, u64>>,
}

impl Default for AuthThrottle {
    fn default() -> Self {
        let gcra = Gcra::new(FAILURES_A_MINUTE, Duration::from_secs(60), FAILURES_A_MINUTE);
        Self { gcra, used: AtomicBool::new(false), failed: Mutex::default() }
    }
}

impl AuthThrottle {
    /// How long this address has to wait before a credential of it is looked at; `None`: not at all.
    pub(crate) fn wait(&self, ip: IpAddr, now: Nanos) -> Option<Duration> {
        if !self.used.load(Ordering::Relaxed) {
            return None;
        }
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let tat = *failed.get(&address_key(ip))?;
        let (decision, _) = self.gcra.check(now, tat);
        (!decision.allowed).then_some(decision.retry_after)
    }

    /// Counts a failed authentication.
    pub(crate) fn fail(&self, ip: IpAddr, now: Nanos) {
        self.used.store(true, Ordering::Relaxed);
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.len() >= ADDRESSES_MAX {
            let whole = |tat: u64| self.gcra.check(now, tat).0.remaining + 1 >= FAILURES_A_MINUTE;
            failed.retain(|_, tat| !whole(*tat));
            if failed.len() >= ADDRESSES_MAX {
                failed.clear();
            }
        }
        let tat = failed.entry(address_key(ip)).or_default();
        *tat = self.gcra.check(now, *tat).1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_failures_a_minute_are_the_end_for_one_address() {
        let throttle = AuthThrottle::default();
        let (bad, other): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let now = Nanos::from_secs(100);
        for failure in 0..FAILURES_A_MINUTE {
            assert_eq!(throttle.wait(bad, now), None, "{failure}");
            throttle.fail(bad, now);
        }
        let wait = throttle.wait(bad, now).unwrap();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(throttle.wait(other, now), None);
        assert_eq!(throttle.wait(bad, now.plus(Duration::from_secs(2))), None);
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = AuthThrottle::default();
        for number in 0..=(ADDRESSES_MAX as u32 * 2) {
            throttle.fail(std::net::Ipv4Addr::from(number).into(), Nanos::from_secs(u64::from(number)));
        }
        assert!(throttle.failed.lock().unwrap().len() <= ADDRESSES_MAX);
    }
}
