//! New keys for the store while it is read and written.
//!
//! A rotation is one commit: from there on new records use the new key. The rest is sealed anew in the background,
//! [`BITE`] rows a commit, so that nobody waits longer than for any other change. Rows written meanwhile use the new
//! key by themselves; so when one pass over all tables is done, no row uses an older one, and these go. A crash in
//! between leaves more than one key in the ring, by which the next opening knows that the pass is to be made again.

use jiff::Timestamp;
use sluice_audit::Entry;
use sluice_wire::code::Code;

use crate::context::Vault;
use crate::error::VaultError;
use crate::request::Act;
use crate::seal::{Keyring, RootKey, Shape};
use crate::store::{Change, KeyBytes, Range, Store, Table, View};

/// LIMIT: rows sealed anew in one change.
const BITE: usize = 128;
/// LIMIT: rows looked at for one bite.
const LOOK: usize = 4_096;
/// Where it is kept since when the newest key is in use.
const SINCE: &[u8] = b"sys/rotated";
pub(crate) const FULL: &str = "the records of earlier rotations are still being sealed anew; try again later";

impl Vault {
    /// Begins a new key-encryption key; its number.
    pub(crate) fn rotate(&self, act: &Act) -> Result<u32, VaultError> {
        let at = act.now;
        let number = self.write(act.entry("seal", "rotate", "keyring"), move |change| {
            let ring = rotated(change)?;
            let number = ring.newest();
            change.audit_as(format!("keyring/{number}"));
            change.replace_keyring(ring)?;
            change.save(Table::Logical, SINCE, &at);
            Ok(number)
        })?;
        self.rotated.notify_one();
        Ok(number)
    }

    /// Puts the keyring below another root key, and begins a new key-encryption key.
    pub(crate) fn rekey(&self, act: &Act, root: RootKey, shape: Shape) -> Result<(), VaultError> {
        let at = act.now;
        self.write(act.entry("seal", "rekey_done", "keyring"), move |change| {
            let ring = rotated(change)?.under(root, shape);
            change.save(Table::Logical, SINCE, &at);
            change.replace_keyring(ring)
        })?;
        self.rotated.notify_one();
        Ok(())
    }

    /// Seals every row with the newest key and drops the older ones. Gives up between two bites when `stop` says so.
    pub(crate) fn rewrap(&self, stop: impl Fn() -> bool) -> Result<(), VaultError> {
        self.store.rewrap(stop)
    }
}

impl Store {
    /// [`Vault::rewrap`].
    pub(crate) fn rewrap(&self, stop: impl Fn() -> bool) -> Result<(), VaultError> {
        let ring = self.keyring();
        if ring.keks() == 1 {
            return Ok(());
        }
        let newest = ring.newest();
        drop(ring);
        for table in Table::ALL.into_iter().filter(|table| table.is_digested()) {
            let mut range = Range::prefix(b"", LOOK);
            loop {
                if stop() {
                    return Ok(());
                }
                let (outdated, last) = self.outdated(table, &range)?;
                if !outdated.is_empty() {
                    self.rewrap_rows(table, newest, outdated)?;
                }
                match last {
                    Some(last) => range = range.after(&last),
                    None => break,
                }
            }
        }
        let entry = Entry::new("seal", "retire").actor("vault").path(format!("keyring/below {newest}"));
        self.write(entry, move |change| {
            let ring = change.keyring().without_below(newest);
            change.replace_keyring(ring)
        })
    }

    /// The rows of a range that use an older key, at most a bite, and where to go on; `None`: nowhere.
    fn outdated(&self, table: Table, range: &Range) -> Result<(Vec<KeyBytes>, Option<KeyBytes>), VaultError> {
        let view = self.snapshot()?;
        let keys = view.keys(table, range)?;
        let goes_on = keys.len() == LOOK;
        let mut outdated = Vec::new();
        let mut last = None;
        for key in keys {
            if view.raw(table, &key)?.is_some_and(|sealed| view.keyring().is_outdated(&sealed)) {
                outdated.push(key.clone());
            }
            last = Some(key);
            if outdated.len() == BITE {
                return Ok((outdated, last));
            }
        }
        Ok((outdated, last.filter(|_| goes_on)))
    }

    fn rewrap_rows(&self, table: Table, newest: u32, keys: Vec<KeyBytes>) -> Result<(), VaultError> {
        let path = format!("{}/{} rows to {newest}", table.name(), keys.len());
        let entry = Entry::new("seal", "rewrap").actor("vault").path(path);
        self.write(entry, move |change| {
            for key in &keys {
                change.rewrap(table, key)?;
            }
            Ok(())
        })
    }
}

/// Since when the newest key is in use; `None`: since the vault was made.
pub(crate) fn since(view: &impl View) -> Result<Option<Timestamp>, VaultError> {
    view.load(Table::Logical, SINCE)
}

/// The ring of a change with one more key.
pub(crate) fn rotated(change: &Change<'_>) -> Result<Keyring, VaultError> {
    change.keyring().rotated().ok_or_else(|| VaultError::invalid(Code::Conflict, FULL))
}
