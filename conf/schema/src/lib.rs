//! The configuration: what an operator may write, checked once.
//!
//! Knows: every key, its default and its bounds; the environment names; how to report a mistake with
//! file, line, column, caret and suggestion; what certificates and keys say of themselves. Must not
//! know: sockets, threads, the clock (the time is an argument), or what any part of Sluice does with a
//! value.
//!
//! [`load`] reads files, [`check`] the same from texts; both give a [`Loaded`] or a [`Report`] of all
//! that is wrong. `keys` walks the tables key by key; `kind` and `form` say how one value is written;
//! `check` compares values with each other; `environment` lays variables over the files.

mod certificate;
mod check;
mod code;
mod diff;
pub mod environment;
pub mod form;
mod json_schema;
mod keys;
mod kind;
mod layout;
mod load;
mod mask;
pub mod model;
mod planned;
mod reader;
mod report;
mod secret;
mod show;
mod table;

pub use code::Code;
pub use diff::{Diff, Effective, KeyChange, ServiceChange, diff, diff_of};
pub use json_schema::json_schema;
pub use layout::fmt;
pub use load::{Loaded, check, load, texts, written};
pub use model::*;
pub use reader::{Mode, ReadFile};
pub use report::{Document, Finding, Report, Severity};
pub use show::{Origin, Origins, Setting, origin_of, settings, to_toml};
