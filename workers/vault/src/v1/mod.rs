//! The HTTP API of Vault under `/v1/`, as far as its own clients need it.
//!
//! `http` turns a request into a [`call::Call`] and an [`answer::Answer`] into a response; `route` decides which
//! operation it is, whether its caller may ask it (`who`, `policy`) and runs it. What is kept lies in four tables:
//! tokens by their HMAC, an index of them, and everything else by path, with an index of what ends. Secrets are
//! those of `/secrets/…`: the mount `secret/` is another door to the same rows.

mod acls;
mod answer;
mod auth;
mod born;
mod call;
mod door;
mod http;
mod kv;
mod kv_abroad;
mod logical;
mod mounts;
mod pki;
mod policy;
mod route;
mod sys;
mod token;
mod token_ops;
mod transit;
mod who;
mod wrap;

pub(crate) use auth::forget_user;
pub(crate) use born::{Origin, end_born};
pub(crate) use door::TOKEN_PREFIX;
pub(crate) use http::handle;
pub(crate) use logical::{have_ended, sweep};

use jiff::Timestamp;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use acls::Acls;

use crate::ca::hex;
use crate::error::VaultError;
use crate::store::{Change, Table, View};

/// Bytes of a token.
pub(crate) const ROOT_TOKEN_BYTES: usize = token::PREFIX.len() + WORD_CHARS;
const WORD_CHARS: usize = 24;

/// Default and longest life of a token, as Vault has it, seconds.
const TTL_MAX_S: i64 = 32 * 86_400;

/// What the API needs beside the store. No Debug: it holds a key.
pub(crate) struct Keys {
    token: hmac::Key,
    acls: Acls,
}

const TOKEN_KEY: &[u8] = b"sys/token-key";

impl Keys {
    /// Whether [`Keys::make`] has anything to do.
    pub(crate) fn are_missing(view: &impl View) -> Result<bool, VaultError> {
        Ok(view.raw(Table::Logical, TOKEN_KEY)?.is_none())
    }

    /// Makes what tokens are hashed with.
    pub(crate) fn make(change: &mut Change<'_>) -> Result<(), VaultError> {
        let mut key = Zeroizing::new([0; 32]);
        SystemRandom::new().fill(&mut *key).map_err(|_| VaultError::Crypto("random numbers"))?;
        change.put(Table::Logical, TOKEN_KEY, &*key);
        Ok(())
    }

    /// Loads it.
    pub(crate) fn load(view: &impl View) -> Result<Self, VaultError> {
        let bytes = view.bytes(Table::Logical, TOKEN_KEY)?;
        let bytes = bytes.ok_or(VaultError::Integrity(Table::Logical.name()))?;
        Ok(Self { token: hmac::Key::new(hmac::HMAC_SHA256, &bytes), acls: Acls::default() })
    }

    /// By what a token (or another one-way secret of `kind`) is known: hex.
    fn digest(&self, kind: &str, secret: &str) -> String {
        let mut context = hmac::Context::with_key(&self.token);
        context.update(kind.as_bytes());
        context.update(&[0]);
        context.update(secret.as_bytes());
        hex(context.sign().as_ref())
    }
}

/// A secret of letters and digits: 24 characters, 142 bits.
/// Something as long as a token that nobody knows.
pub(crate) fn root_pad() -> Result<Zeroizing<String>, VaultError> {
    let mut pad = Zeroizing::new(random_word()? + &random_word()?);
    pad.truncate(ROOT_TOKEN_BYTES);
    Ok(pad)
}

fn random_word() -> Result<String, VaultError> {
    const SIGNS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let random = SystemRandom::new();
    let mut word = String::with_capacity(WORD_CHARS);
    while word.len() < WORD_CHARS {
        let mut bytes = Zeroizing::new([0; 32]);
        random.fill(&mut *bytes).map_err(|_| VaultError::Crypto("random numbers"))?;
        // The last part of a byte's range would favour the first signs.
        let fair = bytes.iter().filter(|byte| **byte < 248).map(|byte| SIGNS[usize::from(*byte) % 62]);
        word.extend(fair.take(WORD_CHARS - word.len()).map(char::from));
    }
    Ok(word)
}

/// Unix seconds as a time.
fn at(unix_s: i64) -> Timestamp {
    Timestamp::from_second(unix_s).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A refusal as Vault words it.
fn fault(status: u16, text: impl Into<String>) -> VaultError {
    VaultError::Worded(status, text.into())
}

/// The same, where what was shown as a credential is none.
fn unproved(status: u16, text: impl Into<String>) -> VaultError {
    VaultError::Unproved(status, text.into())
}

/// Vault's word for what a caller may not do.
fn denied() -> VaultError {
    fault(403, "1 error occurred:\n\t* permission denied\n\n")
}

/// There is nothing there: 404 without a text.
fn nothing() -> VaultError {
    fault(404, "")
}
