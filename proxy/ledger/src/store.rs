//! The file: private, opened once, opened again after its disk failed.
//!
//! redb refuses everything after an I/O error until the file is opened anew. So a failed call closes
//! it and the next call tries again: a disk that was full works after there is room, without a restart.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use crate::{FORMAT, LedgerError};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";
/// The records are few and small; the file is read whole at the start and then seldom.
const CACHE_BYTES: usize = 1 << 20;

type Opener = Box<dyn Fn(&Path) -> Result<Database, LedgerError> + Send + Sync>;

/// The file. One call at a time.
pub(crate) struct Store {
    path: PathBuf,
    opener: Opener,
    state: Mutex<State>,
}

enum State {
    Open(Database),
    /// A call failed: the next one opens the file anew.
    Failed,
    /// Only [`Store::reopen`] opens it.
    Closed,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Store {
    pub(crate) fn closed(data_dir: &Path) -> Result<Self, LedgerError> {
        let folder = data_dir.join("edge");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| LedgerError::Prepare { path: folder.clone(), source })?;
        Ok(Self::closed_with(folder.join("ledger.redb"), Box::new(open_file)))
    }

    fn closed_with(path: PathBuf, opener: Opener) -> Self {
        Self { path, opener, state: Mutex::new(State::Closed) }
    }

    pub(crate) fn reopen(&self) -> Result<(), LedgerError> {
        {
            let mut state = self.lock();
            if matches!(*state, State::Open(_)) {
                return Ok(());
            }
            *state = State::Open((self.opener)(&self.path)?);
        }
        let checked = self.check_format();
        if checked.is_err() {
            self.close();
        }
        checked
    }

    pub(crate) fn is_open(&self) -> bool {
        !matches!(*self.lock(), State::Closed)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn close(&self) {
        *self.lock() = State::Closed;
    }

    /// Reads in one snapshot.
    pub(crate) fn read<T>(
        &self,
        act: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, LedgerError> {
        self.with(|database| act(&database.begin_read()?))
    }

    /// Writes in one transaction; it is on the disk when this returns. An inner `Err` writes nothing.
    pub(crate) fn write<T, E>(
        &self,
        act: impl FnOnce(&WriteTransaction) -> Result<Result<T, E>, redb::Error>,
    ) -> Result<Result<T, E>, LedgerError> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            let result = act(&transaction)?;
            if result.is_ok() {
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok(result)
        })
    }

    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, LedgerError> {
        let mut state = self.lock();
        let database = match std::mem::replace(&mut *state, State::Failed) {
            State::Open(database) => database,
            State::Failed => (self.opener)(&self.path)?,
            State::Closed => {
                *state = State::Closed;
                return Err(LedgerError::Closed { path: self.path.clone() });
            }
        };
        let result = act(&database);
        if result.is_ok() {
            *state = State::Open(database);
        }
        result.map_err(|error| storage(&self.path, error))
    }

    /// A file that has its format is only read: opening it syncs nothing and needs no room.
    fn check_format(&self) -> Result<(), LedgerError> {
        let known = self.read(|transaction| match transaction.open_table(META) {
            Ok(meta) => Ok(meta.get(FORMAT_KEY)?.map(|format| format.value())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        if known == Some(FORMAT) {
            return Ok(());
        }
        let found = self.write(|transaction| {
            let mut meta = transaction.open_table(META)?;
            let found = meta.get(FORMAT_KEY)?.map(|format| format.value());
            if found.is_none() {
                meta.insert(FORMAT_KEY, FORMAT)?;
            }
            Ok(match found {
                Some(found) if found != FORMAT => Err(found),
                _ => Ok(()),
            })
        })?;
        found.map_err(|found| LedgerError::Format { path: self.path.clone(), found })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_file(path: &Path) -> Result<Database, LedgerError> {
    let prepare = |source| LedgerError::Prepare { path: path.to_owned(), source };
    let file = private_file(path).map_err(prepare)?;
    Database::builder().set_cache_size(CACHE_BYTES).create_file(file).map_err(|error| match error {
        redb::DatabaseError::DatabaseAlreadyOpen => LedgerError::Busy { path: path.to_owned() },
        error => storage(path, error.into()),
    })
}

/// The file, readable by its owner alone, its name on the disk.
fn private_file(path: &Path) -> io::Result<fs::File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    if let Some(folder) = path.parent() {
        fs::File::open(folder)?.sync_all()?;
    }
    Ok(file)
}

fn storage(path: &Path, source: redb::Error) -> LedgerError {
    LedgerError::Storage { path: path.to_owned(), source: Box::new(source) }
}

#[cfg(test)]
mod tests;
