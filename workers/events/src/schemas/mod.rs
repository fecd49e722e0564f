//! Schemas of event types: what the `data` of an event must be.
//!
//! A type without a schema costs a look at a table. `off` keeps a schema without asking it, `warn` counts what does
//! not follow it, `enforce` refuses that. Types of the roles have no schemas: nothing keeps a kill switch from being
//! heard. Schemas are files of this worker ([`store`]) or, where the stream is in Redis, a hash there, which every worker
//! looks at each second; the tables in memory are replaced whole.

mod calls;
mod check;
mod number;
mod shape;
mod store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use jiff::Timestamp;
use prometheus::IntCounterVec;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_wire::code::Code;

use crate::error::Fault;
use crate::redis::{Redis, Trouble};
use check::Violation;
use shape::{Shape, ShapeError};
use store::Stored;

pub(crate) use calls::{SCHEMA_BYTES_MAX, list, read, remove, set};
use store::StoreError;

/// LIMIT: types that have a schema.
const TYPES_MAX: usize = 256;
/// LIMIT: versions kept of one schema; the oldest go.
const VERSIONS_MAX: usize = 16;

/// What becomes of an event that does not follow its type's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// It is not looked at.
    Off,
    /// It is stored and counted.
    Warn,
    /// It is refused.
    Enforce,
}

impl Mode {
    const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Enforce => "enforce",
        }
    }
}

type Table = BTreeMap<Box<str>, Arc<Entry>>;

/// Where they are kept.
#[derive(Debug)]
pub(crate) enum Home {
    /// In a folder of this worker.
    Folder(PathBuf),
    /// In Redis, for every worker.
    Shared(Redis),
}

impl Default for Home {
    fn default() -> Self {
        Self::Folder(PathBuf::default())
    }
}

/// LIMIT: tries to set a schema that other workers change at the same time.
const TRIES_MAX: usize = 8;

/// The schemas in force.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    home: Home,
    /// How often those that are shared were changed, as they are known here.
    seen: AtomicU64,
    table: ArcSwap<Table>,
    /// One change at a time.
    turn: Mutex<()>,
    violations: Option<IntCounterVec>,
}

/// The schemas that the events of one call are held against: those in force when its first one was.
#[derive(Debug, Default)]
pub(crate) struct Held(Option<Guard<Arc<Table>>>);

/// The schema of one type.
#[derive(Debug)]
struct Entry {
    stored: Stored,
    /// Of the newest version.
    shape: Shape,
    figures: Mutex<Figures>,
}

/// What was found since the schema was set or the worker started.
#[derive(Clone, Debug, Default, Serialize)]
struct Figures {
    violations: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_violation: Option<Last>,
}

#[derive(Clone, Debug, Serialize)]
struct Last {
    at: Timestamp,
    pointer: String,
    detail: String,
}

/// Why a schema was not set.
#[derive(Debug, thiserror::Error)]
enum SetError {
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error("there are {TYPES_MAX} schemas already")]
    TooMany,
    #[error("there is no schema yet to set the mode of")]
    Nothing,
    #[error("the schema could not be stored")]
    Store(#[from] std::io::Error),
    #[error(transparent)]
    Redis(#[from] Trouble),
    #[error("other workers change schemas at this moment")]
    Raced,
}

impl Schemas {
    /// Reads the schemas of a folder, which need not be there. Those in Redis are read by [`Schemas::refresh`].
    /// Blocks.
    pub(crate) fn open(home: Home, violations: IntCounterVec) -> Result<Self, StoreError> {
        let mut table = Table::new();
        if let Home::Folder(dir) = &home {
            for (path, stored) in store::load(dir)? {
                let damaged = |what: String| StoreError::Damaged { path: path.clone(), what };
                let entry = Entry::of(stored).map_err(damaged)?;
                table.insert(entry.stored.event_type.as_str().into(), entry);
            }
        }
        Ok(Self {
            home,
            seen: AtomicU64::new(0),
            table: ArcSwap::from_pointee(table),
            turn: Mutex::default(),
            violations: Some(violations),
        })
    }

    /// Takes up what other workers changed. Blocks.
    pub(crate) fn refresh(&self) -> Result<(), Trouble> {
        let Home::Shared(redis) = &self.home else { return Ok(()) };
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.take_up(redis)
    }

    fn take_up(&self, redis: &Redis) -> Result<(), Trouble> {
        let seen = self.seen.load(Ordering::Relaxed);
        let (changes, texts) = redis.schemas(seen)?;
        if changes == seen {
            return Ok(());
        }
        let old = self.table.load();
        let mut table = Table::new();
        for (kind, text) in texts {
            let read = || -> Result<Arc<Entry>, String> {
                let stored: Stored = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
                match old.get(kind.as_str()) {
                    // Its figures go on.
                    Some(known) if known.stored == stored => Ok(Arc::clone(known)),
                    _ if stored.event_type != kind => Err("it is of another type".to_owned()),
                    _ => Entry::of(stored),
                }
            };
            match read() {
                Ok(entry) => drop(table.insert(kind.into(), entry)),
                Err(why) => tracing::error!(component = "schemas", kind, why, "a schema in Redis is damaged"),
            }
        }
        self.table.store(Arc::new(table));
        self.seen.store(changes, Ordering::Relaxed);
        Ok(())
    }

    /// Checks the data of an event.
    pub(crate) fn check(&self, held: &mut Held, kind: &str, data: &[u8]) -> Result<(), Fault> {
        let table = held.0.get_or_insert_with(|| self.table.load());
        if table.is_empty() {
            return Ok(());
        }
        let Some(entry) = table.get(kind).filter(|entry| entry.stored.mode != Mode::Off) else {
            return Ok(());
        };
        let value: Value =
            serde_json::from_slice(data).map_err(|error| Fault::event("/data", error.to_string()))?;
        let Err(violation) = entry.shape.check(&value) else { return Ok(()) };
        if let Some(violations) = &self.violations {
            violations.with_label_values(&[entry.stored.mode.word()]).inc();
        }
        entry.note(&violation);
        if entry.stored.mode == Mode::Warn {
            return Ok(());
        }
        let version = entry.stored.newest().map_or(0, |newest| newest.number);
        let what = &violation.what;
        Err(Fault {
            code: Code::SchemaViolation,
            detail: format!("does not follow version {version} of the schema of `{kind}`: {what}"),
            pointer: Some(format!("/data{}", violation.pointer).into()),
        })
    }

    fn entry(&self, kind: &str) -> Option<Arc<Entry>> {
        self.table.load().get(kind).cloned()
    }

    /// Sets schema and mode, each where one is given. Blocks.
    fn set(
        &self,
        kind: &str,
        schema: Option<Value>,
        mode: Option<Mode>,
        by: &str,
    ) -> Result<Arc<Entry>, SetError> {
        let _turn: MutexGuard<'_, ()> = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES_MAX {
            if let Home::Shared(redis) = &self.home {
                self.take_up(redis)?;
            }
            let (stored, shape) = self.changed(kind, schema.clone(), mode, by)?;
            if !self.keep(&stored)? {
                continue;
            }
            let entry = Entry::new(stored, shape);
            let mut table = Table::clone(&self.table.load());
            table.insert(kind.into(), Arc::clone(&entry));
            self.table.store(Arc::new(table));
            return Ok(entry);
        }
        Err(SetError::Raced)
    }

    fn changed(
        &self,
        kind: &str,
        schema: Option<Value>,
        mode: Option<Mode>,
        by: &str,
    ) -> Result<(Stored, Shape), SetError> {
        let mut stored = match self.entry(kind) {
            Some(known) => known.stored.clone(),
            None if schema.is_none() => return Err(SetError::Nothing),
            None if self.table.load().len() >= TYPES_MAX => return Err(SetError::TooMany),
            None => Stored::new(kind),
        };
        if let Some(mode) = mode {
            stored.mode = mode;
        }
        if let Some(schema) = schema {
            // The same schema again is no new version.
            if stored.newest().is_none_or(|newest| newest.schema != schema) {
                stored.push(schema, by);
            }
        }
        let newest = stored.newest().ok_or(SetError::Nothing)?;
        let shape = Shape::of(&newest.schema)?;
        Ok((stored, shape))
    }

    /// Stores a schema; `false` where another worker came before.
    fn keep(&self, stored: &Stored) -> Result<bool, SetError> {
        match &self.home {
            Home::Folder(dir) => store::write(dir, stored).map(|()| true).map_err(SetError::from),
            Home::Shared(redis) => {
                let text = serde_json::to_vec(stored).map_err(std::io::Error::from)?;
                self.swap(redis, &stored.event_type, Some(&text))
            }
        }
    }

    fn swap(&self, redis: &Redis, kind: &str, text: Option<&[u8]>) -> Result<bool, SetError> {
        let seen = self.seen.load(Ordering::Relaxed);
        let is_done = redis.set_schema(kind, text, seen)?;
        if is_done {
            self.seen.store(seen + 1, Ordering::Relaxed);
        }
        Ok(is_done)
    }

    /// Forgets a schema; whether there was one. Blocks.
    fn remove(&self, kind: &str) -> Result<bool, SetError> {
        let _turn: MutexGuard<'_, ()> = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..TRIES_MAX {
            if let Home::Shared(redis) = &self.home {
                self.take_up(redis)?;
            }
            if self.entry(kind).is_none() {
                return Ok(false);
            }
            let is_done = match &self.home {
                Home::Folder(dir) => store::remove(dir, kind).map(|()| true)?,
                Home::Shared(redis) => self.swap(redis, kind, None)?,
            };
            if is_done {
                let mut table = Table::clone(&self.table.load());
                table.remove(kind);
                self.table.store(Arc::new(table));
                return Ok(true);
            }
        }
        Err(SetError::Raced)
    }
}

impl Entry {
    /// An entry of what was stored, or what is wrong with that.
    fn of(stored: Stored) -> Result<Arc<Self>, String> {
        let newest = stored.newest().ok_or_else(|| "it holds no version".to_owned())?;
        let shape = Shape::of(&newest.schema).map_err(|error| error.to_string())?;
        Ok(Self::new(stored, shape))
    }

    fn new(stored: Stored, shape: Shape) -> Arc<Self> {
        Arc::new(Self { stored, shape, figures: Mutex::default() })
    }

    fn note(&self, violation: &Violation) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        figures.violations += 1;
        figures.last_violation = Some(Last {
            at: Timestamp::now(),
            pointer: format!("/data{}", violation.pointer),
            detail: violation.what.clone(),
        });
    }

    fn figures(&self) -> Figures {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
