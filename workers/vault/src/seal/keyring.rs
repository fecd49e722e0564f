//! The keys below the root key.
//!
//! Keyring rows, each wrapped by the root key with the row's name as its place: `kek/<number>` (ten digits)
//! and `digest`. New records use the highest number; older ones open as long as their key is in the ring.

use std::collections::BTreeMap;

use ring::aead::LessSafeKey;
use ring::hmac;
use zeroize::Zeroizing;

use super::envelope::{self, KEY_BYTES, Place, cipher, random};
use super::{OpenError, RootKey};

const DIGEST: &str = "digest";
/// The root key's number in envelopes; key-encryption keys count from 1.
const ROOT: u32 = 0;

/// The rows do not open with this root key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyringError {
    /// A row does not open: another root key, or a changed row.
    #[error("the root key does not open the store")]
    WrongKey,
    /// A row is missing.
    #[error("the store's keyring is incomplete")]
    Incomplete,
}

/// The open keys of a store. No Debug: it holds secrets.
pub(crate) struct Keyring {
    keks: BTreeMap<u32, LessSafeKey>,
    digest: hmac::Key,
}

/// The rows that keep a keyring.
pub(crate) type Rows = Vec<(String, Vec<u8>)>;

impl Keyring {
    /// A new keyring and its rows.
    pub(crate) fn create(root: &RootKey, now_us: i64) -> (Self, Rows) {
        let kek = Zeroizing::new(random::<KEY_BYTES>());
        let digest = Zeroizing::new(random::<KEY_BYTES>());
        let root = root.cipher();
        let row = |name: String, key: &[u8; KEY_BYTES]| {
            let sealed = envelope::seal(&root, ROOT, place(&name), now_us, key);
            (name, sealed)
        };
        let rows = vec![row(kek_name(1), &kek), row(DIGEST.to_owned(), &digest)];
        let keyring = Self {
            keks: BTreeMap::from([(1, cipher(&kek))]),
            digest: hmac::Key::new(hmac::HMAC_SHA256, &*digest),
        };
        (keyring, rows)
    }

    /// Opens the rows of an existing store.
    pub(crate) fn open(root: &RootKey, rows: &Rows) -> Result<Self, KeyringError> {
        let root = root.cipher();
        let mut keks = BTreeMap::new();
        let mut digest = None;
        for (name, sealed) in rows {
            let key = envelope::open(&root, place(name), sealed).map_err(|_| KeyringError::WrongKey)?;
            let key: &[u8; KEY_BYTES] = key.as_slice().try_into().map_err(|_| KeyringError::WrongKey)?;
            match name.strip_prefix("kek/").and_then(|number| number.parse().ok()) {
                Some(number) => drop(keks.insert(number, cipher(key))),
                None => digest = Some(hmac::Key::new(hmac::HMAC_SHA256, key)),
            }
        }
        match digest {
            Some(digest) if !keks.is_empty() => Ok(Self { keks, digest }),
            _ => Err(KeyringError::Incomplete),
        }
    }

    /// Seals a record for a place.
    pub(crate) fn seal(&self, place: Place<'_>, now_us: i64, plain: &[u8]) -> Vec<u8> {
        let (id, kek) = self.keks.last_key_value().expect("a keyring has at least one key");
        envelope::seal(kek, *id, place, now_us, plain)
    }

    /// Opens a record in the place it was sealed for.
    pub(crate) fn unseal(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let kek = envelope::key_id(sealed).and_then(|id| self.keks.get(&id)).ok_or(OpenError)?;
        envelope::open(kek, place, sealed)
    }

    /// The key of the row digest.
    pub(crate) fn digest_key(&self) -> &hmac::Key {
        &self.digest
    }
}

fn kek_name(number: u32) -> String {
    format!("kek/{number:010}")
}

fn place(name: &str) -> Place<'_> {
    Place { table: "keyring", mount: "", tenant: "", path: name.as_bytes(), version: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ring() -> Keyring {
        Keyring::create(&RootKey::random(), 0).0
    }

    fn spot(path: &str, version: u64) -> Place<'_> {
        Place { table: "secret_version", mount: "secret", tenant: "bot", path: path.as_bytes(), version }
    }

    #[test]
    fn another_root_key_does_not_open_the_ring() {
        let root = RootKey::random();
        let (_, rows) = Keyring::create(&root, 7);
        assert!(Keyring::open(&root, &rows).is_ok());
        assert_eq!(Keyring::open(&RootKey::random(), &rows).err(), Some(KeyringError::WrongKey));
        let swapped = vec![(rows[0].0.clone(), rows[1].1.clone()), (rows[1].0.clone(), rows[0].1.clone())];
        assert_eq!(Keyring::open(&root, &swapped).err(), Some(KeyringError::WrongKey));
        assert_eq!(Keyring::open(&root, &rows[..1].to_vec()).err(), Some(KeyringError::Incomplete));
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_is_refused() {
        let ring = ring();
        let sealed = ring.seal(spot("services/bot/db", 1), 42, b"canary");
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut bytes = sealed.clone();
                bytes[at] ^= 1 << bit;
                assert!(ring.unseal(spot("services/bot/db", 1), &bytes).is_err(), "bit {bit} of byte {at}");
            }
            assert!(ring.unseal(spot("services/bot/db", 1), &sealed[..at]).is_err());
        }
    }

    #[test]
    fn a_record_opens_in_its_own_place_only() {
        let ring = ring();
        let sealed = ring.seal(spot("services/bot/db", 1), 42, b"canary");
        assert_eq!(ring.unseal(spot("services/bot/db", 1), &sealed).unwrap().as_slice(), b"canary");
        for place in [
            spot("services/bot/db", 2),
            spot("services/bot/d", 1),
            Place { tenant: "bo", path: b"tservices/bot/db", ..spot("", 1) },
            Place { table: "secret_head", ..spot("services/bot/db", 1) },
            Place { mount: "", ..spot("services/bot/db", 1) },
        ] {
            assert!(ring.unseal(place, &sealed).is_err(), "{place:?}");
        }
    }

    proptest! {
        #[test]
        fn anything_sealed_reads_back_and_shows_nothing(plain in proptest::collection::vec(any::<u8>(), 0..300)) {
            let ring = ring();
            let sealed = ring.seal(spot("a", 1), 1, &plain);
            let opened = ring.unseal(spot("a", 1), &sealed).unwrap();
            prop_assert_eq!(opened.as_slice(), plain.as_slice());
            if plain.len() >= 8 {
                prop_assert!(!sealed.windows(plain.len()).any(|window| window == plain));
            }
        }
    }
}
