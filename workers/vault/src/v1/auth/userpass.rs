//! `auth/userpass/…`: people log in with a password. The users are those of `/auth/users`; what is kept here is which
//! policies they get.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::answer::Answer;
use super::super::born::Born;
use super::super::call::Op;
use super::super::route::{Ask, unsupported_operation, unsupported_path};
use super::super::token;
use super::super::{denied, fault, logical, unproved};
use super::Tokens;
use crate::context::Vault;
use crate::error::VaultError;
use crate::store::{Change, Table};
use crate::user::{self, Password, Proven, Standing, Try, User};

const FOLDER: &str = "userpass/";
/// Before a name, in records.
const PLACE: &str = "auth/userpass/login/";
/// The text of every refused login.
const WRONG: &str = "invalid username or password";

/// Where the policies of a user are kept.
pub(in super::super) fn key(name: &str) -> String {
    format!("{FOLDER}{name}")
}

impl Vault {
    pub(super) fn v1_userpass(&self, ask: &Ask, path: &[&str]) -> Result<Answer, VaultError> {
        match (path, ask.call.op) {
            (["users"], Op::List) => self.v1_names(ask, FOLDER),
            (["users", name, rest @ ..], op) => {
                let name = user::name(name).map_err(|error| fault(400, error.to_string()))?;
                match (rest, op) {
                    ([], Op::Read) => self.v1_user_read(ask, &name),
                    ([] | ["password" | "policies"], Op::Write) => self.v1_user_write(ask, name),
                    ([], Op::Delete) => self.v1_user_delete(ask, name),
                    (["password" | "policies"] | [], _) => Err(unsupported_operation()),
                    _ => Err(unsupported_path()),
                }
            }
            _ => Err(unsupported_path()),
        }
    }

    fn v1_user_read(&self, ask: &Ask, name: &str) -> Result<Answer, VaultError> {
        let tokens: Tokens = self.v1_read(ask, || logical::load(&self.store.snapshot()?, &key(name)))?;
        Answer::data(&tokens.described())
    }

    /// Sets what the body names. A user with roles is an administrator's alone: whoever sets a password can log in.
    fn v1_user_write(&self, ask: &Ask, name: String) -> Result<Answer, VaultError> {
        let part = ask.call.path.rsplit('/').next().filter(|_| ask.call.path.matches('/').count() > 3);
        let (fields, now, leeway_s) = (&ask.call.fields, ask.call.act.now, self.settings.leeway_s);
        let known: Option<Tokens> = logical::load(&self.store.snapshot()?, &key(&name))?;
        if part.is_some() && known.is_none() {
            return Err(self.refuse(ask.entry(), fault(400, "username does not exist")));
        }
        let (is_part, takes) = (part.is_some(), part != Some("password"));
        let taken = || {
            if takes {
                known.clone().unwrap_or_default().take(fields)?;
            }
            let password =
                fields.text("password")?.filter(|text| !text.is_empty() && part != Some("policies"));
            if password.is_none() && part == Some("password") {
                return Err(fault(400, "missing password"));
            }
            let least = if self.v1_has_roles(&name)? { user::PASSWORD_CHARS_MIN } else { 1 };
            let password = password.map(|text| Password::new(text).chosen("", least)).transpose()?;
            Ok(password)
        };
        let password = taken().map_err(|error| self.refuse(ask.entry(), error))?;
        let hash = password.map(|password| user::hash_new(&self.passwords, &password)).transpose()?;
        let (is_root, resets, of, fields) = (ask.who.is_root(), hash.is_some(), name.clone(), fields.clone());
        self.write(ask.entry(), move |change| {
            let user = user::find(change, &name)?;
            let is_new = user.is_none();
            if !is_root && user.as_ref().is_some_and(|user| !user.roles.is_empty()) {
                return Err(denied());
            }
            let user = match (user, hash) {
                (None, None) => return Err(fault(400, "missing password")),
                (None, Some(hash)) => Some(User::new(hash, now)),
                (Some(mut user), Some(hash)) => {
                    user.set(hash, now);
                    Some(user)
                }
                (Some(_), None) => None,
            };
            if let Some(user) = user {
                user::save(change, &name, &user)?;
                user::end_sessions(change, &name, is_new, now, leeway_s)?;
            }
            // Here, so that of two changes at a time none is lost.
            let known: Option<Tokens> = logical::load(change, &key(&name))?;
            if is_part && known.is_none() {
                return Err(fault(400, "username does not exist"));
            }
            let mut tokens = known.unwrap_or_default();
            if takes {
                tokens.take(&fields)?;
            }
            logical::save(change, &key(&name), &tokens)
        })?;
        if resets {
            self.guard.forget(&of);
        }
        Ok(Answer::Nothing)
    }

    fn v1_has_roles(&self, name: &str) -> Result<bool, VaultError> {
        Ok(user::find(&self.store.snapshot()?, name)?.is_some_and(|user| !user.roles.is_empty()))
    }

    /// Removes the user from here, and altogether where it has no roles.
    fn v1_user_delete(&self, ask: &Ask, name: String) -> Result<Answer, VaultError> {
        let (now, leeway_s, is_root) = (ask.call.act.now, self.settings.leeway_s, ask.who.is_root());
        self.write(ask.entry(), move |change| match user::find(change, &name)? {
            None => Ok(()),
            Some(user) if user.roles.is_empty() => user::remove(change, &name, now, leeway_s),
            Some(_) if !is_root => Err(denied()),
            Some(_) => {
                forget(change, &name);
                user::end_sessions(change, &name, false, now, leeway_s)
            }
        })?;
        Ok(Answer::Nothing)
    }

    /// A user's password becomes a token with its policies.
    pub(super) fn v1_userpass_login(&self, ask: &Ask, name: &str) -> Result<Answer, VaultError> {
        let Some(password) = ask.call.fields.text("password")?.filter(|text| !text.is_empty()) else {
            return Err(self.refuse(ask.entry().path(PLACE), fault(400, "missing password")));
        };
        let (act, source) = (&ask.call.act, &ask.call.source);
        let tried = Try { act, place: PLACE, name, password: &Password::new(password), source };
        let proven = self.prove(&tried).map_err(|error| match error {
            VaultError::Anonymous => unproved(400, WRONG),
            // As OpenBao says it of a user that is locked out.
            VaultError::Later(sluice_wire::code::Code::TooManyFailures, ..) => {
                fault(403, "permission denied")
            }
            error => error,
        })?;
        self.v1_userpass_open(ask, proven)
    }

    /// A token for who has proved himself, unless his password has changed meanwhile.
    fn v1_userpass_open(&self, ask: &Ask, proven: Proven) -> Result<Answer, VaultError> {
        let (act, standing) = (&ask.call.act, Standing::of(&proven.name, &proven.user));
        let Proven { name, .. } = proven;
        let (keys, now) = (Arc::clone(&self.api_keys), act.now);
        let subject = user::subject(&name);
        let entry = ask.entry().path(format!("{PLACE}{name}")).actor(subject.clone());
        let (token, row) = self.write(entry, move |change| {
            standing.check(change).map_err(|_| unproved(400, WRONG))?;
            let tokens: Option<Tokens> = logical::load(change, &key(&name))?;
            let tokens = tokens.ok_or_else(|| unproved(400, WRONG))?;
            let meta = BTreeMap::from([("username".to_owned(), name.clone())]);
            let mut draft = tokens.draft(&format!("{PLACE}{name}"), format!("userpass-{name}"), meta)?;
            // A token made in the second in which the user's were revoked would be void.
            let earliest = crate::token::void_until(change, &subject)?.map_or(0, |until| until + 1);
            let issued_s = Some(now.as_second().max(earliest));
            draft.born = Some(Born { subject, jti: None, serial: None, issued_s });
            token::create(change, &keys, draft, now)
        })?;
        self.figures.tokens.inc();
        Ok(Answer::auth(row.auth(&token, now)))
    }
}

/// Removes what is kept here of a user.
pub(crate) fn forget(change: &mut Change<'_>, name: &str) {
    change.remove(Table::Logical, key(name).as_bytes());
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use serde_json::json;
    use tempfile::TempDir;

    use super::super::super::call::Call;
    use super::super::super::who::Who;
    use super::*;
    use crate::request::Act;
    use crate::seal::RootKey;
    use crate::tests::{act, open};
    use crate::user::{Cost, Pool};

    #[test]
    fn a_login_that_was_overtaken_by_a_new_password_opens_nothing() {
        let (dir, now) = (TempDir::new().unwrap(), Timestamp::now());
        let mut vault = open(&dir, &RootKey::random(), now);
        vault.passwords = Pool::sized(Cost { memory_kib: 64, passes: 1, lanes: 1 });
        let set = |password: &str, at: Timestamp| {
            let body = json!({ "password": password });
            vault.v1(Call::write("auth/userpass/users/alice", &body, act("root", "admin", at))).unwrap()
        };
        set("first password", now);
        let proven = || {
            let user = user::find(&vault.store.snapshot().unwrap(), "alice").unwrap().unwrap();
            Proven { name: "alice".to_owned(), user }
        };
        let former = proven();
        set("second password", now + SignedDuration::from_millis(1));
        let nobody = Act { caller: None, ..act("", "", now + SignedDuration::from_millis(2)) };
        let call = Call::write("auth/userpass/login/alice", &json!({}), nobody);
        let ask = Ask { call, who: Who::Nobody };
        assert!(matches!(vault.v1_userpass_open(&ask, former), Err(VaultError::Unproved(400, _))));
        assert!(vault.v1_userpass_open(&ask, proven()).is_ok());
    }
}
