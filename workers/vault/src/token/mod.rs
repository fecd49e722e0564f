//! Tokens: signing keys, minting, and the registry of what was issued.

mod mint;
mod ops;
mod registry;
mod revoke;
mod signer;
mod svid;
mod verdict;

pub(crate) use mint::{TTL_MAX, Ttl};
pub(crate) use ops::{MintAnswer, MintRequest, Plan};
pub(crate) use registry::{Parent, Row, has_any, have_ended, sweep};
pub(crate) use registry::{is_caller_void, void_until};
pub(crate) use revoke::{RevokeRequest, end_of_client, void_subject};
pub(crate) use signer::{Signers, load as load_signers, needs_rotation, published, rotate};
pub(crate) use signer::{generate as generate_key, parse as parse_key, publish as publish_key};
pub(crate) use svid::SvidRequest;
pub(crate) use verdict::Bound;
