//! Instances that an operator holds back: they stay so over a restart.
//!
//! One record an instance, under its service's name and its address: a JSON object with a format number of its own.
//! A record that this version cannot read is left where it is and listed apart; it never keeps the edge from
//! starting. What is ready has no record. LIMIT: [`HOLDS_MAX`] records.

use redb::{ReadableTable, ReadableTableMetadata, TableDefinition, TableError};
use serde::{Deserialize, Serialize};
use sluice_policy::balance::Hold;

use crate::{Ledger, LedgerError, Unreadable};

const HOLDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("holds");
/// Version of a record.
const RECORD_FORMAT: u32 = 1;
/// Instances held back at once.
pub const HOLDS_MAX: u64 = 4096;

/// One instance that is held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Name of its service.
    pub service: String,
    /// Its address as it is shown.
    pub instance: String,
    /// Drain or maintenance.
    pub hold: Hold,
    /// Why, in the operator's words; may be empty.
    pub reason: String,
    /// Subject that said so.
    pub by: String,
    /// Wall time, in milliseconds since the epoch.
    pub since_ms: u64,
}

/// Everything held back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldListing {
    /// What can be read, by service and address.
    pub held: Vec<Held>,
    /// Records that cannot be used.
    pub unreadable: Vec<Unreadable>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    hold: String,
    reason: String,
    by: String,
    since_ms: u64,
}

/// No name and no address has a line end.
fn key(service: &str, instance: &str) -> String {
    format!("{service}\n{instance}")
}

impl Held {
    fn decode(key: &str, bytes: &[u8]) -> Result<Self, String> {
        let record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let (service, instance) = key.split_once('\n').ok_or("its key names no instance")?;
        if record.format != RECORD_FORMAT {
            return Err(format!("record format {}; this version reads {RECORD_FORMAT}", record.format));
        }
        let hold = Hold::parse(&record.hold).ok_or_else(|| format!("`{}` is no state", record.hold))?;
        let (service, instance) = (service.to_owned(), instance.to_owned());
        Ok(Self { service, instance, hold, reason: record.reason, by: record.by, since_ms: record.since_ms })
    }
}

impl Ledger {
    /// Records that an instance is held back, or ready again; false where there is no room for one more.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn hold(&self, held: &Held) -> Result<bool, LedgerError> {
        let key = key(&held.service, &held.instance);
        let record = Record {
            format: RECORD_FORMAT,
            hold: held.hold.as_str().to_owned(),
            reason: held.reason.clone(),
            by: held.by.clone(),
            since_ms: held.since_ms,
        };
        let bytes = serde_json::to_vec(&record).expect("a record has string keys only");
        let written = self.store.write(|transaction| {
            let mut table = transaction.open_table(HOLDS)?;
            if held.hold == Hold::Ready {
                table.remove(key.as_str())?;
                return Ok(Ok(()));
            }
            if table.get(key.as_str())?.is_none() && table.len()? >= HOLDS_MAX {
                return Ok(Err(()));
            }
            table.insert(key.as_str(), bytes.as_slice())?;
            Ok(Ok(()))
        })?;
        Ok(written.is_ok())
    }

    /// Everything held back.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn holds(&self) -> Result<HoldListing, LedgerError> {
        self.store.read(|transaction| {
            let table = match transaction.open_table(HOLDS) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(HoldListing::default()),
                Err(error) => return Err(error.into()),
            };
            let mut listing = HoldListing::default();
            for record in table.iter()? {
                let (key, bytes) = record?;
                match Held::decode(key.value(), bytes.value()) {
                    Ok(held) => listing.held.push(held),
                    Err(reason) => {
                        listing.unreadable.push(Unreadable { name: key.value().replace('\n', " "), reason });
                    }
                }
            }
            Ok(listing)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(n: u64, hold: Hold) -> Held {
        Held {
            service: "api".into(),
            instance: format!("http://10.0.0.1:{n}"),
            hold,
            reason: "a new kernel".into(),
            by: "operator".into(),
            since_ms: n,
        }
    }

    #[test]
    fn what_is_held_back_is_there_after_a_restart_and_what_is_ready_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.holds().unwrap(), HoldListing::default());
        for one in [held(1, Hold::Maint), held(2, Hold::Drain), held(1, Hold::Drain), held(3, Hold::Maint)] {
            assert!(ledger.hold(&one).unwrap());
        }
        assert!(ledger.hold(&held(3, Hold::Ready)).unwrap());
        drop(ledger);
        let listing = Ledger::open(dir.path()).unwrap().holds().unwrap();
        assert_eq!(listing.held, [held(1, Hold::Drain), held(2, Hold::Drain)]);
    }

    #[test]
    fn a_record_of_another_version_is_listed_apart() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert!(ledger.hold(&held(1, Hold::Maint)).unwrap());
        let put = |key: &str, text: &str| {
            let written = ledger.store.write(|transaction| {
                transaction.open_table(HOLDS)?.insert(key, text.as_bytes())?;
                Ok(Ok::<(), ()>(()))
            });
            assert_eq!(written.unwrap(), Ok(()));
        };
        put("api\nhttp://a:1", r#"{"format":2,"hold":"maint","reason":"","by":"","since_ms":0}"#);
        put("api\nhttp://b:1", r#"{"format":1,"hold":"asleep","reason":"","by":"","since_ms":0}"#);
        put("odd", r#"{"format":1,"hold":"maint","reason":"","by":"","since_ms":0}"#);
        let listing = ledger.holds().unwrap();
        assert_eq!((listing.held.len(), listing.unreadable.len()), (1, 3));
    }

    #[test]
    fn records_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let full = ledger.store.write(|transaction| {
            let mut table = transaction.open_table(HOLDS)?;
            for n in 0..HOLDS_MAX {
                table.insert(format!("x\n{n}").as_str(), b"".as_slice())?;
            }
            Ok(Ok::<(), ()>(()))
        });
        assert_eq!(full.unwrap(), Ok(()));
        assert!(!ledger.hold(&held(1, Hold::Maint)).unwrap());
        assert!(ledger.hold(&held(1, Hold::Ready)).unwrap());
    }
}
