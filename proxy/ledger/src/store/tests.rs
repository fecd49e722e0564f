use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::StorageBackend;
use redb::backends::InMemoryBackend;

const NOTES: TableDefinition<'_, &str, u64> = TableDefinition::new("notes");

fn open(dir: &Path) -> Result<Store, LedgerError> {
    let store = Store::closed(dir)?;
    store.reopen().map(|()| store)
}

fn put(store: &Store, key: &str, value: u64) -> Result<(), LedgerError> {
    let written = store.write(|transaction| {
        transaction.open_table(NOTES)?.insert(key, value)?;
        Ok(Ok::<(), ()>(()))
    })?;
    assert_eq!(written, Ok(()));
    Ok(())
}

fn get(store: &Store, key: &str) -> Option<u64> {
    let read = |transaction: &redb::ReadTransaction| {
        Ok(transaction.open_table(NOTES)?.get(key)?.map(|value| value.value()))
    };
    store.read(read).unwrap()
}

#[test]
fn file_and_folder_are_private_also_when_they_were_not() {
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let store = open(dir.path()).unwrap();
    assert_eq!((mode(store.path()), mode(store.path().parent().unwrap())), (0o600, 0o700));
    let path = store.path().to_owned();
    drop(store);
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    drop(open(dir.path()).unwrap());
    assert_eq!(mode(&path), 0o600);
}

#[test]
fn one_process_at_a_time_and_close_hands_over() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path()).unwrap();
    put(&first, "a", 1).unwrap();
    assert!(matches!(open(dir.path()), Err(LedgerError::Busy { .. })));
    first.close();
    let second = open(dir.path()).unwrap();
    assert_eq!(get(&second, "a"), Some(1));
    // Closed means closed: not even a free file is opened behind a successor's back.
    assert!(matches!(put(&first, "b", 2), Err(LedgerError::Closed { .. })));
    assert!(matches!(first.reopen(), Err(LedgerError::Busy { .. })));
    second.close();
    assert!(matches!(put(&first, "b", 2), Err(LedgerError::Closed { .. })));
    first.reopen().unwrap();
    put(&first, "b", 2).unwrap();
    assert_eq!(get(&first, "b"), Some(2));
}

#[test]
fn a_refused_change_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    put(&store, "a", 1).unwrap();
    let refused = store.write(|transaction| {
        transaction.open_table(NOTES)?.insert("a", 2)?;
        Ok(Err::<(), &str>("no"))
    });
    assert_eq!(refused.unwrap(), Err("no"));
    assert_eq!(get(&store, "a"), Some(1));
}

#[test]
fn other_formats_and_other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path()).unwrap();
    let newer = store.write(|transaction| {
        transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT + 1)?;
        Ok(Ok::<(), ()>(()))
    });
    newer.unwrap().unwrap();
    let path = store.path().to_owned();
    drop(store);
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, LedgerError::Format { found: 2, .. }), "{error}");
    fs::write(&path, b"not a ledger at all, but long enough to be looked at as one").unwrap();
    assert!(matches!(open(dir.path()), Err(LedgerError::Storage { .. })));
}

/// A disk that can be told to be full. Shared, so that what was written stays when the store reopens it.
#[derive(Clone, Debug)]
struct Disk {
    bytes: Arc<InMemoryBackend>,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> io::Result<()> {
        if self.full.load(Ordering::Relaxed) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.bytes.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.room()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        self.bytes.write(offset, data)
    }
}

#[test]
fn a_full_disk_is_an_error_and_works_again_without_restart() {
    let disk = Disk { bytes: Arc::new(InMemoryBackend::new()), full: Arc::default() };
    let opened = disk.clone();
    let opener = move |path: &Path| {
        Database::builder().create_with_backend(opened.clone()).map_err(|error| storage(path, error.into()))
    };
    let store = Store::closed_with(PathBuf::from("ledger"), Box::new(opener));
    store.reopen().unwrap();
    put(&store, "before", 1).unwrap();
    disk.full.store(true, Ordering::Relaxed);
    for _ in 0..3 {
        assert!(matches!(put(&store, "during", 2), Err(LedgerError::Storage { .. })));
    }
    disk.full.store(false, Ordering::Relaxed);
    put(&store, "after", 3).unwrap();
    assert_eq!(
        (get(&store, "before"), get(&store, "during"), get(&store, "after")),
        (Some(1), None, Some(3))
    );
}
