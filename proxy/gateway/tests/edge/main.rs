//! The edge over real sockets: what clients get, and what upstreams see of it.

#![allow(unreachable_pub, clippy::unwrap_used, clippy::missing_panics_doc, missing_docs, reason = "tests")]

mod admission;
mod api_keys;
mod balance;
mod calls;
mod control;
mod corpus;
mod due;
mod ejection;
mod framing;
mod h2;
mod h2_bodies;
mod h2_client;
mod h2_endings;
mod h2_floods;
mod h2_framing;
mod h2_grpc;
mod h2_tools;
mod harness;
mod holds;
mod idempotency;
mod keys;
mod kill;
mod lanes;
mod names;
mod observe;
mod order_life;
mod proxy_protocol;
mod recovery;
mod registry;
mod reload;
mod rollback;
mod secure;
mod shape;
mod shape_answers;
mod slow;
mod standing;
mod streaming;
mod streaming_breaks;
mod tls;
mod tunnel;
mod upstream_h2;
mod upstreams;
mod workers;
