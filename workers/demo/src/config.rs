//! Settings of the demo.

use std::time::Duration;

use sluice_schema::Demo;

/// How fast the tape runs.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Pause between two bars of the same symbol.
    pub bar_every: Duration,
}

impl Settings {
    /// From the checked configuration: `speed` is in bars a second and symbol.
    pub fn from_config(demo: &Demo) -> Self {
        Self { bar_every: Duration::from_secs_f64(1.0 / demo.speed) }
    }
}
