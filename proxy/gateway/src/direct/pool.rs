//! Connections to instances that are idle, kept by one edge thread for its next requests.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use foldhash::HashMap;
use pingora::protocols::l4::socket::SocketAddr as PeerAddress;
use pingora::{Error, ErrorType, OrErr as _, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use crate::clock;
use crate::inbound::Inbound;

/// LIMIT: idle connections of one edge thread.
const IDLE_MAX: usize = 256;
/// Between two looks at all of them.
const SWEEP: Duration = Duration::from_secs(1);
/// LIMIT: bytes of an answer read ahead.
const READ_BYTES: usize = 64 << 10;

/// Where a connection leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A connection to an instance.
#[derive(Debug)]
pub(super) struct Upstream {
    socket: Socket,
    place: Place,
    /// What it has sent.
    pub(super) inbound: Inbound,
    /// The last read filled all the room there was.
    filled: bool,
}

struct Idle {
    upstream: Upstream,
    until: Instant,
}

/// The idle connections of one edge thread.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    places: HashMap<Place, Vec<Idle>>,
    count: usize,
}

impl Place {
    /// Where a peer listens.
    pub(super) fn of(address: PeerAddress) -> Option<Self> {
        match address {
            PeerAddress::Inet(address) => Some(Self::Tcp(address)),
            PeerAddress::Unix(address) => address.as_pathname().map(|path| Self::Unix(path.to_owned())),
        }
    }
}

impl Pool {
    /// An idle connection that still stands.
    pub(super) fn take(&self, place: &Place) -> Option<Upstream> {
        let mut kept = self.lock();
        let Kept { places, count } = &mut *kept;
        let idle = places.get_mut(place)?;
        let now = clock::instant();
        std::iter::from_fn(|| idle.pop())
            .inspect(|_| *count -= 1)
            .find(|idle| idle.is_good(now))
            .map(|idle| idle.upstream)
    }

    /// Keeps a connection whose last exchange was whole.
    pub(super) fn put(&self, mut upstream: Upstream, within: Duration) {
        upstream.inbound.shrink();
        let mut kept = self.lock();
        if kept.count >= IDLE_MAX {
            kept.make_room();
        }
        if kept.count >= IDLE_MAX {
            return;
        }
        kept.count += 1;
        let idle = Idle { until: clock::instant() + within, upstream };
        match kept.places.get_mut(&idle.upstream.place) {
            Some(others) => others.push(idle),
            None => drop(kept.places.insert(idle.upstream.place.clone(), vec![idle])),
        }
    }

    /// Closes those that are idle for too long or whose other end has left, for ever.
    pub(crate) async fn sweep(&self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let (now, mut kept) = (Instant::now(), self.lock());
            kept.places.retain(|_, idle| {
                idle.retain(|idle| idle.is_good(now));
                !idle.is_empty()
            });
            kept.count = kept.places.values().map(Vec::len).sum();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Closes one of those that would go first, so that what is quiet now keeps no other's connections out.
    fn make_room(&mut self) {
        let firsts = self.places.values_mut().filter(|idle| !idle.is_empty());
        if let Some(idle) = firsts.min_by_key(|idle| idle[0].until) {
            idle.remove(0);
            self.count -= 1;
        }
    }
}

impl Idle {
    fn is_good(&self, now: Instant) -> bool {
        self.until > now && self.upstream.is_quiet()
    }
}

impl Upstream {
    /// A new connection.
    pub(super) async fn connect(place: Place, within: Duration) -> Result<Self> {
        let connecting = async {
            match &place {
                Place::Tcp(address) => {
                    let socket = TcpStream::connect(address).await?;
                    socket.set_nodelay(true)?;
                    Ok(Socket::Tcp(socket))
                }
                Place::Unix(path) => UnixStream::connect(path).await.map(Socket::Unix),
            }
        };
        let refused = |error: &io::Error| match error.kind() {
            io::ErrorKind::TimedOut => ErrorType::ConnectTimedout,
            io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
            _ => ErrorType::ConnectError,
        };
        match tokio::time::timeout(within, connecting).await {
            Ok(Ok(socket)) => Ok(Self { socket, place, inbound: Inbound::default(), filled: false }),
            Ok(Err(error)) => Err(Error::because(refused(&error), "to the instance", error).into_up()),
            Err(late) => Err(late)
                .or_err(ErrorType::ConnectTimedout, "to the instance")
                .map_err(|e: Box<Error>| e.into_up()),
        }
    }

    /// Whether the other end has neither left nor said anything.
    fn is_quiet(&self) -> bool {
        let mut byte = [0];
        let read = match &self.socket {
            Socket::Tcp(socket) => socket.try_read(&mut byte),
            Socket::Unix(socket) => socket.try_read(&mut byte),
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes some of `bytes`.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Socket::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
        }
    }

    /// Reads more; zero at the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if std::mem::take(&mut self.filled) {
            self.inbound.widen(READ_BYTES);
        }
        if !self.inbound.make_room(READ_BYTES) {
            return Poll::Ready(Err(io::Error::other("the answer's head is too large")));
        }
        let mut room = ReadBuf::new(self.inbound.room());
        let most = room.capacity();
        let read = match &mut self.socket {
            Socket::Tcp(socket) => Pin::new(socket).poll_read(cx, &mut room),
            Socket::Unix(socket) => Pin::new(socket).poll_read(cx, &mut room),
        };
        let count = room.filled().len();
        std::task::ready!(read)?;
        self.inbound.filled_more(count);
        self.filled = count == most;
        Poll::Ready(Ok(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    async fn connected(listener: &TcpListener) -> (Upstream, TcpStream, Place) {
        let address = listener.local_addr().unwrap();
        let place = Place::of(PeerAddress::Inet(address)).unwrap();
        let upstream = Upstream::connect(place.clone(), Duration::from_secs(5)).await.unwrap();
        (upstream, listener.accept().await.unwrap().0, place)
    }

    async fn readable(upstream: &Upstream) {
        let Socket::Tcp(socket) = &upstream.socket else { panic!() };
        socket.readable().await.unwrap();
    }

    #[tokio::test]
    async fn only_quiet_connections_are_used_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (quiet, _open, place) = connected(&listener).await;
        let (left, gone, _) = connected(&listener).await;
        let (talks, mut talker, _) = connected(&listener).await;
        drop(gone);
        talker.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        readable(&left).await;
        readable(&talks).await;
        let (pool, within) = (Pool::default(), Duration::from_secs(60));
        for upstream in [quiet, left, talks] {
            pool.put(upstream, within);
        }
        assert!(pool.take(&place).is_some());
        assert!(pool.take(&place).is_none());
        assert_eq!(pool.lock().count, 0);
    }

    #[tokio::test]
    async fn idle_connections_are_bounded_in_time_and_number() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (upstream, _open, place) = connected(&listener).await;
        let pool = Pool::default();
        pool.put(upstream, Duration::ZERO);
        assert!(pool.take(&place).is_none());
        let (upstream, _open, place) = connected(&listener).await;
        pool.lock().count = IDLE_MAX;
        pool.put(upstream, Duration::from_secs(60));
        assert!(pool.take(&place).is_none());
    }

    #[tokio::test]
    async fn a_full_pool_closes_what_would_go_first() {
        let pool = Pool::default();
        let [one, other] = [TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0")];
        let [one, other] = [one.await.unwrap(), other.await.unwrap()];
        let (mut open, mut places) = (Vec::new(), Vec::new());
        for (listener, within) in [(&one, 50), (&one, 60), (&other, 55)] {
            let (upstream, socket, place) = connected(listener).await;
            open.push(socket);
            places.push(place);
            if places.len() == 3 {
                pool.lock().count = IDLE_MAX;
            }
            pool.put(upstream, Duration::from_secs(within));
        }
        assert_eq!(pool.lock().count, IDLE_MAX);
        assert!(pool.take(&places[2]).is_some(), "the newest is kept");
        assert!(
            pool.take(&places[0]).is_some() && pool.take(&places[0]).is_none(),
            "of two the older is gone"
        );
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_told_apart() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = Place::Tcp(listener.local_addr().unwrap());
        drop(listener);
        let error = Upstream::connect(place, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(*error.etype(), ErrorType::ConnectRefused);
    }
}
