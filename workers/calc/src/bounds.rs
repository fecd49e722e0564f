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

// Transports and sweeps.

/// Most values in one binary answer: 512 MB.
pub(crate) const BINARY_CELLS_MAX: usize = 64_000_000;
/// Most columns in a body.
pub(crate) const COLUMNS_MAX: usize = 64;
/// Longest header of a body, bytes: names of columns, and the fields of a request beside its data.
pub(crate) const HEADER_BYTES_MAX: usize = 64 << 10;
/// Longest request in a query, bytes.
pub(crate) const QUERY_BYTES_MAX: usize = 8 << 10;
/// Most sets of parameters in one request.
pub(crate) const SWEEP_SETS_MAX: usize = 4_096;
/// Most bars computed by the sweeps of one request: rows times sets.
pub(crate) const SWEEP_BARS_MAX: usize = 200_000_000;
/// Most values that `unstable` takes from each output.
pub(crate) const UNSTABLE_MAX: usize = 100_000;
