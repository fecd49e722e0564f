//! What the edge remembers over its own death.
//!
//! Knows: one redb file, `<data-dir>/edge/ledger.redb`, mode 0600 in a folder of mode 0700, and the
//! records in it: the registry overlay ([`Ledger::register`] and its companions), the instances that an
//! operator holds back ([`Ledger::hold`]), the kill switches ([`Ledger::switches`]), and idempotency keys ([`Keys`]),
//! which may lie in Redis instead ([`redis`]), where rate limits are shared too ([`limits`]). Must not know: HTTP, Pingora, the clock; wall time is an argument, in
//! milliseconds since the epoch. What may be recorded is decided by `sluice-policy`.
//!
//! Every change is committed with `Durability::Immediate`: when a call returns, its record is on the
//! disk. A crash at any moment leaves either the old or the new record. All calls block for the time
//! of a disk write at most; the edge makes them off its own threads. redb admits one process: a second
//! one gets [`LedgerError::Busy`]. A process that hands over closes its ledger, which then refuses every
//! call with [`LedgerError::Closed`] until it is opened again: nothing takes the file from the successor.

mod holds;
mod idempotency;
mod kill_switch;
pub mod limits;
pub mod redis;
mod registry;
mod store;

use std::path::{Path, PathBuf};

use thiserror::Error;

pub use holds::{HOLDS_MAX, Held, HoldListing};
pub use idempotency::{
    BYTES_MAX, CLAIM_WITHIN, CLAIMS_MAX, Claim, Claimed, Keys, KeysError, RECORDS_MAX, Wanted,
};
pub use kill_switch::{KeptSwitch, Place, SwitchListing, switch_key};
pub use registry::{Entry, Listing, RegisterError, Unreadable};

/// Version of the file's layout; records carry one of their own.
pub const FORMAT: u64 = 1;

/// The edge's memory on the disk.
#[derive(Debug)]
pub struct Ledger {
    store: store::Store,
}

/// Why the ledger cannot be opened, read or written.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The folder or the file cannot be made private.
    #[error("cannot prepare {}", path.display())]
    Prepare {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it open.
    #[error("{} is in use by another process: is a second edge running on this data directory?", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// This process has closed it, for another one to open it.
    #[error("{} is closed in this process", path.display())]
    Closed {
        /// The file.
        path: PathBuf,
    },
    /// A later version of Sluice wrote it.
    #[error("{} has format {found}; this version reads {FORMAT}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u64,
    },
    /// The storage failed, or the file is not a ledger.
    #[error("cannot use {}", path.display())]
    Storage {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Box<redb::Error>,
    },
}

impl Ledger {
    /// Opens the ledger of a data directory, or makes a new one. Recovers by itself after a crash.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn open(data_dir: &Path) -> Result<Self, LedgerError> {
        let ledger = Self::closed(data_dir)?;
        ledger.reopen()?;
        Ok(ledger)
    }

    /// The ledger of a data directory, not opened yet.
    ///
    /// # Errors
    /// [`LedgerError::Prepare`].
    pub fn closed(data_dir: &Path) -> Result<Self, LedgerError> {
        Ok(Self { store: store::Store::closed(data_dir)? })
    }

    /// Opens the file unless it is open. Recovers by itself after a crash.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub fn reopen(&self) -> Result<(), LedgerError> {
        self.store.reopen()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.store.path()
    }

    /// Whether this process has it open; a disk that fails does not close it.
    pub fn is_open(&self) -> bool {
        self.store.is_open()
    }

    /// Closes the file, so that another process can open it.
    pub fn close(&self) {
        self.store.close();
    }
}
