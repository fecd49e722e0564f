//! From the bytes of a signed request to who asks for what: each check of RFC 8555, section 6, in one place.

use serde::de::DeserializeOwned;
use sluice_audit::Entry;

use super::jws::{By, Jws};
use super::key::AccountKey;
use super::problem::{Refusal, Word, malformed, not_found, refused};
use super::rows::{self, Account};
use crate::context::Vault;
use crate::error::VaultError;
use crate::oauth::at;
use crate::request::Act;

/// A request as it came.
pub(super) struct Posted {
    pub(super) act: Act,
    /// The path that was asked for.
    pub(super) path: String,
    pub(super) body: Vec<u8>,
}

/// A request whose signature, address and nonce are good.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) signer: Signer,
    pub(super) key: AccountKey,
    pub(super) payload: Vec<u8>,
    pub(super) url: String,
}

/// Who signed.
#[derive(Debug)]
pub(super) enum Signer {
    /// A key that the request brought along.
    Bare,
    /// An account in force.
    Account(Box<Account>),
}

impl Opened {
    /// The payload as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, VaultError> {
        sluice_wire::json::from_slice(&self.payload)
            .map_err(|error| malformed(format!("the payload does not fit: {error}")))
    }

    /// Whether something is only to be read.
    pub(super) fn is_read(&self) -> bool {
        self.payload.is_empty()
    }
}

impl Vault {
    /// An address of this server, as clients know it.
    pub(super) fn acme_url(&self, path: &str) -> String {
        at(&self.settings.issuer, path)
    }

    /// Opens a request. The nonce is used up by any request that names this address, also by a forged one.
    pub(super) fn acme_open(&self, posted: &Posted) -> Result<Opened, VaultError> {
        let jws = Jws::parse(&posted.body)?;
        if jws.url != self.acme_url(&posted.path) {
            return Err(refused(Word::Unauthorized, "url is not the address of this request"));
        }
        if !jws.nonce.as_deref().is_some_and(|nonce| self.acme.nonces.take(nonce)) {
            return Err(refused(Word::BadNonce, "the nonce is not good; repeat with the one of this answer"));
        }
        let (signer, key) = match &jws.by {
            By::Key(key) => (Signer::Bare, key.clone()),
            By::Account(url) => {
                let account = self.acme_account(url)?;
                let key = account.public_key()?;
                (Signer::Account(Box::new(account)), key)
            }
        };
        jws.verify(&key)?;
        // Only to whoever holds its key is it told what became of an account.
        let signer = match signer {
            Signer::Account(account) => Signer::Account(Box::new(account.in_force()?)),
            Signer::Bare => Signer::Bare,
        };
        Ok(Opened { signer, key, payload: jws.payload, url: jws.url })
    }

    fn acme_account(&self, url: &str) -> Result<Account, VaultError> {
        let unknown = || refused(Word::AccountDoesNotExist, "kid is not the address of an account");
        let id = url.strip_prefix(&self.acme_url("/acme/account/")).ok_or_else(unknown)?;
        rows::account(&self.store.snapshot()?, id)?.ok_or_else(unknown)
    }

    /// Opens a request that only accounts may make.
    pub(super) fn acme_signed(&self, posted: &Posted) -> Result<(Opened, Account), VaultError> {
        let mut opened = self.acme_known(posted)?;
        match std::mem::replace(&mut opened.signer, Signer::Bare) {
            Signer::Account(account) => Ok((opened, *account)),
            Signer::Bare => Err(malformed("this request is signed with the kid of an account")),
        }
    }

    /// Opens a request; one that is refused for who asks is recorded.
    pub(super) fn acme_known(&self, posted: &Posted) -> Result<Opened, VaultError> {
        self.acme_open(posted).map_err(|error| match &error {
            VaultError::Acme(refusal) if refusal.is_denial() => {
                let entry = posted.act.entry("acme", "open", posted.path.trim_start_matches('/').to_owned());
                self.refuse_unknown(entry.actor("unverified")).err().unwrap_or(error)
            }
            _ => error,
        })
    }

    /// Records what an account may not have; what it merely got wrong is told and not recorded.
    pub(super) fn acme_refuse(&self, entry: Entry, error: VaultError) -> VaultError {
        if error.is_denial() { self.refuse(entry, error) } else { error }
    }
}

/// Some of the vault's own refusals in the words of ACME.
pub(super) fn worded(error: &VaultError) -> Option<Refusal> {
    use sluice_wire::code::Code;
    match error {
        VaultError::Acme(refusal) => Some(refusal.as_ref().clone()),
        VaultError::Forbidden(text) => Some(Refusal::new(Word::Unauthorized, *text)),
        VaultError::NotFound(_) => match not_found() {
            VaultError::Acme(refusal) => Some(*refusal),
            _ => None,
        },
        VaultError::Invalid(Code::RateLimited, text) => Some(Refusal::new(Word::RateLimited, text)),
        VaultError::Invalid(Code::Conflict, text) => Some(Refusal::new(Word::BadCsr, text)),
        VaultError::Invalid(_, text) => Some(Refusal::new(Word::Malformed, text)),
        _ => None,
    }
}
