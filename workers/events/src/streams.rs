//! Streams beside the main one: what replays are stored in, each a log of its own.
//!
//! They are made by `into = "stream:NAME"` and read with `stream=NAME`. Where the main one is in Redis they are there
//! too, and every worker finds them. Elsewhere retention, sync, encryption and compression are
//! those of the main stream; they are not archived. There are at most [`STREAMS_MAX`]; one goes by removing its folder while the worker is down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sluice_http::Reject;
use sluice_wire::code::Code;
use tokio::sync::Mutex;

use crate::engine::Engine;
use crate::error::read_problem;
use crate::log::{AtRest, Ground, Log, OpenError, Options};
use crate::redis::{Beside, BesideError, ReadTrouble, Redis};

/// LIMIT: streams beside the main one.
pub(crate) const STREAMS_MAX: usize = 16;
/// LIMIT: bytes of a stream's name.
const NAME_BYTES_MAX: usize = 64;

/// The streams of this worker beside its main one. A log is opened when it is first used.
#[derive(Debug)]
pub(crate) struct Streams {
    main: String,
    dir: PathBuf,
    options: Options,
    at_rest: AtRest,
    /// The main stream, where it is in Redis.
    redis: Option<Redis>,
    open: Mutex<BTreeMap<String, Engine>>,
}

impl Streams {
    pub(crate) fn new(
        main: &str,
        dir: PathBuf,
        options: Options,
        at_rest: &AtRest,
        redis: Option<Redis>,
    ) -> Self {
        let at_rest = AtRest { archive: None, ..at_rest.clone() };
        Self { main: main.to_owned(), dir, options, at_rest, redis, open: Mutex::default() }
    }

    /// The stream with a name, made when it is not there.
    pub(crate) async fn made(&self, name: &str) -> Result<Engine, Reject> {
        if name == self.main {
            return Err(Reject::new(Code::BadRequest, "a stream is not replayed into itself"));
        }
        if !is_name(name) {
            let text = format!("a stream's name is 1 to {NAME_BYTES_MAX} of letters, digits and `._-`");
            return Err(Reject::new(Code::BadRequest, text));
        }
        self.opened(name, true).await
    }

    /// The stream with a name; `None` for the main one.
    pub(crate) async fn named(&self, name: &str) -> Result<Option<Engine>, Reject> {
        if name == self.main {
            return Ok(None);
        }
        if !is_name(name) {
            return Err(unknown());
        }
        self.opened(name, false).await.map(Some)
    }

    async fn opened(&self, name: &str, make: bool) -> Result<Engine, Reject> {
        // Held while the log opens, so that nothing opens it twice.
        let mut open = self.open.lock().await;
        if let Some(engine) = open.get(name) {
            return Ok(engine.clone());
        }
        if let Some(redis) = self.redis.clone() {
            let own = name.to_owned();
            let opening = tokio::task::spawn_blocking(move || redis.beside(&own, make, STREAMS_MAX));
            let found = opening.await.map_err(|_| broken_off())?.map_err(|error| beside_problem(&error))?;
            let engine = match found {
                Beside::There(redis) => Engine::Redis(redis, None),
                Beside::Absent => return Err(unknown()),
                Beside::TooMany => return Err(too_many()),
            };
            open.insert(name.to_owned(), engine.clone());
            return Ok(engine);
        }
        let (dir, folder, options) = (self.dir.clone(), self.dir.join(format!("{name}.log")), self.options);
        let ground = Ground { at_rest: self.at_rest.clone(), ..Ground::default() };
        let opening = tokio::task::spawn_blocking(move || open_log(&dir, &folder, &options, ground, make));
        let engine = opening.await.map_err(|_| broken_off())??;
        open.insert(name.to_owned(), engine.clone());
        Ok(engine)
    }
}

fn open_log(
    dir: &Path,
    folder: &Path,
    options: &Options,
    ground: Ground,
    make: bool,
) -> Result<Engine, Reject> {
    if !folder.is_dir() {
        if !make {
            return Err(unknown());
        }
        std::fs::create_dir_all(dir).map_err(|error| failed(&error))?;
        let known = std::fs::read_dir(dir).map_err(|error| failed(&error))?.count();
        if known >= STREAMS_MAX {
            return Err(too_many());
        }
    }
    let log = Log::open(folder, options, ground).map_err(|error: OpenError| failed(&error))?;
    Ok(Engine::Embedded(log))
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Reject {
    tracing::error!(component = "streams", error, "a stream beside the main one did not open");
    Reject::new(Code::WorkerUnavailable, "the stream could not be opened")
}

fn beside_problem(error: &BesideError) -> Reject {
    match error {
        BesideError::Redis(trouble) => read_problem(&ReadTrouble::from(trouble.clone()).into()).into(),
        BesideError::Open(error) => failed(error),
    }
}

fn broken_off() -> Reject {
    Reject::new(Code::Internal, "opening the stream broke off")
}

fn too_many() -> Reject {
    Reject::new(Code::Unprocessable, format!("there are {STREAMS_MAX} streams beside the main one already"))
}

fn unknown() -> Reject {
    Reject::new(Code::NotFound, "there is no stream with this name")
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path() {
        for bad in ["", "a/b", "ä", "a b", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_name("run-7.backtest_2"));
    }
}
