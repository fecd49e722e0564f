//! The library against what it is measured by: another implementation, plain definitions, itself in
//! streaming form.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod accuracy;
mod fingerprint;
mod golden;
mod oracle;
mod risk;
mod score;
mod search;
mod series;
mod signal;
mod size;
mod streaming;
mod together;
