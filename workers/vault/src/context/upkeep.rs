//! What is due from time to time: keys and CAs rotate, what has ended goes, followers are told the whole state.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Vault, own_entry};
use crate::acme;
use crate::ca::{self, Authority};
use crate::config::Settings;
use crate::error::VaultError;
use crate::falco;
use crate::oauth;
use crate::store::{SWEEP_MAX, Store, Table};
use crate::token::{self, Signers};
use crate::v1;

/// How often the followers' state is made anew.
const REFRESH: SignedDuration = SignedDuration::from_hours(1);

impl Vault {
    /// What is due: ended rows go, keys and CAs rotate, once an hour followers are told the whole state. `last` is when that
    /// was done last; the answer is when it is now.
    pub(crate) fn maintain(&self, last: Timestamp, now: Timestamp) -> Result<Timestamp, VaultError> {
        let (authority, signers) = make_ready(&self.store, &self.settings, now)?;
        let rotated = authority.issuing().serial != self.authority.load().issuing().serial;
        self.authority.store(Arc::new(authority));
        self.signers.store(Arc::new(signers));
        self.show_days_left(now);
        self.tell_expiring(now)?;
        let counted = self.refusals.counted();
        if !counted.is_empty() {
            self.record_all(counted, now)?;
        }
        self.tend_alerts(now)?;
        self.watch_log();
        self.revoke_rests(now)?;
        self.sweep(now)?;
        if rotated || now.duration_since(last) >= REFRESH {
            #[allow(clippy::redundant_closure_for_method_calls, reason = "the method is of one lifetime")]
            self.store.write(own_entry("refresh"), |change| change.announce_all())?;
            return Ok(now);
        }
        Ok(last)
    }

    /// Removes what has ended, a slice a commit, until nothing is left: tables do not fill with what is over, and
    /// nobody waits for more than a slice.
    fn sweep(&self, now: Timestamp) -> Result<(), VaultError> {
        let leeway_s = self.settings.leeway_s;
        // A sweep that finds nothing is not worth a record.
        while !self.ending.is_cancelled() && (self.has_ended(now, 1)? || self.has_ended_quarantine(now)?) {
            let swept = self.store.write(own_entry("sweep"), move |change| {
                Ok(token::sweep(change, now, leeway_s)?
                    + oauth::forget_used(change, now)?
                    + falco::lift_ended(change, now)?
                    + v1::sweep(change, now)?
                    + acme::sweep(change, now)?
                    + ca::sweep(change, now)?)
            })?;
            if swept == 0 {
                break;
            }
        }
        Ok(())
    }

    /// What cannot wait for the maintenance: responses that are due or over, and a sweep when a slice is full: under a flood of what lives a second, tables stay small.
    pub(crate) fn sweep_crowd(&self, now: Timestamp) -> Result<(), VaultError> {
        self.tend_responses(now)?;
        if self.has_ended(now, SWEEP_MAX)? { self.sweep(now) } else { Ok(()) }
    }

    /// Whether so many rows of a table have ended.
    fn has_ended(&self, now: Timestamp, least: usize) -> Result<bool, VaultError> {
        let view = self.store.snapshot()?;
        Ok(token::have_ended(&view, now, self.settings.leeway_s, least)?
            || ca::have_ended(&view, now, least)?
            || oauth::have_ended(&view, now, least)?
            || acme::have_ended(&view, now, least)?
            || v1::have_ended(&view, now, least)?)
    }

    fn has_ended_quarantine(&self, now: Timestamp) -> Result<bool, VaultError> {
        falco::has_ended(&self.store.snapshot()?, now)
    }
}

/// Makes CAs and signing keys that are missing or due, and loads them.
pub(super) fn make_ready(
    store: &Store,
    settings: &Settings,
    now: Timestamp,
) -> Result<(Authority, Signers), VaultError> {
    let view = store.snapshot()?;
    if ca::needs_upkeep(&view, now)? || token::needs_rotation(&view, now)? {
        let trust_domain = settings.trust_domain.clone();
        store.write(own_entry("rotate"), move |change| {
            ca::upkeep(change, &trust_domain, now)?;
            token::rotate(change, now)
        })?;
    }
    let view = store.snapshot()?;
    let missing = |table: Table| move || VaultError::Integrity(table.name());
    let authority = ca::load_authority(&view, now)?.ok_or_else(missing(Table::Authority))?;
    let signers = token::load_signers(&view)?.ok_or_else(missing(Table::Signing))?;
    Ok((authority, signers))
}
