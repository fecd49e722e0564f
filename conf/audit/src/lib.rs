//! # sluice-audit: who asked for what, and was it granted
//!
//! Knows: the audit record, the hash chain over records, the log file and its head file, offline
//! verification. Must not know: HTTP, policy, configuration, secrets. Values are never handed to it.
//!
//! ## Files
//! `<data-dir>/audit/<role>.jsonl` (mode 0600, one writer, locked) holds one record a line:
//!
//! ```json
//! {"seq":1,"ts":"2026-11-21T07:32:00.000001Z","type":"secret","request_id":"…","actor":"…","op":"read",
//!  "path":"…","decision":"allow","remote":"…","role":"vault","anchor":0,"prev":"<hex>","hash":"<hex>"}
//! ```
//!
//! The *canonical bytes* of a record are its JSON object without `prev` and `hash`, members in exactly
//! this order, no white space, timestamps in UTC with six decimals. `hash = SHA-256(prev ‖ canonical)`
//! with `prev` the 32 raw bytes of the record before; the first record's `prev` is
//! `SHA-256("sluice-audit/1\0" ‖ role)`, so logs of two roles cannot be exchanged. A line that does not
//! serialise back to its own bytes is an edit. `anchor` is a number the role binds into the chain (the
//! vault: its store's commit sequence); it never decreases.
//!
//! `<data-dir>/audit/<role>.head` is the checkpoint: two slots of 256 bytes, written in turn, each a
//! space-padded JSON line `{"seq":…,"end":…,"hash":"…","sum":"…"}` (`end`: byte length of the log after
//! that record; `sum`: SHA-256 of the three fields). It exists before the log does.
//!
//! ## Order and recovery
//! A batch is written at the end of the log, `fdatasync`ed, then the older head slot is overwritten, then
//! the callers are answered. The head is therefore never ahead of the durable log and at most one batch
//! behind it after a crash of the process. On open the log must continue the head: fewer records than
//! the head names is a truncation and refused; whole records after it are accepted when they chain; bytes
//! after the last newline, and from the first line after the head that contains NUL (a page that did not
//! reach the disk), are a torn, never acknowledged write and are cut.
//!
//! ## More than one file
//! A file of 64 MiB is full: it is renamed to `<role>.<first record, 20 digits>.jsonl`, the chain goes on in a new
//! `<role>.jsonl`, and `end` in the head counts from its beginning. Of more than 4 GiB the oldest file is removed,
//! after a record (`"type":"audit","op":"retire","path":"to <record> <hash>"`) that says up to where and with which
//! hash; a log that begins later than at record 1 is whole only when such a record accounts for what is missing.
//!
//! ## Signed checkpoints
//! The chain proves order and completeness against the head, not authorship: whoever may write both files can write
//! both anew. A role that has a key signs the log with it ([`Log::sign_with`]): a record every 1,000 records or 60
//! seconds says how the log stood before it. Who keeps the public key elsewhere ([`CheckpointKey`]) sees up to where
//! the log is the role's own; what comes after the last checkpoint, and a log cut back to one, he does not.
//!
//! ## Limits
//! Fields are cut at [`FIELD_BYTES_MAX`], a batch holds at most 256 records, the queue 4096.

mod checkpoint;
mod files;
mod head;
mod log;
mod pending;
mod query;
mod record;
mod resume;
mod scan;
mod verify;
mod writer;

pub use checkpoint::{CheckpointKey, Signer};
pub use files::{Limits, WhenFull};
pub use head::{Head, HeadError};
pub use log::{AuditError, Log, OpenError};
pub use pending::Pending;
pub use query::{Page, Query, Since};
pub use record::{Decision, Digest, Entry, FIELD_BYTES_MAX, Record};
pub use verify::{Fault, FaultKind, LogReport, Report, VerifyError, verify, verify_signed};
