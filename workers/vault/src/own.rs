//! What a caller may make for himself: no more than he was given, and nothing that lasts longer.
//!
//! A certificate and a token of its own stand for a service whole. A token that was made of another one by exchange, an
//! API key and a token that this vault does not know are shown for a purpose: they open what they carry, and make
//! nothing that would carry more. What was made to live shorter than is usual makes nothing that lives longer.

use jiff::SignedDuration;
use sluice_audit::Entry;
use sluice_identity::caller::{Caller, Via};

use crate::access;
use crate::ca::BACKDATE_S;
use crate::context::Vault;
use crate::error::VaultError;
use crate::path::ServiceName;
use crate::request::Act;
use crate::store::Change;
use crate::token::{Parent, Row, is_caller_void, void_until};

const PART: &str = "this credential is less than the service itself: an exchanged or narrowed token, or an API key; \
                    a certificate wants all that [auth.roles] gives the service, or `credentials:issue`";

/// What a caller has shown.
pub(crate) enum Shown {
    /// A certificate, with the life it was made for where that is known.
    Certificate(Option<SignedDuration>),
    /// A token of this vault.
    Token(String, Box<Row>),
    /// Something that stands for no service: an API key, a token that is not known here.
    Passing,
}

impl Shown {
    /// Whether it is its subject's own, made of no other token.
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            Self::Certificate(_) => true,
            Self::Token(_, row) => row.parent.is_none(),
            Self::Passing => false,
        }
    }
}

impl Vault {
    /// What a caller has shown, as far as it is known here.
    pub(crate) fn shown_by(&self, caller: &Caller) -> Result<Shown, VaultError> {
        Ok(match (caller.via, &caller.jti) {
            (Via::Certificate, _) => {
                let life_s = caller.expires_at_s.zip(caller.issued_at_s).map(|(end, from)| end - from);
                Shown::Certificate(life_s.map(|life_s| SignedDuration::from_secs(life_s - BACKDATE_S)))
            }
            (Via::Token | Via::Edge, Some(jti)) => match self.find_token(jti)? {
                Some(row) if row.sub == caller.subject => Shown::Token(jti.clone(), Box::new(row)),
                _ => Shown::Passing,
            },
            _ => Shown::Passing,
        })
    }

    /// The longest life of what is made by it, where that is less than is usual.
    pub(crate) fn bound(&self, shown: &Shown) -> Option<SignedDuration> {
        let (life, usual) = match shown {
            Shown::Certificate(life) => ((*life)?, self.settings.leaf_ttl),
            Shown::Token(_, row) => (row.life(), self.settings.token_ttl),
            Shown::Passing => return None,
        };
        (life < usual).then_some(life)
    }

    /// Whether a caller may have a certificate of a service, or what gives one; how long it may live, where that is
    /// less than is usual.
    pub(crate) fn may_certify(
        &self,
        caller: &Caller,
        service: &ServiceName,
    ) -> Result<Option<SignedDuration>, VaultError> {
        access::credential(Some(caller), service.as_str())?;
        if caller.grants.covers("credentials:issue") {
            return Ok(None);
        }
        let role = self.settings.roles.get(service.as_str()).cloned().unwrap_or_default().without_admin();
        let shown = self.shown_by(caller)?;
        if shown.is_whole() && caller.grants.covers_all(&role) {
            Ok(self.bound(&shown))
        } else {
            Err(VaultError::Forbidden(PART))
        }
    }

    /// Runs a caller's change, unless what he showed was taken back since it was verified: what it makes would outlive
    /// it.
    pub(crate) fn write_as<T: Send + 'static>(
        &self,
        act: &Act,
        entry: Entry,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        self.write(entry, self.looked_at_again(act, work)?)
    }

    /// A change that first looks at its caller again.
    pub(crate) fn looked_at_again<T>(
        &self,
        act: &Act,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<impl FnOnce(&mut Change<'_>) -> Result<T, VaultError> + Send + 'static, VaultError> {
        let caller = act.caller.clone();
        let before = match &caller {
            Some(caller) => void_until(&self.store.snapshot()?, &caller.subject)?,
            None => None,
        };
        Ok(move |change: &mut Change<'_>| match &caller {
            Some(caller) if is_caller_void(change, caller, before)? => Err(VaultError::Anonymous),
            _ => work(change),
        })
    }

    /// Refuses a service's own word where it came with less than the service itself; `needed` stands in its place.
    pub(crate) fn is_own_word(&self, caller: &Caller, needed: &str) -> Result<(), VaultError> {
        if caller.grants.covers(needed) || self.shown_by(caller)?.is_whole() {
            Ok(())
        } else {
            Err(VaultError::Forbidden(
                "an exchanged token or an API key does not speak for the service itself",
            ))
        }
    }
}

/// The token that another is made of.
pub(crate) fn parent_of(jti: &str, row: &Row) -> Parent {
    Parent { root: row.root().unwrap_or(jti).to_owned(), jti: jti.to_owned(), expires_s: row.expires_s }
}
