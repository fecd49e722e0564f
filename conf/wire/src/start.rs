//! The lines supervisor and roles exchange. On a role's standard input: `Handoff` first, then `Order`s.
//! On its standard output: `Said`.

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
    /// Another process plays the role: get prepared, say so, and wait for [`Order::Go`].
    #[serde(default)]
    pub successor: bool,
    /// The giver ends once this process serves; the end of the pipe is then no reason to end.
    #[serde(default)]
    pub detached: bool,
}

/// What a running role is told, a line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Order {
    /// To the serving process: accept no more, close what admits one process, answer [`Said::Yielded`].
    Yield,
    /// To a process that yielded: open it again and accept, answer [`Said::Ready`].
    Resume,
    /// To a prepared successor: open it, accept, answer [`Said::Ready`].
    Go(Carried),
    /// To a process that yielded: the successor serves; finish what is open and end.
    Retire {
        /// Milliseconds until it is killed.
        within_ms: u64,
    },
}

/// What a role says, a line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Said {
    /// A successor has everything but what admits one process.
    Prepared {
        /// The role.
        role: Role,
    },
    /// It serves.
    Ready(Ready),
    /// It accepts no more and has closed what admits one process.
    Yielded {
        /// The role.
        role: Role,
        /// For the successor.
        #[serde(flatten)]
        carried: Carried,
    },
}

/// LIMIT: bytes of kill switches in [`Carried`].
pub const CARRIED_BYTES_MAX: usize = 16 << 10;
/// LIMIT: names in [`Carried`].
pub const CARRIED_MAX: usize = 500;

/// What an edge that yields passes on: an operator's decisions that live in memory, and what it has learnt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// Breakers that are held in a state, by service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub forced: BTreeMap<String, Forced>,
    /// Kill switches that are not on the disk, as the edge writes them. LIMIT: [`CARRIED_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub switches: Vec<String>,
    /// Names the file with what was learnt: limits, open breakers, bad instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The processes, by the numbers they drew, whose requests hold idempotency keys; their results follow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<u64>,
}

/// A state that an operator holds a breaker in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forced {
    /// Lets nothing through.
    Open,
    /// Lets everything through.
    Closed,
    /// Lets everything through and counts nothing.
    Disabled,
}

/// A role that serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// The role.
    pub role: Role,
    /// Its process.
    pub pid: u32,
    /// Addresses of its TCP doors by name.
    pub listeners: BTreeMap<String, String>,
}

impl Said {
    /// The role that says it.
    pub const fn role(&self) -> Role {
        match self {
            Self::Prepared { role } | Self::Yielded { role, .. } => *role,
            Self::Ready(ready) => ready.role,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_agreed_shape() {
        let order = |order: Order| serde_json::to_string(&order).unwrap();
        assert_eq!(order(Order::Yield), r#"{"do":"yield"}"#);
        assert_eq!(order(Order::Retire { within_ms: 5 }), r#"{"do":"retire","within_ms":5}"#);
        let said = |said: &Said| serde_json::to_string(said).unwrap();
        let yielded = |carried| said(&Said::Yielded { role: Role::Edge, carried });
        assert_eq!(yielded(Carried::default()), r#"{"event":"yielded","role":"edge"}"#);
        let carried = Carried {
            forced: [("a".to_owned(), Forced::Open)].into(),
            keys: vec![u64::MAX],
            ..Carried::default()
        };
        assert_eq!(
            yielded(carried.clone()),
            r#"{"event":"yielded","role":"edge","forced":{"a":"open"},"keys":[18446744073709551615]}"#
        );
        assert_eq!(order(Order::Go(Carried::default())), r#"{"do":"go"}"#);
        assert_eq!(
            serde_json::from_str::<Order>(&order(Order::Go(carried.clone()))).unwrap(),
            Order::Go(carried)
        );
        let ready = Said::Ready(Ready { role: Role::Edge, pid: 7, listeners: BTreeMap::new() });
        assert_eq!(said(&ready), r#"{"event":"ready","role":"edge","pid":7,"listeners":{}}"#);
        assert_eq!(serde_json::from_str::<Said>(&said(&ready)).unwrap(), ready);
    }
}
