//! Where changes of switches are taken in and settled.
//!
//! An ON holds when [`put_on`] returns; what is to be written of it (audit log, ledger) and told (event stream)
//! is noted beside it and done by tasks that try again until it is done. An OFF is the other way round: audit
//! log, ledger and stream first, and only then it holds ([`put_off`]).
//!
//! When the edge starts, a record that cannot be read counts as a switch that is on, at this edge alone; a
//! ledger that cannot be opened keeps the edge from starting, as it always does.

mod kept;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use sluice_audit::{Decision, Entry as AuditEntry};
use sluice_client::ClientError;
use sluice_ledger::{KeptSwitch, LedgerError, Place, switch_key};
use sluice_policy::kill_switch::book::{Book, Change, EdgeId, Effect, Entry, Wanted};
use sluice_policy::kill_switch::{Scope, TooMany};
use tokio::time::timeout;

use super::wire;
use crate::books::blocking;
use crate::state::Shared;
use crate::{clock, ids};
use kept::settle;

pub(crate) use kept::{carried, keep, load, take};

/// LIMIT: how long an answer to an ON waits for the disk, and then for the event stream.
const WRITTEN_WITHIN: Duration = Duration::from_millis(250);
/// Between two tries at what could not be written.
const AGAIN: Duration = Duration::from_secs(1);
/// LIMIT: audit records that wait; the oldest are given up for the newest, and counted in the log.
const AUDITS_MAX: usize = 1_000;
/// LIMIT: switches in one answer.
pub(crate) const SWITCHES_PAGE_MAX: usize = 1_000;
/// Who put on what a record could not tell.
const LEDGER: &str = "role/edge";

/// What is known, and what of it is not settled yet.
pub(super) struct Desk {
    pub(super) book: Book,
    /// The last event of the stream that was read.
    pub(super) position: Option<String>,
    /// Of each scope the own ON that the stream has.
    announced: BTreeMap<Scope, u64>,
    /// Own ONs that the stream is to have.
    pub(super) untold: BTreeSet<Scope>,
    /// Scopes whose records are to be written.
    unsaved: BTreeSet<Scope>,
    /// Scopes whose records lack only that the stream has them.
    unnoted: BTreeSet<Scope>,
    /// Keys of records that are to be removed.
    discarded: BTreeSet<String>,
    /// Where the edge is, is to be written.
    moved: bool,
    audits: VecDeque<(AuditEntry, Timestamp)>,
}

/// Who changes a switch, for the audit log.
pub(crate) struct Author {
    pub(crate) subject: String,
    pub(crate) request_id: String,
    pub(crate) remote: String,
}

/// A switch as it is shown.
pub(crate) struct View {
    pub(crate) scope: Scope,
    pub(crate) cancel_lane_open: bool,
    pub(crate) reason: String,
    pub(crate) by: String,
    pub(crate) since_ms: u64,
    /// The edge at which it was put on last.
    pub(crate) edge: EdgeId,
    /// On this edge's disk.
    pub(crate) persisted: bool,
    /// No audit record waits.
    pub(crate) audited: bool,
    /// On the event stream, as far as it is this edge's to tell.
    pub(crate) told: bool,
}

/// Why a switch stays on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OffError {
    /// The ledger cannot be written.
    #[error("the edge's ledger cannot be written")]
    Ledger(#[from] LedgerError),
    /// The event stream does not take it, or does not say so.
    #[error("the event stream does not take it")]
    Stream(#[source] ClientError),
}

impl Desk {
    pub(super) fn new() -> Self {
        Self {
            book: Book::new(EdgeId::of_edge(ids::random())),
            position: None,
            announced: BTreeMap::new(),
            untold: BTreeSet::new(),
            unsaved: BTreeSet::new(),
            unnoted: BTreeSet::new(),
            discarded: BTreeSet::new(),
            moved: false,
            audits: VecDeque::new(),
        }
    }

    /// Notes what a change of the book means for the disk.
    fn took(&mut self, scope: &Scope, effect: Effect) -> bool {
        let Effect::Taken { forgotten } = effect else { return false };
        if let Some(gone) = forgotten {
            self.announced.remove(&gone);
            self.unsaved.remove(&gone);
            self.discarded.insert(switch_key(&gone));
        }
        self.discarded.remove(&switch_key(scope));
        self.unsaved.insert(scope.clone());
        if self.own_epoch(scope).is_none() {
            self.untold.remove(scope);
        }
        true
    }

    /// Takes in a change, of whichever edge; says whether anything is new.
    pub(super) fn apply(&mut self, scope: &Scope, change: &Change) -> Result<bool, TooMany> {
        match self.book.apply(scope, change) {
            Effect::Full => Err(TooMany),
            effect => Ok(self.took(scope, effect)),
        }
    }

    pub(super) fn audit(&mut self, entry: AuditEntry) {
        if self.audits.len() >= AUDITS_MAX {
            self.audits.pop_front();
            tracing::error!(component = "kill_switch", "an audit record is given up: too many wait");
        }
        self.audits.push_back((entry, Timestamp::now()));
    }

    /// Number of the own ON that is in force.
    pub(super) fn own_epoch(&self, scope: &Scope) -> Option<u64> {
        Some(self.book.entry(scope)?.holds.get(&self.book.own())?.epoch)
    }

    /// The stream has an own ON.
    pub(super) fn announced(&mut self, scope: &Scope, epoch: u64) {
        if self.own_epoch(scope) != Some(epoch) {
            return;
        }
        self.untold.remove(scope);
        if self.announced.insert(scope.clone(), epoch) != Some(epoch) {
            self.unnoted.insert(scope.clone());
        }
    }

    /// Every own ON is to be told again: an edge that is new may have missed it.
    pub(super) fn tell_again(&mut self) {
        let own = self.book.own();
        let held = self.book.entries().filter(|(_, entry)| entry.holds.contains_key(&own));
        self.untold = held.map(|(scope, _)| scope.clone()).collect();
    }

    fn kept(&self, scope: &Scope) -> Option<KeptSwitch> {
        let entry = self.book.entry(scope)?.clone();
        Some(KeptSwitch { entry, announced: self.announced.get(scope).copied().unwrap_or_default() })
    }

    fn place(&self) -> Place {
        Place { edge: self.book.own(), position: self.position.clone() }
    }

    fn is_settled(&self) -> bool {
        self.is_saved() && self.audits.is_empty()
    }

    fn is_saved(&self) -> bool {
        self.unsaved.is_empty() && self.unnoted.is_empty() && self.discarded.is_empty() && !self.moved
    }

    fn is_told(&self, scope: &Scope) -> bool {
        self.own_epoch(scope).is_none_or(|epoch| self.announced.get(scope) == Some(&epoch))
    }

    fn view(&self, scope: &Scope) -> Option<View> {
        let entry = self.book.entry(scope)?;
        let (edge, hold) = entry.newest()?;
        Some(View {
            scope: scope.clone(),
            cancel_lane_open: entry.switch()?.cancel_lane_open,
            reason: hold.reason.clone(),
            by: hold.by.clone(),
            since_ms: entry.since_ms()?,
            edge,
            persisted: !self.unsaved.contains(scope),
            audited: self.audits.is_empty(),
            told: self.is_told(scope),
        })
    }
}

/// What is on, the widest first: at most `limit` behind a scope; and how many there are.
pub(crate) fn views(shared: &Shared, after: Option<&Scope>, limit: usize) -> (Vec<View>, usize, EdgeId) {
    let desk = shared.kill.desk();
    let on =
        desk.book.entries().map(|(scope, _)| scope).filter(|scope| after.is_none_or(|last| *scope > last));
    let views = on.filter_map(|scope| desk.view(scope)).take(limit).collect();
    (views, desk.book.on(), desk.book.own())
}

fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}

/// A change as the audit log has it.
pub(super) fn record(change: &Change, decision: Decision) -> AuditEntry {
    let about = change.target.as_ref().map_or_else(String::new, |target| format!(":{target}"));
    let lane = match (change.on, change.cancel_lane_open) {
        (true, false) => " (cancel lane closed)",
        _ => "",
    };
    let op = if change.on { "kill_switch_on" } else { "kill_switch_off" };
    let path = format!("{}{about}{lane}: {}", change.scope, change.reason);
    AuditEntry::new("control", op).path(path).actor(change.by.as_str()).decision(decision)
}

/// Puts a switch on: it holds when this returns its first part, before anything waits. The second part tells
/// whether the disk and the stream have it by now.
///
/// # Errors
/// [`TooMany`].
pub(crate) async fn put_on(
    shared: &Arc<Shared>,
    scope: &Scope,
    wanted: Wanted,
    author: &Author,
) -> Result<(bool, View), TooMany> {
    let changed = throw(shared, scope, wanted, author)?;
    let settled = {
        let shared = Arc::clone(shared);
        // Not cancelled with the answer: it goes on when the disk does.
        tokio::spawn(async move { settle(&shared).await })
    };
    drop(timeout(WRITTEN_WITHIN, settled).await);
    shared.kill.untold.notify_one();
    if wire::is_there(shared) {
        let mut told = shared.kill.told.subscribe();
        let heard = async { while !shared.kill.desk().is_told(scope) && told.changed().await.is_ok() {} };
        drop(timeout(WRITTEN_WITHIN, heard).await);
    }
    let view = shared.kill.desk().view(scope);
    // Somebody may have taken it back meanwhile.
    let gone = || View {
        scope: scope.clone(),
        cancel_lane_open: true,
        reason: String::new(),
        by: author.subject.clone(),
        since_ms: clock::unix_ms(),
        edge: EdgeId(0),
        persisted: false,
        audited: false,
        told: false,
    };
    Ok((changed, view.unwrap_or_else(gone)))
}

/// The part of an ON that nothing can hold up: memory.
fn throw(shared: &Shared, scope: &Scope, wanted: Wanted, author: &Author) -> Result<bool, TooMany> {
    let kill = &shared.kill;
    let mut desk = kill.desk();
    let same = desk.book.entry(scope).and_then(Entry::newest).is_some_and(|(_, hold)| {
        hold.reason == wanted.reason && hold.cancel_lane_open == wanted.cancel_lane_open
    });
    let same = same
        && desk.book.entry(scope).and_then(Entry::switch).map(|switch| switch.cancel_lane_open)
            == Some(wanted.cancel_lane_open);
    let change = desk.book.make(scope, wanted, now_us())?;
    if !same {
        desk.apply(scope, &change)?;
        kill.put_in_force(&desk, &shared.meters);
        desk.untold.insert(scope.clone());
    } else if !desk.is_told(scope) {
        desk.untold.insert(scope.clone());
    }
    let entry = record(&change, Decision::Allow).request(author.request_id.as_str(), author.remote.as_str());
    desk.audit(entry);
    drop(desk);
    tracing::warn!(
        component = "kill_switch",
        scope = scope.as_str(),
        target_of = scope.target().unwrap_or_default(),
        by = author.subject.as_str(),
        "switched on"
    );
    Ok(!same)
}

/// Puts a switch off, once the ledger and the event stream have taken it; the audit log has it already. False
/// where it was not on.
///
/// # Errors
/// [`OffError`]; it stays on.
pub(crate) async fn put_off(shared: &Arc<Shared>, scope: &Scope, wanted: Wanted) -> Result<bool, OffError> {
    let kill = &shared.kill;
    let by = wanted.by.clone();
    let (change, kept, place) = {
        let desk = kill.desk();
        if !desk.book.entry(scope).is_some_and(Entry::is_on) {
            return Ok(false);
        }
        // What is not on cannot be one too many.
        let Ok(change) = desk.book.make(scope, wanted, now_us()) else { return Ok(false) };
        (change, desk.kept(scope), desk.place())
    };
    // The record as it is: a disk that takes it now takes the next one.
    let ledger = shared.registrations.ledger();
    let key = switch_key(scope);
    {
        let _one_at_a_time = kill.settling.lock().await;
        blocking(move || ledger.keep_switches(&[(key, kept)], &place)).await?;
    }
    wire::publish(shared, &change).await.map_err(OffError::Stream)?;
    {
        let mut desk = kill.desk();
        // An OFF always has room.
        let _changed = desk.apply(scope, &change);
        kill.put_in_force(&desk, &shared.meters);
    }
    tracing::warn!(
        component = "kill_switch",
        scope = scope.as_str(),
        target_of = scope.target().unwrap_or_default(),
        by,
        "switched off"
    );
    let settled = {
        let shared = Arc::clone(shared);
        tokio::spawn(async move { settle(&shared).await })
    };
    drop(timeout(WRITTEN_WITHIN, settled).await);
    Ok(true)
}

/// Takes in a change that another edge made, or this one before: `Err` where there is no room for it.
pub(super) fn hear(
    shared: &Shared,
    scope: &Scope,
    change: &Change,
    position: Option<&str>,
) -> Result<(), TooMany> {
    let kill = &shared.kill;
    let mut desk = kill.desk();
    if let Some(position) = position {
        desk.position = Some(position.to_owned());
        desk.moved = true;
    }
    let changed = desk.apply(scope, change)?;
    if change.edge == desk.book.own() {
        desk.announced(scope, change.epoch);
    }
    if changed {
        kill.put_in_force(&desk, &shared.meters);
        let mut entry = record(change, Decision::Allow);
        entry.path = format!("{} [edge {}]", entry.path, change.edge);
        desk.audit(entry);
    }
    drop(desk);
    if changed {
        kill.unsettled.notify_one();
        tracing::warn!(
            component = "kill_switch",
            scope = scope.as_str(),
            target_of = scope.target().unwrap_or_default(),
            by = change.by.as_str(),
            edge = %change.edge,
            on = change.on,
            "heard of a change"
        );
    }
    Ok(())
}
