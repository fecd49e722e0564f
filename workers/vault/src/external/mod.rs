//! Secrets kept by a HashiCorp Vault or OpenBao (`ENABLE_VAULT`): what `/secrets/…` and the mount `secret/` mean then.
//!
//! Who may do what is decided here as ever and recorded before anything is asked there (`Vault::abroad`). `server`
//! speaks to the one address, `circuit` leaves a server alone that does not answer, `kv` says what our own calls are
//! in the words of its KV engine, `pass` hands calls of `/v1/secret/` on, `token` keeps our token there alive.

mod circuit;
mod kv;
mod pass;
mod server;
mod token;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::Method;
use serde::Deserialize;
use sluice_http::{Component, Status};
use sluice_schema::ExternalVault;
use sluice_wire::code::Code;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

pub(crate) use pass::Pass;
pub(crate) use token::keep as keep_token;

use circuit::Circuit;
use server::{Question, Server, Told};
use token::Standing;

use crate::error::VaultError;

/// LIMIT: calls under way; each holds one of the vault's threads, so the others are left to the rest.
const CALLS_MAX: usize = 64;
/// What `Retry-After` says where nothing better is known, seconds.
const RETRY_S: u64 = 1;

/// Why the external vault is not spoken to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The configuration is checked, so this is a role that was handed no token.
    #[error("the address of the external vault or the token for it is missing")]
    Incomplete,
    /// The token.
    #[error("the token for the external vault is not of visible characters")]
    Token,
    /// The host.
    #[error("the host of the external vault is no name of a server")]
    Host,
    /// The file of authorities.
    #[error("{0} has no certificates that can be read")]
    Ca(PathBuf),
    /// There are none.
    #[error("no certificate authority is trusted: set `ca` in [vault.external]")]
    Nobody,
    /// TLS.
    #[error("TLS cannot be made ready")]
    Tls(#[source] rustls::Error),
}

/// The external vault.
pub(crate) struct External {
    server: Server,
    mount: String,
    room: Semaphore,
    circuit: Mutex<Circuit>,
    standing: Mutex<Standing>,
    born: Instant,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

impl External {
    /// Makes ready what is configured; connects to nobody yet.
    pub(crate) fn open(config: &ExternalVault) -> Result<Self, OpenError> {
        Ok(Self {
            server: Server::open(config)?,
            mount: config.mount.clone(),
            room: Semaphore::new(CALLS_MAX),
            circuit: Mutex::new(Circuit::new()),
            standing: Mutex::new(Standing::Unknown),
            born: Instant::now(),
        })
    }

    /// What is told about it on the health page.
    pub(crate) fn component(&self) -> Component {
        if !self.circuit().is_closed() {
            return Component::new(Status::Degraded, "the external vault does not answer, or is sealed");
        }
        let standing = *lock(&self.standing);
        match standing {
            Standing::Good => Component::healthy(),
            Standing::Unknown => Component::new(Status::Degraded, "the external vault was not heard of yet"),
            Standing::Ending(left_s) => {
                let detail = format!("the token for the external vault ends in {left_s} s");
                Component::new(Status::Degraded, detail)
            }
            Standing::Refused => Component::new(Status::Degraded, "the external vault refuses the token"),
            Standing::NoEngine => Component::new(
                Status::Degraded,
                "no KV engine of version 2 is mounted where secrets are to be",
            ),
        }
    }

    /// A call at the KV engine, from a thread that may block. Answers are 2xx, 400, 404 and 405; everything else is
    /// the server's or our token's affair and an error.
    fn ask(&self, method: Method, below: &str, body: Option<Bytes>) -> Result<Told, VaultError> {
        let target = format!("{}/{below}", self.mount);
        Handle::current().block_on(self.call(Question { method, target, body }))
    }

    async fn call(&self, question: Question) -> Result<Told, VaultError> {
        let reads = question.method == Method::GET;
        let told = self.call_as(question).await?;
        self.judged(told, reads)
    }

    /// The same, whatever is answered.
    async fn call_as(&self, question: Question) -> Result<Told, VaultError> {
        let busy = |_| away("too many calls to the external vault at a time", RETRY_S);
        let _held_until_done = self.room.try_acquire().map_err(busy)?;
        let reads = question.method == Method::GET;
        self.circuit().admit(self.now_ms()).map_err(|wait_ms| {
            away("the external vault does not answer, or is sealed", wait_ms.div_ceil(1_000))
        })?;
        let told = match self.server.ask(question).await {
            Ok(told) => told,
            Err(error) => {
                self.circuit().failed(self.now_ms());
                let unknown = !reads && !error.is_unsent();
                tracing::warn!(
                    component = "external",
                    error = &error as &(dyn std::error::Error + 'static),
                    "the external vault does not answer"
                );
                return Err(away(if unknown { UNKNOWN } else { SILENT }, RETRY_S));
            }
        };
        if told.status >= 500 {
            self.circuit().failed(self.now_ms());
        } else {
            self.circuit().succeeded();
        }
        Ok(told)
    }

    fn judged(&self, told: Told, reads: bool) -> Result<Told, VaultError> {
        let text = match told.status {
            404 if is_unmounted(&told.body) => {
                *lock(&self.standing) = Standing::NoEngine;
                "nothing is mounted at the external vault where secrets are to be"
            }
            200..=299 | 400 | 404 | 405 => return Ok(told),
            403 => "the external vault does not allow the vault's token to do this",
            429 => "the external vault takes no more calls now",
            503 => "the external vault is sealed or not ready",
            500.. if !reads => UNKNOWN,
            _ => "the external vault does not answer as expected",
        };
        tracing::warn!(component = "external", status = told.status, "{text}");
        Err(away(text, RETRY_S))
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        lock(&self.circuit)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

const SILENT: &str = "the external vault does not answer";
const UNKNOWN: &str = "the external vault does not answer; whether it was done there is not known";

/// 503 with `Retry-After`.
fn away(text: &str, retry_s: u64) -> VaultError {
    VaultError::Later(Code::VaultUnavailable, text.to_owned(), retry_s)
}

/// An answer of another shape than the API has.
fn unexpected() -> VaultError {
    tracing::warn!(component = "external", "the external vault does not answer as expected");
    away("the external vault does not answer as expected", RETRY_S)
}

/// A mount that is not there must not pass for a secret that is not there.
fn is_unmounted(body: &[u8]) -> bool {
    errors(body).iter().any(|text| text.contains("no handler for route"))
}

/// What an answer says went wrong.
fn errors(body: &[u8]) -> Vec<String> {
    serde_json::from_slice::<Errors>(body).map(|body| body.errors).unwrap_or_default()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
