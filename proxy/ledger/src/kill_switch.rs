//! The kill switches: what is known of each scope, and how far the event stream was read.
//!
//! One record a scope, under its words (`all`, `service:orders`): a JSON object with a format number of its
//! own. A record that this version cannot read is listed apart; the edge takes it for a switch that is on. In
//! the same transaction as the records goes the place in the stream up to which they know everything: an
//! edge that starts again reads on from there.

use std::collections::BTreeMap;

use redb::{ReadableTable as _, TableDefinition, TableError};
use serde::{Deserialize, Serialize};
use sluice_policy::kill_switch::Scope;
use sluice_policy::kill_switch::book::{EdgeId, Entry};

use crate::{Ledger, LedgerError, Unreadable};

const SWITCHES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("kill_switch");
const PLACE: TableDefinition<'_, &str, &str> = TableDefinition::new("kill_switch_place");
/// The edge's own id.
const EDGE: &str = "edge";
/// The last event that was read.
const POSITION: &str = "position";
/// Version of a record.
const RECORD_FORMAT: u32 = 1;

/// What is kept of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSwitch {
    /// What is known of it.
    pub entry: Entry,
    /// Number of this edge's own ON that the event stream has; 0: none.
    pub announced: u64,
}

/// Everything about switches that is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SwitchListing {
    /// The scopes that are or were on.
    pub kept: BTreeMap<Scope, KeptSwitch>,
    /// Records that cannot be read, with the scope they stand for where their key tells it.
    pub unreadable: Vec<(Option<Scope>, Unreadable)>,
    /// Where the edge is.
    pub place: Option<Place>,
}

/// Which edge keeps the switches, and what it has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its id, drawn once.
    pub edge: EdgeId,
    /// Id of the last event of the stream that was read; `None` before the first.
    pub position: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    announced: u64,
    entry: Entry,
}

/// What every version of a record has.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

impl KeptSwitch {
    fn encode(&self) -> Vec<u8> {
        let record = Record { format: RECORD_FORMAT, announced: self.announced, entry: self.entry.clone() };
        serde_json::to_vec(&record).expect("a record has string keys only")
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let version: Version = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if version.format != RECORD_FORMAT {
            return Err(format!("record format {}; this version reads {RECORD_FORMAT}", version.format));
        }
        let record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        Ok(Self { entry: record.entry, announced: record.announced })
    }
}

/// The key of a scope's record, for people too.
pub fn switch_key(scope: &Scope) -> String {
    match scope.target() {
        None => scope.as_str().to_owned(),
        Some(target) => format!("{}:{target}", scope.as_str()),
    }
}

fn scope_of(key: &str) -> Option<Scope> {
    match key.split_once(':') {
        None => Scope::parse(key, None).ok(),
        Some((scope, target)) => Scope::parse(scope, Some(target)).ok(),
    }
}

impl Ledger {
    /// Everything kept about switches.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn switches(&self) -> Result<SwitchListing, LedgerError> {
        self.store.read(|transaction| {
            let mut listing = SwitchListing::default();
            match transaction.open_table(SWITCHES) {
                Ok(table) => {
                    for record in table.iter()? {
                        let (key, bytes) = record?;
                        listing.take(key.value(), bytes.value());
                    }
                }
                Err(TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
            }
            match transaction.open_table(PLACE) {
                Ok(table) => {
                    let edge = table.get(EDGE)?.and_then(|edge| edge.value().parse().ok());
                    let position = table.get(POSITION)?.map(|position| position.value().to_owned());
                    listing.place = edge.map(|edge| Place { edge, position });
                }
                Err(TableError::TableDoesNotExist(_)) => {}
                Err(error) => return Err(error.into()),
            }
            Ok(listing)
        })
    }

    /// Writes the records of these keys (`None`: there is none any more) and where the edge is, all in one
    /// transaction.
    ///
    /// # Errors
    /// [`LedgerError`]; nothing has changed then.
    pub fn keep_switches(
        &self,
        changes: &[(String, Option<KeptSwitch>)],
        place: &Place,
    ) -> Result<(), LedgerError> {
        let written = self.store.write(|transaction| {
            let mut table = transaction.open_table(SWITCHES)?;
            for (key, kept) in changes {
                match kept {
                    Some(kept) => drop(table.insert(key.as_str(), kept.encode().as_slice())?),
                    None => drop(table.remove(key.as_str())?),
                }
            }
            let mut known = transaction.open_table(PLACE)?;
            known.insert(EDGE, place.edge.to_string().as_str())?;
            if let Some(position) = &place.position {
                known.insert(POSITION, position.as_str())?;
            }
            Ok(Ok::<(), std::convert::Infallible>(()))
        })?;
        match written {
            Ok(()) => Ok(()),
            Err(never) => match never {},
        }
    }
}

impl SwitchListing {
    fn take(&mut self, key: &str, bytes: &[u8]) {
        let scope = scope_of(key);
        match (scope, KeptSwitch::decode(bytes)) {
            (Some(scope), Ok(kept)) => drop(self.kept.insert(scope, kept)),
            (scope, decoded) => {
                let reason = decoded.err().unwrap_or_else(|| "its key names no scope".to_owned());
                self.unreadable.push((scope, Unreadable { name: key.to_owned(), reason }));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_policy::kill_switch::book::{Book, Wanted};

    use super::*;

    fn on(book: &mut Book, scope: &Scope) -> KeptSwitch {
        let wanted = Wanted {
            on: true,
            cancel_lane_open: true,
            reason: "flash crash".into(),
            by: "ops".into(),
            at_ms: 7,
        };
        let change = book.make(scope, wanted, 0).unwrap();
        book.apply(scope, &change);
        KeptSwitch { entry: book.entry(scope).unwrap().clone(), announced: 0 }
    }

    #[test]
    fn switches_and_the_place_survive() {
        let dir = tempfile::tempdir().unwrap();
        let mut book = Book::new(EdgeId(7));
        let scopes = [Scope::All, Scope::Symbol("BTC:USDT".into()), Scope::Account("a b:c".into())];
        let changes: Vec<_> =
            scopes.iter().map(|scope| (switch_key(scope), Some(on(&mut book, scope)))).collect();
        let place = Place { edge: EdgeId(7), position: Some("17-2".into()) };
        {
            let ledger = Ledger::open(dir.path()).unwrap();
            assert_eq!(ledger.switches().unwrap(), SwitchListing::default());
            ledger.keep_switches(&changes, &place).unwrap();
        }
        let ledger = Ledger::open(dir.path()).unwrap();
        let listing = ledger.switches().unwrap();
        assert_eq!(listing.place, Some(place));
        assert!(listing.unreadable.is_empty());
        for (scope, (_, kept)) in scopes.iter().zip(&changes) {
            assert_eq!(listing.kept.get(scope), kept.as_ref(), "{scope:?}");
        }
        // A place without a position leaves the one that is known.
        ledger.keep_switches(&[("all".into(), None)], &Place { edge: EdgeId(7), position: None }).unwrap();
        let listing = ledger.switches().unwrap();
        assert_eq!(listing.kept.len(), 2);
        assert_eq!(listing.place.unwrap().position.as_deref(), Some("17-2"));
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_scope() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let records: [(&str, &[u8]); 4] = [
            ("all", b"{}"),
            ("service:orders", br#"{"format":2,"more":1}"#),
            ("nothing:known", br#"{"format":1,"announced":0,"entry":{"holds":{},"undone":{}}}"#),
            ("symbol:X", b"\xff"),
        ];
        let written = ledger.store.write(|transaction| {
            let mut table = transaction.open_table(SWITCHES)?;
            for (key, bytes) in records {
                table.insert(key, bytes)?;
            }
            Ok(Ok::<(), ()>(()))
        });
        written.unwrap().unwrap();
        let listing = ledger.switches().unwrap();
        let scopes: Vec<_> = listing.unreadable.iter().map(|(scope, _)| scope.clone()).collect();
        assert_eq!(
            scopes,
            [Some(Scope::All), None, Some(Scope::Service("orders".into())), Some(Scope::Symbol("X".into()))]
        );
        assert!(listing.unreadable[2].1.reason.contains("format 2"), "{:?}", listing.unreadable);
    }
}
