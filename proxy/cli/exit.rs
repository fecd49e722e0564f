//! Exit codes and the last words of a failed command.

use std::process::ExitCode;

/// Exit code of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Code(u8);

/// All went well.
pub(crate) const OK: Code = Code(0);
/// Something failed while running.
pub(crate) const RUNTIME: Code = Code(1);
/// Wrong usage or wrong configuration.
pub(crate) const USAGE: Code = Code(2);
/// A check found something.
pub(crate) const CHECK: Code = Code(3);
/// The other side cannot be reached.
pub(crate) const UNREACHABLE: Code = Code(4);
/// Ended by ctrl-C.
pub(crate) const INTERRUPTED: Code = Code(130);

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.0)
    }
}

/// A failed command: what went wrong and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(code: Code, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }

    pub(crate) fn usage(text: impl std::fmt::Display) -> Self {
        Self { code: USAGE, error: anyhow::anyhow!("{text}") }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { code: RUNTIME, error }
    }
}

/// Prints a failure with its chain of causes. An empty text means everything was said already.
pub(crate) fn report(failure: &Failure) {
    let text = format!("{:#}", failure.error);
    if !text.is_empty() {
        crate::say::problem(&format!("error: {text}\n"));
    }
}
