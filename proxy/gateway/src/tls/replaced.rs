//! Certificates in files may be replaced under the running edge: looked for each [`POLL`], taken once they
//! have rested for one look. What cannot be used changes nothing and is told in the log, `/health` and the alerts.

use std::convert::Infallible;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{TlsFault, files};
use crate::state::Shared;
use crate::upstream_tls;

/// Between two looks.
const POLL: Duration = Duration::from_secs(1);

/// Whether files have changed into something that cannot be used.
#[derive(Debug, Default)]
pub(crate) struct Refused {
    listener: AtomicBool,
    services: AtomicBool,
}

impl Refused {
    /// Whether something older than the files is in use.
    pub(crate) fn is_any(&self) -> bool {
        self.listener.load(Ordering::Relaxed) || self.services.load(Ordering::Relaxed)
    }
}

type Fingerprint = Vec<(PathBuf, Option<(u64, i64, i64, u64)>)>;

impl Shared {
    /// Takes the TLS settings of a configuration with the present identity.
    pub(crate) fn apply_tls(&self, config: &sluice_schema::Config) -> Result<(), TlsFault> {
        let Some(tls) = &config.edge.tls else { return Ok(()) };
        self.tls.apply(tls, self.identity.current().as_deref())?;
        if let Some(end) = self.tls.not_after_s() {
            self.meters.certificate_ends(end);
        }
        Ok(())
    }

    /// The edge has another certificate: it is shown to clients and to upstreams from now on.
    pub(crate) async fn identity_changed(&self) {
        let _one_at_a_time = self.registrations.change.lock().await;
        let config = Arc::clone(&self.generation().config);
        if let Err(error) = self.apply_tls(&config) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(component = "tls", error, "the edge's new certificate is not used");
        }
        if let Err(error) = self.rebuild() {
            tracing::error!(component = "tls", %error, "upstreams are not told of the new certificate");
        }
    }
}

impl Shared {
    /// Reads what services say about TLS to their instances again and calls them like that.
    async fn upstream_files_changed(&self) {
        let _one_at_a_time = self.registrations.change.lock().await;
        let config = Arc::clone(&self.generation().config);
        let taken = self.upstreams.reread(&config).and_then(|()| self.rebuild());
        self.tls.refused.services.store(taken.is_err(), Ordering::Relaxed);
        if let Err(error) = taken {
            let error = &error as &dyn std::error::Error;
            tracing::error!(
                component = "tls",
                error,
                "changed files of services are not used, the old ones stay"
            );
        }
    }
}

/// Watches for ever.
pub(crate) async fn run(shared: Arc<Shared>) -> Infallible {
    let mut known = fingerprint(&shared);
    let mut seen = known.clone();
    loop {
        tokio::time::sleep(POLL).await;
        let present = fingerprint(&shared);
        let rested = present == seen;
        seen.clone_from(&present);
        if !rested || present == known {
            continue;
        }
        known = present;
        // A reload between the look at its settings and their use would be undone.
        let one_at_a_time = shared.registrations.change.lock().await;
        let config = Arc::clone(&shared.generation().config);
        let taken = shared.apply_tls(&config);
        shared.tls.refused.listener.store(taken.is_err(), Ordering::Relaxed);
        match taken {
            Ok(()) => tracing::info!(component = "tls", "certificates read again"),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    component = "tls",
                    error,
                    "changed certificates are not used, the old ones stay"
                );
            }
        }
        drop(one_at_a_time);
        shared.upstream_files_changed().await;
    }
}

/// Inode, time and size of every file that the settings name.
fn fingerprint(shared: &Shared) -> Fingerprint {
    let generation = shared.generation();
    let mut named = generation.config.edge.tls.as_ref().map(files).unwrap_or_default();
    named.extend(upstream_tls::files(&generation.config));
    let stat = |path: PathBuf| {
        let file = std::fs::metadata(&path).ok();
        let print = file.map(|file| (file.ino(), file.mtime(), file.mtime_nsec(), file.size()));
        (path, print)
    };
    named.into_iter().map(stat).collect()
}
