//! Every kind of meddling with the file: found, named, nothing wrong ever shown.

use std::fs;

use super::{Files, put, read, restore};
use crate::seal::{KeyringError, Shape};
use crate::store::{StoreError, Table};

/// What is flipped is one bit in each run of so many bytes that holds anything (zeros are unused pages).
const STRIDE: usize = 48;

#[test]
fn flipped_bytes_of_the_file_never_show_another_value() {
    let rows: Vec<(String, String)> = (0..20).map(|n| (format!("path/{n}"), format!("value-{n}"))).collect();
    let borrowed: Vec<_> = rows.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let files = Files::with_rows(&borrowed);
    let whole = files.copy_of("vault");
    let audit = files.copy_of("audit");
    let bytes = whole[&files.store()].clone();
    let (mut refused, mut unused) = (0, 0);
    for start in (0..bytes.len()).step_by(STRIDE) {
        // Another place in each run, so that all places of a record come up.
        let run = &bytes[start..bytes.len().min(start + STRIDE)];
        let used: Vec<usize> = (0..run.len()).filter(|at| run[*at] != 0).collect();
        let Some(at) = used.get(start / STRIDE % used.len().max(1)).map(|at| start + at) else { continue };
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        restore(&audit);
        fs::write(files.store(), &flipped).unwrap();
        match files.open() {
            Err(_) => refused += 1,
            // A page that is no longer in use: everything must still be there, and closing must not fail either.
            Ok((store, log)) => {
                unused += 1;
                for (key, value) in &rows {
                    assert_eq!(read(&store, key).unwrap().as_deref(), Some(value.as_str()), "flip at {at}");
                }
                drop((store, log));
            }
        }
    }
    assert!(refused > 100, "{refused} flips of used pages, {unused} of unused ones");
}

#[test]
fn file_of_any_other_length_is_refused() {
    let files = Files::with_rows(&[("a", "1"), ("b", "2")]);
    let whole = files.copy_of("vault");
    let bytes = whole[&files.store()].clone();
    let shorter = (0..bytes.len()).step_by(4_096).chain([1, 17, 511, 513, bytes.len() - 1]);
    for keep in shorter {
        fs::write(files.store(), &bytes[..keep]).unwrap();
        assert!(files.open().is_err(), "kept {keep} of {}", bytes.len());
    }
    restore(&whole);
    assert!(files.open().is_ok(), "the lengths, not the writing, are what was found");
}

type Rows<'txn> = redb::Table<'txn, &'static [u8], &'static [u8]>;

#[test]
fn rows_of_the_keyring_are_those_of_the_last_commit() {
    use redb::{Database, ReadableTable as _};
    let files = Files::with_rows(&[("a", "1")]);
    let meddle = |change: &dyn Fn(&mut Rows<'_>)| {
        let db = Database::open(files.store()).unwrap();
        let txn = db.begin_write().unwrap();
        change(&mut txn.open_table(Table::Keyring.definition()).unwrap());
        txn.commit().unwrap();
    };
    let refused = || match files.open() {
        Err(StoreError::Keyring(error)) => error,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it opened"),
    };
    let older = {
        let db = Database::open(files.store()).unwrap();
        let txn = db.begin_write().unwrap();
        let table = txn.open_table(Table::Keyring.definition()).unwrap();
        let row = table.get(b"kek/0000000001".as_slice()).unwrap().unwrap().value().to_vec();
        drop(table);
        row
    };
    {
        let (store, _log) = files.open().unwrap();
        let entry = sluice_audit::Entry::new("test", "rotate");
        store.write(entry, |change| change.replace_keyring(crate::rotate::rotated(change)?)).unwrap();
        store.rewrap(|| false).unwrap();
        put(&store, "b", "2").unwrap();
        assert_eq!(store.keyring().shape(), Shape::File);
    }
    meddle(&|table| drop(table.insert(b"kek/0000000001".as_slice(), older.as_slice()).unwrap()));
    assert_eq!(refused(), KeyringError::Replaced, "a key that is gone came back");
    meddle(&|table| drop(table.remove(b"kek/0000000001".as_slice()).unwrap()));
    drop(files.open().unwrap());
    let easier = br#"{"kind":"shamir","shares":9,"threshold":2}"#.as_slice();
    meddle(&|table| drop(table.insert(crate::seal::SHAPE.as_bytes(), easier).unwrap()));
    assert_eq!(refused(), KeyringError::Replaced);
}
