//! From a key file to shares and back, whatever ends in between; and a root token for who has nothing else.

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::*;

/// A barrier that opens by the key file of development.
fn by_file(dir: &Path) -> Barrier {
    let keys = dir.join("vault");
    fs::create_dir_all(&keys).unwrap();
    barrier(Settings { opening: Opening::Dev(keys.join("unseal.key")), ..settings(dir) })
}

fn try_file(dir: &Path) -> Result<Barrier, UnsealError> {
    let trust = TrustCell::new(&sluice_schema::Config::default(), sluice_wire::role::Role::Vault);
    let opening = Opening::Dev(dir.join("vault/unseal.key"));
    let figures = Figures::new(&prometheus::Registry::new());
    Barrier::new(Settings { opening, ..settings(dir) }, trust, figures, Timestamp::now())
}

fn write_key(path: &Path, key: &str) {
    drop(fs::remove_file(path));
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap();
    std::io::Write::write_all(&mut file, key.as_bytes()).unwrap();
}

pub(super) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (path, at) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&path, &at);
        } else {
            assert!(fs::copy(&path, &at).is_ok());
        }
    }
}

/// Whether the directory, as kill -9 leaves it now, opens by this and holds what was put there.
fn opens(dir: &Path, by: &[Proof]) -> bool {
    let left = TempDir::new().unwrap();
    copy(dir, left.path());
    let opened = match by {
        [Proof::Key(_)] => {
            write_key(&left.path().join("vault/unseal.key"), &by[0].to_hex());
            match try_file(left.path()) {
                Ok(barrier) => barrier,
                Err(
                    UnsealError::Store(StoreError::Keyring(KeyringError::WrongKey)) | UnsealError::OpensBy(_),
                ) => {
                    return false;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        shares => {
            if fs::read(left.path().join("vault/store.redb")).is_err() {
                return false;
            }
            let trust = TrustCell::new(&sluice_schema::Config::default(), sluice_wire::role::Role::Vault);
            let figures = Figures::new(&prometheus::Registry::new());
            let settings = Settings { opening: Opening::Shares, dev: false, ..settings(left.path()) };
            let Ok(barrier) = Barrier::new(settings, trust, figures, Timestamp::now()) else { return false };
            for share in shares_of(shares.to_vec()) {
                if barrier.unseal(&act(), share).is_err() {
                    return false;
                }
            }
            barrier
        }
    };
    opened.vault().is_some() && read(&opened, "a").as_deref() == Some("1")
}

fn key_in(path: &Path) -> Proof {
    Proof::parse(fs::read_to_string(path).unwrap().trim_end()).unwrap()
}

/// Moves the vault below a new root key step by step; after each, the former key opens what a crash leaves, or the new
/// one does, and never neither.
fn moved(dir: &Path, barrier: &Barrier, present: &[Proof], target: Shape) -> Vec<Proof> {
    let mut status = barrier.rekey_begin(&act(), target, true).unwrap();
    assert!(opens(dir, present));
    let mut made = None;
    for proof in present {
        match barrier.rekey_give(&act(), status.nonce, proof.clone()).unwrap() {
            RekeyGiven::More(next) => status = next,
            RekeyGiven::Made(keys, next) => (made, status) = (Some(keys), next),
            RekeyGiven::Done => panic!("it has to come back first"),
        }
    }
    let keys: Vec<Proof> = made.unwrap().into_iter().take(target.counts().1.into()).collect();
    assert!(opens(dir, present) && !opens(dir, &keys), "the new key does not count yet");
    let nonce = status.verification.unwrap();
    for (index, proof) in keys.iter().enumerate() {
        let done = matches!(barrier.rekey_give(&act(), nonce, proof.clone()).unwrap(), RekeyGiven::Done);
        assert_eq!(done, index + 1 == keys.len());
        assert!(opens(dir, if done { &keys } else { present }));
    }
    assert!(!opens(dir, present), "the former key opens nothing any more");
    keys
}

#[test]
fn a_vault_moves_from_a_key_file_to_another_to_shares_and_back() {
    let dir = TempDir::new().unwrap();
    let barrier = by_file(dir.path());
    put(&barrier, "a", "1").unwrap();
    let first = vec![key_in(&dir.path().join("vault/unseal.key"))];
    let refusal = |proof: Proof| {
        let status = barrier.rekey_begin(&act(), Shape::File, true).unwrap();
        let text = refused(barrier.rekey_give(&act(), status.nonce, proof));
        barrier.rekey_cancel(&act()).unwrap();
        text
    };
    assert_eq!(refusal(Proof::Key(RootKey::random())), WRONG_PROOF);
    let stranger = RootKey::random().divide(split(1, 1)).remove(0);
    assert_eq!(refusal(Proof::Share(stranger)), NO_SHARES);

    let second = moved(dir.path(), &barrier, &first, Shape::File);
    let shares = moved(dir.path(), &barrier, &second, shape(3, 2));
    assert_eq!(barrier.seal_status().kind, "shamir");
    let status = barrier.rekey_begin(&act(), Shape::File, true).unwrap();
    assert_eq!(refused(barrier.rekey_give(&act(), status.nonce, second[0].clone())), NO_KEY_FILE);
    barrier.rekey_cancel(&act()).unwrap();
    barrier.seal(&act()).unwrap();
    assert!(!give(&barrier, &shares_of(shares.clone()).iter().collect::<Vec<_>>()).unwrap().sealed);
    let last = moved(dir.path(), &barrier, &shares, Shape::File);
    assert_eq!((barrier.seal_status().kind, read(&barrier, "a").as_deref()), ("file", Some("1")));
    drop(barrier);
    write_key(&dir.path().join("vault/unseal.key"), &last[0].to_hex());
    assert_eq!(read(&by_file(dir.path()), "a").as_deref(), Some("1"));
}

#[test]
fn a_new_key_file_opens_before_it_lies_in_its_place() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("vault/unseal.key");
    let beside: PathBuf = dir.path().join("vault/unseal.key.new");
    let barrier = by_file(dir.path());
    put(&barrier, "a", "1").unwrap();
    let first = vec![key_in(&path)];
    // Half a key beside the right one is no matter.
    write_key(&beside, "half");
    assert!(opens(dir.path(), &first));
    let second = moved(dir.path(), &barrier, &first, Shape::File);
    drop(barrier);
    assert!(matches!(
        try_file(dir.path()),
        Err(UnsealError::Store(StoreError::Keyring(KeyringError::WrongKey)))
    ));
    write_key(&beside, &second[0].to_hex());
    assert_eq!(read(&try_file(dir.path()).unwrap(), "a").as_deref(), Some("1"));
    fs::rename(&beside, &path).unwrap();
    assert_eq!(read(&try_file(dir.path()).unwrap(), "a").as_deref(), Some("1"));
}

#[test]
fn a_root_token_is_made_for_whoever_has_the_root_key_alone() {
    let dir = TempDir::new().unwrap();
    let (barrier, shares) = made(dir.path());
    assert!(matches!(barrier.root_begin(&act(), None), Err(VaultError::Sealed)));
    give(&barrier, &[&shares[0], &shares[1], &shares[2]]).unwrap();
    let pad = |text: &str| Some(text.to_owned().into());
    assert!(refused(barrier.root_begin(&act(), pad("short"))).contains("as long as"));
    let (status, pad) = barrier.root_begin(&act(), None).unwrap();
    let (nonce, pad) = (status.nonce.unwrap(), pad.unwrap());
    assert_eq!((status.required, pad.len()), (3, crate::v1::ROOT_TOKEN_BYTES));
    assert!(refused(barrier.root_begin(&act(), None)).contains("under way"));
    assert!(refused(barrier.root_give(&act(), Uuid::new_v4(), shown(&shares[0]))).contains("no such"));
    let elsewhere = TempDir::new().unwrap();
    let (_, foreign) = made(elsewhere.path());
    for share in [&shares[0], &foreign[1]] {
        assert!(matches!(barrier.root_give(&act(), nonce, shown(share)), Ok(RootGiven::More(_))));
    }
    assert_eq!(refused(barrier.root_give(&act(), nonce, shown(&shares[2]))), WRONG_PROOF);
    for share in &shares[..2] {
        barrier.root_give(&act(), nonce, shown(share)).unwrap();
    }
    let Ok(RootGiven::Made(_, veiled)) = barrier.root_give(&act(), nonce, shown(&shares[4])) else {
        panic!("three shares are enough");
    };
    let bytes = STANDARD_NO_PAD.decode(veiled.as_bytes()).unwrap();
    let token: String = bytes.iter().zip(pad.bytes()).map(|(a, b)| char::from(a ^ b)).collect();
    assert!(token.starts_with("hvs.") && token.len() == pad.len(), "{token}");
    assert_eq!(barrier.root_status().nonce, None);
    assert!(barrier.root_give(&act(), nonce, shown(&shares[0])).is_err(), "once");
    barrier.root_begin(&act(), None).unwrap();
    barrier.seal(&act()).unwrap();
    assert_eq!(barrier.root_status().nonce, None, "closing ends it");
}
