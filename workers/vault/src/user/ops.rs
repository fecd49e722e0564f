//! Sessions of users, and what administrators do with users.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_audit::Entry;
use sluice_identity::caller::{Caller, Via};
use sluice_identity::grants::ADMIN;
use sluice_wire::code::Code;
use sluice_wire::role::Role;

use super::attempt::{Source, Try};
use super::first;
use super::password::{PASSWORD_CHARS_MIN, Password, hash_new};
use super::rows::{self, Standing, User};
use crate::access;
use crate::context::Vault;
use crate::error::VaultError;
use crate::outbox::security_event;
use crate::request::Act;
use crate::store::{Change, Table, View as _};
use crate::token::{MintAnswer, Plan, TTL_MAX, Ttl, void_subject};

/// LIMIT: users in one page of the list.
const PAGE_MAX: usize = 500;
/// For records, before a name.
const PLACE: &str = "auth/users/";

/// What opens a session.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Password,
}

/// A user's own change of password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPassword {
    pub(super) username: String,
    pub(super) password: Password,
    #[serde(rename = "new_password")]
    pub(super) new: Password,
}

/// What an administrator sets; what is left out stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    #[serde(default)]
    pub(super) password: Option<Password>,
    #[serde(default)]
    pub(super) roles: Option<Vec<String>>,
}

/// A session.
#[derive(Serialize)]
pub(super) struct Session {
    token: String,
    token_type: &'static str,
    user: String,
    roles: Vec<String>,
    permissions: Vec<String>,
    expires_at: Timestamp,
    expires_in: i64,
}

/// A user without its hash.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    user: String,
    roles: Vec<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A page of users.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    users: Vec<Shown>,
    count: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

impl Shown {
    fn new(name: &str, user: &User) -> Self {
        let User { roles, created, updated, .. } = user;
        Self { user: name.to_owned(), roles: roles.clone(), created_at: *created, updated_at: *updated }
    }
}

/// Administrators, and no legacy token: whoever has the old shared secret makes such tokens himself.
fn administrator(caller: Option<&Caller>) -> Result<(), VaultError> {
    let caller = access::known(caller)?;
    let may = caller.grants.is_admin() && caller.via != Via::LegacyToken && caller.as_role().is_none();
    if may { Ok(()) } else { Err(VaultError::Lacking("admin")) }
}

fn nobody() -> VaultError {
    VaultError::NotFound("there is no such user".into())
}

impl Vault {
    /// A name and a password become a token.
    pub(super) fn login(&self, act: &Act, login: &Login, source: &Source) -> Result<Session, VaultError> {
        if rows::names(&self.store.snapshot()?, None, 1)?.is_empty() {
            let why = "there are no users; an administrator makes them: PUT /auth/users/{name}";
            return Err(VaultError::invalid(Code::LoginDisabled, why));
        }
        let (name, password) = (login.username.as_str(), &login.password);
        let proven = self.prove(&Try { act, place: PLACE, name, password, source })?;
        // The vault speaks for who has just proved himself.
        let vault = Act { caller: Some(Caller::role(Role::Vault)), ..act.clone() };
        let entry = act.entry("auth", "login", format!("{PLACE}{}", proven.name));
        let entry = entry.actor(rows::subject(&proven.name)).request(act.request_id.clone(), source.text());
        self.open_session(&vault, entry, proven.name, &proven.user, None)
    }

    /// A session goes on under a new token, with what the user's roles allow by now.
    pub(super) fn refresh_session(&self, act: &Act, ttl: Option<Ttl>) -> Result<Session, VaultError> {
        let entry = act.entry("auth", "refresh", PLACE);
        let found = access::known(act.caller.as_ref()).and_then(|caller| {
            let name = rows::named(&caller.subject).filter(|_| matches!(caller.via, Via::Token | Via::Edge));
            let name = name.ok_or(VaultError::Forbidden("only a user's token is refreshed here"))?;
            if !self.shown_by(caller)?.is_whole() {
                return Err(VaultError::Forbidden("a token that was made of another opens no session"));
            }
            let user = rows::find(&self.store.snapshot()?, name)?.ok_or(VaultError::Anonymous)?;
            Ok((name.to_owned(), user))
        });
        match found {
            Ok((name, user)) => {
                self.open_session(act, entry.path(format!("{PLACE}{name}")), name, &user, ttl)
            }
            Err(error) => Err(self.refuse(entry, error)),
        }
    }

    pub(super) fn open_session(
        &self,
        act: &Act,
        entry: Entry,
        name: String,
        user: &User,
        ttl: Option<Ttl>,
    ) -> Result<Session, VaultError> {
        let grants = rows::grants(&user.roles, &self.settings.roles);
        let longest = self.settings.token_ttl.min(TTL_MAX);
        let ttl = ttl.map_or(longest, |ttl| ttl.0.min(longest));
        let plan = if user.roles.is_empty() {
            Err(VaultError::Forbidden("this user has no role here"))
        } else if ttl.as_secs() < 1 {
            Err(VaultError::invalid(Code::BadRequest, "ttl is at least one second"))
        } else {
            Ok(Plan {
                bound: None,
                subject: rows::subject(&name),
                service: None,
                grants: grants.clone(),
                audience: self.settings.audience.clone(),
                ttl,
                client: None,
                parent: None,
                user: Some(Standing::of(&name, user)),
            })
        };
        let MintAnswer { token, expires_at, expires_in, .. } = self.issue_token(act, entry, plan)?;
        Ok(Session {
            token,
            token_type: "Bearer",
            user: name,
            roles: user.roles.clone(),
            permissions: grants.iter().map(str::to_owned).collect(),
            expires_at,
            expires_in,
        })
    }

    /// A user changes its own password, which ends its sessions.
    pub(super) fn change_password(
        &self,
        act: &Act,
        wish: &NewPassword,
        source: &Source,
    ) -> Result<Shown, VaultError> {
        let (name, password) = (wish.username.as_str(), &wish.password);
        let proven = self.prove(&Try { act, place: PLACE, name, password, source })?;
        let entry = act.entry("user", "password", format!("{PLACE}{}", proven.name));
        let entry = entry.actor(rows::subject(&proven.name));
        let changed = wish.new.clone().chosen(&proven.name, PASSWORD_CHARS_MIN);
        match changed {
            Ok(new) => self.set_user(act, entry, proven.name, Some(&new), None).map(|(shown, _)| shown),
            Err(error) => Err(self.refuse(entry, error)),
        }
    }

    /// Makes a user or changes it; whether it is new.
    pub(super) fn put_user(&self, act: &Act, name: &str, wish: Wish) -> Result<(Shown, bool), VaultError> {
        let entry = act.entry("user", "set", format!("{PLACE}{}", safe(name)));
        let checked = administrator(act.caller.as_ref()).and_then(|()| {
            let name = rows::name(name)?;
            if let Some(roles) = &wish.roles {
                rows::check_roles(roles, &self.settings.roles)?;
            }
            let password = wish.password.map(|password| password.chosen(&name, PASSWORD_CHARS_MIN));
            Ok((name, password.transpose()?))
        });
        match checked {
            Ok((name, password)) => self.set_user(act, entry, name, password.as_ref(), wish.roles),
            Err(error) => Err(self.refuse(entry, error)),
        }
    }

    fn set_user(
        &self,
        act: &Act,
        entry: Entry,
        name: String,
        password: Option<&Password>,
        roles: Option<Vec<String>>,
    ) -> Result<(Shown, bool), VaultError> {
        let hash = password.map(|password| hash_new(&self.passwords, password)).transpose()?;
        let resets = hash.is_some();
        let (now, leeway_s, of) = (act.now, self.settings.leeway_s, name.clone());
        let (done, is_admin) = self.write_as(act, entry, move |change| {
            let known = rows::find(change, &name)?;
            let is_new = known.is_none();
            let raised = roles.as_ref().is_some_and(|roles| !roles.is_empty());
            if raised && hash.is_none() && known.as_ref().is_some_and(|user| user.roles.is_empty()) {
                // Whoever writes `auth/userpass` may know the one it has.
                let why = "a user that had no role gets a password together with the first";
                return Err(VaultError::invalid(Code::BadRequest, why));
            }
            let mut user = match (known, &hash) {
                (Some(user), _) => user,
                (None, Some(hash)) => User::new(hash.clone(), now),
                (None, None) => {
                    return Err(VaultError::invalid(Code::BadRequest, "a new user needs a password"));
                }
            };
            if let Some(hash) = hash {
                user.set(hash, now);
            }
            if let Some(mut roles) = roles {
                roles.sort();
                roles.dedup();
                user.roles = roles;
            }
            user.updated = now;
            rows::save(change, &name, &user)?;
            end_sessions(change, &name, is_new, now, leeway_s)?;
            let is_admin = user.roles.iter().any(|role| role == ADMIN);
            if is_admin {
                first::close(change, now)?;
            }
            Ok(((Shown::new(&name, &user), is_new), is_admin))
        })?;
        if is_admin {
            self.remove_first();
        }
        if resets {
            self.guard.forget(&of);
        }
        Ok(done)
    }

    /// Removes a user, which ends its sessions.
    pub(super) fn remove_user(&self, act: &Act, name: &str) -> Result<(), VaultError> {
        let entry = act.entry("user", "remove", format!("{PLACE}{}", safe(name)));
        let name = match administrator(act.caller.as_ref()).and_then(|()| rows::name(name)) {
            Ok(name) => name,
            Err(error) => return Err(self.refuse(entry, error)),
        };
        let (now, leeway_s) = (act.now, self.settings.leeway_s);
        self.write(entry, move |change| remove(change, &name, now, leeway_s))
    }

    /// One user.
    pub(super) fn user(&self, act: &Act, name: &str) -> Result<Shown, VaultError> {
        let entry = act.entry("user", "read", format!("{PLACE}{}", safe(name)));
        match administrator(act.caller.as_ref()).and_then(|()| rows::name(name)) {
            Ok(name) => self.read(entry, || {
                let user = rows::find(&self.store.snapshot()?, &name)?.ok_or_else(nobody)?;
                Ok(Shown::new(&name, &user))
            }),
            Err(error) => Err(self.refuse(entry, error)),
        }
    }

    /// Users by name.
    pub(super) fn users(&self, act: &Act, after: Option<&str>, limit: usize) -> Result<Page, VaultError> {
        let entry = act.entry("user", "list", PLACE);
        if let Err(error) = administrator(act.caller.as_ref()) {
            return Err(self.refuse(entry, error));
        }
        let limit = limit.clamp(1, PAGE_MAX);
        self.read(entry, || {
            let view = self.store.snapshot()?;
            let names = rows::names(&view, after, limit)?;
            let shown = |name: &String| {
                Ok(Shown::new(name, &view.require::<User>(Table::Logical, &rows::user_key(name))?))
            };
            let users = names.iter().map(shown).collect::<Result<Vec<_>, VaultError>>()?;
            let next = (names.len() == limit).then(|| names.last().cloned()).flatten();
            Ok(Page { count: users.len(), users, next })
        })
    }
}

/// Ends what a user's former password or roles opened.
pub(crate) fn end_sessions(
    change: &mut Change<'_>,
    name: &str,
    is_new: bool,
    now: Timestamp,
    leeway_s: i64,
) -> Result<(), VaultError> {
    let kind = if is_new { "user_created" } else { "user_changed" };
    change.emit(&security_event(kind, now, &[("user", name)]))?;
    if is_new { Ok(()) } else { void_subject(change, &rows::subject(name), now, leeway_s) }
}

/// Removes a user and what Vault's API keeps of it.
pub(crate) fn remove(
    change: &mut Change<'_>,
    name: &str,
    now: Timestamp,
    leeway_s: i64,
) -> Result<(), VaultError> {
    rows::find(change, name)?.ok_or_else(nobody)?;
    change.remove(Table::Logical, &rows::user_key(name));
    crate::v1::forget_user(change, name);
    change.emit(&security_event("user_removed", now, &[("user", name)]))?;
    void_subject(change, &rows::subject(name), now, leeway_s)
}

/// A name for records: what is none is not written down.
fn safe(name: &str) -> String {
    rows::name(name).unwrap_or_else(|_| "?".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::RootKey;
    use crate::tests::{act, open};
    use crate::user::{Cost, Pool};

    #[test]
    fn a_hash_is_made_anew_when_its_cost_has_changed() {
        let (dir, now) = (tempfile::TempDir::new().unwrap(), Timestamp::now());
        let mut vault = open(&dir, &RootKey::random(), now);
        vault.passwords = Pool::sized(Cost { memory_kib: 64, passes: 1, lanes: 1 });
        let password = || Password::new("correct horse".into());
        let wish = Wish { password: Some(password()), roles: Some(vec!["bot".into()]) };
        vault.put_user(&act("root", "admin", now), "alice", wish).unwrap();
        let is_dated = |vault: &Vault| {
            let user = rows::find(&vault.store.snapshot().unwrap(), "alice").unwrap().unwrap();
            user.password.is_dated(vault.passwords.cost())
        };
        vault.passwords = Pool::sized(Cost { memory_kib: 128, passes: 1, lanes: 1 });
        assert!(is_dated(&vault));
        let nobody = Act { caller: None, ..act("", "", now) };
        let login = |vault: &Vault, text: &str| {
            let login = Login { username: "alice".into(), password: Password::new(text.into()) };
            vault.login(&nobody, &login, &Source::default()).map(|session| session.roles)
        };
        assert!(matches!(login(&vault, "wrong"), Err(VaultError::Anonymous)) && is_dated(&vault));
        assert_eq!(login(&vault, "correct horse").unwrap(), ["bot"]);
        assert!(!is_dated(&vault));
        assert_eq!(login(&vault, "correct horse").unwrap(), ["bot"]);
    }

    #[test]
    fn a_login_that_was_overtaken_by_a_new_password_opens_nothing() {
        let (dir, now) = (tempfile::TempDir::new().unwrap(), Timestamp::now());
        let mut vault = open(&dir, &RootKey::random(), now);
        vault.passwords = Pool::sized(Cost { memory_kib: 64, passes: 1, lanes: 1 });
        let root = act("root", "admin", now);
        let wish =
            |text: &str| Wish { password: Some(Password::new(text.into())), roles: Some(vec!["bot".into()]) };
        vault.put_user(&root, "alice", wish("first password")).unwrap();
        let user = rows::find(&vault.store.snapshot().unwrap(), "alice").unwrap().unwrap();
        let later = act("root", "admin", now + jiff::SignedDuration::from_millis(1));
        vault.put_user(&later, "alice", wish("second password")).unwrap();
        let entry = root.entry("auth", "login", PLACE);
        let vouched = Act { caller: Some(Caller::role(Role::Vault)), ..root };
        let overtaken = vault.open_session(&vouched, entry, "alice".into(), &user, None);
        assert!(matches!(overtaken, Err(VaultError::Anonymous)));
    }
}
