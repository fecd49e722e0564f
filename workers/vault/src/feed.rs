//! The feed: what every verifier must know, in order, as soon as it is durable.
//!
//! The hub hands out the present state, which is this process's own [`Trust`], and changes. It is told by the store's
//! writer and nobody else, so its order is the order of commits. A follower gets a snapshot, in parts where it is
//! large, or, when it names the last change it has seen and the hub still remembers those after it, just these. A follower that falls
//! behind gets a new snapshot; a slow one never holds anybody up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_http::{TrustCell, sse};
use sluice_identity::trust::Trust;
use sluice_wire::feed::{
    Change, Delta, Jwk, Message, Part, Revoked, RevokedIdentity, RevokedSubject, Snapshot,
};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::error::VaultError;
use crate::store::{Range, Table, View};
use crate::token;

/// LIMIT: changes remembered for followers that come back, and changes a follower may be behind.
const RECENT_MAX: usize = 1_024;
/// LIMIT: revocations told within a snapshot; more come in parts before it.
const WHOLE_MAX: usize = 1_024;
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
    /// For subjects: tokens issued up to here (unix seconds) are void. For identities: certificates from before.
    pub(crate) issued_until: Option<i64>,
}

/// The hub. What is revoked lies in `trust` alone.
pub(crate) struct Hub {
    state: Mutex<State>,
    sender: broadcast::Sender<News>,
    ended: CancellationToken,
    trust: TrustCell,
    /// Counts the changes of what revocation lists say.
    certificates: AtomicU64,
}

struct State {
    epoch: String,
    seq: u64,
    jwks: Vec<Jwk>,
    /// The last changes, by number, as they were told.
    recent: VecDeque<(u64, Bytes)>,
}

/// What followers are told.
#[derive(Clone)]
enum News {
    Frame(Bytes),
    /// Everything is told anew.
    Anew,
}

/// A follower's place at the hub.
pub(crate) struct Follower {
    hub: Arc<Hub>,
    whole: Option<Whole>,
    missed: VecDeque<Bytes>,
    receiver: broadcast::Receiver<News>,
}

/// A state that is told in pieces.
struct Whole {
    trust: Arc<Trust>,
    next: usize,
    /// What comes last.
    head: Snapshot,
}

impl Hub {
    /// A hub at `snapshot`; `trust` is this process's own verifier and is kept current too.
    pub(crate) fn new(snapshot: Snapshot, trust: TrustCell) -> Self {
        let message = Message::Snapshot(snapshot);
        trust.apply(&message);
        let Message::Snapshot(Snapshot { epoch, seq, jwks, .. }) = message else {
            unreachable!("made above")
        };
        Self {
            state: Mutex::new(State { epoch, seq, jwks, recent: VecDeque::new() }),
            sender: broadcast::channel(RECENT_MAX).0,
            ended: CancellationToken::new(),
            trust,
            certificates: AtomicU64::new(0),
        }
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
            let news = match message {
                Message::Delta(delta) => {
                    if matches!(delta.change, Change::Serial { .. } | Change::Identity(_)) {
                        self.certificates.fetch_add(1, Ordering::Release);
                    }
                    News::Frame(state.apply(delta))
                }
                Message::Snapshot(snapshot) => {
                    state.epoch.clone_from(&snapshot.epoch);
                    state.seq = snapshot.seq;
                    state.jwks.clone_from(&snapshot.jwks);
                    state.recent.clear();
                    self.certificates.fetch_add(1, Ordering::Release);
                    News::Anew
                }
                Message::Heartbeat => continue,
            };
            // Nobody follows: nobody misses it.
            drop(self.sender.send(news));
        }
    }

    /// Begins to follow, after change `last` if the hub still knows what came next.
    pub(crate) fn follow(self: &Arc<Self>, last: Option<u64>) -> Follower {
        let state = self.lock();
        let receiver = self.sender.subscribe();
        let missed = last.and_then(|last| state.after(last));
        let whole = missed.is_none().then(|| Whole::new(self.trust.load(), &state));
        Follower { hub: Arc::clone(self), whole, missed: missed.unwrap_or_default(), receiver }
    }

    /// A number that changes with what revocation lists say.
    pub(crate) fn certificates(&self) -> u64 {
        self.certificates.load(Ordering::Acquire)
    }

    /// The verification keys in force.
    pub(crate) fn jwks(&self) -> Vec<Jwk> {
        self.lock().jwks.clone()
    }

    /// Number of the last change.
    pub(crate) fn seq(&self) -> u64 {
        self.lock().seq
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes in a change; as it is told.
    fn apply(&mut self, delta: &Delta) -> Bytes {
        self.seq = delta.seq;
        if let Change::Keys { jwks } = &delta.change {
            self.jwks.clone_from(jwks);
        }
        if self.recent.len() == RECENT_MAX {
            self.recent.pop_front();
        }
        let bytes = delta_frame(delta);
        self.recent.push_back((delta.seq, bytes.clone()));
        bytes
    }

    /// The changes after `last`, when none is missing in between.
    fn after(&self, last: u64) -> Option<VecDeque<Bytes>> {
        let known_from = self.seq - self.recent.len() as u64;
        if !(known_from..=self.seq).contains(&last) {
            return None;
        }
        let missed = self.recent.iter().filter(|(seq, _)| *seq > last);
        Some(missed.map(|(_, bytes)| bytes.clone()).collect())
    }
}

impl Whole {
    /// The state now. What is small comes in one piece.
    fn new(trust: Arc<Trust>, state: &State) -> Self {
        let (epoch, jwks) = (state.epoch.clone(), state.jwks.clone());
        let mut whole = Self {
            trust,
            next: 0,
            head: Snapshot { epoch, seq: state.seq, jwks, revoked: Revoked::default() },
        };
        if whole.trust.revoked() <= WHOLE_MAX {
            while let Some(piece) = whole.piece() {
                whole.head.revoked.add(piece);
            }
        }
        whole
    }

    fn piece(&mut self) -> Option<Revoked> {
        let piece = self.trust.piece(self.next);
        self.next += 1;
        piece
    }

    /// The next event, and whether it is the last.
    fn next(&mut self) -> (Bytes, bool) {
        while let Some(revoked) = self.piece() {
            if !revoked.is_empty() {
                return (event(None, "part", &Part { revoked }), false);
            }
        }
        (event(Some(self.head.seq), "snapshot", &self.head), true)
    }
}

impl Follower {
    /// The next frame: the state or what was missed, then what happens.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(whole) = &mut self.whole {
                let (bytes, is_last) = whole.next();
                if is_last {
                    self.whole = None;
                }
                return Some(bytes);
            }
            if let Some(bytes) = self.missed.pop_front() {
                return Some(bytes);
            }
            let received = tokio::select! {
                biased;
                () = self.hub.ended.cancelled() => return None,
                received = self.receiver.recv() => received,
            };
            match received {
                Ok(News::Frame(bytes)) => return Some(bytes),
                Err(broadcast::error::RecvError::Closed) => return None,
                Ok(News::Anew) | Err(broadcast::error::RecvError::Lagged(_)) => {
                    *self = self.hub.follow(None);
                }
            }
        }
    }
}

/// Nothing new, as an event of the stream.
pub(crate) fn heartbeat() -> Bytes {
    sse::frame(None, "heartbeat", "{}")
}

fn delta_frame(delta: &Delta) -> Bytes {
    event(Some(delta.seq), "delta", delta)
}

fn event(seq: Option<u64>, name: &str, told: &impl Serialize) -> Bytes {
    let data = serde_json::to_string(told).expect("strings and numbers always serialise");
    sse::frame(seq.map(|seq| seq.to_string()).as_deref(), name, &data)
}

/// The state as the store has it.
pub(crate) fn snapshot(view: &impl View, epoch: &str, seq: u64) -> Result<Snapshot, VaultError> {
    let names = |prefix: &str| -> Result<Vec<String>, VaultError> {
        let keys = view.keys(Table::Revoked, &Range::prefix(prefix.as_bytes(), REVOKED_MAX))?;
        Ok(keys.iter().map(|key| String::from_utf8_lossy(&key[prefix.len()..]).into_owned()).collect())
    };
    let subject = |sub: String| -> Result<RevokedSubject, VaultError> {
        let row: RevokedRow = view.require(Table::Revoked, format!("sub/{sub}").as_bytes())?;
        Ok(RevokedSubject { sub, issued_until: row.issued_until.unwrap_or(i64::MAX) })
    };
    let identity = |id: String| -> Result<RevokedIdentity, VaultError> {
        let row: RevokedRow = view.require(Table::Revoked, format!("id/{id}").as_bytes())?;
        Ok(RevokedIdentity { id, valid_from: row.issued_until.unwrap_or(i64::MAX) })
    };
    let revoked = Revoked {
        jti: names("jti/")?,
        sub: names("sub/")?.into_iter().map(subject).collect::<Result<_, _>>()?,
        serial: names("serial/")?,
        identity: names("id/")?.into_iter().map(identity).collect::<Result<_, _>>()?,
    };
    Ok(Snapshot { epoch: epoch.to_owned(), seq, jwks: token::published(view)?, revoked })
}

#[cfg(test)]
mod tests;
