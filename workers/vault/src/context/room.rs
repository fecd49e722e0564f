//! The room for blocking work, and what the vault says of its health.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_http::{Component, HealthSource, Reject, Status};
use sluice_wire::code::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Vault;
use crate::barrier::Barrier;
use crate::error::VaultError;
use crate::external::External;

/// LIMIT: operations on the store at a time; most hold a thread while they wait for the disk.
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

    /// Proxies whose word about their clients' addresses is taken.
    pub(crate) fn trusted(&self) -> &[ipnet::IpNet] {
        self.barrier.trusted()
    }

    /// The open vault, or 503 `sealed`.
    pub(crate) fn vault(&self) -> Result<Arc<Vault>, Reject> {
        self.barrier.vault().ok_or_else(|| VaultError::Sealed.into())
    }

    /// Who keeps the secrets, unless this vault does: asking there takes a thread.
    pub(crate) fn external(&self) -> Result<Option<Arc<External>>, Reject> {
        Ok(self.vault()?.settings.external.clone())
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

    /// Begins an operation where it is asked and waits for it without a thread: for what reads or writes a row or two.
    pub(crate) async fn run_here<T, F: Future<Output = Result<T, VaultError>>>(
        &self,
        begin: impl FnOnce(&Vault) -> F,
    ) -> Result<T, Reject> {
        Ok(self.run_bare_here(begin).await??)
    }

    /// The same, for whoever words an operation's own errors itself.
    pub(crate) async fn run_bare_here<T, F: Future<Output = Result<T, VaultError>>>(
        &self,
        begin: impl FnOnce(&Vault) -> F,
    ) -> Result<Result<T, VaultError>, Reject> {
        // Held until it is done: so is what a seal waits for.
        let vault = self.vault()?;
        let _room = self.room()?;
        let done = begin(&vault).await;
        if let Err(error) = &done {
            log(error);
        }
        Ok(done)
    }

    fn room(&self) -> Result<OwnedSemaphorePermit, Reject> {
        let permit = Arc::clone(&self.room).try_acquire_owned();
        permit.map_err(|_| Reject::new(Code::Overloaded, "too many operations at a time"))
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
        let permit = self.room()?;
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
        if let Some(external) = &vault.settings.external {
            components.insert("external".into(), external.component());
        }
        for name in ["mtls", "jwt", "vault"] {
            components.insert(name.into(), Component::healthy());
        }
        components
    }
}
