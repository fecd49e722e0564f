//! Reading rows: the same calls on a snapshot and inside a change.

use std::sync::Arc;

use arc_swap::ArcSwap;
use redb::{Database, ReadTransaction, ReadableDatabase as _, ReadableTableMetadata as _};
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::table::Table;
use crate::error::VaultError;
use crate::seal::Keyring;

/// A row's key.
pub(crate) type KeyBytes = Vec<u8>;

/// Which rows of a table, in key order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    /// First key.
    pub(crate) from: KeyBytes,
    /// First key that no longer belongs; empty: the end of the table.
    pub(crate) to: KeyBytes,
    /// Rows at most.
    pub(crate) limit: usize,
}

impl Range {
    /// Every key that starts with `prefix`.
    pub(crate) fn prefix(prefix: &[u8], limit: usize) -> Self {
        Self { from: prefix.to_vec(), to: after_prefix(prefix), limit }
    }

    /// The same rows after `key`.
    #[must_use]
    pub(crate) fn after(mut self, key: &[u8]) -> Self {
        let next = [key, &[0]].concat();
        self.from = self.from.max(next);
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.limit == 0 || (!self.to.is_empty() && self.from >= self.to)
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        key >= self.from.as_slice() && (self.to.is_empty() || key < self.to.as_slice())
    }
}

/// The smallest key greater than every key with the prefix; empty when there is none.
fn after_prefix(prefix: &[u8]) -> KeyBytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// Rows as they stand at one moment.
pub(crate) trait View {
    /// The keys rows are sealed with.
    fn keyring(&self) -> &Keyring;

    /// A row as it is stored.
    fn raw(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, VaultError>;

    /// The keys in a range.
    fn keys(&self, table: Table, range: &Range) -> Result<Vec<KeyBytes>, VaultError>;

    /// The greatest key in a range.
    fn last_key(&self, table: Table, range: &Range) -> Result<Option<KeyBytes>, VaultError>;

    /// How many rows a table has.
    fn count(&self, table: Table) -> Result<u64, VaultError>;

    /// A row's content.
    fn bytes(&self, table: Table, key: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
        let Some(sealed) = self.raw(table, key)? else { return Ok(None) };
        match self.keyring().unseal(table.place(key), &sealed) {
            Ok(plain) => Ok(Some(plain)),
            Err(_) => Err(VaultError::Integrity(table.name())),
        }
    }

    /// A row's record.
    fn load<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<Option<T>, VaultError> {
        let Some(plain) = self.bytes(table, key)? else { return Ok(None) };
        serde_json::from_slice(&plain).map(Some).map_err(|_| VaultError::Integrity(table.name()))
    }

    /// The record of a row that an index names: its absence is damage.
    fn require<T: DeserializeOwned>(&self, table: Table, key: &[u8]) -> Result<T, VaultError> {
        self.load(table, key)?.ok_or(VaultError::Integrity(table.name()))
    }
}

/// A consistent picture of the store.
pub(crate) struct Snapshot {
    pub(super) txn: ReadTransaction,
    /// The keys of these rows, also when a rotation has ended since.
    pub(super) keyring: Arc<Keyring>,
}

impl Snapshot {
    /// The rows as they stand, with the keys they are sealed with.
    ///
    /// A ring with a new key is published before rows use it, one without an old key when no row has used that for
    /// at least a commit. So if the ring was the same before and after the transaction began, it fits.
    pub(super) fn take(db: &Database, keyring: &ArcSwap<Keyring>) -> Result<Self, VaultError> {
        loop {
            let before = keyring.load_full();
            let txn = db.begin_read()?;
            if Arc::ptr_eq(&before, &keyring.load()) {
                return Ok(Self { txn, keyring: before });
            }
        }
    }
}

impl View for Snapshot {
    fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    fn raw(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
        let rows = self.txn.open_table(table.definition())?;
        Ok(rows.get(key)?.map(|value| value.value().to_vec()))
    }

    fn keys(&self, table: Table, range: &Range) -> Result<Vec<KeyBytes>, VaultError> {
        keys(&self.txn.open_table(table.definition())?, range)
    }

    fn last_key(&self, table: Table, range: &Range) -> Result<Option<KeyBytes>, VaultError> {
        last_key(&self.txn.open_table(table.definition())?, range)
    }

    fn count(&self, table: Table) -> Result<u64, VaultError> {
        Ok(self.txn.open_table(table.definition())?.len()?)
    }
}

type Rows<'t> = redb::Range<'t, &'static [u8], &'static [u8]>;

fn rows<'t>(
    table: &'t impl redb::ReadableTable<&'static [u8], &'static [u8]>,
    range: &Range,
) -> Result<Rows<'t>, VaultError> {
    if range.to.is_empty() {
        return Ok(table.range(range.from.as_slice()..)?);
    }
    Ok(table.range(range.from.as_slice()..range.to.as_slice())?)
}

pub(super) fn keys(
    table: &impl redb::ReadableTable<&'static [u8], &'static [u8]>,
    range: &Range,
) -> Result<Vec<KeyBytes>, VaultError> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    rows(table, range)?.take(range.limit).map(|row| Ok(row?.0.value().to_vec())).collect()
}

pub(super) fn last_key(
    table: &impl redb::ReadableTable<&'static [u8], &'static [u8]>,
    range: &Range,
) -> Result<Option<KeyBytes>, VaultError> {
    if range.is_empty() {
        return Ok(None);
    }
    rows(table, range)?.next_back().map(|row| Ok(row?.0.value().to_vec())).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prefix_range_holds_exactly_the_keys_with_the_prefix(
            prefix in proptest::collection::vec(250u8.., 0..3),
            key in proptest::collection::vec(250u8.., 0..5),
        ) {
            let range = Range::prefix(&prefix, 1);
            prop_assert_eq!(range.contains(&key), key.starts_with(&prefix));
        }
    }
}
