//! Opening the store: is it ours, is it whole, is it the newest.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use redb::{Builder, Database, DatabaseError, ReadableDatabase as _, TableHandle as _};
use serde::{Deserialize, Serialize};
use sluice_audit::{AuditError, Digest, Entry, Log, Query, Since};

use super::quiet;
use super::rows::RowsDigest;
use super::snapshot::{Snapshot, View as _};
use super::table::Table;
use crate::error::VaultError;
use crate::seal::{Keyring, KeyringError, RootKey, Rows, SHAPE, Shape, fingerprint};

/// LIMIT: memory for cached pages; the system's own cache holds the rest.
const CACHE_BYTES: usize = 2 << 20;
/// LIMIT: the same while a whole file is looked at, of which nothing is needed twice: what is reused at once stays in
/// the processor's own cache.
const ONCE_CACHE_BYTES: usize = 128 << 10;
pub(super) const HEAD: &[u8] = b"head";
pub(super) const PENDING: &[u8] = b"pending";

/// Why the store is not opened. None of these is repaired by itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// A file or folder cannot be used.
    #[error("cannot use vault store {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Group or others may read it.
    #[error("vault store {path} has mode {mode:o}; it must be 600")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The database does not open.
    #[error("vault store {path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The cause, when the database names one.
        #[source]
        source: Option<Box<VaultError>>,
    },
    /// The keys do not open.
    #[error("vault store does not open")]
    Keyring(#[source] KeyringError),
    /// Rows were changed, swapped, removed or put back to an older state.
    #[error("vault store was tampered with: its rows do not match their digest")]
    Tampered,
    /// The store is older than what the audit log recorded, or gone.
    #[error("vault store was rolled back: it is at commit {store}, the audit log has seen commit {audit}")]
    RolledBack {
        /// Commit of the store, 0 when there is no store.
        store: u64,
        /// Commit in the audit log.
        audit: u64,
    },
    /// The audit log is older than the store, or another one.
    #[error("audit log was cut or replaced: the store has seen its record {seen}, it ends at {audit}")]
    AuditBehind {
        /// Record the store has seen.
        seen: u64,
        /// Last record of the log.
        audit: u64,
    },
    /// The audit log is not the one the store has seen.
    #[error("audit log was written anew: its record {seen} is not the one the store has seen")]
    AuditRewritten {
        /// Record the store has seen.
        seen: u64,
    },
    /// The audit log could not be brought up to date.
    #[error("audit log cannot be written")]
    Audit(#[source] AuditError),
}

/// Where the store stands; sealed in the row `head`, renewed by every commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Number of the commit.
    pub(super) seq: u64,
    /// Last audit record known durable when the commit was made.
    pub(super) audit_seq: u64,
    /// Its hash.
    pub(super) audit_hash: Digest,
    /// Digest over all rows.
    pub(super) rows: RowsDigest,
    /// Name of this store's feed.
    pub(super) epoch: String,
    /// Number of the last change announced on the feed.
    pub(super) feed_seq: u64,
    /// Number of the last revocation list.
    pub(super) crl_number: u64,
    /// Number of the last event queued.
    pub(super) outbox_seq: u64,
    /// Fingerprint of the keyring's rows; stores of older versions have none until their keys change.
    #[serde(default)]
    pub(super) keyring: Option<Digest>,
}

/// An open store, before its writer runs.
pub(super) struct Opened {
    pub(super) db: Database,
    pub(super) keyring: Arc<Keyring>,
    pub(super) head: Head,
}

/// Opens the store at `path`, or makes it when there is none and the audit log knows of none.
pub(super) fn open(
    path: &Path,
    root: &RootKey,
    shape: Shape,
    audit: &Log,
    now: Timestamp,
) -> Result<Opened, StoreError> {
    let fail = |source| StoreError::Io { path: path.to_owned(), source };
    let anchor = audit.head().anchor;
    let exists = path.try_exists().map_err(fail)?;
    if !exists && anchor > 0 {
        return Err(StoreError::RolledBack { store: 0, audit: anchor });
    }
    let dir = path.parent().unwrap_or(Path::new("."));
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
    if !exists {
        make(path, root, shape, audit, now)?;
    }
    let mode = fs::metadata(path).map_err(fail)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreError::Exposed { path: path.to_owned(), mode });
    }
    // redb checks what it reads but a hostile file can still make it panic; that is damage like any other.
    let opened = quiet::catch(|| read(path, root)).unwrap_or_else(|| Err(damaged(path, None)))?;
    check_against(audit, &opened.head)?;
    catch_up(&opened, audit, now)?;
    Ok(opened)
}

/// How the root key of the store at `path` is had; `None`: there is no store.
pub(super) fn shape(path: &Path) -> Result<Option<Shape>, StoreError> {
    let fail = |source| StoreError::Io { path: path.to_owned(), source };
    if !path.try_exists().map_err(fail)? {
        return Ok(None);
    }
    match glance(path)?.get(SHAPE) {
        None => Ok(Some(Shape::File)),
        Some(row) => Shape::parse(row).map(Some).ok_or(StoreError::Keyring(KeyringError::Replaced)),
    }
}

/// Whether a root key opens the keys of the store at `path`.
pub(super) fn is_key(path: &Path, root: &RootKey) -> Result<bool, StoreError> {
    match Keyring::open(root, &glance(path)?) {
        Err(KeyringError::WrongKey) => Ok(false),
        Err(error) => Err(StoreError::Keyring(error)),
        Ok(_) => Ok(true),
    }
}

/// The keyring's rows, of a store that is not open otherwise. Nothing is written, unless it was not closed in order.
fn glance(path: &Path) -> Result<Rows, StoreError> {
    let mut builder = Builder::new();
    builder.set_cache_size(ONCE_CACHE_BYTES);
    let look = || match builder.open_read_only(path) {
        Ok(db) => keyring_rows(&db.begin_read()?),
        Err(DatabaseError::RepairAborted) => keyring_rows(&builder.open(path)?.begin_read()?),
        Err(error) => Err(error.into()),
    };
    let rows = quiet::catch(look).ok_or_else(|| damaged(path, None))?;
    rows.map_err(|error| damaged(path, Some(error)))
}

fn damaged(path: &Path, source: Option<VaultError>) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), source: source.map(Box::new) }
}

/// Makes an empty store aside and renames it: a crash here leaves none, not half of one.
fn make(path: &Path, root: &RootKey, shape: Shape, audit: &Log, now: Timestamp) -> Result<(), StoreError> {
    let fail = |source| StoreError::Io { path: path.to_owned(), source };
    let aside = path.with_extension("redb.new");
    let mut options = OpenOptions::new();
    let file =
        options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&aside).map_err(fail)?;
    let db = Builder::new().set_cache_size(CACHE_BYTES).create_file(file);
    let db = db.map_err(|error| damaged(path, Some(error.into())))?;
    let keyring = Keyring::create(root.clone(), shape);
    fill(&db, &keyring, audit, now).map_err(|error| damaged(path, Some(error)))?;
    drop(db);
    fs::rename(&aside, path).map_err(fail)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(fail)
}

fn fill(db: &Database, keyring: &Keyring, audit: &Log, now: Timestamp) -> Result<(), VaultError> {
    let now_us = now.as_microsecond();
    let rows = keyring.rows(now_us);
    let seen = audit.head();
    let head = Head {
        seq: 0,
        audit_seq: seen.seq,
        audit_hash: seen.hash,
        rows: RowsDigest::default(),
        epoch: uuid::Uuid::new_v4().to_string(),
        // Numbers of a store that is made anew lie above those of any before it.
        feed_seq: u64::try_from(now_us).unwrap_or(0),
        crl_number: 0,
        outbox_seq: 0,
        keyring: Some(Digest(fingerprint(&rows))),
    };
    let mut txn = db.begin_write()?;
    txn.set_two_phase_commit(true);
    for table in Table::ALL {
        txn.open_table(table.definition())?;
    }
    {
        let mut table = txn.open_table(Table::Keyring.definition())?;
        for (name, sealed) in &rows {
            table.insert(name.as_bytes(), sealed.as_slice())?;
        }
    }
    let sealed = sealed_head(keyring, &head, now_us);
    txn.open_table(Table::Meta.definition())?.insert(HEAD, sealed.as_slice())?;
    txn.commit()?;
    Ok(())
}

/// The row that says where the store stands.
pub(super) fn sealed_head(keyring: &Keyring, head: &Head, now_us: i64) -> Vec<u8> {
    let plain = serde_json::to_vec(head).expect("the head is a plain struct");
    keyring.seal(Table::Meta.place(HEAD), now_us, &plain)
}

fn read(path: &Path, root: &RootKey) -> Result<Opened, StoreError> {
    let wrap = |error: VaultError| damaged(path, Some(error));
    let (keyring, head) = check(path, root)?;
    let db = Builder::new().set_cache_size(CACHE_BYTES).open(path).map_err(|error| wrap(error.into()))?;
    let txn = db.begin_read().map_err(|error| wrap(error.into()))?;
    let snapshot = Snapshot { txn, keyring };
    // It was closed for a moment.
    if snapshot.require::<Head>(Table::Meta, HEAD).map_err(wrap)? != head {
        return Err(StoreError::Tampered);
    }
    let keyring = snapshot.keyring;
    drop(snapshot.txn);
    Ok(Opened { db, keyring, head })
}

/// Looks at every page and every row.
fn check(path: &Path, root: &RootKey) -> Result<(Arc<Keyring>, Head), StoreError> {
    let wrap = |error: VaultError| damaged(path, Some(error));
    let db = Builder::new().set_cache_size(ONCE_CACHE_BYTES).open(path);
    let mut db = db.map_err(|error| wrap(error.into()))?;
    // Also the pages that only its closing would read, where damage ends in a panic.
    if !db.check_integrity().map_err(|error| wrap(error.into()))? {
        return Err(damaged(path, None));
    }
    add_tables(&db).map_err(wrap)?;
    let txn = db.begin_read().map_err(|error| wrap(error.into()))?;
    let rows = keyring_rows(&txn).map_err(wrap)?;
    let keyring = Keyring::open(root, &rows).map_err(StoreError::Keyring)?;
    let snapshot = Snapshot { txn, keyring: Arc::new(keyring) };
    let head: Head = snapshot.require(Table::Meta, HEAD).map_err(wrap)?;
    if head.keyring.is_some_and(|known| known.0 != fingerprint(&rows)) {
        return Err(StoreError::Keyring(KeyringError::Replaced));
    }
    if digest(&snapshot).map_err(wrap)? != head.rows {
        return Err(StoreError::Tampered);
    }
    Ok((snapshot.keyring, head))
}

/// A store of an older version lacks the tables that came later; empty ones change no digest. (One that was removed
/// from a store of this version does: its rows are missing in the digest.)
fn add_tables(db: &Database) -> Result<(), VaultError> {
    let present: Vec<String> = db.begin_read()?.list_tables()?.map(|table| table.name().to_owned()).collect();
    if Table::ALL.iter().all(|table| present.iter().any(|name| name == table.name())) {
        return Ok(());
    }
    let mut txn = db.begin_write()?;
    txn.set_two_phase_commit(true);
    for table in Table::ALL {
        txn.open_table(table.definition())?;
    }
    txn.commit()?;
    Ok(())
}

fn keyring_rows(txn: &redb::ReadTransaction) -> Result<Rows, VaultError> {
    let table = txn.open_table(Table::Keyring.definition())?;
    let mut rows = Rows::new();
    for row in table.range::<&[u8]>(..)? {
        let (name, sealed) = row?;
        rows.insert(String::from_utf8_lossy(name.value()).into_owned(), sealed.value().to_vec());
    }
    Ok(rows)
}

fn digest(snapshot: &Snapshot) -> Result<RowsDigest, VaultError> {
    let mut digest = RowsDigest::default();
    let mac = snapshot.keyring.digest_key();
    for table in Table::ALL.into_iter().filter(|table| table.is_digested()) {
        let rows = snapshot.txn.open_table(table.definition())?;
        for row in rows.range::<&[u8]>(..)? {
            let (key, value) = row?;
            if !snapshot.keyring.knows_key_of(value.value()) {
                return Err(VaultError::Integrity(table.name()));
            }
            digest.add(&mac, table, key.value(), value.value());
        }
    }
    Ok(digest)
}

/// The store must not be older than the log's anchor, the log not older than what the store has seen, nor
/// another one. The writer commits only when the log has the commit before, so the store is at most one ahead.
fn check_against(audit: &Log, head: &Head) -> Result<(), StoreError> {
    let log = audit.head();
    if head.seq < log.anchor {
        return Err(StoreError::RolledBack { store: head.seq, audit: log.anchor });
    }
    if log.seq < head.audit_seq || head.seq > log.anchor + 1 {
        return Err(StoreError::AuditBehind { seen: head.audit_seq, audit: log.seq });
    }
    if head.audit_seq > 0 && !has_record(audit, head.audit_seq, head.audit_hash)? {
        return Err(StoreError::AuditRewritten { seen: head.audit_seq });
    }
    Ok(())
}

/// Whether the log's record `seq` has this hash, which covers every record before it; one that was retired since cannot
/// be asked any more.
fn has_record(audit: &Log, seq: u64, hash: Digest) -> Result<bool, StoreError> {
    let query = Query { since: Since::Seq(seq - 1), actor: None, path: None, limit: 1 };
    let page = query
        .read(audit.path())
        .map_err(|source| StoreError::Io { path: audit.path().to_owned(), source })?;
    Ok(page.records.first().is_some_and(|record| record.seq > seq || record.hash == hash))
}

/// How many of the last commit's records the log has: fewer than `wanted` when its write was torn. They stand next to
/// each other, the first of them behind what the commit knew of the log.
fn recorded_of(audit: &Log, head: &Head, wanted: usize) -> Result<usize, StoreError> {
    let fail = |source| StoreError::Io { path: audit.path().to_owned(), source };
    let mut since = Some(head.audit_seq);
    while let Some(seq) = since {
        let query = Query { since: Since::Seq(seq), actor: None, path: None, limit: 1_000 };
        let page = query.read(audit.path()).map_err(fail)?;
        if let Some(first) = page.records.iter().find(|record| record.anchor >= head.seq) {
            return Ok(wanted.min((audit.head().seq + 1 - first.seq) as usize));
        }
        since = page.next;
    }
    Ok(0)
}

/// Records what the log lacks of the last commit, when the process ended before or while it was written.
fn catch_up(opened: &Opened, audit: &Log, now: Timestamp) -> Result<(), StoreError> {
    let path = Path::new("store.redb");
    let txn = opened.db.begin_read().map_err(|error| damaged(path, Some(error.into())))?;
    let snapshot = Snapshot { txn, keyring: Arc::clone(&opened.keyring) };
    let pending: Option<Vec<Entry>> =
        snapshot.load(Table::Meta, PENDING).map_err(|error| damaged(path, Some(error)))?;
    let mut entries = pending.unwrap_or_default();
    let recorded = recorded_of(audit, &opened.head, entries.len())?;
    if recorded == entries.len() && opened.head.seq == audit.head().anchor {
        return Ok(());
    }
    let mut entries = entries.split_off(recorded);
    entries.push(Entry::new("store", "recover").actor("vault").anchor(opened.head.seq));
    audit.append_all(entries, now).map(|_| ()).map_err(StoreError::Audit)
}
