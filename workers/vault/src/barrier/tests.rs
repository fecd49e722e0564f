//! The barrier from the first start to a new root key, and under load.

mod kinds;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use sluice_audit::Entry;
use tempfile::TempDir;

use super::*;
use crate::seal::Proof;
use crate::store::{Range, Table, View as _};
use crate::tests::{barrier, settings};

fn shared(dir: &Path) -> Barrier {
    barrier(Settings { opening: Opening::Shares, dev: false, ..settings(dir) })
}

fn act() -> Act {
    Act::own(Timestamp::now())
}

fn split(shares: u64, threshold: u64) -> Split {
    Split::new(shares, threshold).unwrap()
}

fn shape(shares: u64, threshold: u64) -> Shape {
    Shape::Shares(split(shares, threshold))
}

fn shown(share: &Share) -> Proof {
    Proof::Share(share.clone())
}

fn shares_of(keys: Vec<Proof>) -> Vec<Share> {
    let share = |key| if let Proof::Share(share) = key { share } else { panic!("a whole key") };
    keys.into_iter().map(share).collect()
}

/// A barrier that was initialised with five shares of which three open it.
fn made(dir: &Path) -> (Barrier, Vec<Share>) {
    let barrier = shared(dir);
    let made = barrier.init(&act(), split(5, 3), |_| Ok(())).unwrap();
    made.first.unwrap();
    (barrier, made.shares)
}

fn give(barrier: &Barrier, shares: &[&Share]) -> Result<SealStatus, VaultError> {
    let mut status = barrier.seal_status();
    for share in shares {
        status = barrier.unseal(&act(), (*share).clone())?;
    }
    Ok(status)
}

fn put(barrier: &Barrier, key: &str, value: &str) -> Result<(), VaultError> {
    let (key, value) = (key.to_owned(), value.to_owned());
    let vault = barrier.vault().ok_or(VaultError::Sealed)?;
    vault.store.write(Entry::new("test", "put").path(key.clone()), move |change| {
        change.put(Table::SecretHead, key.as_bytes(), value.as_bytes());
        Ok(())
    })
}

fn read(barrier: &Barrier, key: &str) -> Option<String> {
    let plain =
        barrier.vault()?.store.snapshot().unwrap().bytes(Table::SecretHead, key.as_bytes()).unwrap()?;
    Some(String::from_utf8(plain.to_vec()).unwrap())
}

fn refused<T>(outcome: Result<T, VaultError>) -> String {
    match outcome {
        Err(VaultError::Invalid(_, text)) => text,
        Err(error) => panic!("{error:?}"),
        Ok(_) => panic!("it was taken"),
    }
}

/// The operations that the audit log has of the barrier, in order.
fn recorded(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("audit/vault.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let seal = records.filter(|record| record["type"] == "seal");
    seal.map(|record| format!("{} {}", record["op"], record["decision"]).replace('"', "")).collect()
}

#[test]
fn vault_is_made_once_opened_by_enough_shares_closed_and_opened_again() {
    let dir = TempDir::new().unwrap();
    let barrier = shared(dir.path());
    let status = barrier.seal_status();
    assert_eq!((status.initialized, status.sealed, status.kind), (false, true, "shamir"));
    let (barrier, shares) = {
        drop(barrier);
        made(dir.path())
    };
    assert_eq!(shares.len(), 5);
    assert!(refused(barrier.init(&act(), split(1, 1), |_| Ok(()))).contains("already"));
    let sealed = barrier.seal_status();
    assert_eq!((sealed.initialized, sealed.sealed, sealed.shares, sealed.threshold), (true, true, 5, 3));

    let first = give(&barrier, &[&shares[4], &shares[1]]).unwrap();
    assert!(first.sealed && first.progress == 2 && first.nonce.is_some());
    assert!(refused(give(&barrier, &[&shares[4]])).contains("given already"));
    assert_eq!(barrier.seal_status().progress, 2, "a repeated share does not count");
    assert!(!give(&barrier, &[&shares[0]]).unwrap().sealed);
    put(&barrier, "a", "1").unwrap();
    barrier.seal(&act()).unwrap();
    assert!(barrier.seal_status().sealed && matches!(barrier.seal(&act()), Err(VaultError::Sealed)));
    assert!(matches!(put(&barrier, "a", "2"), Err(VaultError::Sealed)));

    give(&barrier, &[&shares[0]]).unwrap();
    assert_eq!(barrier.unseal_reset(&act()).unwrap().progress, 0);
    assert!(!give(&barrier, &[&shares[2], &shares[3], &shares[1]]).unwrap().sealed);
    assert_eq!(read(&barrier, "a").as_deref(), Some("1"));
    assert_eq!(
        recorded(dir.path()),
        [
            "init allow",
            "init error",
            "unseal allow",
            "unseal allow",
            "unseal error",
            "unseal allow",
            "seal allow",
            "unseal allow",
            "reset allow",
            "unseal allow",
            "unseal allow",
            "unseal allow"
        ]
    );
}

#[test]
fn a_vault_whose_making_cannot_be_recorded_is_not_made() {
    let dir = TempDir::new().unwrap();
    let barrier = shared(dir.path());
    let log = dir.path().join("audit/vault.jsonl");
    fs::remove_file(&log).unwrap();
    assert!(matches!(barrier.init(&act(), split(5, 3), |_| Ok(())), Err(VaultError::Audit(_))));
    assert!(!barrier.seal_status().initialized && !dir.path().join("vault/store.redb").exists());
    drop(barrier);
    fs::remove_dir_all(dir.path().join("audit")).unwrap();
    let (barrier, shares) = made(dir.path());
    assert!(
        !give(&barrier, &[&shares[0], &shares[1], &shares[2]]).unwrap().sealed,
        "nothing stood in the way"
    );
}

/// As kill -9 leaves it, at every commit of a rotation: before it, behind each bite, and when the older key is gone.
#[test]
fn a_rotation_that_ends_anywhere_loses_nothing() {
    let dir = TempDir::new().unwrap();
    let (barrier, shares) = made(dir.path());
    give(&barrier, &[&shares[0], &shares[1], &shares[2]]).unwrap();
    (0..150).for_each(|n| put(&barrier, &format!("kept/{n}"), "kept").unwrap());
    let left = |keks: std::ops::RangeInclusive<usize>| {
        let copy = TempDir::new().unwrap();
        kinds::copy(dir.path(), copy.path());
        let barrier = shared(copy.path());
        assert!(!give(&barrier, &[&shares[1], &shares[2], &shares[4]]).unwrap().sealed);
        let vault = barrier.vault().unwrap();
        let count = vault.store.keyring().keks();
        assert!(keks.contains(&count), "{count} keys");
        vault.rewrap(|| false).unwrap();
        assert_eq!(vault.store.keyring().keks(), 1);
        (0..150).for_each(|n| assert_eq!(read(&barrier, &format!("kept/{n}")).as_deref(), Some("kept")));
        assert!(sluice_audit::verify(&copy.path().join("audit")).unwrap().is_whole());
    };
    left(1..=1);
    barrier.rotate(&act()).unwrap();
    left(2..=2);
    let vault = barrier.vault().unwrap();
    let mut pauses = 0;
    while vault.store.keyring().keks() == 2 {
        // Each time one look further than before: it begins anew and finds what is left.
        let looks = AtomicU32::new(0);
        pauses += 1;
        vault.rewrap(|| looks.fetch_add(1, Ordering::Relaxed) == pauses).unwrap();
        if pauses % 6 == 0 || vault.store.keyring().keks() == 1 {
            left(1..=2);
        }
    }
    assert!(pauses >= 8, "{pauses} pauses");
    put(&barrier, "kept/0", "kept").unwrap();
    left(1..=1);
}

#[test]
fn wrong_shares_open_nothing_and_do_not_say_which_is_wrong() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (barrier, shares) = made(dir.path());
    let (_, foreign) = made(elsewhere.path());
    assert_eq!(refused(give(&barrier, &[&shares[0], &shares[1], &foreign[2]])), WRONG_SHARES);
    let status = barrier.seal_status();
    assert_eq!((status.sealed, status.progress, status.nonce), (true, 0, None));
    assert_eq!(refused(give(&barrier, &[&foreign[0], &foreign[1], &foreign[2]])), WRONG_SHARES);
    assert!(!give(&barrier, &[&shares[0], &shares[1], &shares[2]]).unwrap().sealed);
}

#[test]
fn wrong_shares_are_bounded_and_whoever_has_the_right_ones_waits() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (barrier, shares) = made(dir.path());
    let (_, foreign) = made(elsewhere.path());
    for _ in 0..5 {
        let wrong = give(&barrier, &[&foreign[0], &foreign[1], &foreign[2]]);
        assert_eq!(refused(wrong), WRONG_SHARES);
    }
    let Err(VaultError::Later(Code::TooManyFailures, _, left_s)) = give(&barrier, &[&shares[0]]) else {
        panic!("a sixth set is not looked at");
    };
    assert!((1..=900).contains(&left_s), "{left_s}");
    assert_eq!(barrier.seal_status().progress, 0);
}

#[test]
fn configuration_and_store_must_agree_on_how_it_opens() {
    let (dir, keys) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    drop(made(dir.path()));
    let open = |dir: &Path, opening| {
        let trust = TrustCell::new(&sluice_schema::Config::default(), sluice_wire::role::Role::Vault);
        let figures = Figures::new(&prometheus::Registry::new());
        Barrier::new(Settings { opening, ..settings(dir) }, trust, figures, Timestamp::now())
    };
    let file = || Opening::Dev(keys.path().join("unseal.key"));
    RootKey::dev(&keys.path().join("unseal.key"), false).unwrap();
    assert!(matches!(open(dir.path(), file()), Err(UnsealError::OpensBy("shamir"))));
    let other = TempDir::new().unwrap();
    drop(open(other.path(), file()).unwrap());
    assert!(matches!(open(other.path(), Opening::Shares), Err(UnsealError::OpensBy("file:PATH"))));
}

#[test]
fn rotation_under_load_fails_no_request_and_leaves_one_key() {
    let dir = TempDir::new().unwrap();
    let (barrier, shares) = made(dir.path());
    give(&barrier, &[&shares[0], &shares[1], &shares[2]]).unwrap();
    (0..300).for_each(|n| put(&barrier, &format!("kept/{n}"), "kept").unwrap());
    let (stop, calls) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (barrier, stop, calls) = (&barrier, &stop, &calls);
            scope.spawn(move || {
                let key = format!("busy/{thread}");
                for n in 0.. {
                    put(barrier, &key, &n.to_string()).unwrap();
                    assert_eq!(read(barrier, &key), Some(n.to_string()));
                    assert_eq!(read(barrier, &format!("kept/{}", n % 300)).as_deref(), Some("kept"));
                    calls.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                }
            });
        }
        for round in 0..3 {
            let number = barrier.rotate(&act()).unwrap();
            assert_eq!(number, round + 2);
            let vault = barrier.vault().unwrap();
            vault.rewrap(|| false).unwrap();
            let ring = vault.store.keyring();
            assert_eq!((ring.newest(), ring.keks()), (number, 1));
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(calls.into_inner() >= 3);
    barrier.seal(&act()).unwrap();
    give(&barrier, &[&shares[2], &shares[3], &shares[4]]).unwrap();
    (0..300).for_each(|n| assert_eq!(read(&barrier, &format!("kept/{n}")).as_deref(), Some("kept")));
}

#[test]
fn rotation_that_was_broken_off_is_finished_after_the_next_opening() {
    let dir = TempDir::new().unwrap();
    let (barrier, shares) = made(dir.path());
    give(&barrier, &[&shares[0], &shares[1], &shares[2]]).unwrap();
    (0..300).for_each(|n| put(&barrier, &format!("kept/{n}"), "kept").unwrap());
    barrier.rotate(&act()).unwrap();
    let bites = AtomicU32::new(0);
    let vault = barrier.vault().unwrap();
    vault.rewrap(|| bites.fetch_add(1, Ordering::Relaxed) == 8).unwrap();
    assert_eq!(vault.store.keyring().keks(), 2, "rows are left that use the older key");
    drop(vault);
    barrier.seal(&act()).unwrap();
    give(&barrier, &[&shares[0], &shares[1], &shares[2]]).unwrap();
    let vault = barrier.vault().unwrap();
    assert_eq!(vault.store.keyring().keks(), 2);
    vault.rewrap(|| false).unwrap();
    assert_eq!(vault.store.keyring().keks(), 1);
    let view = vault.store.snapshot().unwrap();
    for table in Table::ALL.into_iter().filter(|table| table.is_digested()) {
        for key in view.keys(table, &Range::prefix(b"", 1_000)).unwrap() {
            let sealed = view.raw(table, &key).unwrap().unwrap();
            assert!(view.keyring().knows_key_of(&sealed), "{}", table.name());
            view.bytes(table, &key)
                .map(drop)
                .or_else(|error| if sealed.is_empty() { Ok(()) } else { Err(error) })
                .unwrap();
        }
    }
}

#[test]
fn old_snapshots_keep_their_keys_and_a_full_ring_waits() {
    let dir = TempDir::new().unwrap();
    let (barrier, shares) = made(dir.path());
    give(&barrier, &[&shares[0], &shares[1], &shares[2]]).unwrap();
    put(&barrier, "a", "1").unwrap();
    let vault = barrier.vault().unwrap();
    let old = vault.store.snapshot().unwrap();
    for _ in 1..crate::seal::KEKS_MAX {
        barrier.rotate(&act()).unwrap();
    }
    assert_eq!(refused(barrier.rotate(&act())), crate::rotate::FULL);
    vault.rewrap(|| false).unwrap();
    barrier.rotate(&act()).unwrap();
    assert_eq!(old.bytes(Table::SecretHead, b"a").unwrap().unwrap().as_slice(), b"1");
}

#[test]
fn rekey_replaces_the_shares_at_once_or_when_the_new_ones_came_back() {
    let dir = TempDir::new().unwrap();
    let (barrier, first) = made(dir.path());
    assert!(matches!(barrier.rekey_begin(&act(), shape(2, 2), true), Err(VaultError::Sealed)));
    give(&barrier, &[&first[0], &first[1], &first[2]]).unwrap();
    put(&barrier, "a", "1").unwrap();

    let status = barrier.rekey_begin(&act(), shape(2, 2), true).unwrap();
    assert!(refused(barrier.rekey_begin(&act(), shape(3, 2), true)).contains("under way"));
    assert!(refused(barrier.rekey_give(&act(), Uuid::new_v4(), shown(&first[0]))).contains("no such rekey"));
    for share in &first[..2] {
        assert!(matches!(barrier.rekey_give(&act(), status.nonce, shown(share)), Ok(RekeyGiven::More(_))));
    }
    assert_eq!(refused(barrier.rekey_give(&act(), status.nonce, shown(&first[1]))), REPEATED_SHARE);
    let Ok(RekeyGiven::Made(second, status)) = barrier.rekey_give(&act(), status.nonce, shown(&first[3]))
    else {
        panic!("three shares are enough");
    };
    let second = shares_of(second);
    let verification = status.verification.unwrap();
    barrier.seal(&act()).unwrap();
    assert!(
        !give(&barrier, &[&first[0], &first[1], &first[2]]).unwrap().sealed,
        "the old ones are still good"
    );
    assert_eq!(barrier.rekey_status(), None, "closing ends a rekey");
    assert!(barrier.rekey_give(&act(), verification, shown(&second[0])).is_err());

    let status = barrier.rekey_begin(&act(), shape(2, 2), true).unwrap();
    for share in &first[1..3] {
        barrier.rekey_give(&act(), status.nonce, shown(share)).unwrap();
    }
    let Ok(RekeyGiven::Made(second, status)) = barrier.rekey_give(&act(), status.nonce, shown(&first[4]))
    else {
        panic!("three shares are enough");
    };
    let second = shares_of(second);
    let verification = status.verification.unwrap();
    barrier.rekey_give(&act(), verification, shown(&second[1])).unwrap();
    assert!(matches!(barrier.rekey_give(&act(), verification, shown(&second[0])), Ok(RekeyGiven::Done)));
    assert_eq!(barrier.vault().unwrap().store.keyring().newest(), 2, "a new key-encryption key begins too");
    barrier.seal(&act()).unwrap();
    assert_eq!((barrier.seal_status().shares, barrier.seal_status().threshold), (2, 2));
    assert_eq!(refused(give(&barrier, &[&first[0], &first[1]])), WRONG_SHARES);
    assert!(!give(&barrier, &[&second[0], &second[1]]).unwrap().sealed);
    assert_eq!(read(&barrier, "a").as_deref(), Some("1"));

    let status = barrier.rekey_begin(&act(), shape(1, 1), false).unwrap();
    barrier.rekey_give(&act(), status.nonce, shown(&second[0])).unwrap();
    let Ok(RekeyGiven::Made(third, _)) = barrier.rekey_give(&act(), status.nonce, shown(&second[1])) else {
        panic!("two shares are enough");
    };
    let third = shares_of(third);
    barrier.close();
    drop(barrier);
    let barrier = shared(dir.path());
    assert!(!give(&barrier, &[&third[0]]).unwrap().sealed);
    assert_eq!(read(&barrier, "a").as_deref(), Some("1"));
}

#[test]
fn wrong_shares_do_not_rekey() {
    let (dir, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (barrier, shares) = made(dir.path());
    let (_, foreign) = made(elsewhere.path());
    give(&barrier, &[&shares[0], &shares[1], &shares[2]]).unwrap();
    let status = barrier.rekey_begin(&act(), shape(2, 2), false).unwrap();
    barrier.rekey_give(&act(), status.nonce, shown(&foreign[0])).unwrap();
    barrier.rekey_give(&act(), status.nonce, shown(&shares[1])).unwrap();
    assert!(refused(barrier.rekey_give(&act(), status.nonce, shown(&shares[2]))).contains("given anew"));
    barrier.rekey_cancel(&act()).unwrap();
    barrier.seal(&act()).unwrap();
    assert!(!give(&barrier, &[&shares[0], &shares[1], &shares[2]]).unwrap().sealed);
}
