//! What of the switches outlives the process: the ledger, the audit log, a successor.

use std::convert::Infallible;
use std::sync::Arc;

use sluice_audit::Decision;
use sluice_ledger::{KeptSwitch, LedgerError, switch_key};
use sluice_policy::kill_switch::Scope;
use sluice_policy::kill_switch::book::{Effect, Entry, Wanted};
use sluice_wire::start::CARRIED_BYTES_MAX;

use super::{AGAIN, Desk, LEDGER, now_us, record};
use crate::books::blocking;
use crate::clock;
use crate::state::Shared;

/// Takes the switches out of the ledger, which is opened for it; what this process knows stays beside.
///
/// # Errors
/// [`LedgerError`].
pub(crate) async fn load(shared: &Shared) -> Result<(), LedgerError> {
    let ledger = shared.registrations.ledger();
    let listing = blocking(move || ledger.switches()).await?;
    let mut desk = shared.kill.desk();
    match listing.place {
        Some(place) => {
            desk.book.rename(place.edge);
            desk.position = desk.position.take().or(place.position);
        }
        None => desk.moved = true,
    }
    for (scope, kept) in listing.kept {
        desk.announced.insert(scope.clone(), kept.announced);
        if desk.book.merge(&scope, &kept.entry) == Effect::Full {
            tracing::error!(component = "kill_switch", scope = switch_key(&scope), "no room for this switch");
        }
        // Memory may know more, after a handover that failed.
        if desk.book.entry(&scope) != Some(&kept.entry) {
            desk.unsaved.insert(scope.clone());
        }
        if !desk.is_told(&scope) {
            desk.untold.insert(scope);
        }
    }
    for (scope, record) in listing.unreadable {
        tracing::error!(
            component = "kill_switch",
            record = record.name.as_str(),
            reason = record.reason.as_str(),
            "a switch cannot be read: it counts as on"
        );
        stand_in(&mut desk, scope, &record.name);
    }
    shared.kill.put_in_force(&desk, &shared.meters);
    let settled = desk.is_settled();
    drop(desk);
    if !settled {
        shared.kill.unsettled.notify_one();
    }
    shared.kill.untold.notify_one();
    Ok(())
}

/// A switch in place of a record that cannot be read, at this edge alone: others know better.
fn stand_in(desk: &mut Desk, scope: Option<Scope>, key: &str) {
    if scope.is_none() {
        desk.discarded.insert(key.to_owned());
    }
    let scope = scope.unwrap_or(Scope::All);
    if desk.book.entry(&scope).is_some_and(Entry::is_on) {
        return;
    }
    let wanted = Wanted {
        on: true,
        cancel_lane_open: true,
        reason: "its record in the ledger cannot be read".to_owned(),
        by: LEDGER.to_owned(),
        at_ms: clock::unix_ms(),
    };
    if let Ok(change) = desk.book.make(&scope, wanted, now_us())
        && desk.apply(&scope, &change).is_ok()
    {
        desk.announced.insert(scope, change.epoch);
        desk.audit(record(&change, Decision::Allow));
    }
}

/// Writes what is to be written: audit records in their order, then the ledger. What fails stays noted.
pub(super) async fn settle(shared: &Shared) {
    let kill = &shared.kill;
    let _one_at_a_time = kill.settling.lock().await;
    loop {
        let next = kill.desk().audits.front().cloned();
        let Some((entry, at)) = next else { break };
        if shared.chain.submit(entry, at).await.is_err() {
            break;
        }
        kill.desk().audits.pop_front();
    }
    let (changes, scopes, discarded, place) = {
        let desk = kill.desk();
        if desk.is_saved() {
            return;
        }
        let scopes: Vec<(Scope, Option<KeptSwitch>)> =
            desk.unsaved.union(&desk.unnoted).map(|scope| (scope.clone(), desk.kept(scope))).collect();
        let kept = scopes.iter().map(|(scope, kept)| (switch_key(scope), kept.clone()));
        let discarded = desk.discarded.clone();
        let changes: Vec<_> = discarded.iter().map(|key| (key.clone(), None)).chain(kept).collect();
        (changes, scopes, discarded, desk.place())
    };
    let (ledger, position) = (shared.registrations.ledger(), place.position.clone());
    if let Err(error) = blocking(move || ledger.keep_switches(&changes, &place)).await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(component = "kill_switch", error, "switches are not on the disk yet");
        return;
    }
    let mut desk = kill.desk();
    for (scope, kept) in scopes {
        // What changed meanwhile is written next time.
        if desk.kept(&scope) == kept {
            desk.unsaved.remove(&scope);
            desk.unnoted.remove(&scope);
        }
    }
    desk.discarded.retain(|key| !discarded.contains(key));
    desk.moved &= desk.position != position;
}

/// Writes what is left to be written, for ever.
pub(crate) async fn keep(shared: Arc<Shared>) -> Infallible {
    loop {
        let settled = {
            let desk = shared.kill.desk();
            shared.meters.kill_pending("ledger", desk.unsaved.len());
            shared.meters.kill_pending("audit", desk.audits.len());
            shared.meters.kill_pending("stream", desk.untold.len());
            desk.is_settled()
        };
        tokio::select! {
            () = shared.kill.unsettled.notified() => {}
            () = tokio::time::sleep(AGAIN) => if settled { continue },
        }
        settle(&shared).await;
    }
}

/// Switches that are not on the disk, for a successor; a disk that is full must not cost them.
pub(crate) fn carried(shared: &Shared) -> Vec<String> {
    let desk = shared.kill.desk();
    let mut room = CARRIED_BYTES_MAX;
    let mut texts = Vec::new();
    // Widest first: what does not fit comes over the event stream, where that works.
    for scope in &desk.unsaved {
        let Some(entry) = desk.book.entry(scope) else { continue };
        let Ok(text) = serde_json::to_string(&(switch_key(scope), entry)) else { continue };
        let Some(left) = room.checked_sub(text.len()) else {
            tracing::error!(
                component = "kill_switch",
                scope = switch_key(scope),
                "not passed on to the successor"
            );
            continue;
        };
        room = left;
        texts.push(text);
    }
    texts
}

/// Takes in what a predecessor passed on.
pub(crate) fn take(shared: &Shared, texts: &[String]) {
    if texts.is_empty() {
        return;
    }
    let mut desk = shared.kill.desk();
    for text in texts {
        let Ok((key, entry)) = serde_json::from_str::<(String, Entry)>(text) else { continue };
        let (word, target) = match key.split_once(':') {
            Some((word, target)) => (word, Some(target)),
            None => (key.as_str(), None),
        };
        let Ok(scope) = Scope::parse(word, target) else { continue };
        let effect = desk.book.merge(&scope, &entry);
        desk.took(&scope, effect);
        if !desk.is_told(&scope) {
            desk.untold.insert(scope);
        }
    }
    shared.kill.put_in_force(&desk, &shared.meters);
    drop(desk);
    shared.kill.unsettled.notify_one();
    shared.kill.untold.notify_one();
}
