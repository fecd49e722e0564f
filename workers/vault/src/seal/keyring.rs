//! The keys below the root key.
//!
//! Keyring rows: `kek/<number>` (ten digits) and `digest`, each wrapped by the root key with the row's name as its
//! place; `shape`, how the root key is had, in plain JSON because it is read while the vault is sealed; and
//! `shape.sealed`, the same wrapped, by which a changed one is found out. New records use the highest number;
//! older ones open as long as their key is in the ring.
//!
//! A keyring never changes: a rotation makes another one beside it, and whoever reads holds on to the one that
//! belongs to what is read.

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::digest;
use ring::hmac;
use zeroize::Zeroizing;

use super::envelope::{self, KEY_BYTES, Place};
use super::locked::Key;
use super::shape::Shape;
use super::{OpenError, RootKey};

const DIGEST: &str = "digest";
/// The row that says how the root key is had.
pub(crate) const SHAPE: &str = "shape";
const SHAPE_SEALED: &str = "shape.sealed";
/// The root key's number in envelopes; key-encryption keys count from 1.
const ROOT: u32 = 0;
/// LIMIT: key-encryption keys at a time: a rotation waits for the rows of the earlier ones.
pub(crate) const KEKS_MAX: usize = 16;

/// The rows do not open with this root key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyringError {
    /// A row does not open: another root key, or a changed row.
    #[error("the root key does not open the store")]
    WrongKey,
    /// A row is missing.
    #[error("the store's keyring is incomplete")]
    Incomplete,
    /// The rows are not those of the last commit.
    #[error("the store's keyring was changed or put back to an older state")]
    Replaced,
}

/// The open keys of a store. No Debug: it holds secrets.
pub(crate) struct Keyring {
    root: RootKey,
    shape: Shape,
    keks: BTreeMap<u32, Arc<Key>>,
    digest: Arc<Key>,
}

/// The rows that keep a keyring, by name.
pub(crate) type Rows = BTreeMap<String, Vec<u8>>;

impl Keyring {
    /// A new keyring.
    pub(crate) fn create(root: RootKey, shape: Shape) -> Self {
        let keks = BTreeMap::from([(1, Key::random().into())]);
        Self { root, shape, keks, digest: Key::random().into() }
    }

    /// Opens the rows of an existing store.
    pub(crate) fn open(root: &RootKey, rows: &Rows) -> Result<Self, KeyringError> {
        let cipher = root.cipher();
        let open = |name: &str, sealed: &[u8]| {
            envelope::open(&cipher, place(name), sealed).map_err(|_| KeyringError::WrongKey)
        };
        let key = |name: &str, sealed: &[u8]| {
            let key = open(name, sealed)?;
            let key: &[u8; KEY_BYTES] = key.as_slice().try_into().map_err(|_| KeyringError::WrongKey)?;
            Ok(Arc::new(Key::new(key)))
        };
        let mut keks = BTreeMap::new();
        for (name, sealed) in rows {
            if let Some(number) = name.strip_prefix("kek/").and_then(|number| number.parse().ok()) {
                keks.insert(number, key(name, sealed)?);
            }
        }
        let digest = key(DIGEST, rows.get(DIGEST).ok_or(KeyringError::Incomplete)?)?;
        if keks.is_empty() {
            return Err(KeyringError::Incomplete);
        }
        // A store of an older version has neither: it opens by a key file.
        let shape = match (rows.get(SHAPE), rows.get(SHAPE_SEALED)) {
            (None, None) => Shape::File,
            (Some(plain), Some(sealed)) if *plain == *open(SHAPE_SEALED, sealed)? => {
                Shape::parse(plain).ok_or(KeyringError::Replaced)?
            }
            _ => return Err(KeyringError::Replaced),
        };
        Ok(Self { root: root.clone(), shape, keks, digest })
    }

    /// The rows that keep it.
    pub(crate) fn rows(&self, now_us: i64) -> Rows {
        let root = self.root.cipher();
        let row = |name: String, plain: &[u8]| {
            let sealed = envelope::seal(&root, ROOT, place(&name), now_us, plain);
            (name, sealed)
        };
        let keks = self.keks.iter().map(|(number, key)| row(kek_name(*number), key.bytes()));
        let mut rows: Rows = keks.collect();
        rows.extend([row(DIGEST.to_owned(), self.digest.bytes())]);
        let shape = self.shape.to_json();
        rows.extend([row(SHAPE_SEALED.to_owned(), &shape), (SHAPE.to_owned(), shape)]);
        rows
    }

    /// The same ring with one more key-encryption key, which new records use; `None`: it is full.
    pub(crate) fn rotated(&self) -> Option<Self> {
        let mut ring = self.copy();
        ring.keks.insert(self.newest() + 1, Key::random().into());
        (ring.keks.len() <= KEKS_MAX).then_some(ring)
    }

    /// The same ring without the key-encryption keys below `number`.
    pub(crate) fn without_below(&self, number: u32) -> Self {
        let mut ring = self.copy();
        ring.keks.retain(|known, _| *known >= number.min(self.newest()));
        ring
    }

    /// The same keys below another root key.
    pub(crate) fn under(&self, root: RootKey, shape: Shape) -> Self {
        Self { root, shape, ..self.copy() }
    }

    fn copy(&self) -> Self {
        let (keks, digest) = (self.keks.clone(), Arc::clone(&self.digest));
        Self { root: self.root.clone(), shape: self.shape, keks, digest }
    }

    /// Seals a record for a place.
    pub(crate) fn seal(&self, place: Place<'_>, now_us: i64, plain: &[u8]) -> Vec<u8> {
        let (id, kek) = self.keks.last_key_value().expect("a keyring has at least one key");
        envelope::seal(&kek.cipher(), *id, place, now_us, plain)
    }

    /// Opens a record in the place it was sealed for.
    pub(crate) fn unseal(&self, place: Place<'_>, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let kek = envelope::key_id(sealed).and_then(|id| self.keks.get(&id)).ok_or(OpenError)?;
        envelope::open(&kek.cipher(), place, sealed)
    }

    /// The record under the newest key, its time kept; `None` when it is already.
    pub(crate) fn reseal(&self, place: Place<'_>, sealed: &[u8]) -> Result<Option<Vec<u8>>, OpenError> {
        if !self.is_outdated(sealed) {
            return Ok(None);
        }
        let plain = self.unseal(place, sealed)?;
        let at_us = envelope::sealed_at_us(sealed).ok_or(OpenError)?;
        Ok(Some(self.seal(place, at_us, &plain)))
    }

    /// Whether a stored value uses another key than the newest. Index rows, which are empty, use none.
    pub(crate) fn is_outdated(&self, sealed: &[u8]) -> bool {
        !sealed.is_empty() && envelope::key_id(sealed) != Some(self.newest())
    }

    /// Whether the key of a stored value is in the ring.
    pub(crate) fn knows_key_of(&self, sealed: &[u8]) -> bool {
        sealed.is_empty() || envelope::key_id(sealed).is_some_and(|id| self.keks.contains_key(&id))
    }

    /// Number of the key that new records use.
    pub(crate) fn newest(&self) -> u32 {
        *self.keks.last_key_value().expect("a keyring has at least one key").0
    }

    /// How many key-encryption keys are in use.
    pub(crate) fn keks(&self) -> usize {
        self.keks.len()
    }

    /// How the root key is had.
    pub(crate) const fn shape(&self) -> Shape {
        self.shape
    }

    /// The key above.
    pub(crate) const fn root(&self) -> &RootKey {
        &self.root
    }

    /// The key of the row digest.
    pub(crate) fn digest_key(&self) -> hmac::Key {
        self.digest.mac()
    }
}

/// What the rows of a keyring are, for the head: SHA-256 over names and values, length-prefixed.
pub(crate) fn fingerprint(rows: &Rows) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in rows.iter().flat_map(|(name, value)| [name.as_bytes(), value]) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
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
    use crate::seal::shamir::Split;
    use proptest::prelude::*;

    fn ring() -> Keyring {
        Keyring::create(RootKey::random(), Shape::File)
    }

    fn spot(path: &str, version: u64) -> Place<'_> {
        Place { table: "secret_version", mount: "secret", tenant: "bot", path: path.as_bytes(), version }
    }

    #[test]
    fn another_root_key_does_not_open_the_ring() {
        let root = RootKey::random();
        let rows = Keyring::create(root.clone(), Shape::File).rows(7);
        assert!(Keyring::open(&root, &rows).is_ok());
        let refused = |rows: &Rows| Keyring::open(&root, rows).err();
        assert_eq!(Keyring::open(&RootKey::random(), &rows).err(), Some(KeyringError::WrongKey));
        let mut swapped = rows.clone();
        swapped.insert(kek_name(1), rows[DIGEST].clone());
        assert_eq!(refused(&swapped), Some(KeyringError::WrongKey));
        for missing in [DIGEST.to_owned(), kek_name(1)] {
            let mut fewer = rows.clone();
            fewer.remove(&missing);
            assert_eq!(refused(&fewer), Some(KeyringError::Incomplete), "{missing}");
        }
        let mut easier = rows.clone();
        easier.insert(SHAPE.to_owned(), Shape::Shares(Split::new(5, 2).unwrap()).to_json());
        assert_eq!(refused(&easier), Some(KeyringError::Replaced));
        easier.remove(SHAPE);
        assert_eq!(refused(&easier), Some(KeyringError::Replaced));
    }

    #[test]
    fn rotated_ring_opens_old_records_until_their_key_goes() {
        let root = RootKey::random();
        let first = Keyring::create(root.clone(), Shape::File);
        let old = first.seal(spot("a", 1), 42, b"canary");
        let second = first.rotated().unwrap();
        assert_eq!((first.newest(), second.newest(), second.keks()), (1, 2, 2));
        assert!(second.is_outdated(&old) && !first.is_outdated(&old) && !second.is_outdated(b""));
        let new = second.reseal(spot("a", 1), &old).unwrap().unwrap();
        assert_eq!(second.reseal(spot("a", 1), &new).unwrap(), None);
        assert_eq!(envelope::sealed_at_us(&new), Some(42), "the time of the record stays");
        assert!(second.reseal(spot("b", 1), &old).is_err(), "what is not whole is not made whole");
        let third = second.without_below(2);
        assert_eq!((third.keks(), third.without_below(9).keks()), (1, 1), "the newest never goes");
        assert_eq!(third.unseal(spot("a", 1), &new).unwrap().as_slice(), b"canary");
        assert!(third.unseal(spot("a", 1), &old).is_err() && !third.knows_key_of(&old));
        let again = Keyring::open(&root, &third.rows(7)).unwrap();
        assert_eq!(again.unseal(spot("a", 1), &new).unwrap().as_slice(), b"canary");
        let full = (1..KEKS_MAX).fold(first, |ring, _| ring.rotated().unwrap());
        assert!(full.rotated().is_none());
    }

    #[test]
    fn another_root_key_takes_the_ring_over() {
        let (old, new) = (RootKey::random(), RootKey::random());
        let shape = Shape::Shares(Split::new(5, 3).unwrap());
        let ring = Keyring::create(old.clone(), Shape::File);
        let sealed = ring.seal(spot("a", 1), 42, b"canary");
        let rows = ring.under(new.clone(), shape).rows(7);
        assert_eq!(Keyring::open(&old, &rows).err(), Some(KeyringError::WrongKey));
        let ring = Keyring::open(&new, &rows).unwrap();
        assert_eq!(
            (ring.shape(), ring.unseal(spot("a", 1), &sealed).unwrap().as_slice()),
            (shape, &b"canary"[..])
        );
        assert_ne!(fingerprint(&rows), fingerprint(&ring.rows(8)));
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
