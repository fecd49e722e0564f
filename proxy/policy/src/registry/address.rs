//! Which addresses a registered instance may have.
//!
//! Exact rules, in this order. Always refused, whatever is allowed: forms that hide another address
//! (IPv4-mapped, IPv4-compatible, NAT64, 6to4, Teredo), unspecified, `0.0.0.0/8`, multicast,
//! broadcast, link-local (with the metadata address 169.254.169.254), the metadata addresses outside
//! of it, port 0, and any address Sluice itself listens on. Of the rest, only what lies in `[registry]
//! allow`.
//!
//! A listener on an unspecified address takes its port on every address of this machine: all loopback
//! addresses, and those the shell lists as local.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use sluice_schema::Config;
use thiserror::Error;

/// The rules of one configuration generation.
#[derive(Clone, Debug, Default)]
pub struct AddressRules {
    allow: Vec<IpNet>,
    own: Vec<SocketAddr>,
    local: Vec<IpAddr>,
}

/// Why an address is refused; the answer is 403 `address_denied`.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum AddressFault {
    /// An IPv6 form that stands for an IPv4 address.
    #[error("an address that embeds an IPv4 address is refused")]
    Embedded,
    /// Unspecified or `0.0.0.0/8`.
    #[error("an unspecified address is refused")]
    Unspecified,
    /// Multicast or broadcast.
    #[error("a multicast or broadcast address is refused")]
    Multicast,
    /// Link-local.
    #[error("a link-local address is refused")]
    LinkLocal,
    /// Of a cloud's metadata service.
    #[error("a metadata address is refused")]
    Metadata,
    /// Port 0.
    #[error("port 0 is refused")]
    Port,
    /// Sluice or its store listens there.
    #[error("an address Sluice or its store listens on is refused")]
    Own,
    /// Outside of `[registry] allow`.
    #[error("the address lies outside of `registry.allow`")]
    NotAllowed,
}

impl AddressRules {
    /// The rules of a configuration. `extra` are further addresses to refuse (the store's, listeners on
    /// ports chosen at the start); `local` are this machine's addresses beside loopback.
    /// The demo's listeners stand in for upstreams and may be registered.
    pub fn new(
        config: &Config,
        extra: impl IntoIterator<Item = SocketAddr>,
        local: impl IntoIterator<Item = IpAddr>,
    ) -> Self {
        let own = config.listeners().into_iter().filter(|(key, _)| !key.starts_with("demo."));
        Self {
            allow: config.registry.allow.clone(),
            own: own.map(|(_, address)| address).chain(extra).collect(),
            local: local.into_iter().collect(),
        }
    }

    /// Judges one address.
    ///
    /// # Errors
    /// [`AddressFault`], the first rule it breaks.
    pub fn check(&self, address: SocketAddr) -> Result<(), AddressFault> {
        check_kind(address.ip())?;
        if address.port() == 0 {
            return Err(AddressFault::Port);
        }
        if self.own.iter().any(|own| self.is_own(*own, address)) {
            return Err(AddressFault::Own);
        }
        if self.allow.iter().any(|net| net.contains(&address.ip())) {
            Ok(())
        } else {
            Err(AddressFault::NotAllowed)
        }
    }

    fn is_own(&self, own: SocketAddr, address: SocketAddr) -> bool {
        let here = address.ip().is_loopback() || self.local.contains(&address.ip());
        own.port() == address.port() && (own.ip() == address.ip() || (own.ip().is_unspecified() && here))
    }
}

fn check_kind(ip: IpAddr) -> Result<(), AddressFault> {
    match ip {
        IpAddr::V4(v4) => match v4.octets() {
            [0, ..] => Err(AddressFault::Unspecified),
            [169, 254, 169, 254] | [100, 100, 100, 200] | [168, 63, 129, 16] | [192, 0, 0, 192] => {
                Err(AddressFault::Metadata)
            }
            [169, 254, ..] => Err(AddressFault::LinkLocal),
            [224..=239, ..] | [255, 255, 255, 255] => Err(AddressFault::Multicast),
            _ => Ok(()),
        },
        IpAddr::V6(v6) => check_kind_v6(v6),
    }
}

fn check_kind_v6(ip: Ipv6Addr) -> Result<(), AddressFault> {
    match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0] => Err(AddressFault::Unspecified),
        [0, 0, 0, 0, 0, 0, 0, 1] => Ok(()),
        // Mapped, compatible, translated; NAT64, 6to4, Teredo.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, ..]
        | [0x2002, ..]
        | [0x2001, 0, ..] => Err(AddressFault::Embedded),
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => {
            Err(AddressFault::Metadata)
        }
        [0xfe80..=0xfebf, ..] => Err(AddressFault::LinkLocal),
        [0xff00..=0xffff, ..] => Err(AddressFault::Multicast),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allow: &[&str]) -> AddressRules {
        let mut config = Config::default();
        config.registry.allow = allow.iter().map(|net| net.parse().unwrap()).collect();
        AddressRules::new(&config, ["127.0.0.1:6379".parse().unwrap()], ["10.1.2.3".parse().unwrap()])
    }

    fn check(rules: &AddressRules, address: &str) -> Result<(), AddressFault> {
        rules.check(address.parse().unwrap())
    }

    #[test]
    fn some_addresses_are_refused_whatever_is_allowed() {
        let rules = rules(&["0.0.0.0/0", "::/0"]);
        for (address, fault) in [
            ("0.0.0.0:80", AddressFault::Unspecified),
            ("0.1.2.3:80", AddressFault::Unspecified),
            ("[::]:80", AddressFault::Unspecified),
            ("169.254.169.254:80", AddressFault::Metadata),
            ("[fd00:ec2::254]:80", AddressFault::Metadata),
            ("[fd20:ce::254]:80", AddressFault::Metadata),
            ("192.0.0.192:80", AddressFault::Metadata),
            ("[64:ff9b:1::a00:1]:80", AddressFault::Embedded),
            ("169.254.1.1:80", AddressFault::LinkLocal),
            ("[fe80::1]:80", AddressFault::LinkLocal),
            ("[febf::1]:80", AddressFault::LinkLocal),
            ("224.0.0.1:80", AddressFault::Multicast),
            ("255.255.255.255:80", AddressFault::Multicast),
            ("[ff02::1]:80", AddressFault::Multicast),
            ("[::ffff:10.0.0.1]:80", AddressFault::Embedded),
            ("[::10.0.0.1]:80", AddressFault::Embedded),
            ("[64:ff9b::a00:1]:80", AddressFault::Embedded),
            ("[2002:a00:1::1]:80", AddressFault::Embedded),
            ("127.0.0.1:0", AddressFault::Port),
            ("127.0.0.1:8000", AddressFault::Own),
            ("127.9.9.9:8000", AddressFault::Own),
            ("[::1]:8000", AddressFault::Own),
            ("10.1.2.3:8000", AddressFault::Own),
            ("127.0.0.1:8012", AddressFault::Own),
            ("127.0.0.1:8009", AddressFault::Own),
            ("127.0.0.1:6379", AddressFault::Own),
        ] {
            assert_eq!(check(&rules, address), Err(fault), "{address}");
        }
        for address in ["10.0.0.1:8000", "127.0.0.2:8012", "[2001:db8::1]:80", "127.0.0.1:8001", "[::1]:80"] {
            assert_eq!(check(&rules, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn only_configured_networks_are_allowed() {
        let rules = rules(&["127.0.0.0/8", "10.0.0.0/24"]);
        assert_eq!(check(&rules, "10.0.0.9:80"), Ok(()));
        assert_eq!(check(&rules, "10.0.1.9:80"), Err(AddressFault::NotAllowed));
        assert_eq!(check(&rules, "[::1]:80"), Err(AddressFault::NotAllowed));
        assert_eq!(check(&AddressRules::default(), "127.0.0.1:80"), Err(AddressFault::NotAllowed));
    }
}
