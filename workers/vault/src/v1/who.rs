//! Who asks, and what that caller may do.

use std::sync::Arc;

use jiff::Timestamp;
use sluice_identity::caller::{Caller, Via};

use super::acls::Acls;
use super::born::Born;
use super::call::{Certified, Op};
use super::policy::{self, Acl, Caps};
use super::token::Row;
use crate::access::{self, Wish};
use crate::error::VaultError;
use crate::path::SecretPath;
use crate::store::View;

/// A caller.
pub(super) enum Who {
    /// Nobody has shown a credential.
    Nobody,
    /// A verified Sluice token or certificate: what it may do with secrets is what `access` says; the rest is
    /// an administrator's.
    Sluice(Caller),
    /// A token of Vault's kind.
    Token(Box<Held>),
}

/// A token with what it may do.
pub(super) struct Held {
    pub(super) id: String,
    pub(super) row: Row,
    pub(super) acl: Arc<Acl>,
}

impl Who {
    /// For records.
    pub(super) fn actor(&self) -> String {
        match self {
            Self::Nobody => "anonymous".to_owned(),
            Self::Sluice(caller) => caller.subject.clone(),
            Self::Token(held) => format!("token/{}/{}", held.row.display_name, held.row.accessor),
        }
    }

    pub(super) const fn is_somebody(&self) -> bool {
        !matches!(self, Self::Nobody)
    }

    /// Whether nothing is forbidden.
    pub(super) fn is_root(&self) -> bool {
        match self {
            Self::Nobody => false,
            Self::Sluice(caller) => is_admin(caller),
            Self::Token(held) => held.acl.is_root(),
        }
    }

    /// Whether it may do what only `sudo` may, at a path.
    pub(super) fn is_sudo(&self, path: &str) -> bool {
        match self {
            Self::Token(held) => held.acl.is_root() || held.acl.caps(path).has(Caps::SUDO),
            other => other.is_root(),
        }
    }

    /// The capabilities at a path.
    pub(super) fn caps(&self, path: &str) -> Vec<&'static str> {
        if self.is_root() {
            return vec!["root"];
        }
        match self {
            Self::Nobody => vec!["deny"],
            Self::Token(held) => held.acl.caps(path).words(),
            Self::Sluice(caller) => {
                let words = [
                    ("create", Op::Write),
                    ("delete", Op::Delete),
                    ("list", Op::List),
                    ("patch", Op::Patch),
                    ("read", Op::Read),
                    ("update", Op::Write),
                ];
                let held: Vec<_> = words
                    .iter()
                    .filter(|(_, op)| sluice_may(caller, *op, path))
                    .map(|(word, _)| *word)
                    .collect();
                if held.is_empty() { vec!["deny"] } else { held }
            }
        }
    }

    /// Whether it may do this. `exists` tells a write that changes from one that creates.
    pub(super) fn may(&self, op: Op, path: &str, exists: bool) -> bool {
        if self.is_root() {
            return true;
        }
        match self {
            Self::Nobody => false,
            Self::Sluice(caller) => sluice_may(caller, op, path),
            Self::Token(held) => match op {
                Op::List => held.acl.caps_of_folder(path).has(Caps::LIST),
                Op::Read => held.acl.caps(path).has(Caps::READ),
                Op::Patch => held.acl.caps(path).has(Caps::PATCH),
                Op::Delete => held.acl.caps(path).has(Caps::DELETE),
                Op::Write if exists => held.acl.caps(path).has(Caps::UPDATE),
                Op::Write => held.acl.caps(path).has(Caps::CREATE),
            },
        }
    }

    /// The policies that a token made by it inherits.
    pub(super) fn policies(&self) -> Vec<String> {
        match self {
            Self::Nobody => Vec::new(),
            Self::Sluice(caller) if is_admin(caller) => vec!["root".to_owned()],
            Self::Sluice(_) => vec!["default".to_owned()],
            Self::Token(held) => held.row.policies.clone(),
        }
    }

    /// Whose quota pays what it asks for.
    pub(super) fn payer(&self) -> String {
        match self {
            Self::Nobody => "anonymous".to_owned(),
            Self::Sluice(caller) => caller.account.clone(),
            Self::Token(held) => held.row.payer.clone(),
        }
    }

    /// What binds a token that it makes at `now` to it: what a token of Vault's kind makes ends with what made that
    /// one, also without a parent. `certified` is the certificate of the connection.
    pub(super) fn born(&self, certified: Option<&Certified>, now: Timestamp) -> Option<Born> {
        match self {
            Self::Nobody => None,
            Self::Sluice(caller) if caller.via == Via::Certificate => {
                let name = access::service(caller).unwrap_or(&caller.subject);
                let serial = caller.serial.clone().or_else(|| certified.map(|own| own.serial.clone()));
                Some(Born::of_certificate(name, serial, now))
            }
            Self::Sluice(caller) => Some(Born {
                subject: caller.subject.clone(),
                jti: caller.jti.clone(),
                serial: None,
                issued_s: caller.issued_at_s,
            }),
            Self::Token(held) => held.row.born.clone(),
        }
    }
}

/// Administrators, but no legacy token: that one mints nothing.
fn is_admin(caller: &Caller) -> bool {
    caller.grants.is_admin() && caller.via != Via::LegacyToken && caller.as_role().is_none()
}

/// What a Sluice token or certificate may do: its own secrets, and to look at itself.
fn sluice_may(caller: &Caller, op: Op, path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').collect();
    match segments.as_slice() {
        ["secret", "config"] => access::secret(Some(caller), None, wish(op)).is_ok(),
        ["secret", "data" | "metadata" | "delete" | "undelete" | "destroy" | "subkeys", rest @ ..] => {
            let path = SecretPath::parse(&rest.join("/")).ok();
            access::secret(Some(caller), path.as_ref(), wish(op)).is_ok()
        }
        _ => caller.as_role().is_none() && own().caps(path).has(needed(op)),
    }
}

const fn wish(op: Op) -> Wish {
    match op {
        Op::Read | Op::List => Wish::Read,
        Op::Write | Op::Patch | Op::Delete => Wish::Write,
    }
}

const fn needed(op: Op) -> Caps {
    match op {
        Op::Read => Caps::READ,
        Op::List => Caps::LIST,
        Op::Write => Caps::UPDATE,
        Op::Patch => Caps::PATCH,
        Op::Delete => Caps::DELETE,
    }
}

/// What is in the default policy as it was shipped.
fn own() -> &'static Acl {
    static OWN: std::sync::OnceLock<Acl> = std::sync::OnceLock::new();
    OWN.get_or_init(|| Acl::of(policy::parse(policy::DEFAULT).unwrap_or_default()))
}

/// A token's row with the rules of its policies.
pub(super) fn held(
    view: &impl View,
    acls: &Acls,
    id: String,
    now: Timestamp,
) -> Result<Option<Held>, VaultError> {
    let Some(row) = super::token::live(view, &id, now)? else { return Ok(None) };
    let acl = if row.is_root() { Acl::root().into() } else { acls.of(view, &row.policies)? };
    Ok(Some(Held { id, row, acl }))
}
