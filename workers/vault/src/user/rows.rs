//! What is kept of a user, and what its roles let it do.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_identity::grants::{ADMIN, GRANTS_MAX, Grants};
use sluice_wire::code::Code;

use super::password::Hash;
use crate::error::VaultError;
use crate::store::{Change, KeyBytes, Range, Table, View};

/// LIMIT: users.
pub(super) const USERS_MAX: usize = 10_000;
/// LIMIT: bytes of a name.
const NAME_BYTES_MAX: usize = 64;
/// LIMIT: roles of a user.
const ROLES_MAX: usize = 32;
const FOLDER: &str = "user/";

/// A user. Its name is in its key. No Debug: it holds a hash.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct User {
    pub(super) password: Hash,
    /// Names of `[auth.roles]`, or `admin`; empty: it opens no session here, only in Vault's API.
    pub(crate) roles: Vec<String>,
    pub(super) created: Timestamp,
    pub(super) updated: Timestamp,
}

/// What a user was when it proved itself: what follows from that must find it unchanged.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub(crate) name: String,
    updated: Timestamp,
}

impl Standing {
    pub(crate) fn of(name: &str, user: &User) -> Self {
        Self { name: name.to_owned(), updated: user.updated }
    }

    /// Refuses who is no longer what it was.
    pub(crate) fn check(&self, view: &impl View) -> Result<(), VaultError> {
        let unchanged = find(view, &self.name)?.is_some_and(|user| user.updated == self.updated);
        if unchanged { Ok(()) } else { Err(VaultError::Anonymous) }
    }
}

impl User {
    pub(crate) const fn new(password: Hash, now: Timestamp) -> Self {
        Self { password, roles: Vec::new(), created: now, updated: now }
    }

    /// Gives it another password.
    pub(crate) fn set(&mut self, password: Hash, now: Timestamp) {
        (self.password, self.updated) = (password, now);
    }
}

/// A user's name in its one spelling: lower case, as Vault keeps it.
pub(crate) fn name(text: &str) -> Result<String, VaultError> {
    let fits = (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._@+-".contains(&b))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if fits {
        return Ok(text.to_ascii_lowercase());
    }
    let why = "a user name is 1 to 64 letters, digits and ._@+-, and begins with a letter or digit";
    Err(VaultError::invalid(Code::BadRequest, why))
}

/// Where a user is kept.
pub(super) fn user_key(name: &str) -> KeyBytes {
    format!("{FOLDER}{name}").into_bytes()
}

/// The subject of a user's tokens: no service is called so.
pub(crate) fn subject(name: &str) -> String {
    format!("user:{name}")
}

/// The user whose token a subject is of.
pub(super) fn named(subject: &str) -> Option<&str> {
    subject.strip_prefix("user:")
}

/// A user by its name.
pub(crate) fn find(view: &impl View, name: &str) -> Result<Option<User>, VaultError> {
    view.load(Table::Logical, &user_key(name))
}

/// The names of users, as many as are asked for.
pub(super) fn names(view: &impl View, after: Option<&str>, limit: usize) -> Result<Vec<String>, VaultError> {
    let mut range = Range::prefix(FOLDER.as_bytes(), limit);
    if let Some(after) = after {
        range = range.after(&user_key(after));
    }
    let keys = view.keys(Table::Logical, &range)?;
    Ok(keys.iter().map(|key| String::from_utf8_lossy(&key[FOLDER.len()..]).into_owned()).collect())
}

/// Writes a user; a new one only while there is room.
pub(crate) fn save(change: &mut Change<'_>, name: &str, user: &User) -> Result<(), VaultError> {
    let key = user_key(name);
    if change.raw(Table::Logical, &key)?.is_none() && names(change, None, USERS_MAX)?.len() >= USERS_MAX {
        return Err(VaultError::invalid(Code::RateLimited, format!("there are {USERS_MAX} users already")));
    }
    change.save(Table::Logical, &key, user);
    Ok(())
}

/// Roles that a user may have.
pub(super) fn check_roles(wanted: &[String], known: &BTreeMap<String, Grants>) -> Result<(), VaultError> {
    let bad = |why: String| Err(VaultError::invalid(Code::BadRequest, why));
    if wanted.len() > ROLES_MAX {
        return bad(format!("a user has at most {ROLES_MAX} roles"));
    }
    if let Some(role) = wanted.iter().find(|role| *role != ADMIN && !known.contains_key(*role)) {
        let shown: String = role.chars().take(64).collect();
        return bad(format!("there is no role `{shown}`: [auth.roles] names them, and `admin` is one"));
    }
    if grants(wanted, known).iter().count() > GRANTS_MAX {
        return bad(format!("these roles have more than {GRANTS_MAX} permissions together"));
    }
    Ok(())
}

/// What roles allow together. Administration comes with the role of that name and with no other: whoever writes a role
/// cannot make administrators of those who have it.
pub(super) fn grants(roles: &[String], known: &BTreeMap<String, Grants>) -> Grants {
    let words = roles.iter().filter_map(|role| known.get(role)).flat_map(Grants::iter);
    let admin = roles.iter().any(|role| role == ADMIN).then_some(ADMIN);
    words.filter(|word| *word != ADMIN).chain(admin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        assert_eq!(name("Alice.B+desk@site").unwrap(), "alice.b+desk@site");
        for bad in ["", "-a", ".", "a b", "a/b", "a:b", "ä", "a\n", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(named(&subject("alice")), Some("alice"));
        assert!(crate::path::ServiceName::parse(&subject("alice")).is_err(), "a user is no service");
    }

    #[test]
    fn roles_add_up_and_only_admin_makes_an_administrator() {
        let known = BTreeMap::from([
            ("desk".to_owned(), "read trade".parse().unwrap()),
            ("ops".to_owned(), "metrics:read admin".parse().unwrap()),
        ]);
        let of = |roles: &[&str]| grants(&roles.iter().map(|&role| role.into()).collect::<Vec<_>>(), &known);
        assert_eq!(of(&["desk", "ops", "gone"]).to_header(), "metrics:read read trade");
        assert_eq!(of(&["admin"]).to_header(), "admin");
        assert!(of(&[]).is_empty());
        assert!(check_roles(&["desk".into(), "admin".into()], &known).is_ok());
        assert!(check_roles(&["none".into()], &known).is_err());
        assert!(check_roles(&vec!["desk".into(); 33], &known).is_err());
    }
}
