//! Which operation a call is, whether its caller may ask it, and what becomes of its answer.

use sluice_audit::Entry;
use tokio::runtime::Handle;

use super::answer::Answer;
use super::call::{Call, Op};
use super::token::{self, Kind};
use super::who::{self, Who};
use super::{auth, denied, fault, logical, nothing, unproved};
use crate::context::Vault;
use crate::error::VaultError;
use crate::path::SecretPath;
use crate::secret::rows;
use crate::store::{Table, View as _};

/// A call with its caller.
pub(super) struct Ask {
    pub(super) call: Call,
    pub(super) who: Who,
}

impl Ask {
    /// The record of this call.
    pub(super) fn entry(&self) -> Entry {
        let call = &self.call;
        call.act.entry("v1", call.op.word(), call.path.clone()).actor(self.who.actor())
    }
}

impl Vault {
    /// One call of Vault's API.
    pub(super) fn v1(&self, call: Call) -> Result<Answer, VaultError> {
        let ask = self.v1_caller(call)?;
        let answer = self.v1_answer(&ask)?;
        match (ask.call.wrap_s, answer) {
            (Some(ttl_s), Answer::Data(reply)) if reply.wrap_info.is_none() => {
                self.v1_wrap(&ask, *reply, ttl_s)
            }
            (_, answer) => Ok(answer),
        }
    }

    /// Finds the caller; a token that is not good is recorded and refused.
    fn v1_caller(&self, mut call: Call) -> Result<Ask, VaultError> {
        let Some(token) = call.token.as_deref() else {
            let who = call.act.caller.take().map_or(Who::Nobody, Who::Sluice);
            return Ok(Ask { call, who });
        };
        let id = self.api_keys.digest("token", token);
        let held = who::held(&self.store.snapshot()?, &self.api_keys.acls, id, call.act.now)?;
        let unwraps = ["sys/wrapping/unwrap", "sys/wrapping/lookup"].contains(&call.path.as_str());
        let Some(held) = held.filter(|held| held.row.kind == Kind::Service || unwraps) else {
            if unwraps {
                return Ok(Ask { call, who: Who::Nobody });
            }
            let entry = call.act.entry("v1", call.op.word(), call.path.clone()).actor("unverified");
            return Err(self.refuse(entry, unproved(403, "permission denied")));
        };
        let limited = held.row.uses.is_some() && held.row.kind == Kind::Service;
        let id = held.id.clone();
        let ask = Ask { call, who: Who::Token(Box::new(held)) };
        if limited {
            let entry = ask.call.act.entry("v1", "use", "auth/token").actor(ask.who.actor());
            self.write(entry, move |change| token::spend(change, &id))?;
        }
        Ok(ask)
    }

    fn v1_answer(&self, ask: &Ask) -> Result<Answer, VaultError> {
        let path: Vec<&str> = ask.call.path.split('/').collect();
        if let Some(answer) = self.v1_open(ask, &path) {
            return answer;
        }
        if !self.v1_may(ask, &path)? {
            let refusal = if ask.who.is_somebody() { denied() } else { fault(403, "permission denied") };
            return Err(self.refuse(ask.entry(), refusal));
        }
        let answer = match path.as_slice() {
            ["sys", rest @ ..] => self.v1_sys(ask, rest),
            ["auth", "token", rest @ ..] => self.v1_token(ask, rest),
            ["auth", rest @ ..] => self.v1_auth(ask, rest),
            ["pki", rest @ ..] => self.v1_pki(ask, rest),
            ["transit", rest @ ..] => self.v1_transit(ask, rest),
            ["secret", rest @ ..] => self.v1_kv(ask, rest),
            _ => Err(no_route(&ask.call.path)),
        };
        // What no operation has recorded.
        match answer {
            Err(error @ VaultError::Worded(400 | 404 | 405, _)) if unrouted(&error) => {
                Err(self.refuse(ask.entry(), error))
            }
            answer => answer,
        }
    }

    /// What is answered whoever asks: logging in, opening what was wrapped, public certificates.
    fn v1_open(&self, ask: &Ask, path: &[&str]) -> Option<Result<Answer, VaultError>> {
        if let Some(answer) = self.v1_login(ask, path) {
            return Some(answer);
        }
        match (path, ask.call.op) {
            (["pki", rest @ ..], Op::Read) => self.v1_pki_open(rest),
            (["sys", "wrapping", "unwrap"], Op::Write) => Some(self.v1_unwrap(ask)),
            (["sys", "wrapping", "lookup"], Op::Write) => Some(self.v1_wrapped(ask)),
            (["sys", "internal", "ui", "mounts", rest @ ..], Op::Read) if ask.who.is_somebody() => {
                Some(self.v1_ui_mounts(ask, rest))
            }
            _ => None,
        }
    }

    fn v1_may(&self, ask: &Ask, path: &[&str]) -> Result<bool, VaultError> {
        let call = &ask.call;
        if needs_sudo(path, call.op) && !ask.who.is_sudo(&call.path) {
            return Ok(false);
        }
        if ask.who.may(call.op, &call.path, true) {
            return Ok(true);
        }
        // Only what was not to be had as a change is looked up: whether it would be a creation.
        Ok(call.op == Op::Write && ask.who.may(call.op, &call.path, false) && !self.v1_exists(ask, path)?)
    }

    /// Whether a write would change something; where that is not known, it does.
    fn v1_exists(&self, ask: &Ask, path: &[&str]) -> Result<bool, VaultError> {
        let view = self.store.snapshot()?;
        let row = |key: String| Ok(view.raw(Table::Logical, key.as_bytes())?.is_some());
        match path {
            ["secret", "data" | "metadata", rest @ ..] => match SecretPath::parse(&rest.join("/")) {
                Ok(path) => match &self.settings.external {
                    Some(external) => self.abroad(ask.entry(), || external.exists(&path)),
                    None => Ok(rows::head(&view, &path)?.is_some()),
                },
                Err(_) => Ok(true),
            },
            ["auth", "approle", "role", role] => row(format!("approle/role/{role}")),
            ["auth", "userpass", "users", user] => row(auth::user_key(&user.to_ascii_lowercase())),
            ["transit", "keys", key] => row(format!("transit/{key}")),
            _ => Ok(true),
        }
    }
}

/// Operations that policies must grant `sudo` for, as in Vault.
fn needs_sudo(path: &[&str], op: Op) -> bool {
    match path {
        ["auth", "token", "create-orphan" | "revoke-orphan" | "accessors"]
        | ["sys", "seal"]
        | ["sys", "rotate" | "rekey" | "generate-root" | "generate-root-token", ..] => true,
        ["sys", "auth", _, ..] => op != Op::Read,
        _ => false,
    }
}

/// Marks a refusal that no operation has recorded.
fn unrouted(error: &VaultError) -> bool {
    matches!(error, VaultError::Worded(404 | 405, text) if text.starts_with("no handler") || text.contains("unsupported"))
}

/// No mount at a path.
pub(super) fn no_route(path: &str) -> VaultError {
    fault(404, format!("no handler for route \"{path}\". route entry not found."))
}

/// No such path below a mount.
pub(super) fn unsupported_path() -> VaultError {
    fault(404, "1 error occurred:\n\t* unsupported path\n\n")
}

/// The path does not take the method.
pub(super) fn unsupported_operation() -> VaultError {
    fault(405, "1 error occurred:\n\t* unsupported operation\n\n")
}

impl Vault {
    /// A brief call: what of it needs no waiting is done when this returns.
    pub(super) fn v1_begin(
        &self,
        call: Call,
    ) -> impl Future<Output = Result<Answer, VaultError>> + Send + use<> {
        let begun = self.v1(call);
        async move {
            match begun? {
                Answer::Later(answer) => answer.await,
                answer => Ok(answer),
            }
        }
    }

    /// What a call comes to later. Where that is looked at before it is told, this waits for it.
    pub(super) fn v1_later(
        ask: &Ask,
        answer: impl Future<Output = Result<Answer, VaultError>> + Send + 'static,
    ) -> Result<Answer, VaultError> {
        if ask.call.is_brief() {
            return Ok(Answer::Later(Box::pin(answer)));
        }
        Handle::current().block_on(answer)
    }

    /// Runs a read with its record; what it does not find is 404.
    pub(super) fn v1_read<T>(
        &self,
        ask: &Ask,
        work: impl FnOnce() -> Result<Option<T>, VaultError>,
    ) -> Result<T, VaultError> {
        self.read(ask.entry(), || work()?.ok_or_else(nothing))
    }

    /// Lists what is kept below a folder.
    pub(super) fn v1_names(&self, ask: &Ask, folder: &str) -> Result<Answer, VaultError> {
        let names = self.read(ask.entry(), || logical::names(&self.store.snapshot()?, folder))?;
        Answer::keys(&names)
    }

    /// Removes a row; it need not be there.
    pub(super) fn v1_remove(&self, ask: &Ask, key: String) -> Result<Answer, VaultError> {
        self.write(ask.entry(), move |change| {
            logical::remove(change, &key);
            Ok(())
        })?;
        Ok(Answer::Nothing)
    }
}
