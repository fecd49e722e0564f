//! Internal keys: how roles prove themselves to each other on the internal doors.

use std::collections::BTreeMap;

use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use sluice_wire::role::Role;
use subtle::ConstantTimeEq as _;

/// This role's own key and the digests of everyone else's: enough to check, not to impersonate.
/// No Debug: it holds a secret.
#[derive(Clone)]
pub struct InternalKeys {
    own: String,
    peers: Vec<(Role, [u8; 32])>,
}

impl InternalKeys {
    /// Keys as the supervisor handed them: `own` is 64 hex digits, `peers` SHA-256 digests in hex.
    /// Digests that are not 64 hex digits are left out.
    pub fn new(own: String, peers: &BTreeMap<Role, String>) -> Self {
        let peers = peers.iter().filter_map(|(role, hex)| Some((*role, unhex(hex)?))).collect();
        Self { own, peers }
    }

    /// A key known to nobody else, for a role that runs alone.
    pub fn alone() -> Self {
        Self { own: Self::mint(), peers: Vec::new() }
    }

    /// A new random key.
    pub fn mint() -> String {
        let mut bytes = [0_u8; 32];
        SystemRandom::new().fill(&mut bytes).expect("the kernel's random source does not fail once seeded");
        hex(&bytes)
    }

    /// The digest of a key, as peers get it.
    pub fn digest(key: &str) -> String {
        hex(digest::digest(&digest::SHA256, key.as_bytes()).as_ref())
    }

    /// The key to send when this role calls another.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// The role that a presented key proves. Takes the same time whichever role it is, or none.
    pub fn role_of(&self, presented: &str) -> Option<Role> {
        let digest = digest::digest(&digest::SHA256, presented.as_bytes());
        let mut found = None;
        for (role, expected) in &self.peers {
            if bool::from(digest.as_ref().ct_eq(expected)) {
                found = Some(*role);
            }
        }
        found
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_proves_its_role_and_no_other() {
        let edge = InternalKeys::mint();
        let peers = BTreeMap::from([
            (Role::Edge, InternalKeys::digest(&edge)),
            (Role::Vault, InternalKeys::digest(&InternalKeys::mint())),
            (Role::Calc, "not hex".to_owned()),
        ]);
        let keys = InternalKeys::new(InternalKeys::mint(), &peers);
        assert_eq!(keys.role_of(&edge), Some(Role::Edge));
        assert_eq!(keys.role_of(keys.own()), None);
        assert_eq!(keys.role_of(""), None);
        assert_eq!(keys.role_of(&peers[&Role::Edge]), None, "the digest is not the key");
    }
}
