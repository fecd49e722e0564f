//! The worker's calls, over real sockets: as a client behind the edge, and as a role.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod access;
mod candles;
mod keys;
mod live;
mod publish;
mod read;
mod replay;
mod world;
