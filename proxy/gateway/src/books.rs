//! What admits one process at a time: the ledger and the audit chain.
//!
//! Opened when this process takes over, closed when it yields. In between a change that needs one of them
//! is refused as unavailable; nothing opens a closed one behind the successor's back.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use sluice_audit::{AuditError, Entry, Log};
use sluice_wire::role::Role;
use tokio::sync::RwLock;

use crate::GatewayError;
use crate::state::Shared;

/// The edge's audit chain.
pub(crate) struct Chain {
    path: PathBuf,
    log: RwLock<Option<Log>>,
}

impl Chain {
    /// The chain of a data directory, closed.
    pub(crate) fn closed(data_dir: &Path) -> Self {
        Self { path: data_dir.join("audit").join("edge.jsonl"), log: RwLock::default() }
    }

    /// Writes a record; on the disk when this returns.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(crate) async fn submit(&self, entry: Entry, at: Timestamp) -> Result<u64, AuditError> {
        match &*self.log.read().await {
            Some(log) => log.submit(entry, at).await,
            None => Err(AuditError::Closed),
        }
    }

    async fn open(&self) -> Result<(), GatewayError> {
        let mut place = self.log.write().await;
        let path = self.path.clone();
        *place = Some(blocking(move || Log::open(&path, Role::Edge.as_str())).await?);
        Ok(())
    }

    async fn close(&self) {
        let log = self.log.write().await.take();
        // Dropping it waits for its writer.
        blocking(move || drop(log)).await;
    }
}

/// Both books of one edge.
pub(crate) struct Books {
    shared: Arc<Shared>,
    chain: Arc<Chain>,
}

impl Books {
    /// Books that are closed.
    pub(crate) const fn new(shared: Arc<Shared>, chain: Arc<Chain>) -> Self {
        Self { shared, chain }
    }

    /// Opens them and puts in force what is registered.
    pub(crate) async fn open(&self) -> Result<(), GatewayError> {
        let _one_at_a_time = self.shared.registrations.change.lock().await;
        self.chain.open().await?;
        if self.shared.registrations.load().await? {
            self.shared.rebuild()?;
        }
        Ok(())
    }

    /// Closes them, once the change under way is made.
    pub(crate) async fn close(&self) {
        let _one_at_a_time = self.shared.registrations.change.lock().await;
        self.shared.registrations.close().await;
        self.chain.close().await;
    }
}

/// Runs what waits for a disk off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(gone) => std::panic::resume_unwind(gone.into_panic()),
    }
}
