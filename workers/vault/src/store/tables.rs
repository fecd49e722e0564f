//! The tables of one transaction, each opened once: opening one costs as much as a look-up in it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use redb::{ReadableTable as _, ReadableTableMetadata as _, WriteTransaction};

use super::snapshot::{KeyBytes, Range, keys, last_key};
use super::table::Table;
use crate::error::VaultError;

/// A table of a transaction that changes it.
pub(super) type Rows<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// What operations of one batch have opened. INVARIANT: it is dropped before the transaction is committed.
pub(super) struct Tables<'t> {
    txn: &'t WriteTransaction,
    open: RefCell<BTreeMap<Table, Rows<'t>>>,
}

impl<'t> Tables<'t> {
    pub(super) fn of(txn: &'t WriteTransaction) -> Self {
        Self { txn, open: RefCell::default() }
    }

    /// Uses a table; `work` does not come back here.
    pub(super) fn with<T>(
        &self,
        table: Table,
        work: impl FnOnce(&mut Rows<'t>) -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        use std::collections::btree_map::Entry;
        match self.open.borrow_mut().entry(table) {
            Entry::Occupied(mut open) => work(open.get_mut()),
            Entry::Vacant(absent) => work(absent.insert(self.txn.open_table(table.definition())?)),
        }
    }

    /// Writes a row that no digest covers.
    pub(super) fn insert(&self, table: Table, key: &[u8], value: &[u8]) -> Result<(), VaultError> {
        self.with(table, |rows| rows.insert(key, value).map(drop).map_err(Into::into))
    }
}

/// What is stored, without what the change at hand has written.
pub(super) trait Stored {
    /// A row.
    fn raw(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, VaultError>;
    /// The keys in a range.
    fn keys(&self, table: Table, range: &Range) -> Result<Vec<KeyBytes>, VaultError>;
    /// The greatest key in a range.
    fn last_key(&self, table: Table, range: &Range) -> Result<Option<KeyBytes>, VaultError>;
    /// How many rows a table has.
    fn count(&self, table: Table) -> Result<u64, VaultError>;
}

impl Stored for Tables<'_> {
    fn raw(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
        self.with(table, |rows| Ok(rows.get(key)?.map(|value| value.value().to_vec())))
    }

    fn keys(&self, table: Table, range: &Range) -> Result<Vec<KeyBytes>, VaultError> {
        self.with(table, |rows| keys(rows, range))
    }

    fn last_key(&self, table: Table, range: &Range) -> Result<Option<KeyBytes>, VaultError> {
        self.with(table, |rows| last_key(rows, range))
    }

    fn count(&self, table: Table) -> Result<u64, VaultError> {
        self.with(table, |rows| Ok(rows.len()?))
    }
}
