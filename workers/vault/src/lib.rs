//! The vault worker: certificate authority, tokens, secrets, audit.
//!
//! Knows: its store and its audit log, who may do what with keys, certificates, tokens and secrets, the feed
//! by which every other role learns what to believe. Must not know: routes, upstreams, orders, how tokens are
//! verified elsewhere (that is `sluice-identity`), what other roles do.
//!
//! The life of a request: `api` parses it and hands an operation to a thread that may block
//! (`context::Context::run`); the operation asks `access` (pure), then reads a snapshot or queues a change;
//! the store's writer commits changes in groups; the audit record is durable before the answer leaves.

mod access;
mod acme;
mod api;
mod barrier;
mod ca;
mod config;
mod context;
mod error;
mod external;
mod falco;
mod feed;
mod listener;
mod memory;
mod oauth;
mod openapi;
mod outbox;
mod own;
mod path;
mod quota;
mod refusals;
mod request;
mod rotate;
mod seal;
mod secret;
mod store;
mod store_key;
mod token;
mod user;
mod v1;
mod witness;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sluice_client::Client;
use sluice_http::{Clients, ServeError, Start, Tls, serve_by_tls};
use sluice_wire::role::Role;

pub use openapi::document as openapi;

use barrier::Barrier;
use config::Settings;
use context::{Context, Figures, Health, Vault};
use error::VaultError;

/// How often the vault looks for what is due.
const MAINTAIN: Duration = Duration::from_secs(30);
/// How often it looks whether so much has ended that a sweep cannot wait for that.
const SWEEP: Duration = Duration::from_secs(1);

/// Why the vault does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The vault does not open: key, store or audit log.
    #[error("the vault does not open")]
    Unseal(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The external vault that is to keep the secrets.
    #[error("the external vault cannot be used")]
    External(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The doors cannot be served.
    #[error("the vault cannot serve")]
    Serve(#[source] ServeError),
    /// The store was lost while running.
    #[error("the vault's store can no longer be written")]
    StoreLost,
}

/// Runs the vault until it is told to stop: opens it (or stays sealed), serves its doors, keeps itself.
pub async fn run(start: Start) -> Result<(), RunError> {
    memory::protect().map_err(|error| RunError::Unseal(Box::new(error)))?;
    let settings = Settings::new(&start).map_err(|error| RunError::External(Box::new(error)))?;
    let mut keepers = Tasks::default();
    if let Some(external) = &settings.external {
        keepers.spawn(external::keep_token(Arc::clone(external)));
    }
    let (figures, trust) = (Figures::new(&start.registry), start.trust.clone());
    let opening =
        tokio::task::spawn_blocking(move || Barrier::new(settings, trust, figures, Timestamp::now())).await;
    let barrier = opening.map_err(|error| RunError::Unseal(Box::new(error)))?;
    let barrier = Arc::new(barrier.map_err(|error| RunError::Unseal(Box::new(error)))?);
    if barrier.vault().is_none() {
        tracing::warn!(component = "seal", "the vault is sealed");
    }
    let events = start.sockets.get(&Role::Events);
    let events = events.map(|socket| Client::internal(socket.clone(), start.keys.own()));
    let context = Arc::new(Context::new(Arc::clone(&barrier), start.stop.clone()));
    let tls = Arc::new(Tls::new(Clients::Any, start.trust.clone()));
    keepers.spawn(listener::keep(Arc::clone(&barrier), Arc::clone(&tls), start.trust.clone()));
    let health = Arc::new(Health(Arc::clone(&barrier)));
    let serving = serve_by_tls(&start, api::router(context), tls, health);
    let ended = tokio::select! {
        served = serving => served.map_err(RunError::Serve),
        lost = tend(&barrier, events) => Err(lost),
    };
    // They hold the barrier, and with it the log's lock.
    keepers.0.shutdown().await;
    // Connections that were cut may still be letting go of it.
    let _a_panic_while_closing_leaves_nothing_more_to_do =
        tokio::task::spawn_blocking(move || barrier.close()).await;
    ended
}

/// Runs what an open vault needs for as long as it is open, and again for the next one; ends when one is lost.
async fn tend(barrier: &Barrier, events: Option<Client>) -> RunError {
    loop {
        let vault = opened(barrier).await;
        let (ending, lost) = (vault.ending(), vault.store.ended());
        let mut tasks = Tasks::default();
        tasks.spawn(maintain(Arc::clone(&vault)));
        tasks.spawn(sweep(Arc::clone(&vault)));
        tasks.spawn(keep_wrapped(Arc::clone(&vault)));
        if let Some(client) = &events {
            tasks.spawn(outbox::drain(Arc::clone(&vault), client.clone()));
        }
        drop(vault);
        tokio::select! {
            // A store that is closed has ended too.
            biased;
            () = ending.cancelled() => {}
            () = lost.cancelled() => return RunError::StoreLost,
        }
        tasks.0.shutdown().await;
    }
}

/// Waits for an open vault; meanwhile shares that never become enough are forgotten.
async fn opened(barrier: &Barrier) -> Arc<Vault> {
    loop {
        tokio::select! {
            vault = barrier.opened() => return vault,
            () = tokio::time::sleep(MAINTAIN) => barrier.forget_stale(),
        }
    }
}

/// Seals rows anew when a rotation, or one that a crash broke off, has left some behind.
async fn keep_wrapped(vault: Arc<Vault>) {
    loop {
        let worker = Arc::clone(&vault);
        let ending = vault.ending();
        let done = tokio::task::spawn_blocking(move || worker.rewrap(|| ending.is_cancelled())).await;
        match done {
            Ok(Ok(())) => vault.rotated.notified().await,
            Ok(Err(error)) => {
                warn(&error);
                tokio::time::sleep(MAINTAIN).await;
            }
            Err(_) => {
                tracing::error!(component = "vault", "sealing anew broke off");
                tokio::time::sleep(MAINTAIN).await;
            }
        }
    }
}

async fn maintain(vault: Arc<Vault>) {
    let mut last = Timestamp::now();
    // The first look was part of opening.
    let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + MAINTAIN, MAINTAIN);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let worker = Arc::clone(&vault);
        let done = tokio::task::spawn_blocking(move || worker.maintain(last, Timestamp::now())).await;
        match done {
            Ok(Ok(at)) => last = at,
            Ok(Err(error)) => warn(&error),
            Err(_) => tracing::error!(component = "vault", "maintenance broke off"),
        }
    }
}

/// Sweeps between two maintenances while much ends.
async fn sweep(vault: Arc<Vault>) {
    let mut tick = tokio::time::interval(SWEEP);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let worker = Arc::clone(&vault);
        let done = tokio::task::spawn_blocking(move || worker.sweep_crowd(Timestamp::now())).await;
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn(&error),
            Err(_) => tracing::error!(component = "vault", "a sweep broke off"),
        }
    }
}

fn warn(error: &VaultError) {
    tracing::warn!(
        component = "vault",
        error = error as &(dyn std::error::Error + 'static),
        "maintenance failed"
    );
}

/// Background tasks that end with the role.
#[derive(Default)]
struct Tasks(tokio::task::JoinSet<()>);

impl Tasks {
    fn spawn<T>(&mut self, task: impl Future<Output = T> + Send + 'static) {
        self.0.spawn(async move {
            task.await;
        });
    }
}
