//! Who a caller is and what it may do: claims, grants, keys, verification.
//!
//! Knows: token and key formats, grant algebra, revocation, the seal of kill switches. Pure: time is an argument, nothing is
//! fetched. Must not know: sockets, HTTP, how tokens are made (the vault's business).

pub mod assertion;
pub mod caller;
pub mod certificate;
pub mod claims;
pub mod grants;
pub mod jwk;
pub mod kill;
pub mod proof;
mod spread;
pub mod token;
pub mod trust;
