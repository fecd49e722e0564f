//! Token signing keys: ES256, one active, the next one already published, retired ones kept until the last
//! token they signed has ended.
//!
//! A row is `length (4 bytes, big endian) ‖ state as JSON ‖ PKCS#8 key`, sealed; its key is the key id.

use jiff::{SignedDuration, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};
use sluice_identity::jwk;
use sluice_wire::feed::Jwk;
use zeroize::Zeroizing;

use super::TTL_MAX;
use crate::error::VaultError;
use crate::store::{Change, Range, Table, View};

/// How long a key signs; the next one has been published for as long when it takes over.
const SIGNING_LIFE: SignedDuration = SignedDuration::from_hours(24 * 30);
/// LIMIT: keys kept: one active, one next, and the retired ones of one token life.
const KEYS_MAX: usize = 16;

/// What a key is for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    Next,
    Active,
    Retired,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KeyState {
    stage: Stage,
    /// Since when it is in this stage.
    since: Timestamp,
    jwk: Jwk,
}

/// A key with its private part, PKCS#8.
type KeyRow = (KeyState, Zeroizing<Vec<u8>>);

/// The key that signs now. No Debug: it holds a secret.
pub(crate) struct Signers {
    kid: String,
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signers {
    /// The active key's id.
    pub(crate) fn kid(&self) -> &str {
        &self.kid
    }

    /// Signs with the active key: 64 bytes, r ‖ s.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, VaultError> {
        let signature =
            self.key.sign(&self.random, message).map_err(|_| VaultError::Crypto("token signature"))?;
        Ok(signature.as_ref().to_vec())
    }
}

/// The active key; `None` before the first one was made.
pub(crate) fn load(view: &impl View) -> Result<Option<Signers>, VaultError> {
    for (state, pkcs8) in rows(view)? {
        if state.stage == Stage::Active {
            let key = parse(&pkcs8)?;
            return Ok(Some(Signers { kid: state.jwk.kid, key, random: SystemRandom::new() }));
        }
    }
    Ok(None)
}

/// Every key a token may be signed with, now or soon.
pub(crate) fn published(view: &impl View) -> Result<Vec<Jwk>, VaultError> {
    Ok(rows(view)?.into_iter().map(|(state, _)| state.jwk).collect())
}

/// Whether [`rotate`] has anything to do.
pub(crate) fn needs_rotation(view: &impl View, now: Timestamp) -> Result<bool, VaultError> {
    let keys = rows(view)?;
    let stages: Vec<_> = keys.iter().map(|(state, _)| (state.stage, state.since)).collect();
    Ok(stages.len() < 2 || verdicts(&stages, now).iter().any(Option::is_some))
}

/// Makes the first keys, lets the next one take over when the active one's time is up, drops retired ones,
/// and tells the followers if anything changed.
pub(crate) fn rotate(change: &mut Change<'_>, now: Timestamp) -> Result<(), VaultError> {
    let mut keys = rows(change)?;
    let stages: Vec<_> = keys.iter().map(|(state, _)| (state.stage, state.since)).collect();
    let verdicts = verdicts(&stages, now);
    let mut changed = false;
    for ((state, pkcs8), verdict) in keys.iter_mut().zip(&verdicts) {
        match verdict {
            Some(Verdict::Drop) => change.remove(Table::Signing, state.jwk.kid.as_bytes()),
            Some(Verdict::Become(stage)) => {
                (state.stage, state.since) = (*stage, now);
                save(change, state, pkcs8);
            }
            None => continue,
        }
        changed = true;
    }
    let after =
        |stage| keys.iter().zip(&verdicts).any(|((s, _), v)| s.stage == stage && *v != Some(Verdict::Drop));
    for stage in [Stage::Active, Stage::Next] {
        if !after(stage) {
            let (state, pkcs8) = make(stage, now)?;
            save(change, &state, &pkcs8);
            changed = true;
        }
    }
    if changed {
        let jwks = published(change)?;
        change.announce(sluice_wire::feed::Change::Keys { jwks });
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Become(Stage),
    Drop,
}

/// What becomes of each key at `now`.
fn verdicts(keys: &[(Stage, Timestamp)], now: Timestamp) -> Vec<Option<Verdict>> {
    let is_over = |since: Timestamp, life| now.duration_since(since) >= life;
    let takes_over = keys.iter().any(|(stage, _)| *stage == Stage::Next)
        && keys.iter().all(|(stage, since)| *stage != Stage::Active || is_over(*since, SIGNING_LIFE));
    keys.iter()
        .map(|(stage, since)| match stage {
            Stage::Active if takes_over => Some(Verdict::Become(Stage::Retired)),
            Stage::Next if takes_over => Some(Verdict::Become(Stage::Active)),
            Stage::Retired if is_over(*since, TTL_MAX + SignedDuration::from_hours(1)) => Some(Verdict::Drop),
            _ => None,
        })
        .collect()
}

fn make(stage: Stage, now: Timestamp) -> Result<KeyRow, VaultError> {
    let pkcs8 = generate()?;
    let jwk = publish(&parse(&pkcs8)?)?;
    Ok((KeyState { stage, since: now, jwk }, pkcs8))
}

/// A new P-256 key, PKCS#8.
pub(crate) fn generate() -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let pkcs8 = pkcs8.map_err(|_| VaultError::Crypto("key generation"))?;
    Ok(Zeroizing::new(pkcs8.as_ref().to_vec()))
}

/// The public part of a key.
pub(crate) fn publish(key: &EcdsaKeyPair) -> Result<Jwk, VaultError> {
    jwk::publish(key.public_key().as_ref()).ok_or(VaultError::Crypto("key publication"))
}

/// Reads a P-256 key.
pub(crate) fn parse(pkcs8: &[u8]) -> Result<EcdsaKeyPair, VaultError> {
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &SystemRandom::new())
        .map_err(|_| VaultError::Crypto("a signing key does not parse"))
}

fn save(change: &mut Change<'_>, state: &KeyState, pkcs8: &[u8]) {
    let json = serde_json::to_vec(state).expect("the state is a plain struct");
    let mut bytes = Zeroizing::new(Vec::with_capacity(4 + json.len() + pkcs8.len()));
    bytes.extend_from_slice(&(json.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&json);
    bytes.extend_from_slice(pkcs8);
    change.put(Table::Signing, state.jwk.kid.as_bytes(), &bytes);
}

fn rows(view: &impl View) -> Result<Vec<KeyRow>, VaultError> {
    let damaged = || VaultError::Integrity(Table::Signing.name());
    let keys = view.keys(Table::Signing, &Range::prefix(b"", KEYS_MAX))?;
    keys.iter()
        .map(|key| {
            let bytes = view.bytes(Table::Signing, key)?.ok_or_else(damaged)?;
            let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
            let (json, pkcs8) =
                rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(damaged)?;
            let state = serde_json::from_slice(json).map_err(|_| damaged())?;
            Ok((state, Zeroizing::new(pkcs8.to_vec())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours)
    }

    proptest! {
        /// Whatever the order of visits, a key signs only after it was published, and is known for as long as a
        /// token it signed may live.
        #[test]
        fn keys_are_published_before_they_sign_and_outlive_their_tokens(steps in proptest::collection::vec(1i64..900, 1..60)) {
            let mut keys: Vec<(Stage, Timestamp)> = vec![(Stage::Active, at(0)), (Stage::Next, at(0))];
            let mut now = 0;
            for step in steps {
                now += step;
                let verdicts = verdicts(&keys, at(now));
                let mut next = Vec::new();
                for ((stage, since), verdict) in keys.iter().zip(verdicts) {
                    match verdict {
                        Some(Verdict::Drop) => prop_assert!(at(now).duration_since(*since) >= TTL_MAX),
                        Some(Verdict::Become(to)) => {
                            prop_assert!((*stage, to) == (Stage::Next, Stage::Active) || (*stage, to) == (Stage::Active, Stage::Retired));
                            next.push((to, at(now)));
                        }
                        None => next.push((*stage, *since)),
                    }
                }
                if !next.iter().any(|(stage, _)| *stage == Stage::Next) {
                    next.push((Stage::Next, at(now)));
                }
                prop_assert_eq!(next.iter().filter(|(stage, _)| *stage == Stage::Active).count(), 1);
                prop_assert!(next.len() <= KEYS_MAX);
                keys = next;
            }
        }
    }
}
