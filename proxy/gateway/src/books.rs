//! What admits one process at a time: the ledger and the audit chain.
//!
//! Opened when this process takes over, closed when it yields. In between a change that needs one of them
//! is refused as unavailable; nothing opens a closed one behind the successor's back. A process that serves
//! again after a failed handover serves without books that cannot be opened (the disk is full), and tries
//! again until they can.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use prometheus::Gauge;
use sluice_audit::{AuditError, Entry, Limits, Log, WhenFull};
use sluice_schema::EdgeAudit;
use sluice_wire::role::Role;
use tokio::sync::RwLock;

use crate::GatewayError;
use crate::kill;
use crate::state::Shared;

/// Between two tries at books that could not be opened.
const AGAIN: Duration = Duration::from_secs(1);
/// How full the audit log is when it is said.
const FILL_WARNED: f64 = 0.8;

/// The edge's audit chain.
pub(crate) struct Chain {
    path: PathBuf,
    limits: Limits,
    fill: Gauge,
    log: RwLock<Option<Log>>,
}

impl Chain {
    /// The chain of a data directory, closed. `fill` shows how much of what is kept it takes.
    pub(crate) fn closed(data_dir: &Path, kept: &EdgeAudit, fill: Gauge) -> Self {
        let age = kept.keep_age.map(|age| SignedDuration::from_secs(age.as_secs() as i64));
        let limits = Limits::keeping(kept.keep_bytes, age, WhenFull::Retire);
        Self { path: data_dir.join("audit").join("edge.jsonl"), limits, fill, log: RwLock::default() }
    }

    /// Writes a record; on the disk when this returns.
    ///
    /// # Errors
    /// [`AuditError`].
    pub(crate) async fn submit(&self, entry: Entry, at: Timestamp) -> Result<u64, AuditError> {
        match &*self.log.read().await {
            Some(log) => {
                let done = log.submit(entry, at).await;
                self.show(log);
                done
            }
            None => Err(AuditError::Closed),
        }
    }

    async fn open(&self) -> Result<(), GatewayError> {
        let mut place = self.log.write().await;
        if place.is_some() {
            return Ok(());
        }
        let (path, limits) = (self.path.clone(), self.limits);
        let log = blocking(move || Log::open_with(&path, Role::Edge.as_str(), limits)).await?;
        self.show(&log);
        *place = Some(log);
        Ok(())
    }

    /// Shows how full it is, and says it before the oldest records go.
    fn show(&self, log: &Log) {
        let (bytes, keep) = log.fill();
        let (before, fill) = (self.fill.get(), bytes as f64 / keep.max(1) as f64);
        self.fill.set(fill);
        if fill >= FILL_WARNED && before < FILL_WARNED {
            tracing::warn!(
                component = "books",
                bytes,
                keep,
                "the edge's audit log is 80 % of what is kept; see [edge.audit]"
            );
        }
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
    /// Whether they are this process's to open.
    wanted: AtomicBool,
}

impl Books {
    /// Books that are closed.
    pub(crate) const fn new(shared: Arc<Shared>, chain: Arc<Chain>) -> Self {
        Self { shared, chain, wanted: AtomicBool::new(false) }
    }

    /// Opens them and puts in force what is registered.
    pub(crate) async fn open(&self) -> Result<(), GatewayError> {
        let _one_at_a_time = self.shared.registrations.change.lock().await;
        self.wanted.store(true, Ordering::Relaxed);
        self.open_both().await
    }

    async fn open_both(&self) -> Result<(), GatewayError> {
        self.chain.open().await?;
        if self.shared.registrations.load().await? {
            self.shared.rebuild()?;
        }
        self.shared.upstreams.load_holds(self.shared.registrations.ledger()).await?;
        // Before the first request is accepted.
        kill::load(&self.shared).await?;
        Ok(())
    }

    /// Opens them again after a handover that failed. Serving comes first: what cannot be opened is tried
    /// again for as long as this process is the one that serves, and changes are refused until then.
    pub(crate) async fn reopen(self: &Arc<Self>) {
        let Err(error) = self.open().await else { return };
        tracing::error!(
            component = "books",
            error = &error as &dyn std::error::Error,
            "serving on without ledger and audit log"
        );
        let books = Arc::clone(self);
        // Not cancelled half-way: an opening that nobody waits for would lock the successor out.
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(AGAIN).await;
                let _one_at_a_time = books.shared.registrations.change.lock().await;
                if !books.wanted.load(Ordering::Relaxed) {
                    return;
                }
                if books.open_both().await.is_ok() {
                    return tracing::info!(component = "books", "ledger and audit log are open again");
                }
            }
        });
    }

    /// Closes them, once the change under way is made.
    pub(crate) async fn close(&self) {
        let _one_at_a_time = self.shared.registrations.change.lock().await;
        self.wanted.store(false, Ordering::Relaxed);
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
