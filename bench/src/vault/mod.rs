//! Vaults: Sluice's own, by both of its languages, and OpenBao, asked for the same.
//!
//! Like a store, a vault is measured at its own port. What it is asked for in a scenario is one [`Op`], sent by the
//! generator of every other scenario; ending a token and opening with many secrets are trials
//! ([`crate::trial`]), whose answer is not what takes the time.

mod ask;
mod csr;
mod right;
mod server;

pub(crate) use ask::{Desk, NAME, Op, value_bytes_min};
pub(crate) use right::answers_rightly;
pub(crate) use server::all;
