//! The keys of a log at rest.
//!
//! A master key is 32 random bytes under a number. It encrypts nothing itself: every opening of a segment draws 16
//! random bytes, its epoch, and HKDF-SHA256 makes of both the AES-256-GCM key of what is written from then on. So a
//! nonce, which counts within its epoch, is never used twice under one key: neither after a cut nor by two logs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::{HashMap, HashMapExt};
use ring::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use ring::hkdf::{HKDF_SHA256, KeyType, Prk};
use ring::rand::{SecureRandom as _, SystemRandom};

/// Bytes of a master key.
pub const MASTER_BYTES: usize = 32;
/// LIMIT: keys of epochs that are kept ready, about 1 KiB each; beyond it all are made again when needed.
const READY_MAX: usize = 4_096;

const DATA: &[u8] = b"sluice log 2 data";
const CHECK: &[u8] = b"sluice log 2 check";

/// What is drawn at every opening.
pub(crate) type Epoch = [u8; 16];

/// How a log's files are written, and with what older ones are read.
#[derive(Clone, Debug, Default)]
pub struct AtRest {
    /// The keys; needed to write with [`Self::encrypt`], and to read what was written so.
    pub keys: Option<Arc<Keyring>>,
    /// Whether new segments are encrypted.
    pub encrypt: bool,
    /// Whether segments are compressed once they are full.
    pub compress: bool,
    /// Where full segments are copied to; with it, retention drops nothing that is not there.
    pub archive: Option<PathBuf>,
}

/// Master keys by number. Its Debug shows the numbers alone.
pub struct Keyring {
    current: u32,
    masters: BTreeMap<u32, Master>,
    ready: RwLock<HashMap<(u32, Epoch), Arc<LessSafeKey>>>,
}

/// ring keeps the expanded key until it is dropped and does not wipe it; the raw bytes are wiped by their owners.
struct Master {
    prk: Prk,
    check: u64,
}

/// Keys that make no keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyringError {
    /// The key to write with is not among them.
    #[error("key {0} is to be used and was not given")]
    Current(u32),
    /// Number 0 means no key.
    #[error("a key cannot have the number 0")]
    Zero,
}

impl Keyring {
    /// A keyring; new segments are written with the key `current`.
    ///
    /// # Errors
    /// [`KeyringError`] where `current` is not among the keys, or one has the number 0.
    pub fn new<'a>(
        current: u32,
        keys: impl IntoIterator<Item = (u32, &'a [u8; MASTER_BYTES])>,
    ) -> Result<Self, KeyringError> {
        let masters: BTreeMap<u32, Master> =
            keys.into_iter().map(|(id, key)| (id, Master::new(key))).collect();
        if masters.contains_key(&0) {
            return Err(KeyringError::Zero);
        }
        if !masters.contains_key(&current) {
            return Err(KeyringError::Current(current));
        }
        Ok(Self { current, masters, ready: RwLock::new(HashMap::new()) })
    }

    /// The number of the key that new segments are written with.
    pub fn current(&self) -> u32 {
        self.current
    }

    /// By what a segment's header tells whether a key is the one it was written with.
    pub(crate) fn check(&self, id: u32) -> Option<u64> {
        self.masters.get(&id).map(|master| master.check)
    }

    /// The key of an epoch; `None` without its master.
    pub(crate) fn data_key(&self, id: u32, epoch: &Epoch) -> Option<Arc<LessSafeKey>> {
        let known = self.ready.read().unwrap_or_else(PoisonError::into_inner).get(&(id, *epoch)).cloned();
        if known.is_some() {
            return known;
        }
        let key = Arc::new(self.masters.get(&id)?.data_key(epoch));
        let mut ready = self.ready.write().unwrap_or_else(PoisonError::into_inner);
        if ready.len() >= READY_MAX {
            ready.clear();
        }
        ready.insert((id, *epoch), Arc::clone(&key));
        Some(key)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers: Vec<&u32> = self.masters.keys().collect();
        f.debug_struct("Keyring")
            .field("current", &self.current)
            .field("keys", &numbers)
            .finish_non_exhaustive()
    }
}

impl Master {
    /// A master key is random, so it is a pseudo-random key as it is: HKDF's second step alone.
    fn new(key: &[u8; MASTER_BYTES]) -> Self {
        let prk = Prk::new_less_safe(HKDF_SHA256, key);
        let mut check = [0; 8];
        let info: [&[u8]; 1] = [CHECK];
        let okm = prk.expand(&info, CheckBytes).expect("8 bytes are within what HKDF gives");
        okm.fill(&mut check).expect("the buffer has the length that was asked for");
        Self { prk, check: u64::from_le_bytes(check) }
    }

    fn data_key(&self, epoch: &Epoch) -> LessSafeKey {
        let info: [&[u8]; 2] = [DATA, epoch];
        let okm = self.prk.expand(&info, &AES_256_GCM).expect("32 bytes are within what HKDF gives");
        LessSafeKey::new(UnboundKey::from(okm))
    }
}

struct CheckBytes;

impl KeyType for CheckBytes {
    fn len(&self) -> usize {
        8
    }
}

/// Bytes that nobody can guess.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel's random source does not fail once seeded");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keyring_has_its_current_key_and_no_number_zero() {
        let key = [7; 32];
        assert_eq!(Keyring::new(2, [(1, &key)]).unwrap_err(), KeyringError::Current(2));
        assert_eq!(Keyring::new(1, [(0, &key), (1, &key)]).unwrap_err(), KeyringError::Zero);
        let keyring = Keyring::new(1, [(1, &key)]).unwrap();
        assert_eq!(format!("{keyring:?}"), "Keyring { current: 1, keys: [1], .. }");
    }

    #[test]
    fn checks_tell_keys_apart_and_ready_keys_are_bounded() {
        let keyring = Keyring::new(1, [(1, &[7; 32]), (2, &[8; 32])]).unwrap();
        assert_ne!(keyring.check(1), keyring.check(2));
        assert_eq!(keyring.check(3), None);
        assert!(keyring.data_key(3, &[0; 16]).is_none());
        for i in 0..READY_MAX as u128 + 10 {
            keyring.data_key(1, &i.to_le_bytes()).unwrap();
        }
        assert!(keyring.ready.read().unwrap().len() <= READY_MAX);
    }
}
