//! How many connections the edge holds, in all and of one address.
//!
//! A permit is taken at accept and given back by Drop. IPv6 counts by /64, as one customer holds
//! that much. LIMIT: the map holds at most one entry an open connection.
//!
//! Whatever is configured, a part of the files that the process may open is kept from clients: an edge whose
//! clients hold them all could neither reach an upstream nor write its logs.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::HashMap;
use rustix::process::{Resource, getrlimit};
use sluice_http::address_key;

/// Files kept from clients where the process may open many; a quarter of them all where that is more, and half of
/// them where it may open few.
const KEPT_FILES: usize = 2048;

/// Counts of open client connections.
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicUsize,
    /// LIMIT: of all open connections, by what the process may open.
    most: usize,
    by_ip: Mutex<HashMap<IpAddr, usize>>,
}

/// The bounds in force; they follow the configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionCaps {
    /// In all.
    pub(crate) total: usize,
    /// Of one address; `None` where the address is exempt.
    pub(crate) per_ip: Option<usize>,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// The edge holds as many as it may.
    Total,
    /// This address holds as many as it may.
    PerIp,
}

/// One open connection.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    connections: Arc<Connections>,
    counted_ip: Option<IpAddr>,
}

impl Connections {
    /// Nothing open yet. Says so where this process cannot hold as many as are `configured`.
    pub(crate) fn of_this_process(configured: usize) -> Self {
        let files = getrlimit(Resource::Nofile).current;
        let files = files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
        let connections = Self::with_files(files);
        if connections.most < configured {
            tracing::warn!(
                component = "listener",
                files,
                configured,
                most = connections.most,
                "fewer connections than configured: the process may not open as many files"
            );
        }
        connections
    }

    /// Nothing open yet, in a process that may open so many files.
    fn with_files(files: usize) -> Self {
        let kept = (files / 4).max(KEPT_FILES).min(files / 2);
        Self { open: AtomicUsize::new(0), most: files - kept, by_ip: Mutex::default() }
    }

    /// Open connections.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Takes a permit for a connection of `ip`.
    pub(crate) fn admit(
        self: &Arc<Self>,
        ip: IpAddr,
        caps: ConnectionCaps,
    ) -> Result<ConnectionPermit, Full> {
        let open = self.open.fetch_add(1, Ordering::Relaxed);
        let mut permit = ConnectionPermit { connections: Arc::clone(self), counted_ip: None };
        if open >= caps.total.min(self.most) {
            return Err(Full::Total);
        }
        if let Some(cap) = caps.per_ip {
            permit.count(ip, cap)?;
        }
        Ok(permit)
    }

    fn count(&self, ip: IpAddr, cap: usize) -> Result<IpAddr, Full> {
        let key = address_key(ip);
        let mut by_ip = self.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_ip.entry(key).or_default();
        if *count >= cap {
            return Err(Full::PerIp);
        }
        *count += 1;
        Ok(key)
    }
}

impl ConnectionPermit {
    /// Counts the connection for `ip` too: the client that a trusted proxy named.
    pub(crate) fn count(&mut self, ip: IpAddr, cap: usize) -> Result<(), Full> {
        self.counted_ip = Some(self.connections.count(ip, cap)?);
        Ok(())
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        let Some(key) = self.counted_ip else { return };
        let mut by_ip = self.connections.by_ip.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_ip.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                by_ip.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: ConnectionCaps = ConnectionCaps { total: 3, per_ip: Some(2) };

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn permits_come_back_when_dropped() {
        let connections = Arc::new(Connections::with_files(usize::MAX));
        let first = connections.admit(ip("192.0.2.1"), CAPS).unwrap();
        let second = connections.admit(ip("192.0.2.1"), CAPS).unwrap();
        assert_eq!(connections.admit(ip("192.0.2.1"), CAPS).unwrap_err(), Full::PerIp);
        assert_eq!(connections.open(), 2);
        let third = connections.admit(ip("192.0.2.2"), CAPS).unwrap();
        assert_eq!(connections.admit(ip("192.0.2.3"), CAPS).unwrap_err(), Full::Total);
        drop((first, second, third));
        assert_eq!(connections.open(), 0);
        assert!(connections.by_ip.lock().unwrap().is_empty());
    }

    #[test]
    fn clients_never_hold_every_file() {
        let connections = Arc::new(Connections::with_files(9));
        let caps = ConnectionCaps { total: 10_000, per_ip: None };
        let taken: Vec<_> = (0..9).map_while(|_| connections.admit(ip("192.0.2.1"), caps).ok()).collect();
        assert_eq!(taken.len(), 5);
        assert_eq!(Connections::with_files(20_000).most, 15_000);
        drop(taken);
        assert!(connections.admit(ip("192.0.2.1"), caps).is_ok());
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        assert_eq!(address_key(ip("2001:db8::1")), address_key(ip("2001:db8::ffff")));
        assert_ne!(address_key(ip("2001:db8::1")), address_key(ip("2001:db8:0:1::1")));
        assert_eq!(address_key(ip("::ffff:192.0.2.1")), ip("192.0.2.1"));
    }
}
