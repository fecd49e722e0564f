//! Why a configuration is not taken.

use std::error::Error as _;
use std::path::Path;

use sluice_schema::{Finding, Report, Severity};

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

/// LIMIT: findings that everybody gets, and characters of each.
const PUBLIC_MAX: usize = 5;
const PUBLIC_CHARACTERS: usize = 300;
/// What is said in place of what is not for everybody.
const ELSEWHERE: &str = "the control port says what it is";

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

impl ReloadError {
    /// The same for everybody: where the fault is and what it is, but neither what stands there nor where on this
    /// machine the files are. What has a `/` in it may be a path; the control port tells it.
    pub(crate) fn for_everybody(&self) -> String {
        match self {
            Self::Invalid(report) => {
                let errors = report.findings().into_iter().filter(|found| found.severity == Severity::Error);
                let lines: Vec<String> = errors.take(PUBLIC_MAX).map(|found| without_paths(&found)).collect();
                lines.join("; ")
            }
            other => Some(other.to_string())
                .filter(|text| !text.contains('/'))
                .unwrap_or_else(|| ELSEWHERE.to_owned()),
        }
    }
}

fn without_paths(found: &Finding) -> String {
    let file = found.file.as_deref().and_then(|file| Path::new(file).file_name()?.to_str());
    let place = match (file, found.line) {
        (Some(file), Some(line)) => format!(" in {file}:{line}"),
        (Some(file), None) => format!(" in {file}"),
        (None, _) => String::new(),
    };
    let message = if found.message.contains('/') { ELSEWHERE } else { &found.message };
    shortened(&format!("{}{place}: {message}", found.code), PUBLIC_CHARACTERS)
}

fn shortened(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}
