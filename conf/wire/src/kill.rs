//! A change of a kill switch, as `data` of a `kill_switch` event has it: who may make which, and within what bounds.
//!
//! Edges make them, and the vault for alerts that the configuration names. Each party draws a number once
//! ([`EdgeId`]); a vault's are told from an edge's by their upper half, so that nobody speaks under the other's.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::role::Role;

/// LIMIT: parties that are told apart in one scope.
pub const EDGES_MAX: usize = 64;
/// LIMIT: bytes of a reason.
pub const REASON_BYTES_MAX: usize = 512;
/// LIMIT: bytes of a subject.
pub const BY_BYTES_MAX: usize = 256;
/// LIMIT: bytes of a target.
pub const NAME_BYTES_MAX: usize = 256;

/// The upper half of a vault's number: `vaul`.
const VAULTS: u64 = 0x7661_756c;

/// An edge or a vault, by a number it drew once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EdgeId(pub u64);

/// Not 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an edge is 16 hexadecimal digits")]
pub struct EdgeIdError;

impl EdgeId {
    /// An edge's number, made of a random one.
    pub const fn of_edge(random: u64) -> Self {
        if random >> 32 == VAULTS { Self(random ^ 1 << 63) } else { Self(random) }
    }

    /// A vault's number, made of a random one.
    pub const fn of_vault(random: u32) -> Self {
        Self(VAULTS << 32 | random as u64)
    }

    /// Whether it is a vault's.
    pub const fn is_vault(self) -> bool {
        self.0 >> 32 == VAULTS
    }
}

impl fmt::Display for EdgeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for EdgeId {
    type Err = EdgeIdError;

    fn from_str(text: &str) -> Result<Self, EdgeIdError> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = digits.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or(EdgeIdError)
    }
}

impl TryFrom<String> for EdgeId {
    type Error = EdgeIdError;

    fn try_from(text: String) -> Result<Self, EdgeIdError> {
        text.parse()
    }
}

impl From<EdgeId> for String {
    fn from(edge: EdgeId) -> Self {
        edge.to_string()
    }
}

/// One change, as one party made it and as it travels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// `all`, `service`, `account` or `symbol`.
    pub scope: String,
    /// What is stopped; none for `all`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// On or off.
    pub on: bool,
    /// Whether cancels pass.
    #[serde(default)]
    pub cancel_lane_open: bool,
    /// Why.
    pub reason: String,
    /// Who.
    pub by: String,
    /// When it was made, milliseconds since the epoch.
    pub at_ms: u64,
    /// Since when the scope is on, the same.
    #[serde(default)]
    pub since_ms: u64,
    /// The party that made it.
    pub edge: EdgeId,
    /// Number of the change; grows with each of this party.
    pub epoch: u64,
    /// The newest ON of each party that is taken back.
    #[serde(default)]
    pub seen: BTreeMap<EdgeId, u64>,
}

impl Change {
    /// Whether it is as they are made, but for its scope: bounded, and numbered.
    pub fn is_sound(&self) -> bool {
        self.reason.len() <= REASON_BYTES_MAX
            && self.by.len() <= BY_BYTES_MAX
            && self.seen.len() <= EDGES_MAX
            && self.epoch > 0
            && self.epoch < u64::MAX
            && self.seen.values().all(|epoch| *epoch < u64::MAX)
    }

    /// Whether a process of this role may make it. An edge acts for operators and may take back everything; a vault
    /// takes back only what it put on itself, and never stops cancels.
    pub fn may_be_of(&self, role: Role) -> bool {
        match role {
            Role::Edge => !self.edge.is_vault(),
            Role::Vault => {
                self.edge.is_vault()
                    && self.seen.keys().all(|edge| *edge == self.edge)
                    && (self.cancel_lane_open || !self.on)
            }
            _ => false,
        }
    }
}

/// Whether a scope may name this: printable ASCII without space around it; a symbol without a comma, which stands
/// between several.
pub fn is_target(scope: &str, target: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&target.len())
        && target.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && target.trim() == target
        && !(scope == "symbol" && target.contains(','))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn change(edge: EdgeId, on: bool, seen: &[EdgeId]) -> Change {
        Change {
            scope: "all".into(),
            target: None,
            on,
            cancel_lane_open: true,
            reason: "r".into(),
            by: "b".into(),
            at_ms: 1,
            since_ms: 1,
            edge,
            epoch: 7,
            seen: seen.iter().map(|edge| (*edge, 6)).collect(),
        }
    }

    #[test]
    fn a_vault_takes_back_its_own_alone_and_lets_cancels_pass() {
        let (edge, vault, other) = (EdgeId::of_edge(3), EdgeId::of_vault(3), EdgeId::of_vault(4));
        assert!(change(vault, true, &[]).may_be_of(Role::Vault));
        assert!(change(vault, false, &[vault]).may_be_of(Role::Vault));
        for odd in
            [change(vault, false, &[edge]), change(vault, true, &[vault, other]), change(edge, true, &[])]
        {
            assert!(!odd.may_be_of(Role::Vault), "{odd:?}");
        }
        assert!(!Change { cancel_lane_open: false, ..change(vault, true, &[]) }.may_be_of(Role::Vault));
        // An operator takes back whatever he has seen.
        assert!(change(edge, false, &[edge, vault, other]).may_be_of(Role::Edge));
        assert!(!change(vault, true, &[]).may_be_of(Role::Edge));
        for role in [Role::Events, Role::Calc, Role::Demo, Role::Supervisor] {
            assert!(!change(edge, true, &[]).may_be_of(role), "{role:?}");
            assert!(!change(vault, true, &[]).may_be_of(role), "{role:?}");
        }
    }

    proptest! {
        #[test]
        fn nobody_draws_a_number_of_the_other_kind(low: u32, random: u64) {
            prop_assert!(EdgeId::of_vault(low).is_vault());
            prop_assert!(!EdgeId::of_edge(random).is_vault());
            prop_assert!(!EdgeId::of_edge(EdgeId::of_vault(low).0).is_vault());
        }
    }
}
