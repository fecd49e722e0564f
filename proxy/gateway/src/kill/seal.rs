//! The seal by which edges know each other's switches where others could write them: over Redis.
//!
//! The event worker writes `metadata.role`, but whoever has the password of a Redis writes past the worker. So edges
//! that share a key (`kill_switch.secret`) put an HMAC-SHA256 over each change beside it, as `data.mac`, in lower
//! hexadecimal. It covers every other member of `data`, known to this version or not, with the members in the order
//! of their names, behind a text of its own: no other use of the key can yield it.
//!
//! A seal says who made a change, not that it is new: what is sent again changes nothing
//! (`sluice_policy::kill_switch::book`).

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ring::hmac;
use serde_json::{Map, Value};
use sluice_schema::{Config, Secret};
use sluice_wire::key::bytes_of;

/// What is sealed begins with this.
const PURPOSE: &[u8] = b"sluice kill_switch 1\n";
/// The member of `data` that holds it.
const MAC: &str = "mac";

/// Whom an edge believes.
pub(super) enum Belief {
    /// Whoever the event worker says is an edge: the log is the worker's own.
    Worker,
    /// Edges that share this key.
    Key(hmac::Key),
    /// Nobody: events are in Redis, and no key is configured.
    Nobody,
}

impl Belief {
    /// What a configuration asks for. A key that is there counts over every store.
    pub(super) fn of(config: &Config) -> Self {
        Self::new(config.kill_switch.secret.as_ref(), config.event_redis().is_some())
    }

    fn new(secret: Option<&Secret>, in_redis: bool) -> Self {
        match secret {
            Some(secret) => Self::Key(hmac::Key::new(hmac::HMAC_SHA256, secret.expose())),
            None if in_redis => Self::Nobody,
            None => Self::Worker,
        }
    }

    /// Seals what is to be published, where there is a key.
    pub(super) fn seal(&self, data: &mut Map<String, Value>) {
        if let Self::Key(key) = self {
            let tag = hmac::sign(key, &sealed(data));
            let digits = tag.as_ref().iter().fold(String::new(), |mut text, byte| {
                let _never_fails = write!(text, "{byte:02x}");
                text
            });
            data.insert(MAC.to_owned(), digits.into());
        }
    }

    /// Whether what was heard is believed; the word says why not. The seal is taken out.
    pub(super) fn check(&self, data: &mut Map<String, Value>) -> Result<(), &'static str> {
        let mac = data.remove(MAC);
        match self {
            Self::Worker => Ok(()),
            Self::Nobody => Err("no_key"),
            Self::Key(key) => {
                let digits = mac.as_ref().and_then(Value::as_str).ok_or("unsigned")?;
                let tag = bytes_of(digits.as_bytes()).ok_or("signature")?;
                // In constant time.
                hmac::verify(key, &sealed(data), &tag).map_err(|_| "signature")
            }
        }
    }
}

/// The bytes under the seal.
fn sealed(data: &Map<String, Value>) -> Vec<u8> {
    let members: BTreeMap<&str, &Value> =
        data.iter().filter(|(name, _)| *name != MAC).map(|(name, value)| (name.as_str(), value)).collect();
    let mut bytes = PURPOSE.to_vec();
    // A map of texts to JSON is JSON, and memory takes it.
    serde_json::to_writer(&mut bytes, &members).expect("JSON is written to memory");
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn key(secret: &str) -> Belief {
        Belief::new(Some(&Secret::new(secret)), true)
    }

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
        let (ours, theirs) =
            (key("0123456789abcdef0123456789abcdef"), key("x123456789abcdef0123456789abcdef"));
        let mut data = change();
        ours.seal(&mut data);
        let text = serde_json::to_string(&data).unwrap();
        let read = || serde_json::from_str::<Map<String, Value>>(&text).unwrap();
        let mut heard = read();
        assert_eq!(ours.check(&mut heard), Ok(()));
        assert_eq!(heard, change());
        assert_eq!(theirs.check(&mut read()), Err("signature"));
        assert_eq!(Belief::Nobody.check(&mut read()), Err("no_key"));
        assert_eq!(Belief::Worker.check(&mut read()), Ok(()));
        assert_eq!(ours.check(&mut change()), Err("unsigned"));
        for name in change().keys() {
            let mut forged = read();
            forged.insert(name.clone(), json!("another"));
            assert_eq!(ours.check(&mut forged), Err("signature"), "{name}");
            let mut less = read();
            less.remove(name);
            assert_eq!(ours.check(&mut less), Err("signature"), "{name}");
        }
        let mut more = read();
        more.insert("target".to_owned(), json!("BTC"));
        assert_eq!(ours.check(&mut more), Err("signature"));
        for mac in
            [json!(""), json!("zz"), json!(7), json!(null), json!("00".repeat(32)), json!("00".repeat(33))]
        {
            let mut odd = read();
            odd.insert(MAC.to_owned(), mac);
            assert!(ours.check(&mut odd).is_err());
        }
    }

    #[test]
    fn without_a_key_nobody_is_believed_over_redis_and_nothing_is_sealed() {
        assert!(matches!(Belief::new(None, true), Belief::Nobody));
        assert!(matches!(Belief::of(&Config::default()), Belief::Worker));
        let mut data = change();
        Belief::Nobody.seal(&mut data);
        Belief::Worker.seal(&mut data);
        assert_eq!(data, change());
    }

    proptest! {
        #[test]
        fn no_flipped_digit_passes(at in 0_usize..64, digit in 0_u8..16) {
            let ours = key("0123456789abcdef0123456789abcdef");
            let mut data = change();
            ours.seal(&mut data);
            let mut digits = data[MAC].as_str().unwrap().to_owned();
            let other = format!("{digit:x}");
            prop_assume!(digits[at..=at] != other);
            digits.replace_range(at..=at, &other);
            data.insert(MAC.to_owned(), digits.into());
            prop_assert_eq!(ours.check(&mut data), Err("signature"));
        }
    }
}
