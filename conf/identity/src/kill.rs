//! The seal by which a change of a kill switch is believed where others could write events: over Redis.
//!
//! The event worker writes `metadata.role`, but whoever has the password of a Redis writes past the worker. So edges
//! and vault share a key (`kill_switch.secret`) and put an HMAC-SHA256 over each change beside it, as `data.mac`, in lower
//! hexadecimal. It covers every other member of `data`, known to this version or not, with the members in the order
//! of their names, behind a text of the role that made it: no other use of the key can yield it, and what one role
//! sealed is no word of the other.
//!
//! A seal says who made a change, not that it is new: what is sent again changes nothing (the book of the edges).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ring::hmac;
use serde_json::{Map, Value};
use sluice_wire::key::bytes_of;
use sluice_wire::role::Role;

/// The member of `data` that holds it.
const MAC: &str = "mac";

/// What is sealed begins with this.
const fn purpose(role: Role) -> &'static [u8] {
    match role {
        Role::Vault => b"sluice kill_switch 1 vault\n",
        _ => b"sluice kill_switch 1\n",
    }
}

/// The key that edges and vault share.
#[derive(Clone)]
pub struct KillKey(hmac::Key);

/// Why a change is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There is no seal.
    #[error("no seal")]
    Unsigned,
    /// It is of another key, of another role, or of another change.
    #[error("a seal of something else")]
    Signature,
}

impl KillKey {
    /// A key of these bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Seals what a role is to publish.
    pub fn seal(&self, role: Role, data: &mut Map<String, Value>) {
        let tag = hmac::sign(&self.0, &sealed(role, data));
        let digits = tag.as_ref().iter().fold(String::new(), |mut text, byte| {
            let _never_fails = write!(text, "{byte:02x}");
            text
        });
        data.insert(MAC.to_owned(), digits.into());
    }

    /// Whether a role sealed what was heard. The seal is taken out.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn check(&self, role: Role, data: &mut Map<String, Value>) -> Result<(), SealError> {
        let mac = unsealed(data);
        let digits = mac.as_ref().and_then(Value::as_str).ok_or(SealError::Unsigned)?;
        let tag = bytes_of(digits.as_bytes()).ok_or(SealError::Signature)?;
        // In constant time.
        hmac::verify(&self.0, &sealed(role, data), &tag).map_err(|_| SealError::Signature)
    }
}

/// Takes a seal out that nobody looks at.
pub fn unsealed(data: &mut Map<String, Value>) -> Option<Value> {
    data.remove(MAC)
}

/// The bytes under the seal.
fn sealed(role: Role, data: &Map<String, Value>) -> Vec<u8> {
    let members: BTreeMap<&str, &Value> =
        data.iter().filter(|(name, _)| *name != MAC).map(|(name, value)| (name.as_str(), value)).collect();
    let mut bytes = purpose(role).to_vec();
    // A map of texts to JSON is JSON, and memory takes it.
    serde_json::to_writer(&mut bytes, &members).expect("JSON is written to memory");
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn change() -> Map<String, Value> {
        let Value::Object(data) = json!({
            "scope": "all", "on": true, "reason": "r", "epoch": 18_446_744_073_709_551_614_u64,
            "seen": {"00000000000000aa": 7, "00000000000000bb": 9}, "later": {"b": 1.5, "a": [null]},
        }) else {
            panic!()
        };
        data
    }

    #[test]
    fn a_change_is_believed_of_who_has_the_key_and_as_it_was_sealed() {
        let (ours, theirs) = (KillKey::new(SECRET), KillKey::new(b"x123456789abcdef0123456789abcdef"));
        for (role, other) in [(Role::Edge, Role::Vault), (Role::Vault, Role::Edge)] {
            let mut data = change();
            ours.seal(role, &mut data);
            let text = serde_json::to_string(&data).unwrap();
            let read = || serde_json::from_str::<Map<String, Value>>(&text).unwrap();
            let mut heard = read();
            assert_eq!(ours.check(role, &mut heard), Ok(()));
            assert_eq!(heard, change());
            assert_eq!(ours.check(other, &mut read()), Err(SealError::Signature), "{role}");
            assert_eq!(theirs.check(role, &mut read()), Err(SealError::Signature));
            assert_eq!(ours.check(role, &mut change()), Err(SealError::Unsigned));
            for name in change().keys() {
                let mut forged = read();
                forged.insert(name.clone(), json!("another"));
                assert_eq!(ours.check(role, &mut forged), Err(SealError::Signature), "{name}");
                let mut less = read();
                less.remove(name);
                assert_eq!(ours.check(role, &mut less), Err(SealError::Signature), "{name}");
            }
            let mut more = read();
            more.insert("target".to_owned(), json!("BTC"));
            assert_eq!(ours.check(role, &mut more), Err(SealError::Signature));
            for mac in [
                json!(""),
                json!("zz"),
                json!(7),
                json!(null),
                json!("00".repeat(32)),
                json!("00".repeat(33)),
            ] {
                let mut odd = read();
                odd.insert(MAC.to_owned(), mac);
                assert!(ours.check(role, &mut odd).is_err());
            }
        }
    }

    proptest! {
        #[test]
        fn no_flipped_digit_passes(at in 0_usize..64, digit in 0_u8..16) {
            let ours = KillKey::new(SECRET);
            let mut data = change();
            ours.seal(Role::Edge, &mut data);
            let mut digits = data[MAC].as_str().unwrap().to_owned();
            let other = format!("{digit:x}");
            prop_assume!(digits[at..=at] != other);
            digits.replace_range(at..=at, &other);
            data.insert(MAC.to_owned(), digits.into());
            prop_assert_eq!(ours.check(Role::Edge, &mut data), Err(SealError::Signature));
        }
    }
}
