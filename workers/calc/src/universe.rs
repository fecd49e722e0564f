//! The universe: the symbols that are worth looking at, the first one first.
//!
//! It lies in `<data-dir>/calc/universe.json`. An operator may write the file before a start; a running worker is told
//! by `PUT` alone, so that what it answers is what it goes by. A file that cannot be read stops the start: running on
//! without the universe that somebody wrote down would look as if there were none.
//!
//! A change is answered when it is on the disk: a new file, synced, renamed into the place of the old one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{FromRequest as _, Request, State};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Json};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_http::{Authenticated, BodyLimit, Reject, StrictJson, require};
use sluice_wire::code::Code;
use sluice_wire::json;
use sluice_wire::problem::{Outcome, Problem};
use sluice_wire::symbol::Symbol;
use tokio::sync::Mutex;

use crate::bounds::{UNIVERSE_BYTES_MAX, UNIVERSE_SOURCE_BYTES_MAX, UNIVERSE_SYMBOLS_MAX};
use crate::context::Context;
use crate::whole;

/// Name of the file.
const FILE: &str = "universe.json";

/// The symbols and where they come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Universe {
    /// In the order of their rank.
    symbols: Vec<String>,
    /// When they were told, ISO 8601.
    #[serde(default)]
    updated: Option<String>,
    /// Who or what chose them.
    #[serde(default)]
    source: Option<String>,
    /// Counts the changes.
    #[serde(default)]
    version: u64,
}

/// What a client wants the universe to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    symbols: Vec<String>,
    #[serde(default)]
    source: Option<String>,
    /// The version that the client has seen; without it the last one who writes is right.
    #[serde(default)]
    version: Option<u64>,
}

/// The universe of this worker: one change at a time.
pub(crate) struct Kept {
    path: PathBuf,
    now: Mutex<Arc<Universe>>,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UniverseError {
    /// Reading failed.
    #[error("{} cannot be read", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// It is no universe.
    #[error("{} is no universe: {}; put it right, or take it away to begin with none", .0.display(), .1)]
    Wrong(PathBuf, String),
}

/// Symbols that cannot be.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    index: Option<usize>,
    text: String,
}

impl Universe {
    /// Holds it against the bounds.
    fn check(&self) -> Result<(), Wrong> {
        let whole = |text| Err(Wrong { index: None, text });
        if self.symbols.len() > UNIVERSE_SYMBOLS_MAX {
            return whole(format!("a universe has at most {UNIVERSE_SYMBOLS_MAX} symbols"));
        }
        let unfit = |source: &String| {
            source.len() > UNIVERSE_SOURCE_BYTES_MAX || source.chars().any(char::is_control)
        };
        if self.source.as_ref().is_some_and(unfit) {
            return whole(format!(
                "`source` has at most {UNIVERSE_SOURCE_BYTES_MAX} bytes and no control characters"
            ));
        }
        let mut ranks = BTreeMap::new();
        for (index, text) in self.symbols.iter().enumerate() {
            let fault = |text| Err(Wrong { index: Some(index), text });
            if let Err(error) = Symbol::parse(text) {
                return fault(format!("symbol {index}: {error}"));
            }
            if let Some(first) = ranks.insert(text, index) {
                return fault(format!("symbol {index} is there already, at {first}"));
            }
        }
        Ok(())
    }
}

impl Kept {
    /// Reads what there is below a folder of the worker.
    pub(crate) fn open(folder: &Path) -> Result<Self, UniverseError> {
        let path = folder.join(FILE);
        let universe = match File::open(&path) {
            Ok(file) => read(&path, file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Universe::default(),
            Err(error) => return Err(UniverseError::Read(path, error)),
        };
        Ok(Self { path, now: Mutex::new(Arc::new(universe)) })
    }

    async fn put(&self, wanted: Wanted, updated: Timestamp) -> Result<Arc<Universe>, Reject> {
        let mut now = self.now.lock().await;
        if wanted.version.is_some_and(|version| version != now.version) {
            let detail = format!("the universe has version {}: read it again", now.version);
            return Err(Reject::new(Code::VersionConflict, detail));
        }
        let next = Arc::new(Universe {
            symbols: wanted.symbols,
            updated: Some(updated.to_string()),
            source: wanted.source,
            version: now.version + 1,
        });
        next.check().map_err(|Wrong { index, text }| {
            let problem = Problem::new(Code::Unprocessable).detail(text);
            index.map_or(problem.clone(), |index| problem.index(index))
        })?;
        let (path, text) = (self.path.clone(), serde_json::to_vec_pretty(&*next));
        let text = text.expect("texts and numbers always serialize");
        let written = tokio::task::spawn_blocking(move || whole::write(&path, &text)).await;
        if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
            tracing::error!(component = "universe", error = %error, "the universe cannot be written");
            // Where the rename was done and its sync failed, the next start may find the new one.
            let problem = Problem::new(Code::StoreUnavailable).outcome(Outcome::Unknown).retry_after_s(10);
            return Err(problem.detail("the universe cannot be written").into());
        }
        *now = Arc::clone(&next);
        Ok(next)
    }
}

fn read(path: &Path, file: File) -> Result<Universe, UniverseError> {
    let mut text = Vec::new();
    let limit = UNIVERSE_BYTES_MAX as u64;
    let read = file.take(limit + 1).read_to_end(&mut text);
    read.map_err(|error| UniverseError::Read(path.to_owned(), error))?;
    let wrong = |text| UniverseError::Wrong(path.to_owned(), text);
    if text.len() as u64 > limit {
        return Err(wrong(format!("it has more than {limit} bytes")));
    }
    let universe: Universe = json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    universe.check().map_err(|Wrong { text, .. }| wrong(text))?;
    Ok(universe)
}

/// `GET|PUT /calculations/universe`
pub(crate) fn route() -> MethodRouter<Arc<Context>> {
    get(get_universe).put(put_universe).layer(Extension(BodyLimit(UNIVERSE_BYTES_MAX)))
}

async fn get_universe(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
) -> Result<Json<Universe>, Reject> {
    require(&caller, "read")?;
    let now = Arc::clone(&*context.universe.now.lock().await);
    Ok(Json(Universe::clone(&now)))
}

async fn put_universe(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Json<Universe>, Reject> {
    require(&caller, "write")?;
    let StrictJson(wanted) = StrictJson::<Wanted>::from_request(request, &()).await?;
    let put = context.universe.put(wanted, Timestamp::now()).await?;
    tracing::info!(
        component = "universe",
        symbols = put.symbols.len(),
        version = put.version,
        by = &*caller.subject,
        "the universe is another one"
    );
    Ok(Json(Universe::clone(&put)))
}
