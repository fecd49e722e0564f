//! The roles a Sluice process can play.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A role of a Sluice process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Public ingress and control port.
    Edge,
    /// Event streams.
    Events,
    /// CA, tokens, secrets, audit.
    Vault,
    /// Indicators, signals, risk.
    Calc,
    /// Stand-in services and the market tape.
    Demo,
    /// Parent of all others under `sluice up`.
    Supervisor,
}

/// The text is not the name of a role.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a role")]
pub struct UnknownRole(pub String);

impl Role {
    /// Every role, in start order.
    pub const ALL: [Self; 6] =
        [Self::Vault, Self::Events, Self::Calc, Self::Edge, Self::Demo, Self::Supervisor];

    /// The name on the wire, in paths and in SPIFFE ids.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Events => "events",
            Self::Vault => "vault",
            Self::Calc => "calc",
            Self::Demo => "demo",
            Self::Supervisor => "supervisor",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| UnknownRole(text.chars().take(32).collect()))
    }
}
