//! The event worker.
pub mod log;
