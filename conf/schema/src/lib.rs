//! The configuration: what an operator may write, checked once.
//!
//! Knows: every key, its default and its bounds; the environment names; how to report a mistake with
//! file, line, column, caret and suggestion. Must not know: sockets, threads, the clock, or what any
//! part of Sluice does with a value.

pub mod model;

pub use model::*;
