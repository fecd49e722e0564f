//! Answers that go on for long, so that they end when their caller's credential does, or when an operator
//! stops what they are about: event streams and calls of gRPC. (Tunnels have their own register, since they end with a word.) One sweep looks after all.
//! LIMIT: one entry a request under way, which connections and their streams bound.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::{HashMap, HashMapExt as _};
use sluice_identity::trust::Trust;
use sluice_policy::kill_switch::Switches;

use crate::clock;
use crate::conn::Conn;
use crate::ctx::Exchange;
use crate::generation::Generation;
use crate::jwt_cache::Verified;
use crate::kill::Subject;
use crate::link::{Fault, Link};
use crate::state::Shared;

/// A lock is held for the sweep of one shard.
const SHARDS: usize = 16;

/// How a credential ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its time is over.
    Expired,
    /// It was taken back, or clients are let in by other rules now.
    Revoked,
}

/// By what credentials are judged at one moment.
pub(crate) struct Moment<'a> {
    shared: &'a Shared,
    trust: Arc<Trust>,
    switches: Option<Arc<Switches>>,
    generation: Arc<Generation>,
    now_s: i64,
    leeway_s: i64,
}

impl<'a> Moment<'a> {
    /// The present one.
    pub(crate) fn now(shared: &'a Shared) -> Self {
        let leeway_s = shared.trust.rules().leeway_s;
        let (trust, switches) = (shared.trust.load(), shared.kill.switches());
        Self { shared, trust, switches, generation: shared.generation(), now_s: clock::unix_s(), leeway_s }
    }

    /// Whether an operator has stopped what goes on for long; counted where it is.
    pub(crate) fn killed(&self, subject: Option<&Subject>, caller: Option<&Verified>) -> bool {
        let (Some(switches), Some(subject)) = (&self.switches, subject) else { return false };
        let killed = subject.is_stopped(switches, caller);
        if killed {
            self.shared.meters.kill_ended.inc();
        }
        killed
    }

    /// Whether what a client showed, on its connection and with its request, is no longer good.
    pub(crate) fn ended(&self, conn: &Conn, caller: Option<&Verified>) -> Option<Ended> {
        let certificate = conn.tls.as_ref().and_then(|tls| tls.client.as_ref());
        let claims = caller.map(|caller| &caller.claims);
        if certificate.is_some_and(|certificate| self.trust.is_certificate_revoked(certificate))
            || claims.is_some_and(|claims| self.trust.is_revoked(claims))
            || caller.is_some_and(|caller| self.generation.api_keys.forgot(caller))
        {
            return Some(Ended::Revoked);
        }
        let expired = certificate.is_some_and(|certificate| !certificate.is_valid_at(self.now_s))
            || claims.is_some_and(|claims| self.now_s >= claims.exp.saturating_add(self.leeway_s));
        if expired {
            return Some(Ended::Expired);
        }
        let admitted = conn.tls.as_ref().is_none_or(|tls| self.shared.tls.admits(tls));
        (!admitted).then_some(Ended::Revoked)
    }
}

struct Entry {
    conn: Arc<Conn>,
    caller: Option<Arc<Verified>>,
    subject: Option<Subject>,
    link: Arc<Link>,
    ended: bool,
}

/// The answers that go on for long.
pub(crate) struct Standing {
    shards: [Mutex<HashMap<u64, Entry>>; SHARDS],
    next: AtomicU64,
}

/// A request's place among them.
pub(crate) struct Place {
    shared: Arc<Shared>,
    number: u64,
}

impl Standing {
    /// None.
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::new(HashMap::new())), next: AtomicU64::new(0) }
    }

    /// Ends those whose caller's credential is no longer good, or which an operator stops.
    pub(crate) fn check(&self, moment: &Moment<'_>) {
        for shard in &self.shards {
            for entry in lock(shard).values_mut().filter(|entry| !entry.ended) {
                let caller = entry.caller.as_deref();
                let fault = if moment.ended(&entry.conn, caller).is_some() {
                    Fault::Credential
                } else if moment.killed(entry.subject.as_ref(), caller) {
                    Fault::Killed
                } else {
                    continue;
                };
                entry.ended = true;
                entry.link.end_long(fault);
            }
        }
    }

    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Entry>> {
        lock(&self.shards[number as usize % SHARDS])
    }
}

impl Place {
    /// Enters a request whose answer goes on for long; `None` where no credential can end and no operator
    /// can stop it.
    pub(crate) fn take(shared: &Arc<Shared>, x: &Exchange) -> Option<Self> {
        let (conn, caller, link) = (&x.arrival.conn, &x.identity, &x.arrival.link);
        let subject = Subject::of(x);
        if conn.tls.is_none() && caller.is_none() && subject.is_none() {
            return None;
        }
        link.watch();
        let number = shared.standing.next.fetch_add(1, Ordering::Relaxed);
        let (conn, caller, link) = (Arc::clone(conn), caller.clone(), Arc::clone(link));
        let entry = Entry { conn, caller, subject, link, ended: false };
        shared.standing.shard(number).insert(number, entry);
        Some(Self { shared: Arc::clone(shared), number })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.standing.shard(self.number).remove(&self.number);
    }
}

fn lock(shard: &Mutex<HashMap<u64, Entry>>) -> MutexGuard<'_, HashMap<u64, Entry>> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}
