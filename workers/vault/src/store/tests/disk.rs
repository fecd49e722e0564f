//! A hostile disk: every byte of every row, rows in each other's place, files of another time, files that are gone.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::store::Range;

/// A row to be written behind the vault's back; `None` removes it.
type Forged<'a> = (Table, &'a [u8], Option<&'a [u8]>);
/// A table's rows as they lie in the file.
type Sealed = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// A store with a few rows in tables of every shape: bare keys, tenants, versions.
fn filled() -> Files {
    let files = Files::new();
    let (store, _log) = files.open().unwrap();
    store
        .write(Entry::new("test", "fill"), |change| {
            for n in 0..4_u64 {
                let path = format!("services/bot/{n}");
                let version = [path.as_bytes(), &[0], &1_u64.to_be_bytes()].concat();
                change.put(Table::SecretHead, path.as_bytes(), path.as_bytes());
                change.put(Table::SecretVersion, &version, path.as_bytes());
                change.put(Table::Token, path.as_bytes(), b"token");
                change.put(Table::Logical, path.as_bytes(), b"logical");
                change.mark(Table::TokenIndex, path.as_bytes());
            }
            Ok(())
        })
        .unwrap();
    drop(store);
    files
}

/// Every row that the digest covers, and what is sealed in `meta`.
fn sealed_rows(store: &Store) -> Sealed {
    let view = store.snapshot().unwrap();
    let tables = Table::ALL.into_iter().filter(|table| *table != Table::Keyring);
    let keys = tables.flat_map(|table| {
        let keys = view.keys(table, &Range::prefix(b"", 1_000)).unwrap();
        keys.into_iter().map(move |key| (table, key))
    });
    let row = |(table, key): (Table, Vec<u8>)| {
        let value = view.raw(table, &key).unwrap().unwrap();
        ((table, key), value)
    };
    keys.map(row).collect()
}

fn forge(path: &Path, rows: &[Forged<'_>]) {
    let db = Database::open(path).unwrap();
    let txn = db.begin_write().unwrap();
    for (table, key, value) in rows {
        let mut table = txn.open_table(table.definition()).unwrap();
        match value {
            Some(value) => drop(table.insert(*key, *value).unwrap()),
            None => drop(table.remove(*key).unwrap()),
        }
    }
    txn.commit().unwrap();
}

/// The whole of each row, not a sample: a flip of any byte, in any other row's place, or a cut, and it does not open.
#[test]
fn every_byte_of_every_row_counts_and_no_row_opens_in_another_place() {
    let files = filled();
    let (store, _log) = files.open().unwrap();
    let (rows, ring) = (sealed_rows(&store), store.keyring());
    let full: Vec<_> = rows.iter().filter(|(_, value)| !value.is_empty()).collect();
    assert!(full.len() >= 18, "{} rows", full.len());
    let mut flips = 0;
    for ((table, key), value) in &full {
        assert!(ring.unseal(table.place(key), value).is_ok());
        for at in 0..value.len() {
            let mut flipped = (*value).clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(ring.unseal(table.place(key), &flipped).is_err(), "{} {key:?} at {at}", table.name());
            flips += 1;
        }
        for kept in [0, 1, 72, value.len() / 2, value.len() - 1] {
            assert!(ring.unseal(table.place(key), &value[..kept]).is_err());
        }
        for (other, other_key) in rows.keys().filter(|place| **place != (*table, key.clone())) {
            let elsewhere = ring.unseal(other.place(other_key), value);
            assert!(elsewhere.is_err(), "{} in {} {other_key:?}", table.name(), other.name());
        }
    }
    assert!(flips > 1_800, "{flips} flips");
}

/// The same with the file: found at the start, whatever was exchanged with what.
#[test]
fn rows_that_changed_places_at_rest_are_refused() {
    let files = filled();
    let rows = sealed_rows(&files.open().unwrap().0);
    let whole = files.copy_of("vault");
    let audit = files.copy_of("audit");
    let of = |table: Table, nth: usize| {
        let found = rows.iter().filter(|((of, _), _)| *of == table).nth(nth).unwrap();
        (table, found.0.1.clone(), found.1.clone())
    };
    let pairs = [
        (of(Table::SecretVersion, 0), of(Table::SecretVersion, 1)),
        (of(Table::SecretHead, 0), of(Table::Token, 0)),
        (of(Table::Token, 1), of(Table::Logical, 2)),
        (of(Table::SecretHead, 2), of(Table::SecretVersion, 3)),
        (of(Table::Meta, 0), of(Table::Meta, 1)),
        (of(Table::Meta, 0), of(Table::Token, 0)),
    ];
    let refused = |what: &str, rows: &[Forged<'_>]| {
        restore(&whole);
        restore(&audit);
        forge(&files.store(), rows);
        match files.open() {
            Err(StoreError::Tampered | StoreError::Damaged { .. }) => {}
            Err(error) => panic!("{what}: {error:?}"),
            Ok(_) => panic!("{what}: it opened"),
        }
    };
    for (a, b) in &pairs {
        let what = format!("{} and {}", a.0.name(), b.0.name());
        refused(&what, &[(a.0, &a.1, Some(&b.2)), (b.0, &b.1, Some(&a.2))]);
    }
    let mark = of(Table::TokenIndex, 0);
    refused("a mark is gone", &[(Table::TokenIndex, &mark.1, None)]);
    refused("a mark came", &[(Table::TokenIndex, b"forged", Some(b""))]);
    refused(
        "a mark moved",
        &[(Table::TokenIndex, &mark.1, None), (Table::CredentialExpiry, &mark.1, Some(b""))],
    );
    refused("an empty row", &[(Table::Token, b"forged", Some(b""))]);
    restore(&whole);
    restore(&audit);
    assert!(files.open().is_ok(), "the exchange, not the writing, is what was found");
}

/// How a copy opens: by which name it is refused, or how many of the rows it has.
fn outcome(files: &Files, acked: u64) -> Result<u64, String> {
    let log =
        Log::open(&files.dir.path().join("audit/vault.jsonl"), "vault").map_err(|error| error.to_string())?;
    let idle = Store::open(&files.store(), &files.root, Shape::File, Arc::new(log), Timestamp::now());
    let store = idle.map_err(|error| error.to_string())?.start(Box::new(|_| ())).unwrap();
    let has = |n: u64| read(&store, &format!("row/{n}")).unwrap();
    for n in 0..acked {
        assert_eq!(has(n), Some(n.to_string()), "of {acked}");
    }
    let mut rows = acked;
    while has(rows).is_some() {
        rows += 1;
    }
    Ok(rows)
}

#[test]
fn copies_that_were_made_while_it_runs_are_whole_or_refused_by_name() {
    let files = Files::new();
    let (store, log) = files.open().unwrap();
    let (acked, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let (mut opened, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0.. {
                put(&store, &format!("row/{n}"), &n.to_string()).unwrap();
                acked.store(n + 1, Ordering::SeqCst);
                if stop.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        for round in 0..12 {
            let enough = acked.load(Ordering::SeqCst) + 3;
            while acked.load(Ordering::SeqCst) < enough {
                std::thread::yield_now();
            }
            let copy = Files { dir: TempDir::new().unwrap(), root: files.root.clone() };
            // Either order; a backup that does not stop the vault has no third.
            let order = if round % 2 == 0 { ["vault", "audit"] } else { ["audit", "vault"] };
            let before = acked.load(Ordering::SeqCst);
            for name in order {
                let from = files.copy_of(name);
                fs::create_dir(copy.dir.path().join(name)).unwrap();
                for (path, bytes) in from {
                    let to = copy.dir.path().join(name).join(path.file_name().unwrap());
                    fs::write(&to, bytes).unwrap();
                    fs::set_permissions(&to, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
                }
            }
            match outcome(&copy, before) {
                Ok(rows) => {
                    assert!(rows >= before);
                    opened += 1;
                }
                Err(text) => {
                    let named = ["damaged", "rolled back", "cut or replaced", "audit log", "does not match"];
                    assert!(named.iter().any(|name| text.contains(name)), "{text}");
                    refused += 1;
                }
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert_eq!(opened + refused, 12);
    drop((store, log));
    assert_eq!(
        outcome(&files, acked.load(Ordering::SeqCst)).unwrap(),
        acked.load(Ordering::SeqCst),
        "the original"
    );
}

/// What was acknowledged is told by two files and their heads: each one alone missing, cut or of another time.
#[test]
fn a_log_of_another_time_or_none_is_named() {
    let files = Files::with_rows(&[("a", "1"), ("b", "2")]);
    let older = files.copy_of("audit");
    {
        let (store, _log) = files.open().unwrap();
        (0..4).for_each(|n: i32| put(&store, "a", &n.to_string()).unwrap());
    }
    let (store, audit) = (files.copy_of("vault"), files.copy_of("audit"));
    let log = files.dir.path().join("audit/vault.jsonl");
    let head = log.with_extension("head");
    let again = || {
        fs::remove_dir_all(files.dir.path().join("audit")).unwrap();
        fs::create_dir(files.dir.path().join("audit")).unwrap();
        restore(&store);
        for (path, bytes) in &audit {
            fs::write(path, bytes).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
            fs::set_permissions(path, mode).unwrap();
        }
    };
    let refused = |what: &str| match outcome(&files, 0) {
        Err(text) => assert!(text.contains("audit log"), "{what}: {text}"),
        Ok(_) => panic!("{what}: it opened"),
    };
    again();
    assert!(outcome(&files, 0).is_ok());
    again();
    fs::remove_file(&log).unwrap();
    refused("the log is gone, its head is not");
    again();
    fs::remove_file(&log).unwrap();
    fs::remove_file(&head).unwrap();
    refused("log and head are gone");
    again();
    fs::remove_file(&head).unwrap();
    refused("the head is gone");
    again();
    fs::write(&head, &older[&head]).unwrap();
    fs::write(&log, &older[&log]).unwrap();
    refused("both are older");
    again();
    fs::write(&log, &older[&log]).unwrap();
    refused("the log is older than its head");
    let text = audit[&log].clone();
    let lines: Vec<usize> =
        text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1).collect();
    // At every record's end and in the middle of every record.
    for kept in lines.iter().copied().chain(lines.windows(2).map(|pair| usize::midpoint(pair[0], pair[1]))) {
        if kept == text.len() {
            continue;
        }
        again();
        fs::write(&log, &text[..kept]).unwrap();
        refused(&format!("{kept} of {} bytes are left", text.len()));
    }
}
