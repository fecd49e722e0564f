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
mod api;
mod ca;
mod config;
mod context;
mod error;
mod feed;
mod outbox;
mod path;
mod request;
mod seal;
mod secret;
mod store;
mod store_key;
mod token;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sluice_client::Client;
use sluice_http::{ServeError, Start, serve};
use sluice_wire::role::Role;

use config::{Opening, Settings};
use context::{Context, Figures, Health, UnsealError, Vault};
use error::VaultError;
use seal::{KeyFileError, RootKey};

/// How often the vault looks for what is due.
const MAINTAIN: Duration = Duration::from_secs(30);

/// How long the end waits for the last user of the store.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// Why the vault does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The vault does not open: key, store or audit log.
    #[error("the vault does not open")]
    Unseal(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The doors cannot be served.
    #[error("the vault cannot serve")]
    Serve(#[source] ServeError),
    /// The store was lost while running.
    #[error("the vault's store can no longer be written")]
    StoreLost,
}

/// Runs the vault until it is told to stop: opens it (or stays sealed), serves its doors, keeps itself.
pub async fn run(start: Start) -> Result<(), RunError> {
    // A core dump of this process would hold every key.
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(rustix::process::Resource::Core, none)
        .map_err(|error| RunError::Unseal(Box::new(std::io::Error::from(error))))?;
    let settings = Settings::new(&start);
    let figures = Figures::new(&start.registry);
    let trust = start.trust.clone();
    let opening = tokio::task::spawn_blocking(move || open(settings, trust, figures)).await;
    let vault = opening.map_err(|error| RunError::Unseal(Box::new(error)))??;
    let mut tasks = Tasks::default();
    if let Some(vault) = &vault {
        tasks.spawn(maintain(Arc::clone(vault)));
        if let Some(socket) = start.sockets.get(&Role::Events) {
            let client = Client::internal(socket.clone(), start.keys.own());
            tasks.spawn(outbox::drain(Arc::clone(vault), client));
        }
    }
    let context = Arc::new(Context::new(vault.clone(), start.stop.clone()));
    let (lost, closed) = match &vault {
        Some(vault) => (Some(vault.store.ended()), Some(vault.closed())),
        None => (None, None),
    };
    let serving = serve(&start, api::router(context), Arc::new(Health(vault)));
    let lost = async {
        match lost {
            Some(token) => token.cancelled().await,
            None => std::future::pending().await,
        }
    };
    let ended = tokio::select! {
        served = serving => served.map_err(RunError::Serve),
        () = lost => Err(RunError::StoreLost),
    };
    tasks.0.shutdown().await;
    if let Some(closed) = closed {
        // Connections that were cut may still be letting go of it.
        let _closing_takes_what_it_takes = tokio::time::timeout(CLOSE_MAX, closed.cancelled()).await;
    }
    ended
}

/// Opens the vault as configured; `None`: it stays sealed.
fn open(
    settings: Settings,
    trust: sluice_http::TrustCell,
    figures: Figures,
) -> Result<Option<Arc<Vault>>, RunError> {
    let unseal = |error: UnsealError| RunError::Unseal(Box::new(error));
    let Some(root) = root_key(&settings).map_err(|error| RunError::Unseal(Box::new(error)))? else {
        figures.sealed.set(1);
        tracing::warn!(component = "seal", "no [vault] seal is configured: the vault stays sealed");
        return Ok(None);
    };
    let now = Timestamp::now();
    let dev = settings.dev;
    let vault = Vault::unseal(settings, &root, trust, figures, now).map_err(unseal)?;
    vault.figures.sealed.set(0);
    if dev {
        vault.write_dev_token(now).map_err(|error| unseal(UnsealError::State(error)))?;
    }
    Ok(Some(Arc::new(vault)))
}

fn root_key(settings: &Settings) -> Result<Option<RootKey>, KeyFileError> {
    match &settings.opening {
        Opening::Sealed => Ok(None),
        Opening::File(path) => RootKey::production(path, &settings.data_dir).map(Some),
        Opening::Dev(path) => {
            let dir = settings.data_dir.join("vault");
            make_private(&dir).map_err(|source| KeyFileError::Io { path: dir.clone(), source })?;
            RootKey::dev(path, dir.join("store.redb").exists()).map(Some)
        }
    }
}

fn make_private(dir: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
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
