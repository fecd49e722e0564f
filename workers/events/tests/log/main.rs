//! The segment log from outside: against a model, on a failing disk, under kill -9, and its format on disk.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod at_rest;
mod crash;
mod damage;
mod faults;
mod follow;
mod format;
mod model;
mod world;
