//! The first administrator.
//!
//! Somebody must be able to do something, and nobody has a credential yet: so as long as it was never used, a one-time
//! token lies in `<data-dir>/bootstrap-token` (mode 0600), of which the store has the SHA-256. Who brings it names
//! himself and a password, in one commit with its end. A lost file is made anew at the next start; a used one never.
//! The root token that a vault opened by shares gives counts in Vault's API alone; a development vault writes a token at
//! each start instead.

use std::fs;

use jiff::Timestamp;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};
use sluice_audit::Entry;
use sluice_identity::caller::Caller;
use sluice_identity::grants::ADMIN;
use sluice_wire::code::Code;
use sluice_wire::role::Role;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::ops::{Session, end_sessions};
use super::password::{PASSWORD_CHARS_MIN, Password, hash_new};
use super::rows::{self, User};
use crate::ca::hex;
use crate::context::Vault;
use crate::error::VaultError;
use crate::request::Act;
use crate::store::{Change, Table, View};

const KEY: &[u8] = b"sys/bootstrap";
/// The file, in the data directory.
const FILE: &str = "bootstrap-token";

/// What makes the first administrator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct First {
    pub(super) token: Password,
    pub(super) username: String,
    pub(super) password: Password,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Row {
    /// SHA-256 of the token.
    Open([u8; 32]),
    Used(Timestamp),
}

fn digest_of(token: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    digest
}

/// Refuses what is not the token that is open.
fn check(view: &impl View, digest: &[u8; 32]) -> Result<(), VaultError> {
    match view.load(Table::Logical, KEY)? {
        Some(Row::Open(open)) if bool::from(open.ct_eq(digest)) => Ok(()),
        _ => Err(VaultError::Anonymous),
    }
}

/// Ends the token: there is an administrator. One that was made otherwise needs no other by way of a file.
pub(super) fn close(change: &mut Change<'_>, now: Timestamp) -> Result<(), VaultError> {
    if matches!(change.load(Table::Logical, KEY)?, Some(Row::Open(_))) {
        change.save(Table::Logical, KEY, &Row::Used(now));
    }
    Ok(())
}

impl Vault {
    /// Removes the file of a token that has ended.
    pub(super) fn remove_first(&self) {
        let path = self.settings.data_dir.join(FILE);
        if path.exists() {
            remove(&path);
        }
    }

    /// Whether a user is an administrator.
    fn has_administrator(&self) -> Result<bool, VaultError> {
        let view = self.store.snapshot()?;
        for name in rows::names(&view, None, rows::USERS_MAX)? {
            if rows::find(&view, &name)?.is_some_and(|user| user.roles.iter().any(|role| role == ADMIN)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the token where one is to be had and none lies there.
    pub(crate) fn offer_first(&self, now: Timestamp) -> Result<(), VaultError> {
        if self.settings.dev {
            return Ok(());
        }
        let path = self.settings.data_dir.join(FILE);
        let kept = fs::read(&path).ok().map(|token| digest_of(token.trim_ascii()));
        let row = self.store.snapshot()?.load(Table::Logical, KEY)?;
        match row {
            Some(Row::Used(_)) => {
                if kept.is_some() {
                    remove(&path);
                }
                return Ok(());
            }
            _ if self.has_administrator()? => {
                let entry = Entry::new("auth", "withdraw").actor("vault").path("auth/bootstrap");
                self.write(entry, move |change| {
                    change.save(Table::Logical, KEY, &Row::Used(now));
                    Ok(())
                })?;
                self.remove_first();
                return Ok(());
            }
            Some(Row::Open(open)) if kept == Some(open) => {}
            _ => {
                let mut random = Zeroizing::new([0; 32]);
                SystemRandom::new().fill(&mut *random).map_err(|_| VaultError::Crypto("random numbers"))?;
                let token = Zeroizing::new(hex(&*random));
                let row = Row::Open(digest_of(token.as_bytes()));
                let entry = Entry::new("auth", "offer").actor("vault").path("auth/bootstrap");
                self.write(entry, move |change| {
                    change.save(Table::Logical, KEY, &row);
                    Ok(())
                })?;
                self.write_private(FILE, &token)?;
            }
        }
        tracing::warn!(
            component = "vault",
            at = %now,
            path = %path.display(),
            "there was never an administrator: POST /auth/bootstrap with the token in this file makes the first"
        );
        Ok(())
    }

    /// The token is used up; its bearer is an administrator from now on.
    pub(super) fn bootstrap(&self, act: &Act, first: &First) -> Result<Session, VaultError> {
        let digest = digest_of(first.token.bytes().trim_ascii());
        let entry = act.entry("auth", "bootstrap", "auth/bootstrap").actor("unverified");
        let checked = check(&self.store.snapshot()?, &digest).and_then(|()| {
            let name = rows::name(&first.username)?;
            let password = first.password.clone().chosen(&name, PASSWORD_CHARS_MIN)?;
            Ok((name, hash_new(&self.passwords, &password)?))
        });
        let (name, hash) = match checked {
            Ok(checked) => checked,
            Err(error) => return Err(self.refuse(entry, error)),
        };
        let (now, leeway_s, of) = (act.now, self.settings.leeway_s, name.clone());
        let entry = act.entry("auth", "bootstrap", format!("auth/users/{name}")).actor("bootstrap");
        let user = self.write(entry, move |change| {
            check(change, &digest)?;
            if rows::find(change, &name)?.is_some() {
                return Err(VaultError::invalid(Code::Conflict, "there is a user of this name"));
            }
            let mut user = User::new(hash, now);
            user.roles = vec![ADMIN.to_owned()];
            rows::save(change, &name, &user)?;
            end_sessions(change, &name, true, now, leeway_s)?;
            change.save(Table::Logical, KEY, &Row::Used(now));
            Ok(user)
        })?;
        remove(&self.settings.data_dir.join(FILE));
        let vault = Act { caller: Some(Caller::role(Role::Vault)), ..act.clone() };
        let entry = act.entry("auth", "login", format!("auth/users/{of}")).actor(rows::subject(&of));
        self.open_session(&vault, entry, of, &user, None)
    }
}

/// What lies there opens nothing any more; that it stays does no harm.
fn remove(path: &std::path::Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(component = "vault", %error, path = %path.display(), "a used token's file stays");
    }
}
