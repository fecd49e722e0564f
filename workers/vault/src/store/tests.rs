//! The store against crashes and a hostile disk.

mod disk;
mod log;
mod tamper;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use jiff::Timestamp;
use redb::{Database, ReadableDatabase as _, ReadableTable as _};
use sluice_audit::{Entry, Log};
use tempfile::TempDir;

use super::{Store, StoreError, Table, View as _};
use crate::error::VaultError;
use crate::rotate::rotated;
use crate::seal::{RootKey, Shape};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

struct Files {
    dir: TempDir,
    root: RootKey,
}

impl Files {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), root: RootKey::random() }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("vault/store.redb")
    }

    fn open(&self) -> Result<(Store, Arc<Log>), StoreError> {
        open(self.dir.path(), &self.root)
    }

    /// Writes rows one commit each and closes.
    fn with_rows(rows: &[(&str, &str)]) -> Self {
        let files = Self::new();
        let (store, _log) = files.open().unwrap();
        for (key, value) in rows {
            put(&store, key, value).unwrap();
        }
        files
    }

    fn copy_of(&self, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let folder = self.dir.path().join(name);
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }
}

fn restore(copy: &BTreeMap<PathBuf, Vec<u8>>) {
    for (path, bytes) in copy {
        fs::write(path, bytes).unwrap();
    }
}

fn open(dir: &Path, root: &RootKey) -> Result<(Store, Arc<Log>), StoreError> {
    let log = Arc::new(Log::open(&dir.join("audit/vault.jsonl"), "vault").unwrap());
    let idle =
        Store::open(&dir.join("vault/store.redb"), root, Shape::File, Arc::clone(&log), Timestamp::now())?;
    Ok((idle.start(Box::new(|_| ())).unwrap(), log))
}

fn put(store: &Store, key: &str, value: &str) -> Result<(), VaultError> {
    let (key, value) = (key.to_owned(), value.to_owned());
    let entry = Entry::new("test", "put").path(key.clone());
    store.write(entry, move |change| {
        change.put(Table::SecretHead, key.as_bytes(), value.as_bytes());
        Ok(())
    })
}

fn read(store: &Store, key: &str) -> Result<Option<String>, VaultError> {
    let plain = store.snapshot()?.bytes(Table::SecretHead, key.as_bytes())?;
    Ok(plain.map(|plain| String::from_utf8(plain.to_vec()).unwrap()))
}

/// Changes rows behind the vault's back, as somebody who can write the file but has no key.
fn meddle(path: &Path, change: impl FnOnce(&mut Rows)) {
    let db = Database::open(path).unwrap();
    let txn = db.begin_write().unwrap();
    {
        let mut table = txn.open_table(Table::SecretHead.definition()).unwrap();
        let mut rows = Rows::new();
        for row in table.range::<&[u8]>(..).unwrap() {
            let (key, value) = row.unwrap();
            rows.insert(key.value().to_vec(), value.value().to_vec());
        }
        table.retain(|_, _| false).unwrap();
        change(&mut rows);
        for (key, value) in &rows {
            table.insert(key.as_slice(), value.as_slice()).unwrap();
        }
    }
    txn.commit().unwrap();
}

#[test]
fn a_store_that_is_older_gets_the_tables_that_came_later() {
    let files = Files::with_rows(&[("a", "1")]);
    let drop_table = |table: Table| {
        let db = Database::open(files.store()).unwrap();
        let txn = db.begin_write().unwrap();
        assert!(txn.delete_table(table.definition()).unwrap());
        txn.commit().unwrap();
    };
    drop_table(Table::StoreKey);
    let (store, log) = files.open().unwrap();
    assert_eq!(read(&store, "a").unwrap().as_deref(), Some("1"));
    assert_eq!(store.snapshot().unwrap().count(Table::StoreKey).unwrap(), 0);
    drop((store, log));
    // One that held something does not come back empty.
    drop_table(Table::SecretHead);
    assert!(matches!(files.open(), Err(StoreError::Tampered)));
}

#[test]
fn rows_survive_a_restart_and_failed_changes_leave_nothing() {
    let files = Files::with_rows(&[("a", "1"), ("b", "2")]);
    let (store, log) = files.open().unwrap();
    let failed = store.write(Entry::new("test", "fail"), |change| {
        change.put(Table::SecretHead, b"c", b"3");
        Err::<(), _>(VaultError::NotFound("on purpose".into()))
    });
    assert!(failed.is_err());
    assert_eq!(read(&store, "a").unwrap().as_deref(), Some("1"));
    assert_eq!(read(&store, "c").unwrap(), None);
    drop((store, log));
    let (store, _log) = files.open().unwrap();
    assert_eq!(read(&store, "b").unwrap().as_deref(), Some("2"));
}

#[test]
fn another_root_key_opens_nothing() {
    let mut files = Files::with_rows(&[("a", "1")]);
    files.root = RootKey::random();
    assert!(matches!(files.open(), Err(StoreError::Keyring(_))));
}

#[test]
fn readable_by_others_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let files = Files::with_rows(&[("a", "1")]);
    fs::set_permissions(files.store(), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(files.open(), Err(StoreError::Exposed { mode: 0o644, .. })));
}

#[test]
fn swapped_changed_removed_added_and_old_rows_are_tampering() {
    let meddlings: [fn(&mut Rows); 4] = [
        |rows| {
            let (a, b) = (rows[b"a".as_slice()].clone(), rows[b"b".as_slice()].clone());
            rows.insert(b"a".to_vec(), b);
            rows.insert(b"b".to_vec(), a);
        },
        |rows| {
            let row = rows.get_mut(b"a".as_slice()).unwrap();
            let last = row.len() - 1;
            row[last] ^= 1;
        },
        |rows| drop(rows.remove(b"a".as_slice())),
        |rows| {
            let copy = rows[b"a".as_slice()].clone();
            rows.insert(b"c".to_vec(), copy);
        },
    ];
    for (number, meddling) in meddlings.into_iter().enumerate() {
        let files = Files::with_rows(&[("a", "1"), ("b", "2")]);
        meddle(&files.store(), meddling);
        assert!(matches!(files.open(), Err(StoreError::Tampered)), "meddling {number}");
    }
    let files = Files::with_rows(&[("a", "1")]);
    let mut old = Vec::new();
    meddle(&files.store(), |rows| old = rows[b"a".as_slice()].clone());
    put(&files.open().unwrap().0, "a", "2").unwrap();
    meddle(&files.store(), |rows| drop(rows.insert(b"a".to_vec(), old)));
    assert!(matches!(files.open(), Err(StoreError::Tampered)), "a row put back to its older state");
}

#[test]
fn row_that_does_not_open_is_an_integrity_error_while_running() {
    let files = Files::with_rows(&[("a", "1")]);
    let (store, _log) = files.open().unwrap();
    let snapshot = store.snapshot().unwrap();
    let raw = snapshot.raw(Table::SecretHead, b"a").unwrap().unwrap();
    let elsewhere = snapshot.keyring().unseal(Table::SecretHead.place(b"b"), &raw);
    assert!(elsewhere.is_err(), "a row opens in its own place only");
    // A record of another shape than the reader expects is damage too.
    assert!(matches!(
        snapshot.load::<Vec<u8>>(Table::SecretHead, b"a"),
        Err(VaultError::Integrity("secret_head"))
    ));
}

#[test]
fn older_copy_of_the_store_is_a_rollback() {
    let files = Files::with_rows(&[("a", "1")]);
    let older = files.copy_of("vault");
    put(&files.open().unwrap().0, "a", "2").unwrap();
    restore(&older);
    assert!(matches!(files.open(), Err(StoreError::RolledBack { store: 1, audit: 2 })));
    fs::remove_file(files.store()).unwrap();
    assert!(matches!(files.open(), Err(StoreError::RolledBack { store: 0, audit: 2 })));
}

#[test]
fn older_or_missing_audit_log_is_refused() {
    let files = Files::with_rows(&[("a", "1")]);
    let older = files.copy_of("audit");
    {
        let (store, _log) = files.open().unwrap();
        (2..5).for_each(|n: i32| put(&store, "a", &n.to_string()).unwrap());
    }
    restore(&older);
    assert!(matches!(files.open(), Err(StoreError::AuditBehind { .. })));
    fs::remove_dir_all(files.dir.path().join("audit")).unwrap();
    assert!(matches!(files.open(), Err(StoreError::AuditBehind { .. })));
}

#[test]
fn commit_whose_records_were_lost_in_a_crash_is_recorded_at_the_next_start() {
    let files = Files::with_rows(&[("a", "1")]);
    let older = files.copy_of("audit");
    put(&files.open().unwrap().0, "late", "2").unwrap();
    // As if the process had ended between the commit and its record.
    restore(&older);
    let (store, log) = files.open().unwrap();
    assert_eq!(read(&store, "late").unwrap().as_deref(), Some("2"));
    let text = fs::read_to_string(log.path()).unwrap();
    assert!(text.contains("\"path\":\"late\"") && text.contains("\"op\":\"recover\""), "{text}");
    assert!(sluice_audit::verify(&files.dir.path().join("audit")).unwrap().is_whole());
}

#[test]
fn store_that_was_closed_to_the_audit_log_takes_no_change() {
    let files = Files::with_rows(&[("a", "1")]);
    let (store, log) = files.open().unwrap();
    fs::remove_file(log.path()).unwrap();
    assert!(matches!(put(&store, "a", "2"), Err(VaultError::Audit(_))));
    assert!(matches!(put(&store, "a", "3"), Err(VaultError::Audit(_))));
}

const CHILD_DIR: &str = "SLUICE_TEST_KILL_DIR";
const CHILD_ROUND: &str = "SLUICE_TEST_KILL_ROUND";

/// Not a test of its own: the process that `acknowledged_writes_survive_kill_9` kills. Without its variable
/// it does nothing.
#[test]
fn child_that_writes_until_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let round = std::env::var(CHILD_ROUND).unwrap();
    let dir = PathBuf::from(dir);
    let root = RootKey::dev(&dir.join("root.key"), true).unwrap();
    let (store, _log) = open(&dir, &root).unwrap();
    std::thread::scope(|scope| {
        // New keys all the time: a kill comes between a rotation, its bites and its end.
        scope.spawn(|| {
            loop {
                let entry = Entry::new("test", "rotate");
                store.write(entry, |change| change.replace_keyring(rotated(change)?)).unwrap();
                store.rewrap(|| false).unwrap();
            }
        });
        for thread in 0..4 {
            let (store, round) = (&store, &round);
            scope.spawn(move || {
                for n in 0.. {
                    let key = format!("{round}/{thread}/{n}");
                    put(store, &key, &format!("value of {key}")).unwrap();
                    writeln!(std::io::stdout(), "acked {key}").unwrap();
                }
            });
        }
    });
}

#[test]
fn acknowledged_writes_survive_kill_9() {
    let dir = TempDir::new().unwrap();
    let root = RootKey::dev(&dir.path().join("root.key"), false).unwrap();
    let mut acked: Vec<String> = Vec::new();
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["store::tests::child_that_writes_until_killed", "--exact", "--nocapture"])
            .env(CHILD_DIR, dir.path())
            .env(CHILD_ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = 90 + 17 * round;
        let mut seen = 0;
        for line in lines.map_while(Result::ok) {
            // The harness's own words may share a line with the first of ours.
            if let Some((_, key)) = line.split_once("acked ") {
                acked.push(key.to_owned());
                seen += 1;
                if seen == enough {
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(seen >= enough, "the child ended early in round {round}");
        let (store, _log) = open(dir.path(), &root).unwrap();
        for key in &acked {
            let value = read(&store, key).unwrap();
            assert_eq!(value, Some(format!("value of {key}")), "acknowledged in or before round {round}");
        }
        assert!(sluice_audit::verify(&dir.path().join("audit")).unwrap().is_whole());
    }
    assert!(acked.len() >= 1_000, "{} writes", acked.len());
    // What was not acknowledged is there whole or not at all: every row reads.
    let (store, _log) = open(dir.path(), &root).unwrap();
    let view = store.snapshot().unwrap();
    for key in view.keys(Table::SecretHead, &super::Range::prefix(b"", 100_000)).unwrap() {
        let name = String::from_utf8(key.clone()).unwrap();
        let value = view.bytes(Table::SecretHead, &key).unwrap().unwrap();
        assert_eq!(value.as_slice(), format!("value of {name}").as_bytes());
    }
}

#[test]
fn database_opened_behind_the_vaults_back_is_seen_as_it_is() {
    // The meddling helper itself must not be what the other tests detect.
    let files = Files::with_rows(&[("a", "1")]);
    meddle(&files.store(), |_| ());
    let db = Database::open(files.store()).unwrap();
    let rows = db.begin_read().unwrap().open_table(Table::SecretHead.definition()).unwrap();
    assert!(rows.get(b"a".as_slice()).unwrap().is_some());
    drop((rows, db));
    assert!(files.open().is_ok());
}
