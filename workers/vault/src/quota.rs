//! How much of the store one identity may hold, so that nobody takes it from the others.
//!
//! What an identity holds is a row: it is changed in the commit that makes or removes what it counts, so asking is one
//! look-up, also right after a restart, and a change that fails counts nothing. Whoever asks pays: a service for what it
//! asks for itself, a holder of `tokens:mint` or `credentials:issue` for what it asks for others; what an administrator
//! asks for is its holder's. Secrets are paid by the part of the tree they lie in. Certificates of Sluice's own roles are
//! not counted: they have a bound of their own (`ca/role.rs`) and must be had also when others took all there is.
//!
//! A store that was made before there were quotas holds rows that were never counted; their removal counts nothing.

use crate::error::VaultError;
use crate::store::{Change, Table, View as _};
use sluice_wire::code::Code;

/// What `Retry-After` says: what is held ends by itself or is given back by its holder, nobody knows when.
const RETRY_S: u64 = 30;

/// How much an identity may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Quotas(pub(crate) sluice_schema::Quota);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Held {
    Tokens,
    Certificates,
    VaultTokens,
    WrappedBytes,
    Secrets,
    SecretBytes,
    Assertions,
}

impl Held {
    /// Its key in `[vault.quota]`, also in rows.
    const fn word(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Certificates => "certificates",
            Self::VaultTokens => "vault_tokens",
            Self::WrappedBytes => "wrapped_bytes",
            Self::Secrets => "secrets",
            Self::SecretBytes => "secret_bytes",
            Self::Assertions => "assertions",
        }
    }
}

impl Quotas {
    const fn of(&self, held: Held) -> u64 {
        match held {
            Held::Tokens => self.0.tokens,
            Held::Certificates => self.0.certificates,
            Held::VaultTokens => self.0.vault_tokens,
            Held::WrappedBytes => self.0.wrapped_bytes,
            Held::Secrets => self.0.secrets,
            Held::SecretBytes => self.0.secret_bytes,
            Held::Assertions => self.0.assertions,
        }
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self(sluice_schema::Vault::default().quota)
    }
}

impl Change<'_> {
    /// Counts what an identity gets; an error when it would hold more than it may.
    pub(crate) fn charge(&mut self, held: Held, payer: &str, amount: u64) -> Result<(), VaultError> {
        if amount == 0 {
            return Ok(());
        }
        let (has, most) = (self.holds(held, payer)?, self.quotas().of(held));
        let then = has.saturating_add(amount);
        if then > most {
            let shown: String = payer.chars().take(64).collect();
            let word = held.word();
            let detail = format!("`{shown}` holds {has} and may hold {most} ([vault.quota] {word})");
            return Err(VaultError::Later(Code::RateLimited, detail, RETRY_S));
        }
        self.put(Table::Quota, &key(held, payer), &then.to_be_bytes());
        Ok(())
    }

    /// Counts what an identity no longer has.
    pub(crate) fn give_back(&mut self, held: Held, payer: &str, amount: u64) -> Result<(), VaultError> {
        let has = self.holds(held, payer)?;
        if amount >= has {
            if has > 0 {
                self.remove(Table::Quota, &key(held, payer));
            }
        } else if amount > 0 {
            self.put(Table::Quota, &key(held, payer), &(has - amount).to_be_bytes());
        }
        Ok(())
    }

    /// How long a row is as it lies in the store; 0: there is none.
    pub(crate) fn stored_bytes(&self, table: Table, key: &[u8]) -> Result<u64, VaultError> {
        Ok(self.raw(table, key)?.map_or(0, |row| row.len() as u64))
    }

    fn holds(&self, held: Held, payer: &str) -> Result<u64, VaultError> {
        let Some(bytes) = self.bytes(Table::Quota, &key(held, payer))? else { return Ok(0) };
        let damaged = || VaultError::Integrity(Table::Quota.name());
        Ok(u64::from_be_bytes(bytes.as_slice().try_into().map_err(|_| damaged())?))
    }
}

fn key(held: Held, payer: &str) -> Vec<u8> {
    [held.word().as_bytes(), b"/", payer.as_bytes()].concat()
}
