//! The feed: what every verifier must know, in order, as soon as it is durable.
//!
//! The hub holds the present state (one [`Snapshot`]) and hands out changes. It is told by the store's writer
//! and nobody else, so its order is the order of commits. A follower gets a snapshot, or, when it names the
//! last change it has seen and the hub still remembers those after it, just these. A follower that falls
//! behind gets a new snapshot; a slow one never holds anybody up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_http::{TrustCell, sse};
use sluice_wire::feed::{Change, Delta, Message, Revoked, RevokedSubject, Snapshot};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::error::VaultError;
use crate::store::{Range, Table, View};
use crate::token;

/// LIMIT: changes remembered for followers that come back, and changes a follower may be behind.
const RECENT_MAX: usize = 1_024;
/// LIMIT: revocations of one kind in a snapshot.
const REVOKED_MAX: usize = 1_000_000;

/// Why and how long something is not believed; the kind and name are in the row's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RevokedRow {
    /// When it was revoked.
    pub(crate) at: Timestamp,
    /// When it ends by itself and the row can go.
    pub(crate) until: Timestamp,
    /// For certificates: the issuer's key id.
    pub(crate) issuer: Option<String>,
    /// For subjects: tokens issued up to here (unix seconds) are void.
    pub(crate) issued_until: Option<i64>,
}

/// The hub.
pub(crate) struct Hub {
    state: Mutex<State>,
    sender: broadcast::Sender<Bytes>,
    ended: CancellationToken,
    trust: TrustCell,
}

struct State {
    snapshot: Snapshot,
    recent: VecDeque<Delta>,
}

/// A follower's place at the hub.
pub(crate) struct Follower {
    hub: Arc<Hub>,
    first: VecDeque<Bytes>,
    receiver: broadcast::Receiver<Bytes>,
}

impl Hub {
    /// A hub at `snapshot`; `trust` is this process's own verifier and is kept current too.
    pub(crate) fn new(snapshot: Snapshot, trust: TrustCell) -> Self {
        trust.apply(&Message::Snapshot(snapshot.clone()));
        let state = Mutex::new(State { snapshot, recent: VecDeque::new() });
        Self { state, sender: broadcast::channel(RECENT_MAX).0, ended: CancellationToken::new(), trust }
    }

    /// Ends every stream: nothing will be told any more.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Takes in what a commit announced. Called by the store's writer.
    pub(crate) fn publish(&self, messages: &[Message]) {
        let mut state = self.lock();
        for message in messages {
            self.trust.apply(message);
            let bytes = frame(message);
            match message {
                Message::Delta(delta) => state.apply(delta),
                Message::Snapshot(snapshot) => {
                    state.snapshot = snapshot.clone();
                    state.recent.clear();
                }
                Message::Heartbeat => {}
            }
            // Nobody follows: nobody misses it.
            drop(self.sender.send(bytes));
        }
    }

    /// Begins to follow, after change `last` if the hub still knows what came next.
    pub(crate) fn follow(self: &Arc<Self>, last: Option<u64>) -> Follower {
        let state = self.lock();
        let receiver = self.sender.subscribe();
        let missed = last.and_then(|last| state.after(last));
        let first = missed.unwrap_or_else(|| [frame(&Message::Snapshot(state.snapshot.clone()))].into());
        Follower { hub: Arc::clone(self), first, receiver }
    }

    /// The revocation lists, PEM: the issuing intermediate's first.
    pub(crate) fn crl(&self) -> Option<String> {
        self.lock().snapshot.crl.clone()
    }

    /// The verification keys in force.
    pub(crate) fn jwks(&self) -> Vec<sluice_wire::feed::Jwk> {
        self.lock().snapshot.jwks.clone()
    }

    /// Number of the last change.
    pub(crate) fn seq(&self) -> u64 {
        self.lock().snapshot.seq
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, delta: &Delta) {
        let snapshot = &mut self.snapshot;
        snapshot.seq = delta.seq;
        match &delta.change {
            Change::Jti { jti } => snapshot.revoked.jti.push(jti.clone()),
            Change::Sub(subject) => {
                snapshot.revoked.sub.retain(|known| known.sub != subject.sub);
                snapshot.revoked.sub.push(subject.clone());
            }
            Change::Serial { serial, crl } => {
                snapshot.revoked.serial.push(serial.clone());
                snapshot.crl = crl.clone().or(snapshot.crl.take());
            }
            Change::Keys { jwks } => snapshot.jwks.clone_from(jwks),
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(delta.clone());
    }

    /// The changes after `last`, when none is missing in between.
    fn after(&self, last: u64) -> Option<VecDeque<Bytes>> {
        let known_from = self.snapshot.seq - self.recent.len() as u64;
        if !(known_from..=self.snapshot.seq).contains(&last) {
            return None;
        }
        let missed = self.recent.iter().filter(|delta| delta.seq > last);
        Some(missed.map(|delta| frame(&Message::Delta(delta.clone()))).collect())
    }
}

impl Follower {
    /// The next frame: what was missed, then what happens.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.first.pop_front() {
            return Some(bytes);
        }
        let received = tokio::select! {
            biased;
            () = self.hub.ended.cancelled() => return None,
            received = self.receiver.recv() => received,
        };
        match received {
            Ok(bytes) => Some(bytes),
            Err(broadcast::error::RecvError::Closed) => None,
            Err(broadcast::error::RecvError::Lagged(_)) => {
                *self = self.hub.follow(None);
                self.first.pop_front()
            }
        }
    }
}

/// One message as an event of the stream.
pub(crate) fn frame(message: &Message) -> Bytes {
    let json = |value: Result<String, _>| value.expect("strings and numbers always serialise");
    match message {
        Message::Snapshot(snapshot) => {
            let data = json(serde_json::to_string(snapshot));
            sse::frame(Some(&snapshot.seq.to_string()), "snapshot", &data)
        }
        Message::Delta(delta) => {
            let data = json(serde_json::to_string(delta));
            sse::frame(Some(&delta.seq.to_string()), "delta", &data)
        }
        Message::Heartbeat => sse::frame(None, "heartbeat", "{}"),
    }
}

/// The state as the store has it; `crl` is made by the caller.
pub(crate) fn snapshot(
    view: &impl View,
    epoch: &str,
    seq: u64,
    crl: Option<String>,
) -> Result<Snapshot, VaultError> {
    let names = |prefix: &str| -> Result<Vec<String>, VaultError> {
        let keys = view.keys(Table::Revoked, &Range::prefix(prefix.as_bytes(), REVOKED_MAX))?;
        Ok(keys.iter().map(|key| String::from_utf8_lossy(&key[prefix.len()..]).into_owned()).collect())
    };
    let subject = |sub: String| -> Result<RevokedSubject, VaultError> {
        let row: RevokedRow = view.require(Table::Revoked, format!("sub/{sub}").as_bytes())?;
        Ok(RevokedSubject { sub, issued_until: row.issued_until.unwrap_or(i64::MAX) })
    };
    let revoked = Revoked {
        jti: names("jti/")?,
        sub: names("sub/")?.into_iter().map(subject).collect::<Result<_, _>>()?,
        serial: names("serial/")?,
    };
    Ok(Snapshot { epoch: epoch.to_owned(), seq, jwks: token::published(view)?, revoked, crl })
}
