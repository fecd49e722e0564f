//! What the vault remembers: one redb file of sealed rows, one writer.
//!
//! Every change goes through the writer thread ([`writer`]): it applies what is queued in one transaction,
//! commits it durably (two-phase), has the audit log record it durably, and only then answers. Reads take
//! a snapshot and do not wait for the writer.
//!
//! What is detected when the store opens, each named: another root key; a row that was changed, swapped,
//! removed, added or put back to an older state (the [`rows`] digest over all rows); an older copy of the
//! whole file (its sequence against the audit log's anchor); an audit log that was cut, replaced or
//! written anew (the log's record that the store saw last). While it runs, a row that does not open in its place is an
//! `integrity` error, never a value and never "not found".

mod change;
mod open;
mod quiet;
mod rows;
mod snapshot;
mod table;
mod tables;
mod writer;

pub(crate) use change::Change;
#[cfg(test)]
pub(crate) use change::OUTBOX_MAX;
pub(crate) use open::StoreError;
pub(crate) use snapshot::{KeyBytes, Range, View};
pub(crate) use table::{SWEEP_MAX, Table};
pub(crate) use writer::{Queued, Store};

#[cfg(test)]
mod tests;
