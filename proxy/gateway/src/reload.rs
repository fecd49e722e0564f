//! A new configuration in force, or the old one and the reason why not.
//!
//! Triggers: SIGHUP, a changed file (looked for every half second, taken once it has rested), a call, a
//! rollback. The files are loaded and validated whole, the generation is built, then one pointer is swapped;
//! requests under way keep theirs. A bad file changes nothing and is reported in log, metric and `/health`.
//! Files written as they were make no new generation; what they refer to (certificates) is read again where
//! somebody asked. Files that only look changed, or that a call has taken already, are no reload at all.
//! Accepted files are kept ([`crate::kept`]), outcomes remembered ([`crate::history`]).

mod fault;
mod source;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use jiff::Timestamp;
use serde::Serialize;
use sluice_audit::{Decision, Entry};
use sluice_http::Start;
use sluice_schema::environment::{is_recognised, is_secret};
use sluice_schema::{Config, Diff, diff_of};
use sluice_telemetry::log::LogLevel;

use crate::generation::{Generation, GenerationError};
use crate::history::{ACCEPTED, History, LastReload, Outcome};
use crate::kept::{self, Kept, KeptError, Sources};
use crate::rollback::Staged;
use crate::state::Shared;
use source::{Loaded, Source};

pub(crate) use fault::ReloadError;
use watch::{Fingerprint, fingerprint, has_rested};
pub(crate) use watch::{on_change, on_hangup};

/// LIMIT: services of which a reload tells each key that changed; of more the name.
const TOLD_MAX: usize = 50;

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
    /// Whether its files are on disk for a rollback.
    pub(crate) kept: bool,
}

/// What a rollback did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RolledBack {
    /// The generation whose files are in force again.
    pub(crate) restored: u64,
    /// Where the files that were replaced lie.
    pub(crate) saved: PathBuf,
    /// As after any reload.
    #[serde(flatten)]
    pub(crate) reloaded: Reloaded,
}

/// How reloads went, and what is needed for the next.
pub(crate) struct ReloadState {
    source: Source,
    log: LogLevel,
    data_dir: PathBuf,
    /// The files as they were when they were last taken or refused.
    tried: Mutex<Fingerprint>,
    /// Hash of the texts in force; empty where the process started without files.
    in_force: Mutex<String>,
    kept: Option<Kept>,
    history: History,
    secret_variables: Vec<String>,
}

impl ReloadState {
    /// At the start: the state, the configuration as its files give it, and the number of its generation.
    /// The times of a drain that a supervisor has granted apply beside it.
    pub(crate) fn new(start: &Start) -> (Self, Arc<Config>, u64) {
        let source = Source::new(start);
        let taken = fingerprint(&source.path);
        // A restart must not fail for a certificate that has ended since: only a reload judges them.
        let loaded = source.load(source.at_start()).ok();
        let kept = Kept::open(&start.data_dir).map_err(|error| not_kept(&error)).ok();
        let mut state = Self {
            tried: Mutex::new(taken),
            log: start.log.clone(),
            data_dir: start.data_dir.clone(),
            in_force: Mutex::default(),
            kept,
            history: History::default(),
            secret_variables: Vec::new(),
            source,
        };
        // Files that broke between the start's own look and this one: the start's word counts.
        let Some(Loaded { config, sources, secret_variables }) = loaded else {
            let number = state.newest().map_or(1, |newest| newest.number + 1);
            state.history.started(number);
            return (state, Arc::clone(&start.config), number);
        };
        state.secret_variables = secret_variables;
        let hash = sources.hash();
        let number = match state.newest() {
            Some(newest) if newest.hash == hash => newest.number,
            newest => {
                let number = newest.map_or(1, |newest| newest.number + 1);
                state.keep(number, "start", None, sources);
                number
            }
        };
        state.history.started(number);
        state.set_in_force(hash);
        (state, Arc::new(config), number)
    }

    /// The last one.
    pub(crate) fn last(&self) -> LastReload {
        self.history.last()
    }

    /// The outcomes, newest first.
    pub(crate) fn history(&self) -> Vec<Outcome> {
        self.history.all()
    }

    /// The configurations on disk, oldest first.
    pub(crate) fn kept(&self) -> Vec<kept::Entry> {
        self.kept.as_ref().map(Kept::list).unwrap_or_default()
    }

    /// The main configuration file.
    pub(crate) fn path(&self) -> &Path {
        &self.source.files.main
    }

    /// The port offset in force.
    pub(crate) fn port_offset(&self) -> u16 {
        self.source.port_offset
    }

    /// The variables that take part in the configuration, those with secrets left out.
    pub(crate) fn environment(&self) -> BTreeMap<&str, &str> {
        let shown = |name: &str| {
            is_recognised(name)
                && !is_secret(name)
                && !self.secret_variables.iter().any(|known| known == name)
        };
        let all = self.source.environment.iter();
        all.filter(|(name, _)| shown(name)).map(|(name, text)| (name.as_str(), text.as_str())).collect()
    }

    /// Changes the level of the process log.
    pub(crate) fn set_log_level(&self, level: sluice_schema::LogLevel) {
        if let Ok(level) = level.as_str().parse() {
            self.log.set(level);
        }
    }

    fn newest(&self) -> Option<kept::Entry> {
        self.kept.as_ref()?.newest()
    }

    fn is_in_force(&self, hash: &str) -> bool {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) == hash
    }

    fn set_in_force(&self, hash: String) {
        *self.in_force.lock().unwrap_or_else(PoisonError::into_inner) = hash;
    }

    /// The files as they were when they were last looked into.
    fn tried(&self) -> Fingerprint {
        self.tried.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Loads the files, and notes which ones these were.
    fn load(&self) -> Result<Loaded, ReloadError> {
        self.note_tried();
        self.source.load(self.source.today())
    }

    /// The files as they are now are known. Those that changed a moment ago may change again without looking
    /// different, so the watcher has to look into them.
    fn note_tried(&self) {
        let present = fingerprint(&self.source.path);
        if has_rested(&present, SystemTime::now()) {
            *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = present;
        }
    }

    /// Whether the files say what is in force, and nothing else was refused since.
    fn stands(&self, sources: &Sources) -> bool {
        self.is_in_force(&sources.hash()) && self.history.last().result == ACCEPTED
    }

    /// What a rollback without a number goes back to: where the files say something else than what is in force
    /// (they were refused, or not taken yet), to what is in force; else to the one before it.
    fn earlier(&self, kept: &Kept, present: u64) -> Result<u64, ReloadError> {
        let written = Sources::of(&sluice_schema::written(&self.source.path)).hash();
        match kept.list().into_iter().find(|entry| entry.number == present) {
            Some(entry) if entry.hash != written => Ok(present),
            _ => Ok(kept.before(present).ok_or(ReloadError::NoEarlier)?.number),
        }
    }

    /// Keeps files for a rollback. A disk that cannot refuses nothing: the configuration is in force.
    fn keep(&self, number: u64, trigger: &str, restores: Option<u64>, sources: Sources) -> bool {
        let Some(kept) = &self.kept else { return false };
        kept.keep(number, trigger, restores, sources).map_err(|error| not_kept(&error)).is_ok()
    }
}

fn not_kept(error: &KeptError) {
    tracing::warn!(
        component = "reload",
        error = error as &dyn std::error::Error,
        "the configuration is not kept for a rollback"
    );
}

impl Shared {
    /// Builds the generation of the present configuration and registrations anew and puts it in force.
    pub(crate) fn rebuild(&self) -> Result<Arc<Generation>, GenerationError> {
        let present = self.generation();
        self.put_in_force(Arc::clone(&present.config), present.number)
    }

    fn put_in_force(&self, config: Arc<Config>, number: u64) -> Result<Arc<Generation>, GenerationError> {
        let registered = self.registrations.services(&config);
        let present = self.generation();
        let built = self.upstreams.build(&self.meters, config, &registered, number, Some(&present));
        let mut generation = built?;
        if present.number == number {
            // A registration is no reload: the configuration is as old as it was.
            generation.loaded_at = present.loaded_at;
        }
        let generation = Arc::new(generation);
        self.registrations.adopt(&generation.config);
        self.generation.store(Arc::clone(&generation));
        if let Err(error) = self.keys.keep_in(generation.config.edge_redis().as_ref()) {
            tracing::error!(
                component = "idempotency",
                error = &error as &dyn std::error::Error,
                "keys are kept where they were"
            );
        }
        if let Err(error) = self.joint.configure(&generation.config) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(component = "limits", error, "rates are counted where they were");
        }
        self.upstreams.retain(&self.meters, &generation);
        self.meters.generation.set(number as i64);
        Ok(generation)
    }

    /// Loads the files again and puts them in force.
    pub(crate) async fn reload(&self, trigger: &'static str) -> Result<Reloaded, ReloadError> {
        let _one_at_a_time = self.registrations.change.lock().await;
        let result = tokio::task::block_in_place(|| self.try_reload(trigger));
        self.tell(trigger, result.as_ref());
        result
    }

    /// Loads the files because they look changed. It is no reload where they say what is in force.
    async fn reload_changed(&self) {
        let one_at_a_time = self.registrations.change.lock().await;
        let result = tokio::task::block_in_place(|| {
            let loaded = self.reload.load();
            match loaded {
                Ok(loaded) if self.reload.stands(&loaded.sources) => None,
                loaded => Some(loaded.and_then(|loaded| self.put_loaded("file", loaded))),
            }
        });
        let Some(result) = result else { return };
        self.tell("file", result.as_ref());
        drop(one_at_a_time);
        self.note_unasked("file", result.is_ok()).await;
    }

    /// A reload that no caller of the control port answers for.
    async fn reload_unasked(&self, trigger: &'static str) {
        let outcome = self.reload(trigger).await;
        self.note_unasked(trigger, outcome.is_ok()).await;
    }

    /// What nobody answers for is in log, metric, `/health` and, as a change like any other, in the audit chain.
    async fn note_unasked(&self, trigger: &'static str, accepted: bool) {
        let decision = if accepted { Decision::Allow } else { Decision::Error };
        let entry = Entry::new("control", "reload")
            .path(format!("config: generation {}", self.generation().number))
            .actor(trigger)
            .decision(decision);
        if let Err(error) = self.chain.submit(entry, Timestamp::now()).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(component = "audit", error, "audit record not written");
        }
    }

    /// Loads the files again where they are not those that this process started with.
    pub(crate) async fn catch_up(&self) {
        if fingerprint(&self.reload.source.path) != self.reload.tried() {
            self.reload_unasked("handover").await;
        }
    }

    fn try_reload(&self, trigger: &'static str) -> Result<Reloaded, ReloadError> {
        self.put_loaded(trigger, self.reload.load()?)
    }

    fn put_loaded(&self, trigger: &'static str, loaded: Loaded) -> Result<Reloaded, ReloadError> {
        let sources = loaded.sources.clone();
        let (mut done, number) = self.take(loaded)?;
        done.kept = match number {
            Some(number) => self.reload.keep(number, trigger, None, sources),
            None => self.reload.kept().iter().any(|entry| entry.number == done.generation),
        };
        Ok(done)
    }

    /// Puts the files of an earlier generation in force and in place; without a number those of the one
    /// before the present, or of the present one where the files were changed and not taken.
    pub(crate) async fn roll_back(&self, to: Option<u64>) -> Result<RolledBack, ReloadError> {
        let _one_at_a_time = self.registrations.change.lock().await;
        // Up to a file a service is synchronised; the other tasks of this runtime go on meanwhile.
        let result = tokio::task::block_in_place(|| self.try_roll_back(to));
        match &result {
            Ok(done) => self.tell("rollback", Ok(&done.reloaded)),
            // Nothing was changed and no file is worse than before: the caller is told, health is not.
            Err(error) => tracing::warn!(component = "reload", error = error.to_string(), "no rollback"),
        }
        result
    }

    fn try_roll_back(&self, to: Option<u64>) -> Result<RolledBack, ReloadError> {
        let state = &self.reload;
        let present = self.generation();
        let kept = state.kept.as_ref().ok_or(ReloadError::NoEarlier)?;
        let restored = match to {
            Some(number) => number,
            None => state.earlier(kept, present.number)?,
        };
        let sources = kept.read(restored)?;
        let loaded = state.source.check(&sources.documents(&state.source.files), state.source.today())?;
        let staged = Staged::new(&state.source.files, &sources, &state.data_dir)?;
        let saved = staged.saved().to_owned();
        let (mut reloaded, number) = self.take(loaded)?;
        if let Err(error) = staged.commit() {
            // The files are as they were, so the configuration is too.
            self.apply_tls(&present.config)?;
            self.put_in_force(Arc::clone(&present.config), present.number)?;
            state.set_in_force(String::new());
            return Err(error.into());
        }
        state.note_tried();
        if let Some(number) = number {
            reloaded.kept = state.keep(number, "rollback", Some(restored), sources);
        }
        Ok(RolledBack { restored, saved, reloaded })
    }

    /// Puts a loaded configuration in force; with its new number unless it is written as the present one.
    fn take(&self, loaded: Loaded) -> Result<(Reloaded, Option<u64>), ReloadError> {
        let present = self.generation();
        let changes = diff_of(&present.config, &loaded.config, TOLD_MAX);
        let (level, hash) = (loaded.config.log.level, loaded.sources.hash());
        let fresh = (!self.reload.is_in_force(&hash)).then(|| {
            let newest = self.reload.newest().map_or(0, |newest| newest.number);
            present.number.max(newest) + 1
        });
        let number = fresh.unwrap_or(present.number);
        self.apply_tls(&loaded.config)?;
        let generation = self.put_in_force(Arc::new(loaded.config), number)?;
        if level != present.config.log.level {
            // A level set at run time stays until the file's own changes.
            self.reload.set_log_level(level);
        }
        self.reload.set_in_force(hash);
        Ok((reloaded(&generation, &changes), fresh))
    }

    /// Reports an outcome in log, metric, history and event stream.
    fn tell(&self, trigger: &'static str, result: Result<&Reloaded, &ReloadError>) {
        self.meters.reload(result.is_ok());
        self.announcer.configured(self.kill.edge(), trigger, &self.generation(), result);
        self.reload.history.note(trigger, self.generation().number, result);
        match result {
            Ok(done) => tracing::info!(
                component = "reload",
                trigger,
                generation = done.generation,
                changes = done.changes.len() as u64,
                restart = done.restart.join(" "),
                "configuration reloaded"
            ),
            Err(error) => tracing::error!(
                component = "reload",
                trigger,
                error = error.to_string(),
                "configuration refused, the old one stays"
            ),
        }
    }
}

fn reloaded(generation: &Generation, changes: &Diff) -> Reloaded {
    Reloaded {
        generation: generation.number,
        hash: generation.hash.clone(),
        changes: changes.to_string().lines().map(str::to_owned).collect(),
        restart: changes.restarts().iter().map(ToString::to_string).collect(),
        kept: true,
    }
}
