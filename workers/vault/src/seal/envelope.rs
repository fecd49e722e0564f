//! The sealed form of one record.
//!
//! ```text
//! byte 0        format, 1
//! bytes 1..5    number of the key-encryption key, big endian
//! bytes 5..13   time of sealing, microseconds since 1970, big endian
//! bytes 13..25  nonce of the wrapped data key
//! bytes 25..73  data key, wrapped (32 bytes and tag)
//! from 73       record, sealed with the data key (and tag)
//! ```
//!
//! INVARIANT: a data key seals exactly one record, so its nonce is constant (zero). The random 96-bit nonces
//! of one key-encryption key stay far below 2^32 uses.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::OpenError;

pub(crate) const KEY_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const FORMAT: u8 = 1;
const WRAPPED_AT: usize = 25;
const SEALED_AT: usize = WRAPPED_AT + KEY_BYTES + TAG_BYTES;

/// What a record is about: authenticated, never stored beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    /// Table of the store.
    pub(crate) table: &'a str,
    /// Mount, for secrets.
    pub(crate) mount: &'a str,
    /// Service whose part of the tree it is in, for secrets.
    pub(crate) tenant: &'a str,
    /// Canonical path, or the row's key.
    pub(crate) path: &'a [u8],
    /// Version, for secrets.
    pub(crate) version: u64,
}

impl Place<'_> {
    /// Length-prefixed, so that no two places have the same bytes.
    fn aad(&self, key_id: u32, sealed_at_us: i64) -> Vec<u8> {
        let mut aad = Vec::with_capacity(96 + self.path.len());
        let parts: [&[u8]; 8] = [
            b"sluice-vault/1",
            self.table.as_bytes(),
            self.mount.as_bytes(),
            self.tenant.as_bytes(),
            self.path,
            &self.version.to_be_bytes(),
            &key_id.to_be_bytes(),
            &sealed_at_us.to_be_bytes(),
        ];
        for part in parts {
            aad.extend_from_slice(&(part.len() as u32).to_be_bytes());
            aad.extend_from_slice(part);
        }
        aad
    }
}

/// A key that wraps or seals. ring does not wipe the expanded key, so it is made for a use and not kept; the raw
/// bytes are wiped by their owners.
pub(super) fn cipher(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has the length of the algorithm"))
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the kernel's random source does not fail once seeded");
    bytes
}

/// Number of the key a sealed record was wrapped with; `None` when it has no envelope's form.
pub(super) fn key_id(sealed: &[u8]) -> Option<u32> {
    if sealed.len() < SEALED_AT + TAG_BYTES || sealed[0] != FORMAT {
        return None;
    }
    Some(u32::from_be_bytes(sealed[1..5].try_into().ok()?))
}

/// When a sealed record was sealed; `None` when it has no envelope's form.
pub(super) fn sealed_at_us(sealed: &[u8]) -> Option<i64> {
    key_id(sealed)?;
    Some(i64::from_be_bytes(sealed[5..13].try_into().ok()?))
}

pub(super) fn seal(kek: &LessSafeKey, key_id: u32, place: Place<'_>, now_us: i64, plain: &[u8]) -> Vec<u8> {
    let aad = place.aad(key_id, now_us);
    // One call of the kernel for both.
    let drawn = Zeroizing::new(random::<{ NONCE_LEN + KEY_BYTES }>());
    let (nonce, data_key) = drawn.split_at(NONCE_LEN);
    let nonce: [u8; NONCE_LEN] = nonce.try_into().expect("it was split there");
    let data_key: Zeroizing<[u8; KEY_BYTES]> =
        Zeroizing::new(data_key.try_into().expect("the rest is a key"));
    let mut sealed = Vec::with_capacity(SEALED_AT + plain.len() + TAG_BYTES);
    sealed.push(FORMAT);
    sealed.extend_from_slice(&key_id.to_be_bytes());
    sealed.extend_from_slice(&now_us.to_be_bytes());
    sealed.extend_from_slice(&nonce);
    let mut wrapped = Zeroizing::new(*data_key);
    let tag = kek
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(&aad),
            wrapped.as_mut_slice(),
        )
        .expect("a key is far below the cipher's length limit");
    sealed.extend_from_slice(wrapped.as_slice());
    sealed.extend_from_slice(tag.as_ref());
    // The plain text is in `sealed` only until the next line has replaced it, within its capacity.
    sealed.extend_from_slice(plain);
    let tag = cipher(&data_key)
        .seal_in_place_separate_tag(record_nonce(), Aad::from(&aad), &mut sealed[SEALED_AT..])
        .expect("a record is far below the cipher's length limit");
    sealed.extend_from_slice(tag.as_ref());
    sealed
}

pub(super) fn open(
    kek: &LessSafeKey,
    place: Place<'_>,
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let key_id = key_id(sealed).ok_or(OpenError)?;
    let sealed_at_us = i64::from_be_bytes(sealed[5..13].try_into().map_err(|_| OpenError)?);
    let aad = place.aad(key_id, sealed_at_us);
    let nonce = Nonce::try_assume_unique_for_key(&sealed[13..WRAPPED_AT]).map_err(|_| OpenError)?;
    let mut wrapped = Zeroizing::new(sealed[WRAPPED_AT..SEALED_AT].to_vec());
    let data_key = kek.open_in_place(nonce, Aad::from(&aad), &mut wrapped).map_err(|_| OpenError)?;
    let data_key = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(&*data_key).map_err(|_| OpenError)?);
    let mut plain = Zeroizing::new(sealed[SEALED_AT..].to_vec());
    let length = cipher(&data_key)
        .open_in_place(record_nonce(), Aad::from(&aad), &mut plain)
        .map_err(|_| OpenError)?
        .len();
    plain.truncate(length);
    Ok(plain)
}

fn record_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
