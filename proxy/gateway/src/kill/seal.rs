//! Whom an edge believes about switches: the event worker, or over Redis, where others could write as much, who has
//! the key that edges and vault share ([`sluice_identity::kill`]).

use serde_json::{Map, Value};
use sluice_identity::kill::{KillKey, SealError, unsealed};
use sluice_schema::{Config, Secret};
use sluice_wire::role::Role;

/// Whom an edge believes.
pub(super) enum Belief {
    /// Whoever the event worker says is an edge or a vault: the log is the worker's own.
    Worker,
    /// Edges and vaults that share this key.
    Key(KillKey),
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
            Some(secret) => Self::Key(KillKey::new(secret.expose())),
            None if in_redis => Self::Nobody,
            None => Self::Worker,
        }
    }

    /// Seals what this edge is to publish, where there is a key.
    pub(super) fn seal(&self, data: &mut Map<String, Value>) {
        if let Self::Key(key) = self {
            key.seal(Role::Edge, data);
        }
    }

    /// Whether what was heard of a role is believed; the word says why not. The seal is taken out.
    pub(super) fn check(&self, role: Role, data: &mut Map<String, Value>) -> Result<(), &'static str> {
        match self {
            Self::Worker => {
                drop(unsealed(data));
                Ok(())
            }
            Self::Nobody => Err("no_key"),
            Self::Key(key) => key.check(role, data).map_err(|error| match error {
                SealError::Unsigned => "unsigned",
                SealError::Signature => "signature",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change() -> Map<String, Value> {
        Map::from_iter([("scope".to_owned(), json!("all")), ("on".to_owned(), json!(true))])
    }

    #[test]
    fn without_a_key_nobody_is_believed_over_redis_and_nothing_is_sealed() {
        assert!(matches!(Belief::new(None, true), Belief::Nobody));
        assert!(matches!(Belief::of(&Config::default()), Belief::Worker));
        let mut data = change();
        Belief::Nobody.seal(&mut data);
        Belief::Worker.seal(&mut data);
        assert_eq!(data, change());
        let ours = Belief::new(Some(&Secret::new("0123456789abcdef0123456789abcdef")), true);
        assert_eq!(ours.check(Role::Edge, &mut data), Err("unsigned"));
        ours.seal(&mut data);
        assert_eq!(Belief::Nobody.check(Role::Edge, &mut data.clone()), Err("no_key"));
        assert_eq!(ours.check(Role::Vault, &mut data.clone()), Err("signature"));
        assert_eq!(ours.check(Role::Edge, &mut data.clone()), Ok(()));
        assert_eq!(Belief::Worker.check(Role::Edge, &mut data), Ok(()));
        assert_eq!(data, change(), "the seal is out");
    }
}
