//! Which version of a service a caller meets.
//!
//! Purpose: a share of the callers goes to another service, a canary, and stays with it.
//!
//! Exact conditions: an arm takes `weight` percent of the callers, the service itself what is left. A caller
//! is placed by a hash of who it is and of the service's name, so it meets the same version each time and
//! on every edge, and is not a canary everywhere at once. It is placed by its subject, without one by its address
//! (IPv6 by /64, as providers hand them out). Arms lie one behind the other: growing the last one
//! moves nobody out of it. Cost: one mix a byte of the subject and a walk over the arms.

use std::net::IpAddr;

use crate::random::mix;

/// The arms of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    salt: u64,
    /// Upper ends in hundredths of a percent.
    ends: Vec<u32>,
}

const WHOLE: u64 = 10_000;

impl Split {
    /// Arms of these weights, in percent; what goes beyond 100 together has no effect.
    pub fn new(service: &str, weights: impl IntoIterator<Item = u32>) -> Self {
        let salt = service.bytes().fold(0, |salt, byte| mix(salt ^ u64::from(byte)));
        let mut end = 0_u32;
        let ends = weights.into_iter().map(|weight| {
            end = end.saturating_add(weight.min(100) * 100);
            end
        });
        Self { salt, ends: ends.collect() }
    }

    /// Whether there are arms at all.
    pub fn is_on(&self) -> bool {
        !self.ends.is_empty()
    }

    /// The arm of a caller, `None` for the service itself. `caller` is a hash of who it is.
    pub fn arm(&self, caller: u64) -> Option<usize> {
        let place = (u128::from(mix(caller ^ self.salt)) * u128::from(WHOLE)) >> 64;
        self.ends.iter().position(|end| place < u128::from(*end))
    }
}

/// A hash of who a caller is, the same on every edge: its subject, without one its address.
pub fn caller(subject: Option<&str>, address: IpAddr) -> u64 {
    let fold =
        |kind: u64, bytes: &[u8]| bytes.iter().fold(mix(kind), |hash, byte| mix(hash ^ u64::from(*byte)));
    match (subject, address.to_canonical()) {
        (Some(subject), _) => fold(1, subject.as_bytes()),
        (None, IpAddr::V4(ip)) => fold(2, &ip.octets()),
        (None, IpAddr::V6(ip)) => fold(3, &ip.octets()[..8]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn arms_get_their_share_and_services_place_callers_differently() {
        let (one, two) = (Split::new("data", [5, 20]), Split::new("trading", [5]));
        let mut hits = [0_u32; 3];
        let mut both = 0;
        for caller in 0..100_000 {
            hits[one.arm(caller).map_or(2, |arm| arm)] += 1;
            both += u32::from(one.arm(caller) == Some(0) && two.arm(caller) == Some(0));
        }
        for (hit, percent) in hits.iter().zip([5, 20, 75]) {
            assert!(hit.abs_diff(percent * 1000) < 600, "{hits:?}");
        }
        assert!(both.abs_diff(250) < 100, "{both}");
        assert_eq!(Split::default().arm(7), None);
    }

    #[test]
    fn callers_are_their_subjects_else_their_networks() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(caller(Some("alice"), ip("10.0.0.1")), caller(Some("alice"), ip("10.0.0.2")));
        assert_ne!(caller(Some("alice"), ip("10.0.0.1")), caller(Some("bob"), ip("10.0.0.1")));
        assert_eq!(caller(None, ip("10.0.0.1")), caller(None, ip("::ffff:10.0.0.1")));
        assert_ne!(caller(None, ip("10.0.0.1")), caller(None, ip("10.0.0.2")));
        assert_eq!(caller(None, ip("2001:db8::1")), caller(None, ip("2001:db8::2")));
        assert_ne!(caller(None, ip("2001:db8::1")), caller(None, ip("2001:db8:0:1::1")));
    }

    proptest! {
        #[test]
        fn who_is_in_stays_in_while_the_arm_grows(caller: u64, weight in 0_u32..=100, more in 0_u32..=100) {
            let grown = (weight + more).min(100);
            let before = Split::new("data", [weight]).arm(caller);
            let after = Split::new("data", [grown]).arm(caller);
            prop_assert!(before.is_none() || after == before);
            prop_assert_eq!(Split::new("data", [100]).arm(caller), Some(0));
        }
    }
}
