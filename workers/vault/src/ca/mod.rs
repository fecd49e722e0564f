//! The certificate authority: root → intermediate (path length 0) → leaves.
//!
//! Traps of the library that are closed here: its default validity and name (every field is set), a serial
//! derived from the key (always random), extensions copied from a request (only its public key is taken), an
//! issuer's own limits (a leaf never outlives its issuer).

mod authority;
mod csr;
mod expiry;
mod leaf;
mod lists;
mod named;
mod ops;
mod pace;
mod renew;
mod revoke;
mod role;
mod rows;
mod upkeep;

pub(crate) use authority::{Authority, hex, pem};
pub(crate) use csr::RequestedKey;
pub(crate) use expiry::Expiring;
pub(crate) use leaf::{is_dns_name, is_ours};
pub(crate) use lists::Lists;
pub(crate) use named::{Known, Named, NamedRequest, serial_of};
pub(crate) use ops::IssueRequest;
pub(crate) use pace::Pace;
pub(crate) use renew::RenewRequest;
pub(crate) use revoke::{has_any, revoke_all};
pub(crate) use rows::load_authority;
pub(crate) use upkeep::{have_ended, needs_upkeep, sweep, upkeep};

/// Certificates are valid from a little before they are made: clocks differ.
pub(crate) const BACKDATE_S: i64 = 60;
