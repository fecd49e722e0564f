//! The spool: what Redis does not take is kept in a log of this worker, and stored in order once it does.
//!
//! From the first event that goes into the spool until the last one has left it, every event of this worker goes
//! through it: so they keep their order. What Redis may or may not have stored is spooled under the same event id,
//! and stored once.

mod core;
mod letter;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

use self::core::Core;
use super::{AppendError, Condition, Durability, Receipt, through};
use crate::log::{Draft, Fatal, Ground, OpenError, Options};
use crate::redis::{Redis, Trouble};

/// LIMIT: bytes of events that wait.
const BYTES_MAX: u64 = 1 << 30;

/// The spool. Clones share it; its thread ends with the last one, and what is left waits for the next start.
#[derive(Clone, Debug)]
pub(crate) struct Spool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    core: Arc<Core>,
    thread: Option<JoinHandle<()>>,
}

/// What an earlier configuration left in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeftBehind {
    pub(crate) events: u64,
    /// Why nobody knows how many.
    pub(crate) fault: Option<String>,
}

impl LeftBehind {
    /// What an operator is told.
    pub(crate) fn told(&self) -> String {
        match &self.fault {
            None => format!(
                "{} acknowledged events wait for a Redis, and none is configured; with it they are stored there",
                self.events
            ),
            Some(fault) => format!("what waits for a Redis that is not configured cannot be read: {fault}"),
        }
    }
}

impl Spool {
    /// Opens the spool; `None` where none is asked for and none is left. Blocks.
    pub(crate) fn open(
        redis: Redis,
        dir: &Path,
        options: Options,
        ground: Ground,
        takes: bool,
    ) -> Result<Option<Self>, OpenError> {
        if !takes && !dir.is_dir() {
            return Ok(None);
        }
        let core = Core::open(dir, options, ground, takes, BYTES_MAX)?;
        let waiting = core.waiting();
        if waiting > 0 {
            tracing::info!(
                component = "spool",
                events = waiting,
                "events of an earlier start wait for Redis"
            );
        }
        let core = Arc::new(core);
        let own = Arc::clone(&core);
        let thread = std::thread::Builder::new().name("events-spool".into()).spawn(move || own.run(&redis));
        let thread = thread.map_err(|source| OpenError::Io { path: dir.to_owned(), source })?;
        Ok(Some(Self { inner: Arc::new(Inner { core, thread: Some(thread) }) }))
    }

    /// Events that wait for a Redis where none is configured any longer; `None` where none do. They are left alone: the
    /// stream they were acknowledged for is not this one. Blocks.
    pub(crate) fn left_behind(dir: &Path, options: Options, ground: Ground) -> Option<LeftBehind> {
        if !dir.is_dir() {
            return None;
        }
        let left = match Core::open(dir, options, ground, false, BYTES_MAX) {
            Ok(core) => LeftBehind { events: core.waiting(), fault: None },
            Err(error) => LeftBehind { events: 0, fault: Some(error.to_string()) },
        };
        (left.events > 0 || left.fault.is_some()).then_some(left)
    }

    /// Stores events in Redis, or in the spool.
    pub(super) async fn append(
        &self,
        redis: &Redis,
        drafts: Vec<Draft>,
        atomic: bool,
    ) -> Result<Receipt, AppendError> {
        let core = &self.inner.core;
        let takes = core.takes;
        let spooling = core.spooling.read().await;
        if *spooling && takes {
            return core.store(drafts, atomic).await;
        }
        drop(spooling);
        let again = takes.then(|| drafts.clone());
        let trouble = match (through(redis, drafts, atomic).await, &again) {
            (Err(AppendError::Away(trouble)), Some(_)) if waits(&trouble) => trouble,
            (answered, _) => return answered,
        };
        let mut spooling = core.spooling.write().await;
        if !std::mem::replace(&mut *spooling, true) {
            tracing::warn!(component = "spool", why = %trouble, "events wait here until Redis takes them");
        }
        // Nothing comes between: the first event here is the first one that is stored.
        let _spooling = spooling.downgrade();
        core.store(again.unwrap_or_default(), atomic).await
    }

    /// Events that wait for Redis.
    pub(super) fn waiting(&self) -> u64 {
        self.inner.core.waiting()
    }

    /// How the store is, where the server is so.
    pub(super) fn condition(&self, server: Condition) -> Condition {
        let core = &self.inner.core;
        let events = core.waiting();
        if core.log.fatal().is_some() {
            return Condition::Failed;
        }
        if core.broken.load(Ordering::Relaxed) {
            let why = "what waits for Redis cannot be read".to_owned();
            return Condition::Spooling { why, events };
        }
        match server {
            Condition::Away(why) if core.takes && core.has_room() => Condition::Spooling { why, events },
            Condition::Full if core.takes && core.has_room() => {
                Condition::Spooling { why: "it may take no more memory".to_owned(), events }
            }
            Condition::Well if events > 0 => {
                Condition::Spooling { why: "they are being stored".to_owned(), events }
            }
            server => server,
        }
    }

    /// Waits until the spool's log fails for good; forever while it does not.
    pub(super) async fn failed(&self) -> Fatal {
        self.inner.core.log.failed().await
    }
}

/// Whether events wait in the spool after such trouble. A call that Redis answered with an error of another kind
/// would be answered so again.
fn waits(trouble: &Trouble) -> bool {
    trouble.is_not_done() || matches!(trouble, Trouble::Lost(_))
}

impl Drop for Inner {
    fn drop(&mut self) {
        *self.core.closing.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.core.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the hook.
            drop(thread.join());
        }
    }
}
