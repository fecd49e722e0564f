//! Bounds of one request.

/// Most indicators in one request.
pub(crate) const INDICATORS_MAX: usize = 64;
/// Most values in one answer: outputs times rows.
pub(crate) const CELLS_MAX: usize = 4_000_000;
/// Most signals in one answer.
pub(crate) const SIGNALS_MAX: usize = 100_000;
/// Longest id of an indicator, bytes.
pub(crate) const ID_BYTES_MAX: usize = 64;
/// Longest cool-down, milliseconds: a year.
pub(crate) const COOL_DOWN_MS_MAX: u64 = 366 * 86_400_000;
/// Most names of risk figures in one request.
pub(crate) const METRICS_MAX: usize = 64;
/// Longest horizon of a value at risk, periods.
pub(crate) const HORIZON_MAX: f64 = 1e6;
/// Most positions held, and most positions wanted, in one request.
pub(crate) const POSITIONS_MAX: usize = 1_000;
/// Most strategies scored, weighed or rotated in one request.
pub(crate) const MEMBERS_MAX: usize = 256;
/// Falls of an account that are told: the deepest.
pub(crate) const DRAWDOWNS_MAX: usize = 5;
/// Jobs that wait for a thread: small ones, large ones, slices of searches.
pub(crate) const QUEUES_MAX: [usize; 3] = [256, 64, 16];
/// Largest body of a small job, bytes: 2,048 candles of text.
pub(crate) const SMALL_BODY_BYTES_MAX: usize = 128 << 10;
/// Small jobs after which a large one has its turn.
pub(crate) const SMALL_IN_A_ROW: usize = 8;
/// Jobs after which a slice of a search has its turn.
pub(crate) const OTHERS_IN_A_ROW: usize = 32;
/// Small requests that a thread takes at once.
pub(crate) const TAKEN_MAX: usize = 8;
/// Bytes of answers that are written or not yet read, all together, in units of [`ANSWER_UNIT`]: one of the largest fits.
pub(crate) const ANSWER_UNITS_MAX: usize = 1_024;
/// One unit of an answer, bytes.
pub(crate) const ANSWER_UNIT: usize = 1 << 20;
/// Buffers of answers that are kept for the next ones.
pub(crate) const ANSWERS_KEPT_MAX: usize = 16;
/// Largest buffer that is kept, bytes.
pub(crate) const ANSWER_BYTES_KEPT_MAX: usize = 8 << 20;
/// Bytes of bodies that wait or are computed, all together, in units of [`BODY_UNIT`].
pub(crate) const BODY_UNITS_MAX: usize = 256;
/// One unit of a body, bytes.
pub(crate) const BODY_UNIT: usize = 1 << 20;

// The feed.

/// Candles of the event worker that are stored at once.
pub(crate) const FEED_AT_ONCE: usize = 256;

// Streams of indicators.

/// Streams open at a time.
pub(crate) const STREAMS_MAX: usize = 256;
/// Bars that a stream tells one by one when they come at a time.
pub(crate) const STREAM_RESUME_MAX: usize = 1_000;
/// Events of a stream that wait for its reader.
pub(crate) const STREAM_AHEAD: usize = 64;

// The universe.

/// Most symbols.
pub(crate) const UNIVERSE_SYMBOLS_MAX: usize = 1_000;
/// Largest body and file, bytes.
pub(crate) const UNIVERSE_BYTES_MAX: usize = 256 << 10;
/// Longest word for where the symbols come from, bytes.
pub(crate) const UNIVERSE_SOURCE_BYTES_MAX: usize = 128;

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

// Stored series.

/// Most stored series.
pub(crate) const SERIES_MAX: usize = 10_000;
/// Changes of series that wait to be written.
pub(crate) const SERIES_QUEUE_MAX: usize = 1_024;
/// Bytes of journal after which the files of series are brought up to it.
pub(crate) const SERIES_JOURNAL_BYTES: u64 = 16 << 20;
/// Seconds after which they are at the latest.
pub(crate) const SERIES_CHECKPOINT_S: u64 = 60;
/// Most rows of a series in one answer.
pub(crate) const SERIES_ROWS_MAX: usize = 100_000;
/// Most series, or gaps, in one answer.
pub(crate) const SERIES_PAGE_MAX: usize = 1_000;
/// Most conflicts, late candles or gaps that an answer to a change tells one by one.
pub(crate) const SERIES_TOLD_MAX: usize = 100;
/// Most bars of indicators over a stored series in one answer.
pub(crate) const SERIES_LAST_MAX: usize = 1_000;
/// Rows that count as a small job.
pub(crate) const SMALL_ROWS_MAX: usize = 2_048;
/// States of indicators over stored series that are kept: one a series and list of indicators.
pub(crate) const LIVES_MAX: usize = 4_096;

/// Bytes of their newest outputs that are kept, all together.
pub(crate) const LIVE_TAILS_BYTES_MAX: u64 = 64 << 20;

// Jobs and searches.

/// Jobs that run at a time, each on a thread of its own that takes turns with the pool's.
pub(crate) const JOBS_RUNNING_MAX: usize = 2;
/// Jobs that wait for one of them to end.
pub(crate) const JOBS_WAITING_MAX: usize = 16;
/// Of those, jobs of one owner: whoever asks for many leaves room for others.
pub(crate) const JOBS_WAITING_EACH_MAX: usize = 8;
/// Clients that watch jobs, all together.
pub(crate) const JOBS_WATCHERS_MAX: usize = 256;
/// Bytes of prices of the jobs that wait, all together.
pub(crate) const JOBS_WAITING_BYTES_MAX: usize = 256 << 20;
/// Finished jobs that are kept, the newest.
pub(crate) const JOBS_KEPT_MAX: usize = 1_000;
/// Bytes of their files, all together.
pub(crate) const JOBS_KEPT_BYTES_MAX: u64 = 256 << 20;
/// Longest first line of a job's file, bytes.
pub(crate) const JOB_RECORD_BYTES_MAX: u64 = 64 << 10;
/// Jobs on one page of a list.
pub(crate) const JOBS_PAGE_MAX: usize = 100;
/// Most combinations of a grid, all windows counted.
pub(crate) const SEARCH_COMBINATIONS_MAX: u64 = 1_000_000_000;
/// Most bars that all combinations of a job go through together: about a minute and a half of one thread.
pub(crate) const SEARCH_BARS_MAX: u64 = 200_000_000_000;
/// Most combinations that a genetic algorithm asks for, all windows counted.
pub(crate) const GENETIC_TRIED_MAX: u64 = 1_000_000;
/// Most combinations in an answer.
pub(crate) const SEARCH_TOP_MAX: usize = 100;
/// Most windows of a walk-forward validation.
pub(crate) const WALK_WINDOWS_MAX: usize = 1_000;
/// Greatest seed: what a client's numbers hold exactly.
pub(crate) const SEED_MAX: u64 = (1 << 53) - 1;
/// Most requests for discovery at once.
pub(crate) const DISCOVER_REQUESTS_MAX: usize = 10_000;
/// Most combinations that they ask for together.
pub(crate) const DISCOVER_TRIED_MAX: u64 = 20_000_000;
/// Most bars that these go through together.
pub(crate) const DISCOVER_BARS_MAX: u64 = 1_000_000_000_000;
/// Most strategies in the result of one job.
pub(crate) const DISCOVER_TOP_MAX: usize = 100_000;
