//! What commands print: results on standard output, findings on standard error.
//!
//! A closed output means that nobody reads any more (`sluice check | head`): never a failure, and never a
//! panic, which the standard library's own macros would make of it.

use std::io::{ErrorKind, Write, stderr, stdout};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::exit::Failure;

/// Whether `--quiet` was given.
static QUIET: AtomicBool = AtomicBool::new(false);

/// No results from here on; what went wrong is still said, and the exit code tells the rest.
pub(crate) fn be_quiet() {
    QUIET.store(true, Relaxed);
}

/// Whether results are not wanted.
pub(crate) fn is_quiet() -> bool {
    QUIET.load(Relaxed)
}

/// Prints a result, unless results are not wanted.
pub(crate) fn result(text: &str) -> Result<(), Failure> {
    if is_quiet() {
        return Ok(());
    }
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(anyhow::Error::from(error).into()),
        _ => Ok(()),
    }
}

/// Prints what would be lost otherwise: where it cannot be written that is a failure.
pub(crate) fn must(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| anyhow::Error::from(error).into())
}

/// Prints what went wrong.
pub(crate) fn problem(text: &str) {
    let _nobody_reads = stderr().lock().write_all(text.as_bytes());
}
