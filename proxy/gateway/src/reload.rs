//! A new configuration in force, or the old one and the reason why not.
//!
//! Triggers: SIGHUP, a changed file (looked for every [`POLL`], taken once it has rested), a call. The
//! files are loaded and validated whole, the generation is built, then one pointer is swapped; requests
//! under way keep theirs. A bad file changes nothing and is reported in log, metric and `/health`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use sluice_http::Start;
use sluice_schema::{Config, Mode, diff};
use sluice_telemetry::log::LogLevel;
use tokio::signal::unix::{SignalKind, signal};

use crate::generation::{Generation, GenerationError};
use crate::state::Shared;

/// Between two looks at the files.
const POLL: Duration = Duration::from_millis(500);
/// LIMIT: characters kept of a refusal's text.
const ERROR_MAX: usize = 4_000;

/// What is needed to load the configuration again as it was loaded at the start.
pub(crate) struct Source {
    path: PathBuf,
    environment: BTreeMap<String, String>,
    port_offset: u16,
    mode: Mode,
    log: LogLevel,
}

/// The last reload.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LastReload {
    /// When.
    pub(crate) at: Timestamp,
    /// `accepted` or `refused`.
    pub(crate) result: &'static str,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

/// What a reload did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reloaded {
    /// Number of the generation in force.
    pub(crate) generation: u64,
    /// Its hash.
    pub(crate) hash: String,
    /// What changed, a line each.
    pub(crate) changes: Vec<String>,
    /// Roles that take some of it only when they start again.
    pub(crate) restart: Vec<String>,
}

/// The new configuration is not taken; the text says why.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ReloadError(pub(crate) String);

/// How reloads went.
pub(crate) struct ReloadState {
    source: Source,
    /// The files as they were when this process took them.
    taken: Fingerprint,
    last: Mutex<LastReload>,
}

impl ReloadState {
    /// At the start, after the first configuration was taken.
    pub(crate) fn new(start: &Start) -> Self {
        let source = Source {
            path: start.config_path.clone(),
            environment: start.environment.clone(),
            port_offset: start.port_offset,
            // Secrets are read once, at the start: a reload neither needs nor takes them.
            mode: Mode { dev: start.dev, secrets_required: false },
            log: start.log.clone(),
        };
        let last = LastReload { at: Timestamp::now(), result: "accepted", error: None };
        Self { taken: fingerprint(&source.path), source, last: Mutex::new(last) }
    }

    /// The last one.
    pub(crate) fn last(&self) -> LastReload {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, error: Option<String>) {
        let result = if error.is_none() { "accepted" } else { "refused" };
        let last = LastReload { at: Timestamp::now(), result, error };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
    }
}

impl Source {
    fn load(&self) -> Result<Config, ReloadError> {
        let loaded = sluice_schema::load(&self.path, &self.environment, self.mode)
            .map_err(|report| ReloadError(report.render(false).chars().take(ERROR_MAX).collect()))?;
        let mut config = loaded.config;
        config.port_offset(self.port_offset).map_err(|error| ReloadError(error.to_string()))?;
        Ok(config)
    }
}

impl Shared {
    /// Builds the generation of the present configuration and registrations anew and puts it in force.
    pub(crate) fn rebuild(&self) -> Result<Arc<Generation>, GenerationError> {
        let present = self.generation();
        self.put_in_force(Arc::clone(&present.config), present.number)
    }

    fn put_in_force(&self, config: Arc<Config>, number: u64) -> Result<Arc<Generation>, GenerationError> {
        let registered = self.registrations.services(&config);
        let mut generation = self.upstreams.build(&self.meters, config, &registered, number)?;
        let present = self.generation.load();
        if present.number == number {
            // A registration is no reload: the configuration is as old as it was.
            generation.loaded_at = present.loaded_at;
        }
        let generation = Arc::new(generation);
        self.generation.store(Arc::clone(&generation));
        self.upstreams.retain(&self.meters, &generation);
        self.meters.generation.set(number as i64);
        Ok(generation)
    }

    /// Loads the files again and puts them in force.
    pub(crate) async fn reload(&self, trigger: &'static str) -> Result<Reloaded, ReloadError> {
        let _one_at_a_time = self.registrations.change.lock().await;
        let result = self.try_reload();
        match &result {
            Ok(done) => {
                self.meters.reload(true);
                self.reload.note(None);
                let changes = done.changes.len() as u64;
                let restart = done.restart.join(" ");
                tracing::info!(
                    component = "reload",
                    trigger,
                    generation = done.generation,
                    changes,
                    restart,
                    "configuration reloaded"
                );
            }
            Err(error) => {
                self.meters.reload(false);
                self.reload.note(Some(error.0.clone()));
                tracing::error!(
                    component = "reload",
                    trigger,
                    error = error.0.as_str(),
                    "configuration refused, the old one stays"
                );
            }
        }
        result
    }

    fn try_reload(&self) -> Result<Reloaded, ReloadError> {
        let config = self.reload.source.load()?;
        let present = self.generation();
        let changes = diff(&present.config, &config);
        let level = config.log.level;
        let generation = self
            .put_in_force(Arc::new(config), present.number + 1)
            .map_err(|error| ReloadError(error.to_string()))?;
        if let Ok(level) = level.as_str().parse() {
            self.reload.source.log.set(level);
        }
        Ok(Reloaded {
            generation: generation.number,
            hash: generation.hash.clone(),
            changes: changes.to_string().lines().map(str::to_owned).collect(),
            restart: changes.restarts().iter().map(ToString::to_string).collect(),
        })
    }
}

/// Reloads on SIGHUP, for ever.
pub(crate) async fn on_hangup(shared: Arc<Shared>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        // The outcome is in log, metric and /health.
        drop(shared.reload("sighup").await);
    }
}

/// Reloads when a file changed and has rested for one look, for ever.
pub(crate) async fn on_change(shared: Arc<Shared>) -> Infallible {
    let path = shared.reload.source.path.clone();
    let mut known = shared.reload.taken.clone();
    let mut seen = known.clone();
    loop {
        tokio::time::sleep(POLL).await;
        let present = fingerprint(&path);
        let rested = present == seen;
        seen.clone_from(&present);
        if rested && present != known {
            known = present;
            drop(shared.reload("file").await);
        }
    }
}

type Fingerprint = Vec<(PathBuf, u64, i64, i64, u64)>;

/// Inode, time and size of the main file and of every file of `services.d`: enough to see an edit, a
/// rename over it and a switched symbolic link.
fn fingerprint(path: &Path) -> Fingerprint {
    let main = if path.is_dir() { path.join("sluice.toml") } else { path.to_path_buf() };
    let folder = main.parent().unwrap_or(Path::new("")).join("services.d");
    let listed =
        std::fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> =
        listed.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect();
    files.push(main);
    files.sort();
    let stat = |path: PathBuf| {
        let file = std::fs::metadata(&path).ok()?;
        Some((path, file.ino(), file.mtime(), file.mtime_nsec(), file.size()))
    };
    files.into_iter().filter_map(stat).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_renames_and_new_files_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let main = dir.path().join("sluice.toml");
        std::fs::write(&main, "").unwrap();
        std::fs::create_dir(dir.path().join("services.d")).unwrap();
        let empty = fingerprint(&main);
        assert_eq!(fingerprint(dir.path()), empty);
        std::fs::write(dir.path().join("services.d/a.toml"), "x").unwrap();
        let one = fingerprint(&main);
        assert_ne!(one, empty);
        std::fs::write(dir.path().join("services.d/readme.md"), "x").unwrap();
        assert_eq!(fingerprint(&main), one);
        std::fs::write(dir.path().join("new"), "y").unwrap();
        std::fs::rename(dir.path().join("new"), dir.path().join("services.d/a.toml")).unwrap();
        assert_ne!(fingerprint(&main), one);
    }
}
