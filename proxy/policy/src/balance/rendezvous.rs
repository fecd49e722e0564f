//! Rendezvous: the highest random weight of a key.
//!
//! Each candidate draws a number from the key and its own address, exponential with its weight as rate, and the
//! first to arrive takes the request. So keys spread by weight; an instance that goes moves its own keys and no
//! other, one that comes or gains weight only takes, and every edge places alike: nothing is remembered, and
//! the hash has no seed. A caller that chooses its key chooses its instance; that opens nothing it could not have
//! by chance.
//!
//! Cost: a hash and a logarithm a candidate.

use std::net::IpAddr;

use sluice_schema::HashOn;

use super::field::Candidate;
use crate::limit::table::network;
use crate::random::mix;

/// What a request is placed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity<'a> {
    /// The caller's account.
    Account(&'a str),
    /// The client's address; IPv6 counts by /64.
    Address(IpAddr),
    /// The value of the configured header.
    Header(&'a [u8]),
}

impl<'a> Affinity<'a> {
    /// What a rule names, from what is known about the request; the address where it has no such thing.
    pub fn of(
        rule: &HashOn,
        account: Option<&'a str>,
        address: IpAddr,
        header: impl FnOnce(&str) -> Option<&'a [u8]>,
    ) -> Self {
        let named = match rule {
            HashOn::Subject => account.map(Self::Account),
            HashOn::Ip => None,
            HashOn::Header(name) => header(name).map(Self::Header),
        };
        named.unwrap_or(Self::Address(address))
    }

    /// Its key, the same in every process.
    pub fn key(&self) -> u64 {
        match self {
            Self::Account(account) => mix(stable_hash(account.as_bytes()) ^ 1),
            Self::Header(value) => mix(stable_hash(value) ^ 2),
            Self::Address(address) => {
                let (is_v6, network) = network(*address);
                mix(stable_hash(&network.to_be_bytes()) ^ if is_v6 { 4 } else { 3 })
            }
        }
    }
}

/// FNV-1a, spread: the same in every process and build.
pub(super) fn stable_hash(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mix(bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold))
}

/// The usable candidate that a key belongs to.
pub(super) fn highest(
    side: &[Candidate],
    key: u64,
    usable: impl Fn(&Candidate) -> bool,
) -> Option<&Candidate> {
    let arrival = |candidate: &Candidate| {
        let drawn = mix(mix(key) ^ candidate.instance.seat);
        // In the open interval from 0 to 1, so that its logarithm is neither zero nor infinite.
        let share = ((drawn >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        -share.ln() / candidate.weight as f64
    };
    let usable = side.iter().filter(|candidate| usable(candidate));
    usable
        .map(|candidate| (arrival(candidate), candidate))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, one)| one)
}
