//! The keys of a role's own store, asked of the vault.

use http::Method;
use serde_json::Value;
use sluice_wire::key::StoreKeys;
use sluice_wire::role::Role;

use crate::call::{Client, ClientError};

impl Client {
    /// Asks the vault for the keys of this role's store, over its internal door.
    pub async fn store_keys(&self, role: Role) -> Result<StoreKeys, ClientError> {
        self.json(Method::GET, &format!("/internal/keys/{role}"), &Value::Null).await
    }
}
