//! Sticky: the same account at the same instance for as long as that can be.
//!
//! Exact conditions: a key's first request is placed as `hash` places it and bound to that instance. It stays bound
//! while the instance may be picked at all: other weights, new instances and an instance that runs empty (`drain`)
//! move nobody. When its instance is gone, unhealthy, ejected or in maintenance, the key is bound anew among the
//! others, and stays there when the first one is back: an account changes its instance once a failure, not twice.
//! Another try of one request goes elsewhere without moving the binding, so one lost connection moves nobody.
//!
//! LIMIT: [`BINDINGS_MAX`] keys a service, 16 bytes each, allocated with the first one. The table is set-associative:
//! where a set of eight is full, the binding that was used longest ago goes, and its key is placed by `hash` the next
//! time. A binding that nobody used for [`BINDING_IDLE`] is forgotten. Other edges and later processes share no
//! bindings, but `hash` places alike everywhere: they differ for keys that were moved, until those are idle.

use std::time::Duration;

use super::Ask;
use super::field::Field;
use super::rendezvous::highest;
use crate::random::{below, mix};
use crate::time::Nanos;

/// Keys that one service remembers.
pub const BINDINGS_MAX: usize = SETS * WAYS;
/// A binding that is not used for this long is forgotten.
pub const BINDING_IDLE: Duration = Duration::from_secs(3600);
const SETS: usize = 1 << 13;
const WAYS: usize = 8;

/// Which key is bound to which instance.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    sets: Vec<[Binding; WAYS]>,
}

/// Id 0: a free place.
#[derive(Clone, Copy, Debug, Default)]
struct Binding {
    key: u64,
    id: u32,
    used_s: u32,
}

impl Bindings {
    pub(super) fn pick(&mut self, field: &Field, ask: &Ask<'_>, now: Nanos) -> Option<usize> {
        let now_s = (now.0 / 1_000_000_000) as u32;
        let place = self.place(ask.key, now_s);
        let bound = field.keeps(place.id);
        if let Some(index) = bound.filter(|_| !ask.tried.contains(&place.id)) {
            place.used_s = now_s;
            return Some(index);
        }
        let (side, fresh) = field.side(ask.tried);
        let chosen = highest(side, ask.key, |one| !fresh || !ask.tried.contains(&one.instance.id))?;
        if bound.is_none() {
            *place = Binding { key: ask.key, id: chosen.instance.id, used_s: now_s };
        }
        Some(chosen.index)
    }

    /// The binding of a key, or the place for it.
    fn place(&mut self, key: u64, now_s: u32) -> &mut Binding {
        if self.sets.is_empty() {
            self.sets = vec![Default::default(); SETS];
        }
        let set = &mut self.sets[below(SETS as u64, mix(key)) as usize];
        let idle_s = BINDING_IDLE.as_secs() as u32;
        for binding in set.iter_mut().filter(|one| now_s.saturating_sub(one.used_s) >= idle_s) {
            *binding = Binding::default();
        }
        let known = set.iter().position(|one| one.id != 0 && one.key == key);
        let oldest = || (0..WAYS).min_by_key(|at| (set[*at].id != 0, set[*at].used_s)).unwrap_or(0);
        let at = known.unwrap_or_else(oldest);
        if known.is_none() {
            set[at] = Binding::default();
        }
        &mut set[at]
    }

    /// How many keys are bound to an instance.
    #[cfg(test)]
    pub(super) fn count(&self, id: u32) -> usize {
        self.sets.iter().flatten().filter(|binding| binding.id == id).count()
    }
}
