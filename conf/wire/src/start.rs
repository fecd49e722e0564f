//! The lines supervisor and roles exchange: `Handoff` on a role's standard input, `Ready` on its
//! standard output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::role::Role;

/// Format number of the handoff line.
pub const HANDOFF_VERSION: u32 = 1;

/// What the supervisor tells a role when it starts it. Secrets travel here because environments
/// and argument lists are readable by others.
#[derive(Clone, Serialize, Deserialize)]
pub struct Handoff {
    /// Format number.
    pub version: u32,
    /// The role being started.
    pub role: Role,
    /// This role's own internal key, 64 hex digits.
    pub key: String,
    /// SHA-256 of every other role's internal key, 64 hex digits.
    pub peers: BTreeMap<Role, String>,
    /// Internal door of every role.
    pub sockets: BTreeMap<Role, String>,
    /// Names of the listening sockets handed down, in descriptor order.
    pub listeners: Vec<String>,
    /// Milliseconds from the wish to end until the role is killed: it drains within them.
    pub end_within_ms: u64,
    /// Secrets that this role needs, by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

/// Printed by a role when it serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Always `ready`.
    pub event: String,
    /// The role.
    pub role: Role,
    /// Its process.
    pub pid: u32,
    /// Addresses of its TCP doors by name.
    pub listeners: BTreeMap<String, String>,
}
