//! The vault as its clients see it: started in this process on free ports, spoken to over real sockets.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod acme;
mod audit;
mod bounds;
mod certificate_bound;
mod credentials;
mod door;
mod external;
mod falco;
mod feed;
mod harness;
mod keys;
mod kinds;
mod oauth;
mod openapi;
mod rights;
mod role_certificates;
mod secrets;
mod start;
mod store_keys;
mod svid;
mod tokens;
mod users;
mod vault_api;
