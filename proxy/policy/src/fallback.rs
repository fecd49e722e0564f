//! What a client gets in place of an answer that its service did not give.
//!
//! Purpose: a reader sees an older answer, or one that says what to do, where the upstream is down; nobody who wanted
//! to change something is told anything but the truth.
//!
//! Exact conditions:
//! - It takes a failure of the upstream ([`is_failure`], [`is_failed_status`]): no connection, a broken or late
//!   answer, an open breaker, no instance, or a final 502, 503, 504. Refusals of the edge (credentials, limits, load,
//!   a switch) stay what they are.
//! - Only safe methods ([`Method::is_safe`]) have a stand-in, and the configuration refuses one for orders.
//! - An older answer goes before a fixed one. It is the answer to the same question: service, host, path, query, the
//!   caller with what it may do, and the fields named by its `Vary`. So no caller sees another's.
//! - Kept is a whole 200 to a GET that neither side forbids to keep ([`may_keep`], [`may_keep_for`]), which sets no
//!   cookie, and whose request had no cookie and showed the upstream no credential: those name callers that the edge
//!   does not know. `no-cache` and the revalidating directives forbid to show it unasked, so they forbid to keep it.
//!
//! [`Shelf`] holds what is kept, the longest there goes first. Cost: O(log n) an answer looked up or kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_wire::code::Code;

use crate::compress::has_directive;
use crate::method::Method;
use crate::time::Nanos;

/// LIMIT: bytes of one kept answer, its key and head included.
pub const KEPT_BYTES_MAX: usize = 256 << 10;
/// LIMIT: bytes of all kept answers.
pub const SHELF_BYTES_MAX: usize = 64 << 20;
/// LIMIT: kept answers.
pub const SHELF_ITEMS_MAX: usize = 8192;
/// LIMIT: fields that an answer may vary by and still be kept.
pub const VARY_MAX: usize = 8;

/// Whether a refusal tells of the upstream's failure.
pub const fn is_failure(code: Code) -> bool {
    matches!(
        code,
        Code::UpstreamRefused
            | Code::UpstreamInvalid
            | Code::UpstreamTimeout
            | Code::BreakerOpen
            | Code::NoHealthyInstance
    )
}

/// Whether an upstream's own status tells of its failure.
pub const fn is_failed_status(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// Whether a method has stand-ins.
pub const fn has_stand_in(method: Method) -> bool {
    method.is_safe()
}

/// Whether a `Cache-Control` of an answer lets it be kept and shown again without asking.
pub fn may_keep(cache_control: &[u8]) -> bool {
    let forbids = ["no-store", "private", "no-cache", "must-revalidate", "proxy-revalidate"];
    !forbids.into_iter().any(|directive| has_directive(cache_control, directive))
}

/// Whether a `Cache-Control` of a request lets its answer be kept, and an older one be shown.
pub fn may_keep_for(cache_control: &[u8]) -> bool {
    !has_directive(cache_control, "no-store")
}

/// The fields that an answer varies by, in lower case; `None` where it cannot be kept for them.
pub fn varies_by<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for value in values {
        for name in std::str::from_utf8(value).ok()?.split(',').map(str::trim).filter(|name| !name.is_empty())
        {
            let name = name.to_ascii_lowercase();
            if name == "*" {
                return None;
            }
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    (names.len() <= VARY_MAX).then_some(names)
}

/// What is kept, by key; bounded in number and bytes.
#[derive(Debug)]
pub struct Shelf<V> {
    items: BTreeMap<Arc<[u8]>, Item<V>>,
    /// The longest there first.
    order: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
    bytes: usize,
    bytes_max: usize,
    items_max: usize,
}

#[derive(Debug)]
struct Item<V> {
    place: u64,
    bytes: usize,
    at: Nanos,
    value: V,
}

impl<V> Shelf<V> {
    /// An empty shelf for so many bytes and items.
    pub fn new(bytes_max: usize, items_max: usize) -> Self {
        Self { items: BTreeMap::new(), order: BTreeMap::new(), next: 0, bytes: 0, bytes_max, items_max }
    }

    /// Keeps a value of so many bytes in place of the one with its key; what is too large is not kept, and then the
    /// older one is gone too.
    pub fn keep(&mut self, key: &[u8], bytes: usize, value: V, now: Nanos) {
        self.remove(key);
        let bytes = bytes.saturating_add(key.len());
        if bytes > self.bytes_max || self.items_max == 0 {
            return;
        }
        while self.bytes + bytes > self.bytes_max || self.items.len() >= self.items_max {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            self.bytes -= self.items.remove(&oldest).map_or(0, |item| item.bytes);
        }
        let (key, place): (Arc<[u8]>, u64) = (key.into(), self.next);
        self.next += 1;
        self.bytes += bytes;
        self.order.insert(place, Arc::clone(&key));
        self.items.insert(key, Item { place, bytes, at: now, value });
    }

    /// Forgets what has this key.
    pub fn remove(&mut self, key: &[u8]) {
        if let Some(item) = self.items.remove(key) {
            self.order.remove(&item.place);
            self.bytes -= item.bytes;
        }
    }

    /// What was kept with this key at most so long ago, and how long ago that was.
    pub fn find(&self, key: &[u8], within: Duration, now: Nanos) -> Option<(&V, Duration)> {
        let item = self.items.get(key)?;
        let age = now.since(item.at);
        (age <= within).then_some((&item.value, age))
    }

    /// Bytes kept now.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many are kept now.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether none is kept.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn failures_of_the_upstream_have_a_stand_in_and_refusals_have_none() {
        let failures: Vec<&str> =
            Code::ALL.iter().filter(|code| is_failure(**code)).map(|code| code.word()).collect();
        let known = [
            "upstream_refused",
            "upstream_invalid",
            "no_healthy_instance",
            "breaker_open",
            "upstream_timeout",
        ];
        assert_eq!(failures, known);
        assert!(
            is_failed_status(502)
                && is_failed_status(504)
                && !is_failed_status(500)
                && !is_failed_status(429)
        );
        let methods: Vec<Method> = Method::ALL.into_iter().filter(|method| has_stand_in(*method)).collect();
        assert_eq!(methods, [Method::Get, Method::Head, Method::Options, Method::List]);
    }

    #[test]
    fn what_either_side_forbids_is_not_kept() {
        for forbids in ["no-store", "Private", "max-age=5, no-cache", "private=\"x\"", "must-revalidate"] {
            assert!(!may_keep(forbids.as_bytes()), "{forbids}");
        }
        assert!(
            may_keep(b"max-age=0")
                && may_keep(b"")
                && may_keep_for(b"no-cache")
                && !may_keep_for(b"no-store")
        );
        let varies = |value: &'static str| varies_by([value.as_bytes()]);
        assert_eq!(varies("Accept, accept ,Accept-Language").unwrap(), ["accept", "accept-language"]);
        assert_eq!(varies("*"), None);
        assert_eq!(varies("a,b,c,d,e,f,g,h,i"), None);
        assert_eq!(varies("").unwrap(), Vec::<String>::new());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn a_shelf_holds_the_last_that_fit(
            steps in proptest::collection::vec((0_u8..6, 0_usize..60, 0_u64..50), 0..60)
        ) {
            let (bytes_max, items_max) = (100, 4);
            let mut shelf = Shelf::new(bytes_max, items_max);
            // Key, bytes, value, time; the last one kept last.
            let mut model: Vec<(u8, usize, usize, u64)> = Vec::new();
            let mut now = 0;
            for (number, (key, bytes, later)) in steps.into_iter().enumerate() {
                now += later;
                shelf.keep(&[key], bytes, number, Nanos(now));
                model.retain(|known| known.0 != key);
                if bytes < bytes_max {
                    model.push((key, bytes + 1, number, now));
                }
                while model.len() > items_max || model.iter().map(|known| known.1).sum::<usize>() > bytes_max {
                    model.remove(0);
                }
                prop_assert_eq!(shelf.len(), model.len());
                prop_assert_eq!(shelf.bytes(), model.iter().map(|known| known.1).sum::<usize>());
                for key in 0..6 {
                    let known = model.iter().find(|known| known.0 == key && now - known.3 <= 60);
                    let found = shelf.find(&[key], Duration::from_nanos(60), Nanos(now));
                    let found = found.map(|(value, age)| (*value, age.as_nanos() as u64));
                    prop_assert_eq!(found, known.map(|known| (known.2, now - known.3)));
                }
            }
            for key in 0..6 {
                shelf.remove(&[key]);
            }
            prop_assert!(shelf.is_empty() && shelf.bytes() == 0);
        }
    }
}
