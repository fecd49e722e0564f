//! What a client is told that is refused: `urn:ietf:params:acme:error:*` with the statuses of RFC 8555.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::VaultError;

const URN: &str = "urn:ietf:params:acme:error:";

/// The words of RFC 8555, section 6.7, that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Word {
    AccountDoesNotExist,
    AlreadyRevoked,
    #[serde(rename = "badCSR")]
    BadCsr,
    BadNonce,
    BadPublicKey,
    BadRevocationReason,
    BadSignatureAlgorithm,
    Connection,
    Dns,
    ExternalAccountRequired,
    IncorrectResponse,
    InvalidContact,
    Malformed,
    OrderNotReady,
    RateLimited,
    RejectedIdentifier,
    ServerInternal,
    Unauthorized,
    UnsupportedContact,
    UnsupportedIdentifier,
}

/// A refusal; the text is public. Also what a failed challenge keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(super) word: Word,
    pub(super) detail: String,
    /// Another status than the word's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<u16>,
    /// Where what stands in the way is found: the account that has the key already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) location: Option<String>,
}

/// A problem as it is sent.
#[derive(Serialize)]
pub(super) struct Problem<'a> {
    r#type: String,
    detail: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    algorithms: Option<[&'static str; 3]>,
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Self::AccountDoesNotExist => "accountDoesNotExist",
            Self::AlreadyRevoked => "alreadyRevoked",
            Self::BadCsr => "badCSR",
            Self::BadNonce => "badNonce",
            Self::BadPublicKey => "badPublicKey",
            Self::BadRevocationReason => "badRevocationReason",
            Self::BadSignatureAlgorithm => "badSignatureAlgorithm",
            Self::Connection => "connection",
            Self::Dns => "dns",
            Self::ExternalAccountRequired => "externalAccountRequired",
            Self::IncorrectResponse => "incorrectResponse",
            Self::InvalidContact => "invalidContact",
            Self::Malformed => "malformed",
            Self::OrderNotReady => "orderNotReady",
            Self::RateLimited => "rateLimited",
            Self::RejectedIdentifier => "rejectedIdentifier",
            Self::ServerInternal => "serverInternal",
            Self::Unauthorized => "unauthorized",
            Self::UnsupportedContact => "unsupportedContact",
            Self::UnsupportedIdentifier => "unsupportedIdentifier",
        }
    }

    const fn status(self) -> u16 {
        match self {
            Self::ExternalAccountRequired
            | Self::OrderNotReady
            | Self::RejectedIdentifier
            | Self::Unauthorized => 403,
            Self::RateLimited => 429,
            Self::ServerInternal => 500,
            _ => 400,
        }
    }

    /// Whether somebody asked for what is not his: worth a record.
    pub(crate) const fn is_denial(self) -> bool {
        matches!(self, Self::ExternalAccountRequired | Self::RejectedIdentifier | Self::Unauthorized)
    }
}

impl Refusal {
    pub(super) fn new(word: Word, detail: impl Into<String>) -> Self {
        Self { word, detail: detail.into(), status: None, location: None }
    }

    pub(super) fn status(&self) -> u16 {
        self.status.unwrap_or(self.word.status())
    }

    pub(crate) const fn is_denial(&self) -> bool {
        self.word.is_denial()
    }

    pub(super) fn problem(&self) -> Problem<'_> {
        let wrong_algorithm = self.word == Word::BadSignatureAlgorithm;
        Problem {
            r#type: format!("{URN}{}", self.word.as_str()),
            detail: &self.detail,
            status: self.status(),
            algorithms: wrong_algorithm.then_some(["ES256", "RS256", "EdDSA"]),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl From<Refusal> for VaultError {
    fn from(refusal: Refusal) -> Self {
        Self::Acme(Box::new(refusal))
    }
}

/// A refusal as an error of the vault.
pub(super) fn refused(word: Word, detail: impl Into<String>) -> VaultError {
    Refusal::new(word, detail).into()
}

pub(super) fn malformed(detail: impl Into<String>) -> VaultError {
    refused(Word::Malformed, detail)
}

/// One text whatever is there: an account learns nothing of what others have.
pub(super) fn not_found() -> VaultError {
    Refusal { status: Some(404), ..Refusal::new(Word::Malformed, "there is no such thing of this account") }
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_worded_as_the_standard_has_it() {
        for (word, text, status) in [
            (Word::BadCsr, "badCSR", 400),
            (Word::BadNonce, "badNonce", 400),
            (Word::OrderNotReady, "orderNotReady", 403),
            (Word::RateLimited, "rateLimited", 429),
        ] {
            let told = serde_json::to_value(Refusal::new(word, "x").problem()).unwrap();
            assert_eq!(told["type"], format!("urn:ietf:params:acme:error:{text}"));
            assert_eq!((&told["status"], &told["detail"]), (&status.into(), &"x".into()));
            assert!(told.get("algorithms").is_none());
            assert_eq!(serde_json::to_value(word).unwrap(), text, "it is kept under the same word");
        }
        let told = serde_json::to_value(Refusal::new(Word::BadSignatureAlgorithm, "x").problem()).unwrap();
        assert_eq!(told["algorithms"][0], "ES256");
    }
}
