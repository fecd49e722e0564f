//! How the root key is had: what a sealed store says of itself.

use serde::{Deserialize, Serialize};

use super::shamir::Split;

/// How the root key is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// From a key file.
    File,
    /// From shares.
    Shares(Split),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    kind: Word,
    shares: u64,
    threshold: u64,
}

#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    File,
    Shamir,
}

impl Shape {
    /// How it is named to clients and in the configuration.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Shares(_) => "shamir",
        }
    }

    /// How many shares there are and how many it takes; a key file is one.
    pub(crate) const fn counts(self) -> (u8, u8) {
        match self {
            Self::File => (1, 1),
            Self::Shares(split) => (split.shares(), split.threshold()),
        }
    }

    pub(super) fn to_json(self) -> Vec<u8> {
        let (shares, threshold) = self.counts();
        let kind = if self == Self::File { Word::File } else { Word::Shamir };
        let row = Row { kind, shares: shares.into(), threshold: threshold.into() };
        serde_json::to_vec(&row).expect("a word and two numbers")
    }

    /// Reads what [`Shape::to_json`] wrote.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let row: Row = serde_json::from_slice(json).ok()?;
        match row.kind {
            Word::File => Some(Self::File),
            Word::Shamir => Split::new(row.shares, row.threshold).ok().map(Self::Shares),
        }
    }
}
