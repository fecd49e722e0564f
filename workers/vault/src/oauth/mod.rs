//! OAuth 2.0 for services that speak it: clients with credentials of their own get the very tokens that the rest
//! of the vault issues.
//!
//! RFC 6749 (client credentials), 7009 (revocation), 7523 (`private_key_jwt`), 7662 (introspection), 8414
//! (metadata), 8693 (token exchange, for narrowing only), 8705 (`tls_client_auth`), 9068 (the token). There are no
//! users, so no authorization endpoint, no code, no refresh token.

mod api;
mod client;
mod error;
mod form;
mod grant;
mod judge;
mod proof;

pub(crate) use api::{at, routes};
pub(crate) use client::{forget_used, have_ended, is_client};
