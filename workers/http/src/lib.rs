//! What every worker shares: doors, callers, bodies, problems, health, drain.
//!
//! Knows: how a request enters a Sluice process, who may be believed at which door, how errors
//! and streams look. Must not know: what any worker does, how to call another process.

mod asset;
mod body;
mod caller;
mod client_address;
mod direct;
mod doors;
mod handover;
mod health;
mod keys;
mod layer;
pub mod openapi;
mod reject;
mod server;
pub mod sse;
mod standing;
mod start;
mod stop;
mod takeover;
mod tls;
mod trust;
mod verified;

#[cfg(test)]
mod tests;

pub use asset::Asset;
pub use body::{BODY_BYTES_DEFAULT, BodyBytes, BodyLimit, JsonBytes, StrictJson, StrictQuery};
pub use caller::{Authenticated, MaybeCaller, is_role_itself, is_token_good, require};
pub use client_address::{address_key, client_ip, is_within, origin};
pub use direct::Direct;
pub use doors::{Door, Doors, Listener, Peer};
pub use handover::{Giver, Handover};
pub use health::{Component, HealthSource, Status};
pub use keys::InternalKeys;
pub use layer::{RequestIdExt, wrap};
pub use reject::Reject;
pub use server::{ServeError, serve, serve_by_tls, serve_listener, serve_secured, serve_with};
pub use standing::{Ended, Standing};
pub use start::Start;
pub use stop::{Stop, Stopper};
pub use takeover::{Io, Taken, take_over};
pub use tls::{ClientVerifier, Clients, Tls, TlsError};
pub use trust::TrustCell;
