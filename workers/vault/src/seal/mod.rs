//! Keys and sealed records.
//!
//! Root key (32 bytes, outside the store) → keyring rows (key-encryption keys by number, and the key of the
//! row digest), each wrapped by the root key → one fresh data key a record, wrapped by the current
//! key-encryption key → the record. Everything is AES-256-GCM, and everything a record is *about* is
//! authenticated with it, so a record opens only in the place it was written for.

mod envelope;
mod keyfile;
mod keyring;
mod locked;
mod proof;
mod shamir;
mod shape;

pub(crate) use envelope::Place;
pub(crate) use keyfile::{KeyFileError, RootKey};
#[cfg(test)]
pub(crate) use keyring::KEKS_MAX;
pub(crate) use keyring::{Keyring, KeyringError, Rows, SHAPE, fingerprint};
pub(crate) use proof::Proof;
pub(crate) use shamir::{Share, Split, unite};
pub(crate) use shape::Shape;

/// The place of a record was not the one it was sealed for, a byte was changed, or the key is another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the record does not open in this place")]
pub(crate) struct OpenError;
