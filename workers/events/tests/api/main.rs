//! The worker's calls, over real sockets: as a client behind the edge, and as a role.

#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod access;
mod admin;
mod candles;
mod cloudevents;
mod groups;
mod issuer;
mod keys;
mod limits;
mod live;
mod live_choice;
mod live_socket;
mod publish;
mod read;
mod replay;
mod schemas;
mod sessions;
mod state;
mod websocket;
mod world;
