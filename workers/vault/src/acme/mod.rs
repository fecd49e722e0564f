//! ACME (RFC 8555): services that speak it already get certificates of this authority.
//!
//! Knows: accounts, orders, proofs, and the one connection the vault opens to the outside, to look a challenge up. Must
//! not know: how certificates are made (`ca`), who may be a service (`access`). An account belongs to a service: without
//! a key that binds it (`eab`) there is none, so nobody gets a certificate by answering a challenge alone.
//!
//! `api` is HTTP; `request` opens a signed request; `account`, `ordering`, `certificate` do what it asks for, each in
//! one commit with its record; `order`, `names` and `nonce` decide and are pure; `probe` looks challenges up.

mod account;
mod api;
mod certificate;
mod csr;
mod eab;
mod jws;
mod key;
mod names;
mod nonce;
mod order;
mod ordering;
mod probe;
mod problem;
mod request;
mod rows;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;

pub(crate) use api::routes;
pub(crate) use eab::{end_service, has_any};
pub(crate) use problem::Refusal;
pub(crate) use rows::{have_ended, sweep};

use crate::ca::{Pace, hex};
use crate::error::VaultError;
use nonce::Nonces;

/// LIMIT: orders of one account at once, and the pause after which it may place one more.
const BURST: u32 = 100;
const PAUSE: Duration = Duration::from_secs(30);
/// LIMIT: challenges looked up at a time.
const PROBES_MAX: usize = 32;

/// What it remembers beside the store.
pub(crate) struct Desk {
    nonces: Nonces,
    pace: Mutex<Pace<String>>,
    probes: Arc<Semaphore>,
}

impl Desk {
    pub(crate) fn new() -> Result<Self, VaultError> {
        Ok(Self {
            nonces: Nonces::new()?,
            pace: Mutex::new(Pace::new(BURST, PAUSE)),
            probes: Arc::new(Semaphore::new(PROBES_MAX)),
        })
    }
}

/// Under which name the certificates of a service's accounts are kept.
pub(crate) fn holder(service: &str) -> String {
    format!("acme/{service}")
}

/// A word that nobody guesses: 128 bits, hex.
fn random_word() -> Result<String, VaultError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| VaultError::Crypto("random numbers"))?;
    Ok(hex(&bytes))
}
