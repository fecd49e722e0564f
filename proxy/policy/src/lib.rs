//! The pure decisions of the edge.
//!
//! Knows: what a well-formed request is, which service a path belongs to, who may call it, how often,
//! whether the service may be called, which instance takes the request, when it is tried again, what
//! may be registered. Must not know: sockets, files, threads, the clock, a random generator, Pingora.
//! Time is [`Nanos`] since the process started, chance is a `u64` seed, both arguments; so every
//! decision can be repeated in a test. Settings come checked from `sluice-schema`.
//!
//! A function that the edge calls for each request allocates only where its doc says so.
//!
//! In the order in which a request meets them:
//!
//! | module | decides |
//! |---|---|
//! | [`flood`] | whether an HTTP/2 client sends more than it may |
//! | [`framing`] | whether the raw head is unambiguous |
//! | [`method`] | which methods are known |
//! | [`path`] | the one form of a request path |
//! | [`headers`] | which fields a client may send through |
//! | [`reserved`] | which paths are Sluice's own, and their policy |
//! | [`route`] | service, worker or page of a path |
//! | [`kill_switch`] | what is stopped by hand |
//! | [`cors`] | which web pages may call a service |
//! | [`rewrite`] | how the path is written for the upstream |
//! | [`split`] | which version of a service a caller meets |
//! | [`mirror`] | which requests another service gets a copy of |
//! | [`api_key`] | who shows which API key |
//! | [`authorize`] | what a service asks of its callers |
//! | [`limit`] | whether a caller may make one more request |
//! | [`idempotency`] | what becomes of a request that is sent again under its key |
//! | [`deadline`] | how much time is left for an attempt |
//! | [`gate`], [`concurrency`] | what a full upstream works on next, and how much at once |
//! | [`breaker`] | whether a service may be called at all |
//! | [`balance`] | which instance takes the request |
//! | [`addresses`] | which address of an instance's name is connected to |
//! | [`retry`] | whether a failed attempt is made again |
//! | [`hedge`] | whether a silent one gets a second beside it, and which of the two counts |
//! | [`ending`] | what client, gate and breaker hear of a request that is over |
//! | [`fallback`] | what a client gets where its service gave no answer |
//! | [`compress`] | whether an answer is compressed |
//! | [`outlier`] | which instance is left alone for a while |
//! | [`health`] | which instance is well, as its probes tell |
//! | [`registry`] | what may be registered over the API |
//! | [`websocket`], [`event_stream`] | where a stream may be ended |
//! | [`trace`] | which trace a request continues |
//! | [`sample`] | which lines of the access log are kept |
//! | [`tap`], [`redact`] | what an operator who looks at live traffic sees |
//!
//! Underneath: [`time`], [`random`], [`digits`] and a private sliding window.

pub mod addresses;
pub mod api_key;
pub mod authorize;
pub mod balance;
pub mod breaker;
pub mod compress;
pub mod concurrency;
pub mod cors;
pub mod deadline;
pub mod digits;
pub mod ending;
pub mod event_stream;
pub mod fallback;
pub mod flood;
pub mod framing;
pub mod gate;
pub mod headers;
pub mod health;
pub mod hedge;
pub mod idempotency;
pub mod kill_switch;
pub mod limit;
pub mod method;
pub mod mirror;
pub mod outlier;
pub mod path;
pub mod proxy_protocol;
pub mod random;
pub mod redact;
pub mod registry;
pub mod reserved;
pub mod retry;
pub mod rewrite;
pub mod route;
pub mod sample;
pub mod split;
pub mod tap;
pub mod time;
pub mod trace;
pub mod websocket;
mod window;

pub use time::Nanos;
