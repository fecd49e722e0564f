//! What operators hold back, over reloads and restarts.
//!
//! The ledger has the records; here is what of them is known, by service and address, so that an instance that
//! comes again (a service registered anew, a file put back) is found held as it was left.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sluice_ledger::{Held, Ledger, LedgerError};
use sluice_policy::balance::Hold;

use crate::books::blocking;
use crate::clock;
use crate::upstream::Upstream;

/// Service and address.
type Key = (String, String);

/// What operators hold back.
#[derive(Default)]
pub(crate) struct Holds(Mutex<BTreeMap<Key, Held>>);

impl Holds {
    /// Takes what the ledger has.
    pub(crate) async fn load(&self, ledger: Arc<Ledger>) -> Result<(), LedgerError> {
        let listing = blocking(move || ledger.holds()).await?;
        for record in &listing.unreadable {
            let (instance, reason) = (record.name.as_str(), record.reason.as_str());
            tracing::warn!(component = "upstream", instance, reason, "what holds an instance cannot be read");
        }
        let held = listing.held.into_iter().map(|held| ((held.service.clone(), held.instance.clone()), held));
        *self.lock() = held.collect();
        Ok(())
    }

    /// Writes a change down, and then takes it; false where there is no room for one more. The caller holds the
    /// lock of changes.
    pub(crate) async fn put(&self, ledger: Arc<Ledger>, held: Held) -> Result<bool, LedgerError> {
        let record = held.clone();
        if !blocking(move || ledger.hold(&record)).await? {
            return Ok(false);
        }
        let key = (held.service.clone(), held.instance.clone());
        let mut known = self.lock();
        if held.hold == Hold::Ready {
            known.remove(&key);
        } else {
            known.insert(key, held);
        }
        Ok(true)
    }

    /// Holds the instances of a service as they are to be.
    pub(crate) fn apply(&self, upstream: &Upstream) {
        let (known, now) = (self.lock(), clock::now());
        for endpoint in upstream.roster().endpoints() {
            let key = (upstream.name.clone(), endpoint.label.clone());
            endpoint.instance.hold(known.get(&key).map_or(Hold::Ready, |held| held.hold), now);
        }
        drop(known);
        upstream.publish_health();
    }

    /// Who holds an instance, and why.
    pub(crate) fn of(&self, service: &str, instance: &str) -> Option<Held> {
        self.lock().get(&(service.to_owned(), instance.to_owned())).cloned()
    }

    /// Everything that is held.
    pub(crate) fn all(&self) -> Vec<Held> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
