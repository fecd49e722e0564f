//! The worker's calls, over real sockets: as a client behind the edge, and as a role.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]
// The suite runs twice: on the embedded log, and as `on_redis::…` on a Redis of its own for each world. A part of it
// runs twice more, as `divided::…`, on a stream of four partitions.
#![allow(clippy::duplicate_mod, reason = "the same tests on the other store")]

mod access;
mod admin;
mod candles;
mod cloudevents;
mod divided;
mod groups;
mod issuer;
mod keys;
mod limits;
mod live;
mod live_choice;
mod live_socket;
mod mail;
mod notify;
mod openapi;
mod partitions;
mod publish;
mod read;
mod replay;
mod schemas;
#[path = "../../../../proxy/ledger/tests/server/mod.rs"]
mod server;
mod sessions;
mod state;
mod websocket;
mod world;

mod on_redis {
    #[path = "../access.rs"]
    mod access;
    #[path = "../candles.rs"]
    mod candles;
    #[path = "../cloudevents.rs"]
    mod cloudevents;
    mod desks;
    mod divided;
    mod faults;
    #[path = "../groups/mod.rs"]
    mod groups;
    #[path = "../limits.rs"]
    mod limits;
    #[path = "../live.rs"]
    mod live;
    #[path = "../partitions.rs"]
    mod partitions;
    #[path = "partitions.rs"]
    mod partitions_shared;
    #[path = "../publish.rs"]
    mod publish;
    #[path = "../read.rs"]
    mod read;
    #[path = "../replay.rs"]
    mod replay;
    #[path = "../schemas.rs"]
    mod schemas;
    mod secure;
    #[path = "../sessions.rs"]
    mod sessions;
    mod several;
    mod shared;
    mod slowed;
    mod spool;
    #[path = "../state.rs"]
    mod state;
}
