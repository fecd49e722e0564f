//! Services registered over the API: leases, persistence, routing.
//!
//! A registration is written to the ledger before it is answered, then routes at once. What cannot route
//! any more (a file took its prefix, its address is no longer allowed) stays in the ledger and out of the
//! table, with a warning. LIMIT: `[registry] max` services, which the ledger enforces.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use sluice_ledger::{Entry, Ledger, LedgerError};
use sluice_policy::registry::{AddressFault, AddressRules, Effect, Registration, RegistrationFault, admit};
use sluice_schema::{Config, InstanceUrl, Service};

use crate::books::blocking;
use crate::clock;
use crate::forbidden::Forbidden;
use crate::resolver::{Resolve, resolve};
use crate::state::Shared;

/// Between two looks for leases that ended.
const EXPIRY_CHECK: Duration = Duration::from_millis(500);

/// Why a registration is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegisterError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] RegistrationFault),
    /// A name of it does not resolve.
    #[error("instance {0}: its name does not resolve")]
    Unresolved(usize),
    /// It could not be written.
    #[error("the registry could not be written")]
    Ledger(#[from] LedgerError),
}

/// What is registered, and what keeps it.
pub(crate) struct Registrations {
    ledger: Arc<Ledger>,
    entries: Mutex<BTreeMap<String, Entry>>,
    forbidden: Forbidden,
    /// The rules of the configuration in force.
    rules: Arc<ArcSwap<AddressRules>>,
    resolver: Arc<dyn Resolve>,
    /// One change at a time, from admission to the table.
    pub(crate) change: tokio::sync::Mutex<()>,
}

impl Registrations {
    /// Nothing registered yet: the ledger is closed.
    pub(crate) fn new(ledger: Ledger, forbidden: Forbidden, resolver: Arc<dyn Resolve>) -> Self {
        Self {
            ledger: Arc::new(ledger),
            entries: Mutex::default(),
            forbidden,
            rules: Arc::default(),
            resolver,
            change: tokio::sync::Mutex::default(),
        }
    }

    /// Opens the ledger and takes what is registered in it; false where that is what was known. The caller
    /// holds [`Self::change`] and puts it in force afterwards.
    pub(crate) async fn load(&self) -> Result<bool, LedgerError> {
        let ledger = Arc::clone(&self.ledger);
        let listing = blocking(move || {
            ledger.reopen()?;
            ledger.list(clock::unix_ms())
        });
        let listing = listing.await?;
        for record in &listing.unreadable {
            tracing::warn!(
                component = "registry",
                service = record.name.as_str(),
                reason = record.reason.as_str(),
                "registration cannot be read"
            );
        }
        let entries = listing.entries.into_iter().map(|entry| (entry.registration.name.clone(), entry));
        let entries = entries.collect();
        let mut known = self.entries();
        let changed = *known != entries;
        *known = entries;
        Ok(changed)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What keeps them.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        Arc::clone(&self.ledger)
    }

    /// The rules in force, as they change.
    pub(crate) fn in_force(&self) -> Arc<ArcSwap<AddressRules>> {
        Arc::clone(&self.rules)
    }

    /// Judges by the rules of this configuration from now on.
    pub(crate) fn adopt(&self, config: &Config) {
        self.rules.store(Arc::new(self.forbidden.rules(config)));
    }

    /// Reads again which addresses are this machine's and the store's.
    pub(crate) async fn refresh(&self, config: &Config) {
        self.forbidden.refresh(&*self.resolver).await;
        self.adopt(config);
    }

    /// The services that may route under a configuration.
    pub(crate) fn services(&self, config: &Config) -> Vec<Service> {
        let entries = self.entries();
        let rules = self.forbidden.rules(config);
        let mut accepted: Vec<&Registration> = Vec::new();
        for registration in entries.values().map(|entry| &entry.registration) {
            let refused = admit(registration, config, accepted.iter().copied()).err();
            match refused.or_else(|| forbidden(registration, &rules)) {
                None => accepted.push(registration),
                Some(fault) => tracing::warn!(
                    component = "registry",
                    service = registration.name.as_str(),
                    %fault,
                    "registration does not route"
                ),
            }
        }
        accepted.into_iter().map(|registration| registration.service(config)).collect()
    }

    /// Judges a registration beside what is there, and says what it would do.
    pub(crate) fn judge(
        &self,
        registration: &Registration,
        config: &Config,
    ) -> Result<Effect, RegistrationFault> {
        let entries = self.entries();
        admit(registration, config, entries.values().map(|entry| &entry.registration))
    }

    /// Whether a service of this name is registered.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries().contains_key(name)
    }

    /// Writes a registration that was judged. The caller holds [`Self::change`] and puts it in force
    /// afterwards.
    pub(crate) async fn put(
        &self,
        registration: Registration,
        config: &Arc<Config>,
        by: &str,
    ) -> Result<(Effect, Entry), RegisterError> {
        let (ledger, config, by) = (Arc::clone(&self.ledger), Arc::clone(config), by.to_owned());
        let written = blocking(move || ledger.register(&registration, &config, &by, clock::unix_ms())).await;
        let (effect, entry) = written.map_err(|error| match error {
            sluice_ledger::RegisterError::Refused(fault) => RegisterError::Refused(fault),
            sluice_ledger::RegisterError::Ledger(error) => RegisterError::Ledger(error),
        })?;
        self.entries().insert(entry.registration.name.clone(), entry.clone());
        Ok((effect, entry))
    }

    /// Begins the lease of a registration anew; `None` where there is none of this name.
    pub(crate) async fn renew(&self, name: &str, config: &Arc<Config>) -> Result<Option<Entry>, LedgerError> {
        let (ledger, config, owned) = (Arc::clone(&self.ledger), Arc::clone(config), name.to_owned());
        let renewed = blocking(move || ledger.heartbeat(&owned, &config, clock::unix_ms())).await?;
        if let Some(entry) = &renewed {
            self.entries().insert(name.to_owned(), entry.clone());
        }
        Ok(renewed)
    }

    /// Removes a registration; false where there is none of this name.
    pub(crate) async fn remove(&self, name: &str) -> Result<bool, LedgerError> {
        let (ledger, owned) = (Arc::clone(&self.ledger), name.to_owned());
        let removed = blocking(move || ledger.remove(&owned, clock::unix_ms())).await?;
        self.entries().remove(name);
        Ok(removed.is_some())
    }

    /// Takes what has an ended lease out of the table, whatever the disk says, and then from the ledger;
    /// returns the names.
    async fn expire(&self) -> (Vec<String>, Result<(), LedgerError>) {
        let (ledger, now) = (Arc::clone(&self.ledger), clock::unix_ms());
        let mut names = Vec::new();
        self.entries().retain(|name, entry| {
            let ended = entry.is_expired(now);
            names.extend(ended.then(|| name.clone()));
            !ended
        });
        // A record that stays behind counts as absent, and goes with the next.
        let removed = blocking(move || ledger.expire(now)).await;
        (names, removed.map(|_| ()))
    }

    fn has_ended(&self) -> bool {
        if !self.ledger.is_open() {
            // Whoever has it open looks after the leases.
            return false;
        }
        let now = clock::unix_ms();
        self.entries().values().any(|entry| entry.is_expired(now))
    }

    /// Closes the ledger, so that a successor can open it; changes are refused from now on.
    pub(crate) async fn close(&self) {
        let ledger = Arc::clone(&self.ledger);
        blocking(move || ledger.close()).await;
    }

    /// Every address an instance has must be allowed; names are resolved for it, all at once. It takes as long
    /// as the slowest name, so nothing else waits for it.
    pub(crate) async fn check_addresses(
        &self,
        registration: &Registration,
        config: &Config,
    ) -> Result<(), RegisterError> {
        let rules = self.forbidden.rules(config);
        let each = registration.instances.iter().enumerate();
        let checks = each.map(|(index, instance)| self.check_instance(&rules, index, &instance.url));
        join_all(checks).await.into_iter().collect()
    }

    async fn check_instance(
        &self,
        rules: &AddressRules,
        index: usize,
        url: &InstanceUrl,
    ) -> Result<(), RegisterError> {
        let refused = |source| RegistrationFault::Address { index, source };
        if self.forbidden.is_store(&url.host, url.port) {
            return Err(refused(AddressFault::Own).into());
        }
        let addresses = if let Some(ip) = url.ip() {
            vec![SocketAddr::new(ip, url.port)]
        } else {
            let found = resolve(&*self.resolver, &url.host, url.port).await;
            found.ok_or(RegisterError::Unresolved(index))?
        };
        for address in addresses {
            rules.check(address).map_err(refused)?;
        }
        Ok(())
    }
}

/// The first instance whose written address is no longer allowed. Names are judged when they resolve.
fn forbidden(registration: &Registration, rules: &AddressRules) -> Option<RegistrationFault> {
    registration.instances.iter().enumerate().find_map(|(index, instance)| {
        let address = SocketAddr::new(instance.url.ip()?, instance.url.port);
        let source = rules.check(address).err()?;
        Some(RegistrationFault::Address { index, source })
    })
}

/// Removes registrations whose lease ended, for ever.
pub(crate) async fn expire(shared: Arc<Shared>) -> Infallible {
    loop {
        tokio::time::sleep(EXPIRY_CHECK).await;
        if !shared.registrations.has_ended() {
            continue;
        }
        let _one_at_a_time = shared.registrations.change.lock().await;
        let (names, removed) = shared.registrations.expire().await;
        tracing::info!(component = "registry", services = names.join(" "), "leases ended");
        if let Err(error) = removed {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(component = "registry", error, "ended leases stay in the ledger for now");
        }
        if let Err(error) = shared.rebuild() {
            tracing::error!(component = "registry", %error, "table not rebuilt");
        }
        for name in &names {
            shared.announcer.deregistered(shared.kill.edge(), name, None);
        }
    }
}
