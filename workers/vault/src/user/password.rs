//! What a password is, and what is kept of it: Argon2id with the parameters it was made with.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Deserializer, Serialize};
use sluice_wire::code::Code;
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use super::pool::{Busy, Pool};
use crate::error::VaultError;

/// LIMIT: bytes of a password.
pub(crate) const PASSWORD_BYTES_MAX: usize = 1_024;
/// Fewest characters of a password that opens a session here (NIST SP 800-63B, 3.1.1.2: at least eight).
pub(crate) const PASSWORD_CHARS_MIN: usize = 8;
const HASH_BYTES: usize = 32;

/// What is kept in the place of a password whose owner nobody is: no password has this hash.
const NOBODY: [u8; HASH_BYTES] = [0; HASH_BYTES];

/// A password as it came. No Debug; wiped when dropped.
#[derive(Clone)]
pub(crate) struct Password(Zeroizing<String>);

/// What one hash costs. The parameters are kept with each hash, so that they may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cost {
    /// Memory, KiB.
    pub(crate) memory_kib: u32,
    pub(crate) passes: u32,
    pub(crate) lanes: u32,
}

/// What is kept of a password. No Debug.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Hash {
    cost: Cost,
    salt: [u8; 16],
    digest: [u8; HASH_BYTES],
}

impl Cost {
    /// OWASP's first choice for Argon2id: 19 MiB, two passes, one lane; 20 ms on the machine of bench/.
    pub(crate) const CURRENT: Self = Self { memory_kib: 19_456, passes: 2, lanes: 1 };
}

impl Password {
    /// A password to be set: at least `least` characters, and not the user's name.
    pub(crate) fn chosen(self, user: &str, least: usize) -> Result<Self, VaultError> {
        let bad = |why: String| Err(VaultError::invalid(Code::BadRequest, why));
        if self.0.len() > PASSWORD_BYTES_MAX {
            return bad(format!("a password has at most {PASSWORD_BYTES_MAX} bytes"));
        }
        if self.0.chars().count() < least {
            return bad(format!("a password has at least {least} characters"));
        }
        if self.0.eq_ignore_ascii_case(user) {
            return bad("the password is the user's name".into());
        }
        Ok(self)
    }

    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Whether it is longer than any password is.
    pub(crate) fn is_too_long(&self) -> bool {
        self.0.len() > PASSWORD_BYTES_MAX
    }

    pub(super) fn bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.0.as_bytes().to_vec())
    }
}

impl<'de> Deserialize<'de> for Password {
    /// The reason of a failure never holds what was there.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer);
        text.map(Self::new).map_err(|_| serde::de::Error::custom("a password is a text"))
    }
}

impl Hash {
    /// Whether it should be made anew with today's parameters.
    pub(crate) fn is_dated(&self, cost: Cost) -> bool {
        self.cost != cost
    }
}

/// Hashes a new password.
pub(crate) fn hash_new(pool: &Pool, password: &Password) -> Result<Hash, VaultError> {
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| VaultError::Crypto("random numbers"))?;
    let cost = pool.cost();
    let digest = *pool.hash(password.bytes(), salt, cost).map_err(busy)?;
    Ok(Hash { cost, salt, digest })
}

/// Whether a password is the one that was hashed. Nobody's takes as long as anybody's.
pub(crate) fn is_right(pool: &Pool, password: &Password, kept: Option<&Hash>) -> Result<bool, VaultError> {
    let (cost, salt) = kept.map_or((pool.cost(), [0; 16]), |kept| (kept.cost, kept.salt));
    let hash = pool.hash(password.bytes(), salt, cost).map_err(busy)?;
    let expected = kept.map_or(&NOBODY, |kept| &kept.digest);
    Ok(bool::from(hash.as_slice().ct_eq(expected)) && kept.is_some())
}

fn busy(busy: Busy) -> VaultError {
    VaultError::Later(Code::Overloaded, "too many logins at a time".into(), busy.retry_s)
}

/// Argon2id of a password; the memory is wiped.
pub(super) fn argon2id(password: &[u8], salt: [u8; 16], cost: Cost) -> Option<Zeroizing<[u8; HASH_BYTES]>> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(HASH_BYTES)).ok()?;
    let mut memory = vec![Block::new(); params.block_count()];
    let mut hash = Zeroizing::new([0; HASH_BYTES]);
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let done = argon2.hash_password_into_with_memory(password, &salt, &mut *hash, &mut memory[..]);
    memory.iter_mut().for_each(Block::zeroize);
    done.ok().map(|()| hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

    #[test]
    fn a_password_is_found_by_its_own_hash_and_by_no_other() {
        let pool = Pool::new(1, CHEAP);
        let password = |text: &str| Password::new(text.to_owned());
        let kept = hash_new(&pool, &password("correct horse")).unwrap();
        assert!(is_right(&pool, &password("correct horse"), Some(&kept)).unwrap());
        for wrong in ["correct horsE", "correct horse ", "", "correct\0horse"] {
            assert!(!is_right(&pool, &password(wrong), Some(&kept)).unwrap(), "{wrong}");
            assert!(!is_right(&pool, &password(wrong), None).unwrap());
        }
        assert_ne!(hash_new(&pool, &password("correct horse")).unwrap().digest, kept.digest, "salted");
        assert!(kept.is_dated(Cost::CURRENT) && !kept.is_dated(CHEAP));
        let text = serde_json::to_string(&kept).unwrap();
        let read: Hash = serde_json::from_str(&text).unwrap();
        assert!(is_right(&pool, &password("correct horse"), Some(&read)).unwrap());
    }

    #[test]
    fn a_password_that_may_be_set_is_neither_short_nor_endless_nor_the_name() {
        let may = |text: &str| Password::new(text.to_owned()).chosen("alice-the-user", 8).is_ok();
        assert!(may("eight888") && may("ⓔⓘⓖⓗⓣ⑧⑧⑧") && may(&"x".repeat(PASSWORD_BYTES_MAX)));
        assert!(!may("seven77") && !may("") && !may("Alice-The-User"));
        assert!(!may(&"x".repeat(PASSWORD_BYTES_MAX + 1)));
        let fault = serde_json::from_str::<Password>("12345678").err().unwrap().to_string();
        assert!(!fault.contains("123"), "{fault}");
    }
}
