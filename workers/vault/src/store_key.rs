//! Keys with which other roles encrypt stores of their own.
//!
//! Each role that has a store gets its own keys and nobody else's, over the internal door. A key is made when none
//! is there or the newest is [`LIFE`] old; older ones stay, for what was written with them stays. Each handing out is
//! recorded.

use jiff::{SignedDuration, Timestamp};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use sluice_wire::key::{StoreKey, StoreKeys};
use sluice_wire::role::Role;
use zeroize::Zeroizing;

use crate::context::Vault;
use crate::error::VaultError;
use crate::request::Act;
use crate::store::{Change, Range, Table, View};

/// How long a key is the one to write with.
const LIFE: SignedDuration = SignedDuration::from_hours(24 * 90);
/// LIMIT: keys of one role; the last one is kept for ever.
const KEYS_MAX: usize = 256;

/// A key as it is stored. No Debug: it is a secret.
#[derive(Serialize, Deserialize)]
struct Row {
    made_at: Timestamp,
    key: StoreKey,
}

impl Vault {
    /// The keys of a role's store, for that role. What it may not have it is told nothing about.
    pub(crate) fn store_keys(&self, act: &Act, role: Role, of: &str) -> Result<StoreKeys, VaultError> {
        let entry = act.entry("key", "read", format!("keys/{role}"));
        if !has_store(role) || role.as_str() != of {
            let entry = act.entry("key", "read", "keys");
            return Err(self.refuse(entry, VaultError::Forbidden("these keys are another role's")));
        }
        if is_due(&rows(&self.store.snapshot()?, role)?, act.now) {
            let now = act.now;
            let made = act.entry("key", "create", format!("keys/{role}"));
            self.write(made, move |change| make(change, role, now))?;
        }
        self.read(entry, || {
            let rows = rows(&self.store.snapshot()?, role)?;
            let current = rows.last().map_or(0, |row| row.key.id);
            Ok(StoreKeys { current, keys: rows.into_iter().map(|row| row.key).collect() })
        })
    }
}

/// Roles that encrypt a store of their own.
fn has_store(role: Role) -> bool {
    role == Role::Events
}

fn is_due(rows: &[Row], now: Timestamp) -> bool {
    match rows.last() {
        None => true,
        Some(newest) => rows.len() < KEYS_MAX && now.duration_since(newest.made_at) >= LIFE,
    }
}

/// Adds a key, unless another call was quicker.
fn make(change: &mut Change<'_>, role: Role, now: Timestamp) -> Result<(), VaultError> {
    let rows = rows(change, role)?;
    if !is_due(&rows, now) {
        return Ok(());
    }
    let id = rows.last().map_or(1, |row| row.key.id + 1);
    let mut bytes = Zeroizing::new([0; 32]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| VaultError::Crypto("random bytes"))?;
    change.save(Table::StoreKey, &row_key(role, id), &Row { made_at: now, key: StoreKey::new(id, &bytes) });
    Ok(())
}

fn rows(view: &impl View, role: Role) -> Result<Vec<Row>, VaultError> {
    let keys = view.keys(Table::StoreKey, &Range::prefix(&prefix(role), KEYS_MAX))?;
    keys.iter().map(|key| view.require(Table::StoreKey, key)).collect()
}

fn prefix(role: Role) -> Vec<u8> {
    format!("{role}/").into_bytes()
}

fn row_key(role: Role, id: u32) -> Vec<u8> {
    [&prefix(role)[..], &id.to_be_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_due_when_there_is_none_and_when_the_newest_is_old() {
        let made_at = Timestamp::UNIX_EPOCH;
        let rows = |count: usize| -> Vec<Row> {
            (1..=count as u32).map(|id| Row { made_at, key: StoreKey::new(id, &[0; 32]) }).collect()
        };
        let old = made_at + LIFE;
        assert!(is_due(&[], made_at));
        assert!(!is_due(&rows(1), old - SignedDuration::from_secs(1)) && is_due(&rows(1), old));
        assert!(!is_due(&rows(KEYS_MAX), old));
    }
}
