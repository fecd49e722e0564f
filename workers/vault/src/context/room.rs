//! The room for blocking work, and what the vault says of its health.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_http::{Component, HealthSource, Reject, Status};
use sluice_wire::code::Code;
use tokio::sync::Semaphore;

use super::Vault;
use crate::barrier::Barrier;
use crate::error::VaultError;

/// LIMIT: operations on the store at a time; each holds a thread while it waits for the disk.
const WORK_MAX: usize = 256;

/// What handlers share.
pub(crate) struct Context {
    pub(crate) barrier: Arc<Barrier>,
    room: Arc<Semaphore>,
    pub(crate) stop: sluice_http::Stop,
}

/// What the vault says of itself on the health endpoints.
pub(crate) struct Health(pub(crate) Arc<Barrier>);

impl Context {
    pub(crate) fn new(barrier: Arc<Barrier>, stop: sluice_http::Stop) -> Self {
        Self { barrier, room: Arc::new(Semaphore::new(WORK_MAX)), stop }
    }

    /// The open vault, or 503 `sealed`.
    pub(crate) fn vault(&self) -> Result<Arc<Vault>, Reject> {
        self.barrier.vault().ok_or_else(|| VaultError::Sealed.into())
    }

    /// Runs an operation on a thread that may block; a panic in it is one 500.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Vault) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, Reject> {
        Ok(self.run_bare(work).await??)
    }

    /// The same, for whoever words an operation's own errors itself.
    pub(crate) async fn run_bare<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Vault) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<Result<T, VaultError>, Reject> {
        let vault = self.vault()?;
        self.block(move || work(&vault)).await
    }

    /// Runs a step of the barrier on a thread that may block, also while the vault is sealed.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Barrier) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<Result<T, VaultError>, Reject> {
        let barrier = Arc::clone(&self.barrier);
        self.block(move || step(&barrier)).await
    }

    async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
    ) -> Result<Result<T, VaultError>, Reject> {
        let permit = Arc::clone(&self.room).try_acquire_owned();
        let permit = permit.map_err(|_| Reject::new(Code::Overloaded, "too many operations at a time"))?;
        let done = tokio::task::spawn_blocking(move || {
            let _held_until_done = permit;
            work()
        });
        match done.await {
            Ok(done) => {
                if let Err(error) = &done {
                    log(error);
                }
                Ok(done)
            }
            Err(_) => Err(Reject::new(Code::Internal, "the operation broke off")),
        }
    }
}

/// Logs what is the vault's own fault; what the caller did wrong is in the audit log.
fn log(error: &VaultError) {
    let own = matches!(
        error,
        VaultError::Integrity(_)
            | VaultError::Audit(_)
            | VaultError::Store(_)
            | VaultError::Crypto(_)
            | VaultError::Opening(_)
            | VaultError::Ended
    );
    if own {
        tracing::error!(
            component = "vault",
            error = error as &(dyn std::error::Error + 'static),
            "operation failed"
        );
    }
}

impl HealthSource for Health {
    fn ready(&self) -> bool {
        self.0.vault().is_some_and(|vault| vault.is_recording() && !vault.store.ended().is_cancelled())
    }

    fn components(&self) -> BTreeMap<String, Component> {
        let mut components = BTreeMap::new();
        let Some(vault) = self.0.vault() else {
            components.insert("seal".into(), Component::new(Status::Unhealthy, "sealed"));
            return components;
        };
        components.insert("seal".into(), Component::healthy());
        let audit = if vault.is_recording() {
            Component::healthy()
        } else {
            Component::new(Status::Unhealthy, "the audit log cannot be written")
        };
        components.insert("audit".into(), audit);
        for name in ["mtls", "jwt", "vault"] {
            components.insert(name.into(), Component::healthy());
        }
        components
    }
}
