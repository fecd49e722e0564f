//! The addresses of this machine.
//!
//! A listener on `0.0.0.0` or `::` answers on all of them, so none of them may be registered with its
//! port. What the network translates to this machine from outside (a load balancer, a port forward) is
//! nothing it can know.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// Every address of every interface, as the kernel lists them now.
pub(crate) fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses: Vec<IpAddr> = Vec::new();
    for interface in getifaddrs().map_err(io::Error::from)? {
        let Some(address) = interface.address else { continue };
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        let v6 = address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
        if let Some(ip) = v4.or(v6)
            && !addresses.contains(&ip)
        {
            addresses.push(ip);
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_among_them() {
        assert!(addresses().unwrap().contains(&IpAddr::from([127, 0, 0, 1])));
    }
}
