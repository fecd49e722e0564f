//! What can go wrong in the demo.

use sluice_wire::role::Role;

/// The demo cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A shipped file is not what it should be.
    #[error("price history {file} is broken at line {line}")]
    History {
        /// File name.
        file: &'static str,
        /// One-based line.
        line: usize,
    },
    /// The demo needs another role's internal door.
    #[error("the demo needs the internal door of {0}; start it under `sluice up`")]
    NoDoor(Role),
    /// A door could not be served.
    #[error("the demo could not serve")]
    Serve(#[from] sluice_http::ServeError),
    /// A socket could not be used.
    #[error("door `{door}` cannot be used")]
    Door {
        /// Its name.
        door: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
