//! `[acme]`: certificates for services that speak ACME.

use std::collections::BTreeMap;

use ipnet::IpNet;

/// `[acme]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Acme {
    /// A service's name to the DNS names it may order: a name, or `*.` and a domain for every name below it.
    pub names: BTreeMap<String, Vec<String>>,
    /// Where a challenge may be looked up; an address outside of them is never connected to.
    pub networks: Vec<IpNet>,
    /// The port at which `http-01` challenges are looked up.
    pub http_port: u16,
}

impl Default for Acme {
    /// Nobody may order anything; challenges are looked up in private networks alone: not on this machine, not at
    /// link-local addresses, where clouds keep their metadata.
    fn default() -> Self {
        let private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"];
        Self {
            names: BTreeMap::new(),
            networks: private.iter().map(|text| text.parse().expect("a constant network")).collect(),
            http_port: 80,
        }
    }
}
