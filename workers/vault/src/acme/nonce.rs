//! Nonces: handed out with every answer, taken once. Nothing is kept of one but a bit.
//!
//! A nonce is a number and its MAC. A window of the last [`WINDOW`] numbers says which of them were taken; an older one
//! is refused, as if it had been. So memory is bounded whatever is asked for, and nothing can be used twice, also not
//! over a restart: the key is made anew at each opening of the vault, and clients repeat what is refused as `badNonce`.
//! Cost: whoever asks for [`WINDOW`] nonces makes the others repeat a request; the edge slows an address down first.

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::SystemRandom;

use crate::error::VaultError;

/// LIMIT: nonces that may be outstanding; a bit each, 32 KiB.
const WINDOW: usize = 1 << 18;
/// Bytes of the MAC that are sent: nobody guesses 128 bits.
const MAC_BYTES: usize = 16;

/// The nonces of an open vault. No Debug: it holds a key.
pub(super) struct Nonces {
    key: hmac::Key,
    window: Mutex<Window>,
}

/// Which numbers were taken. Pure.
struct Window {
    next: u64,
    taken: Vec<u64>,
}

impl Window {
    fn new(size: usize) -> Self {
        Self { next: 0, taken: vec![0; size.div_ceil(64)] }
    }

    fn size(&self) -> u64 {
        self.taken.len() as u64 * 64
    }

    fn issue(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        let (word, bit) = self.place(number);
        self.taken[word] &= !bit;
        number
    }

    /// Takes a number that was issued; false: it was taken before, or is too old to tell.
    fn take(&mut self, number: u64) -> bool {
        if number >= self.next || self.next - number > self.size() {
            return false;
        }
        let (word, bit) = self.place(number);
        let is_free = self.taken[word] & bit == 0;
        self.taken[word] |= bit;
        is_free
    }

    fn place(&self, number: u64) -> (usize, u64) {
        let at = number % self.size();
        ((at / 64) as usize, 1 << (at % 64))
    }
}

impl Nonces {
    pub(super) fn new() -> Result<Self, VaultError> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        let key = key.map_err(|_| VaultError::Crypto("random numbers"))?;
        Ok(Self { key, window: Mutex::new(Window::new(WINDOW)) })
    }

    /// A new one.
    pub(super) fn issue(&self) -> String {
        let number = self.window.lock().unwrap_or_else(PoisonError::into_inner).issue().to_be_bytes();
        let mac = hmac::sign(&self.key, &number);
        URL_SAFE_NO_PAD.encode([&number[..], &mac.as_ref()[..MAC_BYTES]].concat())
    }

    /// Takes one; whether it was good.
    pub(super) fn take(&self, text: &str) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(text) else { return false };
        let Some((number, mac)) = bytes.split_first_chunk::<8>() else { return false };
        let expected = hmac::sign(&self.key, number);
        let is_ours: bool = subtle::ConstantTimeEq::ct_eq(&expected.as_ref()[..MAC_BYTES], mac).into();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        is_ours && window.take(u64::from_be_bytes(*number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_number_is_taken_once_and_only_while_it_is_in_the_window(
            steps in proptest::collection::vec(proptest::option::of(0u64..400), 1..600),
        ) {
            let mut window = Window::new(128);
            let (mut issued, mut taken) = (0, BTreeSet::new());
            for step in steps {
                match step {
                    None => {
                        prop_assert_eq!(window.issue(), issued);
                        issued += 1;
                    }
                    Some(number) => {
                        let expected =
                            number < issued && issued - number <= 128 && taken.insert(number);
                        prop_assert_eq!(window.take(number), expected, "{} of {}", number, issued);
                    }
                }
            }
        }
    }

    #[test]
    fn nonces_are_unlike_good_once_and_ours_alone() {
        let (ours, theirs) = (Nonces::new().unwrap(), Nonces::new().unwrap());
        let nonce = ours.issue();
        assert_ne!(nonce, ours.issue());
        assert!(!theirs.take(&nonce), "another key");
        let mut forged = URL_SAFE_NO_PAD.decode(&nonce).unwrap();
        for at in 0..forged.len() {
            forged[at] ^= 1;
            assert!(!ours.take(&URL_SAFE_NO_PAD.encode(&forged)), "byte {at}");
            forged[at] ^= 1;
        }
        assert!(!ours.take("") && !ours.take(&nonce[1..]) && !ours.take(&format!("{nonce}AA")));
        assert!(ours.take(&nonce) && !ours.take(&nonce));
    }
}
