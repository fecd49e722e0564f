//! What a role and the vault say to each other about the keys of the role's own store:
//! `GET /internal/keys/<role>` at the vault's internal door.

use serde::{Deserialize, Serialize};

/// The keys of a role's store, oldest first. No Debug: they are secrets.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreKeys {
    /// Number of the key to write with.
    pub current: u32,
    /// Every key that something may still be encrypted with.
    pub keys: Vec<StoreKey>,
}

/// One key. No Debug: it is a secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreKey {
    /// Its number, from 1.
    pub id: u32,
    /// 32 bytes as 64 hexadecimal digits.
    pub key: String,
}

impl StoreKey {
    /// A key of these bytes.
    pub fn new(id: u32, bytes: &[u8; 32]) -> Self {
        let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
        Self { id, key: bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect() }
    }

    /// Its bytes; `None` when it is not 64 hexadecimal digits.
    pub fn bytes(&self) -> Option<[u8; 32]> {
        bytes_of(self.key.as_bytes())
    }
}

/// The 32 bytes of 64 hexadecimal digits.
pub fn bytes_of(digits: &[u8]) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let nibble = |digit: u8| char::from(digit).to_digit(16);
        *byte = (nibble(pair[0])? * 16 + nibble(pair[1])?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_nothing_else_is_one() {
        let bytes: [u8; 32] = std::array::from_fn(|i| (i * 9) as u8);
        assert_eq!(StoreKey::new(1, &bytes).bytes(), Some(bytes));
        for bad in ["", "ab", &"zz".repeat(32), &"ab".repeat(33)] {
            assert_eq!(bytes_of(bad.as_bytes()), None, "{bad}");
        }
    }
}
