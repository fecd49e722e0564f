//! A place whose answer goes out. While the client takes nothing, nobody waits for the upstream: the place is given
//! back, or readers that take their time could keep everybody else from it.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sluice_policy::concurrency::Ended;

use super::Pass;

/// Where the place of a request lies while a long answer goes out; empty for all others.
#[derive(Default)]
pub(crate) struct Lent {
    there: AtomicBool,
    place: Mutex<Option<(Pass, Ended)>>,
}

impl Lent {
    /// Takes a place, and how its call ends as far as is known.
    pub(crate) fn put(&self, pass: Pass, ended: Ended) {
        *self.lock() = Some((pass, ended));
        self.there.store(true, Ordering::Release);
    }

    /// Its place, where it was not given back.
    pub(crate) fn take(&self) -> Option<Pass> {
        self.remove().map(|(pass, _)| pass)
    }

    /// The client takes nothing.
    pub(crate) fn give_back(&self) {
        if let Some((pass, ended)) = self.remove() {
            pass.left(ended);
        }
    }

    fn remove(&self) -> Option<(Pass, Ended)> {
        if !self.there.swap(false, Ordering::AcqRel) {
            return None;
        }
        self.lock().take()
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Pass, Ended)>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lent").field(&self.there).finish()
    }
}
