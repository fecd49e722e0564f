//! HTTP/2 with clients: an own accept loop over the `h2` crate, each stream a request of its own.
//!
//! Knows: what one connection may cost, when it ends, how a stream becomes a request that Pingora runs. Must
//! not know: what any decision is, which upstream answers.
//!
//! ```text
//!  socket ── guarded.rs ── h2 ── connection.rs ──┬── head.rs     judged, or answered and counted as malformed
//!            floods, turns        accept, idle,   ├── direct.rs   one task a stream, as `direct/` moves its bytes
//!            write progress       drain           └── session.rs  or as Pingora does
//!                        │                             ├── body.rs   the request's side, its deadlines
//!                        │                             └── reply.rs  the answer's side, its stalls
//!                        └── parting.rs  the end, in three words
//! ```
//!
//! A call of gRPC for a service may be carried beside Pingora, with both sides of its stream: see `calls`.
//!
//! Exact conditions: the client's greeting and settings within `header_timeout`, a header block that has begun
//! too; without streams `idle_timeout`; a stream's times are those of HTTP/1 (30 s between body bytes, the
//! deadlines of its route, `idle_timeout` without a byte taken). `sluice_policy::flood` says which frames are
//! too many. Whatever ends a connection ends its streams, and with them their upstream requests.
//!
//! LIMIT: memory of one connection, the worst a client can bring about with [`STREAMS`] streams:
//! - what it sent and nobody read: [`WINDOW_BYTES`], 1 MiB in all, whatever the streams, and
//!   [`SMALL_FRAMES_BYTES`] where it came in small frames;
//! - heads not yet accepted: what [`guarded::TURN_BYTES`] can name. One byte of a header block can name a field
//!   of about 100 bytes in memory: 3.2 MiB, for a moment;
//! - each stream: its head (`edge.limits`, 32 KiB by default), 64 KiB of its body kept for another try and
//!   [`SEND_BYTES`] of the answer: 128 KiB, so 12.5 MiB;
//! - each stream that goes the direct way: [`SEND_BYTES`] and what one read of its upstream brings, 64 KiB, on their
//!   way to the client, and 64 KiB in the buffer of that upstream's connection: 15.6 MiB;
//! - each other stream: ten pieces of the answer on their way from its upstream, of 64 KiB at most: 62.5 MiB, where
//!   an upstream sends faster than the client reads; and 64 KiB in the buffer of that upstream's connection, 6.3 MiB.
//!   That is the framework's pipe: four pieces wait in it, one to get in, and five were taken out and wait for the
//!   client.
//!
//! In all below 90 MiB for one connection, 14 MiB measured the direct way and 58 MiB the other; `edge.limits.connections_per_ip` bounds a client beyond
//! that. A test counts what the instance of a hundred streams without a window gets rid of.

mod body;
mod connection;
mod direct;
pub(crate) mod grpc;
mod guarded;
mod head;
mod parting;
mod reply;
mod session;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection};
use sluice_schema::Limits;

use crate::caps::ConnectionPermit;
use crate::conn::Conn;
use crate::linger::Patience;
use crate::server::App;
use crate::socket::Socket;
use crate::state::Shared;
use connection::{Running, Scene};
use guarded::{Guarded, Watch};

pub(crate) use body::BodyError;
pub(crate) use reply::Reply;
pub(crate) use session::{Asked, Handed, Known};

/// LIMIT: streams at once.
const STREAMS: u32 = 100;
/// LIMIT: bytes a client may send ahead on one stream.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// LIMIT: bytes a client may send ahead on all streams.
const WINDOW_BYTES: u32 = 1 << 20;
/// LIMIT: bytes of an answer held for the socket, each stream.
const SEND_BYTES: usize = 32 << 10;
/// LIMIT: what small frames that nobody read may cost beside their data, as the library counts it: 256 bytes
/// a frame, less its data. A stream of gRPC's smallest messages fits, and a window full of frames of 60 bytes.
const SMALL_FRAMES_BYTES: usize = 4 << 20;
/// LIMIT: payload of one frame.
const FRAME_BYTES: u32 = 16 << 10;
/// LIMIT: streams reset for what the client did, in a life; those that break the protocol end it sooner.
const LIBRARY_RESETS: usize = 256;
/// LIMIT: streams the client has reset and nobody has seen yet. More fit in no second.
const UNSEEN_RESETS: usize = 100;
/// LIMIT: streams remembered after their end, and how long, so that what was on its way is let pass.
const REMEMBERED: usize = 100;
const REMEMBERED_FOR: Duration = Duration::from_secs(2);

/// Runs a connection that speaks HTTP/2 to its end. `read` was read of it already.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    app: Arc<App>,
    socket: Socket,
    read: Vec<u8>,
    conn: Arc<Conn>,
    permit: Option<ConnectionPermit>,
) {
    let limits = shared.generation.load().config.edge.limits.clone();
    let watch = Watch::new(limits.header_timeout);
    let io = Guarded::new(socket, read, Arc::clone(&watch), limits.idle_timeout, permit);
    let greeting = builder(&limits).handshake(io);
    let Ok(Ok(io)) = tokio::time::timeout(limits.header_timeout, greeting).await else {
        return watch.linger(Patience::SHORT).await;
    };
    let scene = Scene::new(shared, app, conn, &limits);
    Running::new(io, watch, scene, limits.idle_timeout).run().await;
}

/// What the edge allows its clients.
fn builder(limits: &Limits) -> Builder {
    let mut builder = Builder::new();
    // A field counts 32 bytes beside its own here: lists up to the limit come through and are judged by it.
    let fields = u32::try_from(limits.header_count).unwrap_or(u32::MAX).saturating_add(8);
    let list =
        u32::try_from(limits.header_bytes).unwrap_or(u32::MAX).saturating_add(fields.saturating_mul(32));
    builder
        .max_concurrent_streams(STREAMS)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buffer_size(SEND_BYTES)
        .max_frame_size(FRAME_BYTES)
        .data_frame_budget(SMALL_FRAMES_BYTES)
        .max_header_list_size(list)
        .max_local_error_reset_streams(Some(LIBRARY_RESETS))
        .max_pending_accept_reset_streams(UNSEEN_RESETS)
        .max_concurrent_reset_streams(REMEMBERED)
        .reset_stream_duration(REMEMBERED_FOR);
    builder
}

/// A connection as the `h2` crate sees it.
type Io = Connection<Guarded, Bytes>;
