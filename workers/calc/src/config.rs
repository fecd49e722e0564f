//! Settings of the calculation worker.

use sluice_schema::Calc;

/// Limits and threads.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Largest body, bytes.
    pub body_bytes: usize,
    /// Most rows of one series.
    pub rows_max: usize,
    /// Threads that compute.
    pub threads: usize,
    /// Most bytes of stored series.
    pub series_bytes: u64,
}

impl Settings {
    /// From the checked configuration; 0 threads means one a core.
    pub fn from_config(calc: &Calc) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            body_bytes: usize::try_from(calc.body_bytes).unwrap_or(usize::MAX),
            rows_max: calc.rows,
            threads: if calc.threads == 0 { cores } else { calc.threads },
            series_bytes: calc.series_bytes,
        }
    }
}
