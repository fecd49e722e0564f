//! Why the vault did not do what it was asked, and what the client is told.

use sluice_audit::AuditError;
use sluice_http::Reject;
use sluice_wire::code::Code;
use sluice_wire::problem::Problem;

use crate::context::UnsealError;

/// What `Retry-After` says when a bound is reached, seconds.
pub(crate) const RETRY_S: u64 = 5;

/// A refused or failed operation. The text of the first five is public.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// The request itself is wrong.
    #[error("{1}")]
    Invalid(Code, String),
    /// A refusal under `/v1/`, with the status and the words that Vault has for it.
    #[error("{1}")]
    Worded(u16, String),
    /// The same, of a credential that is none: the edge is told.
    #[error("{1}")]
    Unproved(u16, String),
    /// A refusal under `/acme/`, in the words that RFC 8555 has for it.
    #[error("{0}")]
    Acme(Box<crate::acme::Refusal>),
    /// A bound is reached; seconds until it may be tried again.
    #[error("{1}")]
    Later(Code, String, u64),
    /// Policy says no. One text for everything under a path, so that nothing about it is learnt.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The caller lacks a permission.
    #[error("permission `{0}` is required")]
    Lacking(&'static str),
    /// There is no such thing, and the caller may know that.
    #[error("{0}")]
    NotFound(String),
    /// No credential where one is needed.
    #[error("a credential is required")]
    Anonymous,
    /// A stored record is not what was written.
    #[error("a record of table `{0}` failed its integrity check")]
    Integrity(&'static str),
    /// The audit log does not take the record, so nothing is answered.
    #[error("the operation could not be recorded")]
    Audit(#[source] AuditError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] Box<redb::Error>),
    /// The vault is closed.
    #[error("the vault is sealed")]
    Sealed,
    /// It has its root key, and does not open with it.
    #[error("the vault does not open")]
    Opening(#[source] Box<UnsealError>),
    /// The store's writer has ended; the process is about to.
    #[error("the store's writer has ended")]
    Ended,
    /// A signature or key could not be made.
    #[error("a cryptographic operation failed: {0}")]
    Crypto(&'static str),
}

impl VaultError {
    /// A request that is wrong in itself.
    pub(crate) fn invalid(code: Code, detail: impl Into<String>) -> Self {
        Self::Invalid(code, detail.into())
    }

    pub(crate) fn opening(error: UnsealError) -> Self {
        Self::Opening(Box::new(error))
    }

    /// Whether policy, not circumstance, stopped it.
    pub(crate) fn is_denial(&self) -> bool {
        match self {
            Self::Acme(refusal) => refusal.is_denial(),
            error => matches!(
                error,
                Self::Forbidden(_)
                    | Self::Lacking(_)
                    | Self::Anonymous
                    | Self::Worded(403, _)
                    | Self::Unproved(403, _)
            ),
        }
    }
}

impl<E: Into<redb::Error>> From<E> for VaultError {
    fn from(error: E) -> Self {
        Self::Store(Box::new(error.into()))
    }
}

impl From<VaultError> for Reject {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Invalid(Code::RateLimited, detail) => {
                Problem::new(Code::RateLimited).detail(detail).retry_after_s(RETRY_S).into()
            }
            VaultError::Invalid(code, detail) => Self::new(code, detail),
            VaultError::Later(code, detail, retry_s) => {
                Problem::new(code).detail(detail).retry_after_s(retry_s).into()
            }
            // Not reached: `/v1/` and `/acme/` word their own answers.
            VaultError::Worded(_, detail) | VaultError::Unproved(_, detail) => {
                Self::new(Code::BadRequest, detail)
            }
            VaultError::Acme(refusal) => Self::new(Code::BadRequest, refusal.to_string()),
            VaultError::Forbidden(detail) => Self::new(Code::Forbidden, detail),
            VaultError::Lacking(permission) => Self::lacking(permission),
            VaultError::NotFound(detail) => Self::new(Code::NotFound, detail),
            VaultError::Anonymous => Self::unauthenticated(),
            VaultError::Integrity(_) | VaultError::Opening(_) => Problem::new(Code::Integrity).into(),
            VaultError::Audit(_) => Problem::new(Code::AuditUnavailable).retry_after_s(1).into(),
            VaultError::Store(_) | VaultError::Crypto(_) => Problem::new(Code::Internal).into(),
            VaultError::Sealed => Self::new(Code::Sealed, "the vault is sealed"),
            VaultError::Ended => Problem::new(Code::WorkerUnavailable).retry_after_s(1).into(),
        }
    }
}
