//! Doors: the sockets of a role, opened by the supervisor or by the role itself.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use sluice_identity::certificate::ClientCertificate;

/// A listening socket, not yet in any runtime.
#[derive(Debug)]
pub enum Listener {
    /// An API door.
    Tcp(TcpListener),
    /// An internal door.
    Unix(UnixListener),
}

/// The listening sockets of a role by name: `api`, `internal`, `http`, `control`, ….
#[derive(Debug, Default)]
pub struct Doors(BTreeMap<String, Listener>);

impl Doors {
    /// Adds a socket.
    pub fn insert(&mut self, name: impl Into<String>, listener: Listener) {
        self.0.insert(name.into(), listener);
    }

    /// Takes a socket out.
    pub fn take(&mut self, name: &str) -> Option<Listener> {
        self.0.remove(name)
    }

    /// Where a socket listens; `None` for one that is not here or has no port.
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        match self.0.get(name)? {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    /// Takes every socket.
    pub fn take_all(&mut self) -> BTreeMap<String, Listener> {
        std::mem::take(&mut self.0)
    }

    /// A duplicate of every socket, by name.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn duplicates(&self) -> io::Result<Vec<(String, Listener)>> {
        let duplicate = |listener: &Listener| -> io::Result<Listener> {
            Ok(match listener {
                Listener::Tcp(tcp) => Listener::Tcp(tcp.try_clone()?),
                Listener::Unix(unix) => Listener::Unix(unix.try_clone()?),
            })
        };
        self.0.iter().map(|(name, listener)| Ok((name.clone(), duplicate(listener)?))).collect()
    }

    /// Addresses of the TCP sockets by name.
    pub fn addresses(&self) -> BTreeMap<String, String> {
        self.0
            .iter()
            .filter_map(|(name, listener)| match listener {
                Listener::Tcp(tcp) => Some((name.clone(), tcp.local_addr().ok()?.to_string())),
                Listener::Unix(_) => None,
            })
            .collect()
    }
}

/// Where a connection came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// A TCP port for direct clients.
    Api,
    /// The Unix socket for other roles; the peer's uid is ours.
    Internal,
}

impl Door {
    /// Label in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Internal => "internal",
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Where it came in.
    pub door: Door,
    /// Its address, at a TCP door.
    pub address: Option<SocketAddr>,
    /// What its certificate said when it shook hands, where it did. Chain and key were verified then.
    pub client: Option<Arc<ClientCertificate>>,
}
