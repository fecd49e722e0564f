//! What must not change where the stream is divided into partitions.

#[path = "candles.rs"]
mod candles;
#[path = "groups/mod.rs"]
mod groups;
#[path = "live.rs"]
mod live;
#[path = "replay.rs"]
mod replay;
#[path = "sessions.rs"]
mod sessions;
