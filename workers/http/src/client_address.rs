//! Which address a request comes from, where proxies stand in between.

use std::net::{IpAddr, Ipv6Addr};

use http::HeaderMap;
use ipnet::IpNet;
use sluice_identity::certificate::SpiffeId;
use sluice_wire::header::X_FORWARDED_FOR;
use sluice_wire::role::Role;

use crate::doors::{Door, Peer};

/// LIMIT: addresses read from `X-Forwarded-For`.
const FORWARDED_MAX: usize = 32;

/// Whether an address lies in one of these networks; an IPv4 address written as IPv6 is one of IPv4.
pub fn is_within(ip: IpAddr, nets: &[IpNet]) -> bool {
    let ip = ip.to_canonical();
    nets.iter().any(|net| net.contains(&ip))
}

/// The client's address: the peer's, or behind trusted proxies the last address in `X-Forwarded-For`
/// that is none of theirs.
pub fn client_ip(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_within(peer, trusted) {
        return peer;
    }
    forwarded(headers, trusted).unwrap_or(peer)
}

/// The address as limits count it: IPv4 whole (also when mapped into IPv6), IPv6 by /64.
pub fn address_key(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// The client's address at a worker's door: what the edge says of one that came through it, else the peer's.
/// `None`: another role asks.
pub fn origin(peer: &Peer, headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let certified = peer.client.as_ref().and_then(|client| client.spiffe.as_ref()).and_then(SpiffeId::role);
    match peer.door {
        // Only roles come in here, and of those only the edge names a client.
        Door::Internal => forwarded(headers, trusted),
        Door::Api if certified == Some(Role::Edge) => forwarded(headers, trusted),
        Door::Api => peer.address.map(|address| address.ip().to_canonical()),
    }
}

/// The last address that a chain of proxies names and that is none of theirs.
fn forwarded(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let mut client = None;
    let listed = headers.get_all(X_FORWARDED_FOR).iter().rev().filter_map(|value| value.to_str().ok());
    for text in listed.flat_map(|value| value.rsplit(',')).take(FORWARDED_MAX) {
        // What stands before an unreadable entry cannot be believed.
        let Ok(ip) = text.trim().parse::<IpAddr>() else { break };
        client = Some(ip.to_canonical());
        if !is_within(ip, trusted) {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_worker_believes_the_edge_and_nobody_else_about_addresses() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("6.6.6.6, 203.0.113.9, 10.0.0.1"));
        let (trusted, at) = (["10.0.0.0/8".parse().unwrap()], "192.0.2.7:40".parse().unwrap());
        let door = |door, address| Peer { door, address, client: None };
        let internal = door(Door::Internal, None);
        assert_eq!(origin(&internal, &headers, &trusted), Some(ip("203.0.113.9")));
        assert_eq!(origin(&internal, &headers, &[]), Some(ip("10.0.0.1")));
        assert_eq!(origin(&internal, &HeaderMap::new(), &trusted), None);
        assert_eq!(origin(&door(Door::Api, Some(at)), &headers, &trusted), Some(ip("192.0.2.7")));
    }

    #[test]
    fn only_trusted_proxies_name_the_client() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("1.1.1.1, 203.0.113.9, 10.0.0.2"));
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(client_ip(ip("192.0.2.1"), &headers, &trusted), ip("192.0.2.1"));
        assert_eq!(client_ip(ip("10.0.0.1"), &headers, &trusted), ip("203.0.113.9"));
        headers.insert(X_FORWARDED_FOR, HeaderValue::from_static("junk"));
        assert_eq!(client_ip(ip("10.0.0.1"), &headers, &trusted), ip("10.0.0.1"));
    }
}
