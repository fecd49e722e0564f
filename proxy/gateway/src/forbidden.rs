//! Addresses that no registration may have, beside those the rules of policy name.
//!
//! They are the sockets this process listens on, every address of this machine (a listener on `0.0.0.0`
//! answers on all of them), and the shared store's. Names and interfaces change while the edge runs, so
//! both are read again from time to time; what was last known stays while they cannot be read.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sluice_policy::registry::AddressRules;
use sluice_schema::Config;

use crate::local;
use crate::resolver::{Resolve, resolve};

/// Port of a store whose address names none.
const STORE_PORT: u16 = 6379;

/// Addresses that no registration may have.
pub(crate) struct Forbidden {
    own: Vec<SocketAddr>,
    /// Hosts and ports of the shared store.
    store: Vec<(String, u16)>,
    seen: ArcSwap<Seen>,
}

/// What was last read.
#[derive(Clone, Default)]
struct Seen {
    local: Vec<IpAddr>,
    store: Vec<SocketAddr>,
}

impl Forbidden {
    /// `own` are the sockets of this process, which may differ from the configured ones; `store_url` is
    /// the address of the shared store, if there is one.
    pub(crate) fn new(own: Vec<SocketAddr>, store_url: Option<&str>) -> Self {
        let store = store_url.map(hosts_and_ports).unwrap_or_default();
        let written =
            store.iter().filter_map(|(host, port)| Some(SocketAddr::new(host.parse().ok()?, *port)));
        let seen = Seen { local: read_local().unwrap_or_default(), store: written.collect() };
        Self { own, store, seen: ArcSwap::from_pointee(seen) }
    }

    /// The rules of a configuration.
    pub(crate) fn rules(&self, config: &Config) -> AddressRules {
        let seen = self.seen.load();
        let extra = self.own.iter().chain(&seen.store).copied();
        AddressRules::new(config, extra, seen.local.iter().copied())
    }

    /// Whether this is the store by name, known to resolve or not.
    pub(crate) fn is_store(&self, host: &str, port: u16) -> bool {
        self.store.iter().any(|(name, at)| name == host && *at == port)
    }

    /// Reads interfaces and the store's name again.
    pub(crate) async fn refresh(&self, resolver: &dyn Resolve) {
        let mut seen = Seen::clone(&self.seen.load());
        if let Some(local) = read_local() {
            seen.local = local;
        }
        let mut store: Vec<SocketAddr> = Vec::new();
        let mut is_known = true;
        for (host, port) in &self.store {
            match host.parse() {
                Ok(ip) => store.push(SocketAddr::new(ip, *port)),
                Err(_) => match resolve(resolver, host, *port).await {
                    Some(found) => store.extend(found),
                    None => is_known = false,
                },
            }
        }
        if is_known {
            seen.store = store;
        }
        self.seen.store(Arc::new(seen));
    }
}

fn read_local() -> Option<Vec<IpAddr>> {
    match local::addresses() {
        Ok(addresses) => Some(addresses),
        Err(error) => {
            tracing::warn!(component = "registry", %error, "this machine's addresses cannot be read");
            None
        }
    }
}

/// Hosts and ports of `redis://[user[:password]@]host[:port][,host[:port]…][/…]`; none for a socket path or nonsense.
fn hosts_and_ports(url: &str) -> Vec<(String, u16)> {
    let Some((_, rest)) = url.split_once("://") else { return Vec::new() };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    hosts.split(',').filter_map(host_and_port).collect()
}

fn host_and_port(place: &str) -> Option<(String, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(v6) => {
            let (host, port) = v6.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => place.rsplit_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    let port = port.map_or(Some(STORE_PORT), |port| port.parse().ok())?;
    (!host.is_empty()).then(|| (host.to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_policy::registry::AddressFault;

    #[test]
    fn the_stores_address_is_read_without_its_password() {
        for (url, host, port) in [
            ("redis://localhost:6379", "localhost", 6379),
            ("redis://Redis", "redis", 6379),
            ("rediss://user:p@ss@10.0.0.9:7000/0", "10.0.0.9", 7000),
            ("redis://[::1]:7/1?x", "::1", 7),
        ] {
            assert_eq!(hosts_and_ports(url), [(host.to_owned(), port)], "{url}");
        }
        let many = hosts_and_ports("redis+cluster://u:p@a:1,[::2]:3");
        assert_eq!(many, [("a".to_owned(), 1), ("::2".to_owned(), 3)]);
        for bad in ["", "redis", "redis://", "redis+unix:/run/redis.sock", "redis://h:port"] {
            assert!(hosts_and_ports(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn a_listener_on_every_interface_is_refused_at_each_of_them() {
        let mut config = Config::default();
        config.registry.allow = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let forbidden = Forbidden::new(vec!["0.0.0.0:4444".parse().unwrap()], Some("redis://10.9.8.7"));
        let rules = forbidden.rules(&config);
        for ip in local::addresses().unwrap() {
            assert!(rules.check(SocketAddr::new(ip, 4444)).is_err(), "{ip}");
        }
        assert_eq!(rules.check("10.9.8.7:6379".parse().unwrap()), Err(AddressFault::Own));
        assert_eq!(rules.check("10.9.8.7:6380".parse().unwrap()), Ok(()));
    }
}
