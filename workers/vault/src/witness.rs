//! The key that signs the checkpoints of the audit log: one for the life of the store, sealed in it like everything
//! else. It signs while the vault is open; what is recorded while it is sealed is signed once it opens again.

use ring::rand::SystemRandom;
use sluice_audit::Signer;
use sluice_wire::feed::Jwk;

use crate::context::own_entry;
use crate::error::VaultError;
use crate::store::{Store, Table, View as _};
use crate::token;

const KEY: &[u8] = b"sys/audit-key";

/// The key's public part and what signs with it; the first time the key is made.
pub(crate) fn ready(store: &Store) -> Result<(Jwk, Signer), VaultError> {
    if store.snapshot()?.raw(Table::Logical, KEY)?.is_none() {
        store.write(own_entry("create"), |change| {
            change.put(Table::Logical, KEY, &token::generate_key()?);
            Ok(())
        })?;
    }
    let pkcs8 = store.snapshot()?.bytes(Table::Logical, KEY)?;
    let key = token::parse_key(&pkcs8.ok_or(VaultError::Integrity(Table::Logical.name()))?)?;
    let public = token::publish_key(&key)?;
    let random = SystemRandom::new();
    Ok((public, Box::new(move |message| key.sign(&random, message).ok()?.as_ref().try_into().ok())))
}
