//! What travels between Sluice's processes and its clients.
//!
//! Knows: event model, problem bodies, header names, ids, symbols, the feed of the vault, kill switches and
//! the lines supervisor and roles exchange. Must not know: sockets, clocks beyond id minting,
//! configuration, any role's behaviour.

pub mod certificate;
pub mod code;
pub mod event;
pub mod feed;
pub mod header;
pub mod id;
pub mod json;
pub mod key;
pub mod kill;
mod members;
pub mod problem;
pub mod role;
pub mod start;
pub mod symbol;
