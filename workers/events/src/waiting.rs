//! Opening the log, which may have to wait for its key: the worker answers meanwhile, and does not end.
//!
//! A start that has its key at once serves as soon as the log is open. One that has not serves its doors with 503
//! after [`GRACE`] and asks again, until it is given the key that opens the log. Whatever else keeps a log from
//! opening ends the process.

use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::Uri;
use axum::routing::get;
use sluice_http::{Reject, ServeError, Start, Stopper, serve_listener};
use sluice_wire::code::Code;
use sluice_wire::problem::{Outcome, Problem};

use crate::config::Settings;
use crate::error::RunError;
use crate::keys::{KeyError, KeySource};
use crate::log::{AtRest, Ground, Log, OpenError};
use crate::metrics::Metrics;

/// How long nobody is answered: a vault that is just starting needs less.
const GRACE: Duration = Duration::from_secs(2);
/// First pause before asking again; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long answers that refuse may still take once the log is open.
const DRAIN: Duration = Duration::from_secs(1);

/// Why the log is not open yet.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("opening the event log broke off")]
    Broken(#[from] tokio::task::JoinError),
}

/// What the refusals say.
#[derive(Debug, Default)]
struct Waiting(Mutex<Option<Code>>);

/// Opens the log; `None` when the process is to end before it is open. The keys it was opened with come with it.
pub(crate) async fn open(
    start: &Start,
    settings: &Settings,
    metrics: &Arc<Metrics>,
) -> Result<Option<(Log, AtRest)>, RunError> {
    let source = KeySource::of(start);
    let waiting = Arc::new(Waiting::default());
    meanwhile(start, &waiting, open_in_the_end(settings, metrics, &source, &waiting)).await
}

/// Asks for the keys of files beside a stream that is not kept here; `None` when the process is to end before.
pub(crate) async fn keys(start: &Start, settings: &Settings) -> Result<Option<AtRest>, RunError> {
    let source = KeySource::of(start);
    let waiting = Arc::new(Waiting::default());
    meanwhile(start, &waiting, keys_in_the_end(settings, &source, &waiting)).await
}

/// Waits for what is to be opened, and from [`GRACE`] on refuses who calls; `None` when the process is to end.
async fn meanwhile<T>(
    start: &Start,
    waiting: &Arc<Waiting>,
    opening: impl Future<Output = Result<T, RunError>>,
) -> Result<Option<T>, RunError> {
    tokio::pin!(opening);
    tokio::select! {
        opened = &mut opening => return opened.map(Some),
        () = start.stop.wait() => return Ok(None),
        () = tokio::time::sleep(GRACE) => {}
    }
    let (stopper, stop) = Stopper::new();
    let app = refusals(waiting);
    let mut doors = tokio::task::JoinSet::new();
    let duplicates = start.doors().duplicates()?;
    for (door, listener) in duplicates {
        let served = serve_listener(listener, app.clone(), stop.clone(), DRAIN);
        doors.spawn(served.map_err(|source| ServeError::Door { door, source })?);
    }
    let opened = tokio::select! {
        opened = &mut opening => opened.map(Some),
        () = start.stop.wait() => Ok(None),
    };
    // Whoever connects from here on is answered by the open worker.
    stopper.stop();
    doors.join_all().await;
    opened
}

async fn keys_in_the_end(
    settings: &Settings,
    source: &KeySource,
    waiting: &Waiting,
) -> Result<AtRest, RunError> {
    let mut at_rest = settings.at_rest.clone();
    let mut pause = PAUSE_MIN;
    while at_rest.encrypt && at_rest.keys.is_none() {
        match source.ask().await {
            Ok(keys) => at_rest.keys = Some(Arc::new(keys)),
            Err(error) if !error.may_pass() => return Err(RunError::Key(error)),
            Err(error) => waiting.again(&Obstacle::Key(error), &mut pause).await,
        }
    }
    Ok(at_rest)
}

async fn open_in_the_end(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    source: &KeySource,
    waiting: &Waiting,
) -> Result<(Log, AtRest), RunError> {
    let mut pause = PAUSE_MIN;
    loop {
        let obstacle = match try_open(settings, metrics, source).await {
            Ok(opened) => return Ok(opened),
            Err(Obstacle::Key(error)) if !error.may_pass() => return Err(RunError::Key(error)),
            Err(Obstacle::Open(error)) if !matches!(error, OpenError::Key { .. }) => {
                return Err(RunError::Open(error));
            }
            Err(Obstacle::Broken(error)) => return Err(RunError::Join(error)),
            Err(obstacle) => obstacle,
        };
        waiting.again(&obstacle, &mut pause).await;
    }
}

async fn try_open(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    source: &KeySource,
) -> Result<(Log, AtRest), Obstacle> {
    if settings.at_rest.encrypt {
        return open_with(settings, metrics, Some(source.ask().await?)).await;
    }
    match open_with(settings, metrics, None).await {
        // Encryption was switched off: what was written before is still read.
        Err(Obstacle::Open(OpenError::Key { .. })) => {
            open_with(settings, metrics, Some(source.ask().await?)).await
        }
        opened => opened,
    }
}

async fn open_with(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    keys: Option<crate::log::Keyring>,
) -> Result<(Log, AtRest), Obstacle> {
    let (dir, options) = (settings.log_dir.clone(), settings.log_options);
    let at_rest = AtRest { keys: keys.map(Arc::new), ..settings.at_rest.clone() };
    let ground = Ground { observer: Arc::clone(metrics) as _, at_rest: at_rest.clone(), ..Ground::default() };
    let log = tokio::task::spawn_blocking(move || Log::open(&dir, &options, ground)).await??;
    let (found, stats) = (log.recovered(), log.reader().stats());
    tracing::info!(
        component = "log",
        events = stats.length,
        bytes = stats.bytes,
        torn_bytes = found.torn_bytes,
        reindexed = found.reindexed,
        remembered = found.remembered,
        encrypted = at_rest.encrypt,
        "event log opened"
    );
    Ok((log, at_rest))
}

impl Waiting {
    /// Says what is waited for, and pauses; the pause grows.
    async fn again(&self, obstacle: &Obstacle, pause: &mut Duration) {
        let sealed = matches!(obstacle, Obstacle::Key(error) if error.is_sealed());
        let code = if sealed { Code::Sealed } else { Code::WorkerUnavailable };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(code);
        tracing::warn!(
            component = "log",
            error = obstacle as &dyn Error,
            pause_ms = pause.as_millis() as u64,
            "the event log waits for its key"
        );
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 2).min(PAUSE_MAX);
    }
}

fn refusals(waiting: &Arc<Waiting>) -> Router {
    Router::new().route("/livez", get(|| async { "ok\n" })).fallback(refuse).with_state(Arc::clone(waiting))
}

async fn refuse(State(waiting): State<Arc<Waiting>>, uri: Uri) -> Reject {
    let code = waiting.0.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or(Code::WorkerUnavailable);
    let problem = Problem::new(code)
        .detail("the event log is not open yet: it waits for its key, or is being read")
        .outcome(Outcome::NotSent)
        .retry_after_s(2)
        .instance(uri.path());
    problem.into()
}
