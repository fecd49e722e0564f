//! The tunnels that are open, so that they can be told to end: all of them when the edge drains, one when
//! its caller's credential expires or is revoked, or an operator stops what it is about. One sweep looks after all; a tunnel has no timer for it.
//! LIMIT: one entry an open connection, which `edge.limits.connections` bounds.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::{HashMap, HashMapExt as _};
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::protocols::Stream;
use pingora::upstreams::peer::HttpPeer;
use tokio::sync::oneshot;

use super::goodbye::Stop;
use crate::conn::Conn;
use crate::ctx::Exchange;
use crate::drain::Phase;
use crate::jwt_cache::Verified;
use crate::kill::Subject;
use crate::standing::{Ended, Moment};
use crate::state::Shared;

/// A lock is held for the sweep of one shard.
const SHARDS: usize = 16;
/// Between two sweeps: a revocation takes effect within a second.
const SWEEP: Duration = Duration::from_millis(500);

/// The open tunnels, and how new ones reach their upstreams.
pub(crate) struct Tunnels {
    shards: [Mutex<HashMap<u64, Entry>>; SHARDS],
    next: AtomicU64,
    connector: TransportConnector,
}

struct Entry {
    conn: Arc<Conn>,
    caller: Option<Arc<Verified>>,
    subject: Option<Subject>,
    stop: Option<oneshot::Sender<Stop>>,
}

/// An open tunnel's place among the others.
pub(super) struct Place {
    shared: Arc<Shared>,
    number: u64,
}

impl Tunnels {
    /// None are open.
    pub(crate) fn new() -> Self {
        let mut options = ConnectorOptions::new(1);
        // Roots are named by each service: none are loaded here, and a machine without any starts.
        options.ca_file = Some("/dev/null".to_owned());
        Self {
            shards: std::array::from_fn(|_| Mutex::new(HashMap::new())),
            next: AtomicU64::new(0),
            connector: TransportConnector::new(Some(options)),
        }
    }

    /// Connects to an upstream. No connection is used twice, so one connector serves all threads.
    pub(super) async fn connect(&self, peer: &HttpPeer) -> pingora::Result<Stream> {
        // Boxed: what a handshake needs is large, and given back when it is over.
        Box::pin(self.connector.new_stream(peer)).await
    }

    /// Tells every tunnel to end.
    fn stop_all(&self, stop: Stop) {
        self.sweep(|_| Some(stop));
    }

    /// Tells those to end whose caller's credential is no longer good, or which an operator stops.
    fn check(&self, moment: &Moment<'_>) {
        self.sweep(|entry| {
            let caller = entry.caller.as_deref();
            match moment.ended(&entry.conn, caller) {
                Some(Ended::Expired) => Some(Stop::Expired),
                Some(Ended::Revoked) => Some(Stop::Revoked),
                None => moment.killed(entry.subject.as_ref(), caller).then_some(Stop::Killed),
            }
        });
    }

    fn sweep(&self, judge: impl Fn(&Entry) -> Option<Stop>) {
        for shard in &self.shards {
            for entry in lock(shard).values_mut().filter(|entry| entry.stop.is_some()) {
                let Some(stop) = judge(entry) else { continue };
                if let Some(tell) = entry.stop.take() {
                    // A tunnel that ends at this moment needs no telling.
                    tell.send(stop).ok();
                }
            }
        }
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Entry>> {
        lock(&self.shards[number as usize % SHARDS])
    }
}

impl Place {
    /// Enters a tunnel; the receiver hears when it is to end.
    pub(super) fn take(shared: Arc<Shared>, x: &Exchange) -> (Self, oneshot::Receiver<Stop>) {
        let (conn, caller, subject) = (Arc::clone(&x.arrival.conn), x.identity.clone(), Subject::of(x));
        let number = shared.tunnels.next.fetch_add(1, Ordering::Relaxed);
        let (stop, told) = oneshot::channel();
        shared.tunnels.shard(number).insert(number, Entry { conn, caller, subject, stop: Some(stop) });
        shared.meters.tunnels.inc();
        // A drain that began before the entry was there has not seen it.
        if let Phase::Closing { deadline, .. } = *shared.drain.phase().borrow()
            && let Some(entry) = shared.tunnels.shard(number).get_mut(&number)
            && let Some(stop) = entry.stop.take()
        {
            stop.send(Stop::Draining(deadline)).ok();
        }
        (Self { shared, number }, told)
    }

    /// What all threads share.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.tunnels.shard(self.number).remove(&self.number);
        self.shared.meters.tunnels.dec();
    }
}

/// Looks after the open tunnels, and after the callers of whatever else goes on for long.
pub(crate) async fn watch(shared: Arc<Shared>) -> Infallible {
    let mut phase = shared.drain.phase();
    let mut tick = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            changed = phase.changed() => {
                let now = *phase.borrow_and_update();
                match (changed, now) {
                    (Ok(()), Phase::Closing { deadline, .. }) => shared.tunnels.stop_all(Stop::Draining(deadline)),
                    (Ok(()), _) => {}
                    // Nobody can drain any more: the process ends.
                    (Err(_), _) => std::future::pending().await,
                }
            }
            _ = tick.tick() => check(&shared),
            () = shared.kill.thrown() => check(&shared),
        }
    }
}

fn check(shared: &Shared) {
    let moment = Moment::now(shared);
    shared.tunnels.check(&moment);
    shared.standing.check(&moment);
}

fn lock(shard: &Mutex<HashMap<u64, Entry>>) -> MutexGuard<'_, HashMap<u64, Entry>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
