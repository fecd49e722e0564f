//! Identities that are shut out: their tokens and certificates end, and they get no new ones until the time is over
//! or an administrator lets them go. What has ended stays ended; the service asks for new ones.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sluice_identity::caller::Caller;
use sluice_identity::grants::ADMIN;

use super::watch::Response;
use crate::access;
use crate::acme;
use crate::ca;
use crate::context::Vault;
use crate::error::VaultError;
use crate::oauth;
use crate::outbox::security_event;
use crate::path::ServiceName;
use crate::request::Act;
use crate::store::{Change, Range, Table, View};
use crate::token;

/// LIMIT: quarantines listed; each names a service of the configuration.
const LISTED_MAX: usize = 1_000;

/// A quarantine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Row {
    service: String,
    since: Timestamp,
    until: Timestamp,
    /// The alert's rule and who sent it.
    rule: String,
    host: String,
}

/// The identities that are shut out now.
#[derive(Debug, Serialize)]
pub(super) struct Page {
    quarantines: Vec<Row>,
    count: usize,
}

/// Why a service is shut out, and for how long.
#[derive(Debug, Clone)]
pub(super) struct Cause {
    pub(super) rule: String,
    pub(super) host: String,
    pub(super) ttl_ms: i64,
}

/// The services that are refused, and until when; how many there are, to be looked at with every request.
#[derive(Default)]
pub(crate) struct ShutOut(Mutex<HashMap<String, Timestamp>>, AtomicUsize);

fn rows(view: &impl View) -> Result<Vec<Row>, VaultError> {
    let keys = view.keys(Table::Quarantine, &Range::prefix(b"", LISTED_MAX))?;
    keys.iter().map(|key| view.require(Table::Quarantine, key)).collect()
}

/// Refuses whatever a service in quarantine asks for, and what others ask for it.
pub(crate) fn check(view: &impl View, service: &str, now: Timestamp) -> Result<(), VaultError> {
    let row: Option<Row> = view.load(Table::Quarantine, service.as_bytes())?;
    match row {
        Some(row) if now < row.until => Err(VaultError::Forbidden("the service is in quarantine")),
        _ => Ok(()),
    }
}

/// Whether [`lift_ended`] has anything to do.
pub(crate) fn has_ended(view: &impl View, now: Timestamp) -> Result<bool, VaultError> {
    for key in view.keys(Table::Quarantine, &Range::prefix(b"", LISTED_MAX))? {
        if view.require::<Row>(Table::Quarantine, &key)?.until <= now {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes the quarantines whose time is over; how many.
pub(crate) fn lift_ended(change: &mut Change<'_>, now: Timestamp) -> Result<usize, VaultError> {
    let mut lifted = 0;
    for key in change.keys(Table::Quarantine, &Range::prefix(b"", LISTED_MAX))? {
        let row: Row = change.require(Table::Quarantine, &key)?;
        if row.until <= now {
            change.remove(Table::Quarantine, &key);
            change.emit(&security_event("quarantine_ended", now, &[("service", &row.service)]))?;
            lifted += 1;
        }
    }
    Ok(lifted)
}

/// Whether a service is one of ours: it has tokens, certificates or a client.
fn is_registered(view: &impl View, service: &str) -> Result<bool, VaultError> {
    Ok(token::has_any(view, service)?
        || ca::has_any(view, service)?
        || oauth::is_client(view, service)?
        || acme::has_any(view, service)?)
}

impl Vault {
    /// Shuts a service out; whether there is one of this name. One that is shut out already stays so longer.
    pub(super) fn quarantine(&self, act: &Act, service: &str, cause: Cause) -> Result<bool, VaultError> {
        let entry = act.entry("falco", "quarantine", format!("falco/quarantine/{service}"));
        let (named, domain) = (service, self.settings.trust_domain.clone());
        let (service, now, leeway_s) = (service.to_owned(), act.now, self.settings.leeway_s);
        let done = self.write(entry, move |change| {
            if !is_registered(change, &service)? {
                return Ok(false);
            }
            let until = now + SignedDuration::from_millis(cause.ttl_ms);
            let before: Option<Row> = change.load(Table::Quarantine, service.as_bytes())?;
            let row = match before.filter(|before| before.until > until) {
                // A shorter response never lets it go sooner.
                Some(before) => before,
                None => {
                    Row { service: service.clone(), since: now, until, rule: cause.rule, host: cause.host }
                }
            };
            change.save(Table::Quarantine, service.as_bytes(), &row);
            token::void_subject(change, &service, now, leeway_s)?;
            ca::revoke_all(change, &service, Some(&domain), now)?;
            acme::end_service(change, &service, now)?;
            let details = [("service", service.as_str()), ("rule", &row.rule), ("host", &row.host)];
            change.emit(&security_event("quarantined", now, &details))?;
            Ok(true)
        })?;
        self.look_at_quarantines()?;
        // All are refused by one row already; this names the rest of them one by one.
        self.revoke_rest(named, act.now)?;
        self.revoke_rest(&acme::holder(named), act.now)?;
        Ok(done)
    }

    /// Brings up to the store who is refused before anything else is looked at.
    pub(crate) fn look_at_quarantines(&self) -> Result<(), VaultError> {
        let mut shut_out = self.shut_out.0.lock().unwrap_or_else(PoisonError::into_inner);
        *shut_out = rows(&self.store.snapshot()?)?.into_iter().map(|row| (row.service, row.until)).collect();
        self.shut_out.1.store(shut_out.len(), Ordering::Release);
        Ok(())
    }

    /// Whether a caller is a service in quarantine, whatever it shows.
    pub(crate) fn is_shut_out(&self, caller: &Caller, now: Timestamp) -> bool {
        if self.shut_out.1.load(Ordering::Acquire) == 0 {
            return false;
        }
        let shut_out = self.shut_out.0.lock().unwrap_or_else(PoisonError::into_inner);
        access::service(caller).and_then(|name| shut_out.get(name)).is_some_and(|until| now < *until)
    }

    /// The identities that are shut out.
    pub(super) fn quarantines(&self, act: &Act) -> Result<Page, VaultError> {
        let entry = act.entry("falco", "list", "falco/quarantine");
        if let Err(error) = administrator(act) {
            return Err(self.refuse(entry, error));
        }
        self.read(entry, || {
            let view = self.store.snapshot()?;
            let quarantines: Vec<Row> = rows(&view)?.into_iter().filter(|row| act.now < row.until).collect();
            Ok(Page { count: quarantines.len(), quarantines })
        })
    }

    /// Lets a service go before its time.
    pub(super) fn release(&self, act: &Act, service: &str) -> Result<(), VaultError> {
        let shown: String = service.chars().take(64).collect();
        let entry = act.entry("falco", "release", format!("falco/quarantine/{shown}"));
        let named = administrator(act).and_then(|()| ServiceName::parse(service));
        let service = match named {
            Ok(service) => service.as_str().to_owned(),
            Err(error) => return Err(self.refuse(entry, error)),
        };
        let (now, released) = (act.now, service.clone());
        self.write(entry, move |change| {
            if change.raw(Table::Quarantine, service.as_bytes())?.is_none() {
                return Err(VaultError::NotFound("this service is not in quarantine".into()));
            }
            change.remove(Table::Quarantine, service.as_bytes());
            change.emit(&security_event("quarantine_released", now, &[("service", &service)]))
        })?;
        self.look_at_quarantines()?;
        let is_it = |response: &Response| response.identity.as_deref() == Some(released.as_str());
        self.watch().rearm(&self.settings.falco.responses, is_it);
        Ok(())
    }
}

/// Refuses everybody but an administrator.
pub(super) fn administrator(act: &Act) -> Result<(), VaultError> {
    let caller = access::known(act.caller.as_ref())?;
    if caller.grants.is_admin() { Ok(()) } else { Err(VaultError::Lacking(ADMIN)) }
}
