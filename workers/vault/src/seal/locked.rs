//! Key bytes in memory that is not swapped out and is wiped when it is let go.
//!
//! A key has a page of its own, locked where the process may (`RLIMIT_MEMLOCK`); where it may not, that is said
//! once and the key is kept all the same. The cipher is made of the bytes for each use: `ring` does not wipe
//! what it keeps, so nothing it keeps outlives a call.

use std::sync::Once;

use ring::aead::LessSafeKey;
use ring::hmac;
use zeroize::{Zeroize as _, Zeroizing};

use super::envelope::{self, KEY_BYTES};

const PAGE_BYTES: usize = 4_096;

#[repr(C, align(4096))]
struct Page([u8; PAGE_BYTES]);

/// A key. No Debug: it is a secret.
pub(crate) struct Key {
    page: Box<Page>,
    /// `None` where the process may not lock memory.
    #[cfg_attr(not(test), expect(dead_code, reason = "held for its drop"))]
    lock: Option<region::LockGuard>,
}

impl Key {
    /// Takes over a copy of the bytes.
    pub(crate) fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut page = Box::new(Page([0; PAGE_BYTES]));
        let lock = region::lock(page.0.as_ptr(), PAGE_BYTES);
        if let Err(error) = &lock {
            tell_once(error);
        }
        page.0[..KEY_BYTES].copy_from_slice(bytes);
        Self { page, lock: lock.ok() }
    }

    /// A new random key.
    pub(crate) fn random() -> Self {
        Self::new(&Zeroizing::new(envelope::random()))
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        self.page.0.first_chunk().expect("a page is longer than a key")
    }

    pub(super) fn cipher(&self) -> LessSafeKey {
        envelope::cipher(self.bytes())
    }

    pub(super) fn mac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, self.bytes())
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // Before the page is unlocked, which fields do after this.
        self.page.0[..KEY_BYTES].zeroize();
    }
}

fn tell_once(error: &region::Error) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            component = "seal",
            error = error as &(dyn std::error::Error + 'static),
            "keys cannot be locked in memory; raise the limit of locked memory (LimitMEMLOCK) or turn swap off"
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_lies_in_a_locked_page() {
        let key = Key::new(&[7; KEY_BYTES]);
        assert_eq!(key.bytes(), &[7; KEY_BYTES]);
        assert_eq!(key.page.0.as_ptr().addr() % PAGE_BYTES, 0);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let locked = status.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
        let kib: u64 = locked.trim().trim_end_matches(" kB").parse().unwrap();
        assert_eq!(kib >= 4, key.lock.is_some(), "{kib} KiB locked");
    }
}
