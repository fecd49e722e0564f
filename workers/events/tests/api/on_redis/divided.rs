//! The same in Redis.

#[path = "../groups/mod.rs"]
mod groups;
#[path = "../live.rs"]
mod live;
