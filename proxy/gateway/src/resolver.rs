//! Looking names up, never on the path of a request.
//!
//! LIMIT: [`AT_ONCE`] lookups of the system's resolver, counted until each of them has really ended: one
//! that hangs keeps its thread, and its place, past the deadline of who asked.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sluice_schema::{InstanceUrl, Scheme};
use tokio::sync::Semaphore;

/// LIMIT: lookups under way.
const AT_ONCE: usize = 32;
/// Time for one lookup.
const WITHIN: Duration = Duration::from_secs(2);

/// The answer to a lookup: the addresses, best first, none when the name has none.
pub type Lookup = BoxFuture<'static, io::Result<Vec<SocketAddr>>>;

/// Gives the addresses of a name.
pub trait Resolve: Send + Sync + 'static {
    /// Looks `host` up; every address carries `port`.
    fn lookup(&self, host: &str, port: u16) -> Lookup;
}

/// The machine's own resolver.
#[derive(Debug)]
pub struct SystemResolver {
    places: Arc<Semaphore>,
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Resolve for SystemResolver {
    fn lookup(&self, host: &str, port: u16) -> Lookup {
        let (host, places) = (host.to_owned(), Arc::clone(&self.places));
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            let found = tokio::task::spawn_blocking(move || {
                let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
                drop(place);
                found
            });
            found.await.map_err(io::Error::other)?
        })
    }
}

/// The addresses of an instance; `None` where its name does not resolve in time. At least one otherwise.
pub(crate) async fn resolve(resolver: &dyn Resolve, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
    let found = tokio::time::timeout(WITHIN, resolver.lookup(host, port)).await.ok()?.ok()?;
    (!found.is_empty()).then_some(found)
}

/// The name that has to be looked up for an instance; `None` where its address is written.
pub(crate) fn name_of(url: &InstanceUrl) -> Option<&str> {
    (url.scheme != Scheme::Unix && url.ip().is_none()).then_some(url.host.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let found = resolve(&SystemResolver::default(), "localhost", 81).await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 81));
        assert!(resolve(&SystemResolver::default(), "no-such-name.invalid", 81).await.is_none());
    }
}
