//! What an operation has come to, before that may be told: its record or its change is on the way to the disk.
//!
//! The operations that clients ask for most run where they are asked and end in one of these. Whoever awaits it holds
//! no thread meanwhile.

use std::sync::Arc;
use std::time::Instant;

use prometheus::Histogram;
use sluice_audit::Pending;
use tokio::sync::Notify;

use crate::error::VaultError;
use crate::store::Queued;

/// The outcome of a read, whose record is not known to be durable yet.
#[must_use = "an outcome must not be told before its record is durable"]
pub(crate) struct Recorded<T> {
    pub(super) outcome: Result<T, VaultError>,
    pub(super) record: Result<Pending, VaultError>,
    pub(super) began: Instant,
    pub(super) seconds: Histogram,
}

impl<T> Recorded<T> {
    /// The outcome, once its record is durable.
    pub(crate) async fn done(self) -> Result<T, VaultError> {
        let recorded = self.record?.await;
        self.seconds.observe(self.began.elapsed().as_secs_f64());
        recorded.map_err(VaultError::Audit)?;
        self.outcome
    }
}

/// A change on its way.
#[must_use = "whether it was made is only known once this is done"]
pub(crate) struct Changed<T> {
    pub(super) queued: Queued<T>,
    pub(super) bell: Arc<Notify>,
}

impl<T> Changed<T> {
    /// The outcome, once rows and record are durable.
    pub(crate) async fn done(self) -> Result<T, VaultError> {
        let done = self.queued.done().await;
        self.bell.notify_one();
        done
    }
}
