//! Tokens of Vault's kind at `/secrets`: both doors lead to one store, and the policies of the mount `secret/` decide at
//! both.

use super::call::Op;
use super::token::{self, Kind};
use super::who::{self, Who};
use crate::context::Vault;
use crate::error::VaultError;
use crate::path::SecretPath;
use crate::request::Act;
use crate::secret::rows;

/// What these tokens begin with.
pub(crate) const TOKEN_PREFIX: &str = token::PREFIX;

const NOT_YOURS: &str = "this path is not open to the caller";

/// Where in `secret/` an operation of `/secrets` takes place, and what it is there.
fn place(op: &str) -> (Op, &'static str) {
    match op {
        "write" => (Op::Write, "data"),
        "delete" => (Op::Delete, "data"),
        "delete_versions" => (Op::Write, "delete"),
        "undelete" => (Op::Write, "undelete"),
        "destroy" => (Op::Write, "destroy"),
        "history" => (Op::Read, "metadata"),
        "list" => (Op::List, "metadata"),
        _ => (Op::Read, "data"),
    }
}

impl Vault {
    /// Whose token this is, for records, and whether it may do an operation with a secret; `None`: below the root. A
    /// token of counted uses has one less.
    pub(crate) fn v1_at_secrets(
        &self,
        act: &Act,
        token: &str,
        op: &str,
        path: Option<&SecretPath>,
    ) -> Result<(String, Result<(), VaultError>), VaultError> {
        let id = self.api_keys.digest("token", token);
        let view = self.store.snapshot()?;
        let held = who::held(&view, &self.api_keys.acls, id.clone(), act.now)?
            .filter(|held| held.row.kind == Kind::Service);
        let Some(held) = held else {
            return Ok(("unverified".to_owned(), Err(VaultError::Anonymous)));
        };
        let limited = held.row.uses.is_some();
        let who = Who::Token(Box::new(held));
        let (op, part) = place(op);
        let at = path.map_or_else(|| format!("secret/{part}"), |path| format!("secret/{part}/{path}"));
        let here = self.settings.external.is_none();
        let exists = match path {
            Some(path) if here && op == Op::Write && part == "data" => rows::head(&view, path)?.is_some(),
            _ => true,
        };
        drop(view);
        if limited {
            let entry = act.entry("v1", "use", "auth/token").actor(who.actor());
            self.write(entry, move |change| token::spend(change, &id))?;
        }
        let exists = match (&self.settings.external, path) {
            // Only who may create but not change is told apart there.
            (Some(external), Some(path))
                if part == "data" && !who.may(op, &at, true) && who.may(op, &at, false) =>
            {
                let entry = act.entry("secret", "exists", path.as_str()).actor(who.actor());
                self.abroad(entry, || external.exists(path))?
            }
            _ => exists,
        };
        let verdict = if who.may(op, &at, exists) { Ok(()) } else { Err(VaultError::Forbidden(NOT_YOURS)) };
        Ok((who.actor(), verdict))
    }
}
