//! Integration tests: the real binary, on free ports.

#![allow(clippy::unwrap_used, reason = "a test ends where its assumption does")]

mod breaker;
mod canaries;
mod cli;
mod crash;
mod events;
mod falco;
mod harness;
mod hostile;
mod kernels;
mod keys;
mod kill;
mod layout;
mod login;
mod observe;
mod operate;
mod orders;
mod renewal;
mod series;
#[path = "../proxy/ledger/tests/server/mod.rs"]
mod server;
mod spool;
mod supervision;
mod swap;
mod upgrade;
mod walk;
mod wire;
