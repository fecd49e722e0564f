//! Bounds of one request.

/// Most indicators in one request.
pub(crate) const INDICATORS_MAX: usize = 64;
/// Most values in one answer: outputs times rows.
pub(crate) const CELLS_MAX: usize = 4_000_000;
/// Most rows over which every bar's signal is asked for: each bar is evaluated over its past.
pub(crate) const SIGNAL_ROWS_MAX: usize = 5_000;
/// Longest id of an indicator, bytes.
pub(crate) const ID_BYTES_MAX: usize = 64;
/// Longest cool-down, milliseconds: a year.
pub(crate) const COOL_DOWN_MS_MAX: u64 = 366 * 86_400_000;
/// Requests that wait for a thread.
pub(crate) const QUEUE_MAX: usize = 256;
/// Bytes of bodies that wait or are computed, all together, in units of [`BODY_UNIT`].
pub(crate) const BODY_UNITS_MAX: usize = 256;
/// One unit of a body, bytes.
pub(crate) const BODY_UNIT: usize = 1 << 20;
