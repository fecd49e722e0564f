//! The worker's calls, over real sockets, as a client behind the edge.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod access;
mod asked;
mod catalog;
mod discover;
mod disk;
mod feed;
mod figures;
mod indicators;
mod kill;
mod openapi;
mod pool;
mod portfolio;
mod search;
mod series;
mod stream;
mod transport;
mod universe;
mod world;
