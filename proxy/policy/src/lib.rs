//! The pure decisions of the edge.
//!
//! Knows: which service a path belongs to, which instance takes a request, when to stop sending, how
//! many requests a caller may make. Must not know: sockets, files, threads, the clock, a random
//! generator, Pingora. Time is [`Nanos`] since the process started, chance is a `u64` seed, both
//! arguments; so every decision can be repeated in a test. Settings come checked from `sluice-schema`.
//!
//! A function that the edge calls for each request allocates only where its doc says so.
//!
//! In the order in which a request meets them:
//!
//! | module | decides |
//! |---|---|
//! | [`method`] | which methods are known |
//! | [`path`] | the one form of a request path |
//! | [`reserved`] | which paths are Sluice's own, and their policy |
//! | [`route`] | service, worker or page of a path |
//! | [`limit`] | whether a caller may make one more request |
//! | [`breaker`] | whether a service may be called at all |
//! | [`balance`] | which instance takes the request |
//! | [`outlier`] | which instance is left alone for a while |
//!
//! Underneath: [`time`], [`random`] and a private sliding window.

pub mod balance;
pub mod breaker;
pub mod limit;
pub mod method;
pub mod outlier;
pub mod path;
pub mod random;
pub mod reserved;
pub mod route;
pub mod time;
mod window;

pub use time::Nanos;
