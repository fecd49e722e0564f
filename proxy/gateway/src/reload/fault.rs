//! Why a configuration is not taken.

use std::error::Error as _;

use sluice_schema::{Finding, Report};

use crate::generation::GenerationError;
use crate::kept::KeptError;
use crate::rollback::RestoreError;
use crate::tls::TlsFault;

/// LIMIT: characters kept of a refusal's text.
const ERROR_MAX: usize = 4_000;
/// LIMIT: characters of the report that a caller gets.
const REPORT_MAX: usize = 64_000;
/// LIMIT: findings that a caller gets.
const FINDINGS_MAX: usize = 100;

/// The new configuration is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// The files have errors.
    #[error("{}", shortened(&.0.render(false), ERROR_MAX))]
    Invalid(Box<Report>),
    /// Ports do not fit.
    #[error(transparent)]
    Ports(#[from] sluice_schema::PortOffsetError),
    /// Routes do not fit together.
    #[error(transparent)]
    Routes(#[from] GenerationError),
    /// The TLS listener cannot use its settings.
    #[error("{0}{cause}", cause = .0.source().map(|cause| format!(": {cause}")).unwrap_or_default())]
    Tls(#[from] TlsFault),
    /// There is nothing to go back to.
    #[error("no earlier good configuration that differs from the present one is kept")]
    NoEarlier,
    /// The kept files cannot be read.
    #[error("the kept configuration cannot be read: {0}")]
    Kept(#[from] KeptError),
    /// The configured files cannot be written.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl ReloadError {
    /// The findings as a compiler would print them, where files have errors.
    pub(crate) fn report(&self) -> Option<String> {
        match self {
            Self::Invalid(report) => Some(shortened(&report.render(false), REPORT_MAX)),
            _ => None,
        }
    }

    /// The findings for programs.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        match self {
            Self::Invalid(report) => report.findings().into_iter().take(FINDINGS_MAX).collect(),
            _ => Vec::new(),
        }
    }
}

fn shortened(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
