//! The registry overlay: services registered over the API.
//!
//! One record a service, under its name: a JSON object with a format number of its own, so that a field
//! can join without rewriting the file. A record that this version cannot read, or whose registration
//! is no longer valid, is left where it is and listed apart; it never keeps the edge from starting.
//!
//! A lease that has ended counts as absent in every call; [`Ledger::expire`] removes its record.
//! LIMIT: `[registry] max` records, checked where a name is added, in the same transaction.

use std::time::Duration;

use redb::{ReadableTable, TableDefinition, TableError, WriteTransaction};
use serde::{Deserialize, Serialize};
use sluice_policy::registry::{Effect, Registration, RegistrationFault, admit};
use sluice_schema::Config;
use thiserror::Error;

use crate::{Ledger, LedgerError};

const REGISTRY: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("registry");
/// Version of a record.
const RECORD_FORMAT: u32 = 1;

/// A registered service.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// What was registered.
    pub registration: Registration,
    /// Subject that registered it last.
    pub registered_by: String,
    /// Wall time of its first registration, in milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Wall time at which its lease ends; `None`: it has none.
    pub expires_at_ms: Option<u64>,
}

/// Everything registered at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// The services whose lease runs, by name.
    pub entries: Vec<Entry>,
    /// Records that cannot be used.
    pub unreadable: Vec<Unreadable>,
}

/// A record that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The name it is kept under.
    pub name: String,
    /// Why.
    pub reason: String,
}

/// Why a registration is not recorded.
#[derive(Debug, Error)]
pub enum RegisterError {
    /// It may not be registered.
    #[error(transparent)]
    Refused(#[from] RegistrationFault),
    /// It could not be written.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// An entry on the disk.
#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    registration: Registration,
    registered_by: String,
    created_at_ms: u64,
    expires_at_ms: Option<u64>,
}

/// What every version of a record has.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl Entry {
    /// Whether its lease has ended.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms.is_some_and(|expires| expires <= now_ms)
    }

    fn encode(&self) -> Vec<u8> {
        let record = Record {
            format: RECORD_FORMAT,
            registration: self.registration.clone(),
            registered_by: self.registered_by.clone(),
            created_at_ms: self.created_at_ms,
            expires_at_ms: self.expires_at_ms,
        };
        serde_json::to_vec(&record).expect("a record has string keys only")
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let version: Version = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if version.format != RECORD_FORMAT {
            return Err(format!("record format {}; this version reads {RECORD_FORMAT}", version.format));
        }
        let record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let Record { registration, registered_by, created_at_ms, expires_at_ms, .. } = record;
        Ok(Self { registration, registered_by, created_at_ms, expires_at_ms })
    }
}

impl Ledger {
    /// Admits a registration by the rules of `sluice_policy::registry::admit` and records it, all in one
    /// transaction: two callers cannot both get the last place. Its lease begins now.
    ///
    /// # Errors
    /// [`RegisterError`]; nothing has changed then.
    pub fn register(
        &self,
        registration: &Registration,
        config: &Config,
        registered_by: &str,
        now_ms: u64,
    ) -> Result<(Effect, Entry), RegisterError> {
        let recorded = self.store.write(|transaction| {
            let live = live(&transaction.open_table(REGISTRY)?, now_ms)?.entries;
            let effect = match admit(registration, config, live.iter().map(|entry| &entry.registration)) {
                Ok(effect) => effect,
                Err(fault) => return Ok(Err(fault)),
            };
            let known = live.iter().find(|entry| entry.registration.name == registration.name);
            let entry = Entry {
                registration: registration.clone(),
                registered_by: registered_by.to_owned(),
                created_at_ms: known.map_or(now_ms, |entry| entry.created_at_ms),
                expires_at_ms: lease_end(registration, config, now_ms),
            };
            put(transaction, &entry)?;
            Ok(Ok((effect, entry)))
        })?;
        Ok(recorded?)
    }

    /// Begins the lease of a service anew; `None` where nothing of that name is registered.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn heartbeat(&self, name: &str, config: &Config, now_ms: u64) -> Result<Option<Entry>, LedgerError> {
        let renewed = self.store.write(|transaction| {
            let Some(mut entry) = get(&transaction.open_table(REGISTRY)?, name, now_ms)? else {
                return Ok(Err(()));
            };
            entry.expires_at_ms = lease_end(&entry.registration, config, now_ms);
            put(transaction, &entry)?;
            Ok(Ok(entry))
        })?;
        Ok(renewed.ok())
    }

    /// Removes a service; `None` where nothing of that name is registered.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn remove(&self, name: &str, now_ms: u64) -> Result<Option<Entry>, LedgerError> {
        let removed = self.store.write(|transaction| {
            let mut table = transaction.open_table(REGISTRY)?;
            let Some(entry) = get(&table, name, now_ms)? else { return Ok(Err(())) };
            table.remove(name)?;
            Ok(Ok(entry))
        })?;
        Ok(removed.ok())
    }

    /// Everything registered now.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn list(&self, now_ms: u64) -> Result<Listing, LedgerError> {
        self.store.read(|transaction| match transaction.open_table(REGISTRY) {
            Ok(table) => live(&table, now_ms),
            Err(TableError::TableDoesNotExist(_)) => Ok(Listing::default()),
            Err(error) => Err(error.into()),
        })
    }

    /// Removes the records whose lease has ended and returns their names. Writes only where there are any.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn expire(&self, now_ms: u64) -> Result<Vec<String>, LedgerError> {
        let ended = self.store.write(|transaction| {
            let mut table = transaction.open_table(REGISTRY)?;
            let mut names = Vec::new();
            for record in table.iter()? {
                let (name, bytes) = record?;
                if Entry::decode(bytes.value()).is_ok_and(|entry| entry.is_expired(now_ms)) {
                    names.push(name.value().to_owned());
                }
            }
            for name in &names {
                table.remove(name.as_str())?;
            }
            Ok(if names.is_empty() { Err(()) } else { Ok(names) })
        })?;
        Ok(ended.unwrap_or_default())
    }
}

fn live(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    now_ms: u64,
) -> Result<Listing, redb::Error> {
    let mut listing = Listing::default();
    for record in table.iter()? {
        let (name, bytes) = record?;
        match Entry::decode(bytes.value()) {
            Ok(entry) if entry.is_expired(now_ms) => {}
            Ok(entry) => listing.entries.push(entry),
            Err(reason) => listing.unreadable.push(Unreadable { name: name.value().to_owned(), reason }),
        }
    }
    Ok(listing)
}

fn get(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
    now_ms: u64,
) -> Result<Option<Entry>, redb::Error> {
    let entry = table.get(name)?.and_then(|bytes| Entry::decode(bytes.value()).ok());
    Ok(entry.filter(|entry| !entry.is_expired(now_ms)))
}

fn put(transaction: &WriteTransaction, entry: &Entry) -> Result<(), redb::Error> {
    transaction.open_table(REGISTRY)?.insert(entry.registration.name.as_str(), entry.encode().as_slice())?;
    Ok(())
}

fn lease_end(registration: &Registration, config: &Config, now_ms: u64) -> Option<u64> {
    let millis = |lease: Duration| u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    registration.lease(config).map(|lease| now_ms.saturating_add(millis(lease)))
}

#[cfg(test)]
mod tests;
