//! Ending certificates before their time.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sluice_identity::grants::ADMIN;
use sluice_wire::feed::{Change as FeedChange, RevokedIdentity};
use sluice_wire::role::Role;

use super::BACKDATE_S;
use super::ops::{Credential, LEAF_LIFE_MAX, may_see};
use super::rows;
use crate::access;
use crate::context::{Vault, own_entry};
use crate::error::VaultError;
use crate::feed::RevokedRow;
use crate::outbox::security_event;
use crate::request::Act;
use crate::store::{Change, KeyBytes, Range, Table, View};

/// LIMIT: certificates revoked by name in one commit. A holder's newest go first; where it has more, one row in the
/// same commit refuses all that bear the identity, and the rest is named from the oldest on.
const REVOKE_MAX: usize = 1_000;
/// Rows of what is still to be revoked, by holder.
const REST: &str = "rest/";

/// What is still to be revoked of a holder.
#[derive(Debug, Serialize, Deserialize)]
struct Rest {
    /// Key of the last credential that was looked at from the oldest on.
    after: Vec<u8>,
    /// Key of the first that needs no look any more.
    before: Vec<u8>,
}

impl Vault {
    /// Revokes one certificate of a service, or all that have not ended; how many.
    pub(crate) fn revoke_credentials(
        &self,
        act: &Act,
        service: &str,
        serial: Option<String>,
    ) -> Result<usize, VaultError> {
        let named = serial.as_deref().unwrap_or("*");
        let shown: String = named.chars().take(64).collect();
        let entry = act.entry("credential", "revoke", format!("credentials/{service}/{shown}"));
        if let Err(error) = self.may_revoke_credentials(act, service) {
            return Err(self.refuse(entry, error));
        }
        let (holder, now, domain) = (service.to_owned(), act.now, self.settings.trust_domain.clone());
        let mut revoked = self.write(entry, move |change| {
            let revoked = match serial {
                Some(serial) => revoke_one(change, &holder, &serial, now)?,
                None => revoke_all(change, &holder, Some(&domain), now)?,
            };
            let is_rest = change.raw(Table::Revoked, format!("{REST}{holder}").as_bytes())?.is_some();
            if revoked == 0 && !is_rest { Err(none_in_force()) } else { Ok(revoked) }
        })?;
        revoked += self.revoke_rest(service, now)?;
        if revoked == 0 {
            return Err(none_in_force());
        }
        self.figures.revocations.with_label_values(&["certificate"]).inc_by(revoked as u64);
        Ok(revoked)
    }

    /// Whether the caller may revoke them: a role's, which keep Sluice itself going, only as an administrator.
    fn may_revoke_credentials(&self, act: &Act, name: &str) -> Result<(), VaultError> {
        let caller = access::known(act.caller.as_ref())?;
        if name.parse::<Role>().is_ok() {
            return access::role_credential(Some(caller), ADMIN);
        }
        may_see(act, name)?;
        self.is_own_word(caller, "credentials:issue")
    }
}

fn none_in_force() -> VaultError {
    VaultError::NotFound("this service has no such certificate in force".into())
}

/// Whether a service has certificates.
pub(crate) fn has_any(view: &impl View, service: &str) -> Result<bool, VaultError> {
    Ok(!view.keys(Table::Credential, &rows::of_service(service, 1))?.is_empty())
}

impl Vault {
    /// Goes on with what a revocation of all a holder's certificates left; how many were in force.
    pub(crate) fn revoke_rest(&self, holder: &str, now: Timestamp) -> Result<usize, VaultError> {
        let key = format!("{REST}{holder}").into_bytes();
        let mut revoked = 0;
        while self.store.snapshot()?.raw(Table::Revoked, &key)?.is_some() {
            let holder = holder.to_owned();
            revoked += self.write(own_entry("revoke"), move |change| revoke_next(change, &holder, now))?;
        }
        Ok(revoked)
    }

    /// The same for every holder: what an end of the process has interrupted.
    pub(crate) fn revoke_rests(&self, now: Timestamp) -> Result<(), VaultError> {
        let keys =
            self.store.snapshot()?.keys(Table::Revoked, &Range::prefix(REST.as_bytes(), REVOKE_MAX))?;
        for key in keys {
            self.revoke_rest(&String::from_utf8_lossy(&key[REST.len()..]), now)?;
        }
        Ok(())
    }
}

/// Revokes a holder's certificates in force within another change; how many of the newest. Where it has more, one row
/// refuses (with the trust domain) all that bear its SPIFFE id and were made before this second, and
/// [`Vault::revoke_rest`] goes on.
pub(crate) fn revoke_all(
    change: &mut Change<'_>,
    holder: &str,
    trust_domain: Option<&str>,
    now: Timestamp,
) -> Result<usize, VaultError> {
    let mut range = rows::of_service(holder, 1);
    let mut keys = Vec::new();
    while keys.len() < REVOKE_MAX
        && let Some(key) = change.last_key(Table::Credential, &range)?
    {
        range.to.clone_from(&key);
        keys.push(key);
    }
    if keys.is_empty() {
        return Ok(0);
    }
    if change.last_key(Table::Credential, &range)?.is_some() {
        if let Some(domain) = trust_domain {
            let kind = if holder.parse::<Role>().is_ok() { "role" } else { "service" };
            refuse_former(change, &format!("spiffe://{domain}/{kind}/{holder}"), now)?;
        }
        let rest = Rest { after: range.from, before: range.to };
        change.save(Table::Revoked, format!("{REST}{holder}").as_bytes(), &rest);
    }
    revoke(change, holder, &keys, now)
}

/// The next of what [`revoke_all`] left; how many were in force.
fn revoke_next(change: &mut Change<'_>, holder: &str, now: Timestamp) -> Result<usize, VaultError> {
    let place = format!("{REST}{holder}").into_bytes();
    let Some(Rest { after, before }) = change.load(Table::Revoked, &place)? else { return Ok(0) };
    let range = Range { from: after.clone(), to: before.clone(), limit: REVOKE_MAX };
    let keys = change.keys(Table::Credential, &range)?;
    match keys.last() {
        Some(last) if keys.len() == REVOKE_MAX => {
            let after = [last.as_slice(), &[0]].concat();
            change.save(Table::Revoked, &place, &Rest { after, before });
        }
        _ => change.remove(Table::Revoked, &place),
    }
    revoke(change, holder, &keys, now)
}

/// One row for every certificate of an identity that was made before this second. Those of this second are named.
fn refuse_former(change: &mut Change<'_>, id: &str, now: Timestamp) -> Result<(), VaultError> {
    let key = format!("id/{id}").into_bytes();
    if let Some(former) = change.load::<RevokedRow>(Table::Revoked, &key)? {
        change.remove(Table::CredentialExpiry, &rows::ending(former.until, &key));
    }
    let (until, valid_from) = (now + LEAF_LIFE_MAX, now.as_second() - BACKDATE_S);
    change.mark(Table::CredentialExpiry, &rows::ending(until, &key));
    let row = RevokedRow { at: now, until, issuer: None, issued_until: Some(valid_from) };
    change.save(Table::Revoked, &key, &row);
    change.announce(FeedChange::Identity(RevokedIdentity { id: id.to_owned(), valid_from }));
    Ok(())
}

/// By its own index: a service may have more rows than a list should hold.
fn revoke_one(
    change: &mut Change<'_>,
    service: &str,
    serial: &str,
    now: Timestamp,
) -> Result<usize, VaultError> {
    let key = rows::key_of(change, serial.as_bytes())?;
    revoke(change, service, &key.into_iter().collect::<Vec<_>>(), now)
}

/// Revokes and announces those of a holder's certificates that are in force; how many they are.
fn revoke(
    change: &mut Change<'_>,
    holder: &str,
    keys: &[KeyBytes],
    now: Timestamp,
) -> Result<usize, VaultError> {
    let mut serials = Vec::new();
    for key in keys {
        let credential: Credential = change.require(Table::Credential, key)?;
        if credential.service == holder && credential.is_live(now) {
            serials.push(credential.serial.clone());
            revoke_row(change, key, credential, now);
        }
    }
    announce_revoked(change, holder, &serials, now)?;
    Ok(serials.len())
}

/// Writes that one certificate is revoked.
pub(super) fn revoke_row(change: &mut Change<'_>, key: &[u8], mut credential: Credential, now: Timestamp) {
    let row = RevokedRow {
        at: now,
        until: credential.not_after,
        issuer: Some(credential.issuer.clone()),
        issued_until: None,
    };
    change.save(Table::Revoked, &rows::serial_key(&credential.serial), &row);
    credential.revoked_at = Some(now);
    change.save(Table::Credential, key, &credential);
}

/// Tells followers and listeners of revoked certificates.
pub(super) fn announce_revoked(
    change: &mut Change<'_>,
    service: &str,
    serials: &[String],
    now: Timestamp,
) -> Result<(), VaultError> {
    for serial in serials {
        change.announce(FeedChange::Serial { serial: serial.clone() });
        change.emit(&security_event(
            "credential_revoked",
            now,
            &[("service", service), ("serial_number", serial)],
        ))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::json;
    use sluice_identity::certificate::ClientCertificate;
    use sluice_identity::trust::Trust;
    use tempfile::TempDir;

    use super::super::ops;
    use super::*;
    use crate::seal::RootKey;
    use crate::tests::{act, done, open};

    const COUNT: usize = REVOKE_MAX + 3;

    /// Certificates of `bot`, one a second, the newest of the last second.
    fn issue_many(vault: &Vault, act: &Act) {
        done(vault.issue(act, "model", serde_json::from_value(json!({})).unwrap())).unwrap();
        let (now, entry) = (act.now, act.entry("test", "issue", "credentials"));
        vault
            .write(entry, move |change| {
                let model = ops::newest(change, "model")?.unwrap();
                for number in 0..COUNT {
                    let mut one = model.clone();
                    (one.service, one.serial) = ("bot".to_owned(), format!("{number:032x}"));
                    one.issued_at = now - SignedDuration::from_secs((COUNT - number) as i64);
                    one.key_digest.clone_from(&one.serial);
                    ops::keep(change, &one, now)?;
                }
                Ok(())
            })
            .unwrap();
    }

    fn certificate(number: usize, age_s: i64, now: Timestamp) -> ClientCertificate {
        ClientCertificate {
            spiffe: "spiffe://sluice.internal/service/bot".parse().ok(),
            serial: format!("{number:032x}"),
            not_before_unix_s: now.as_second() - BACKDATE_S - age_s,
            not_after_unix_s: now.as_second() + 3_600,
            subject: String::new(),
            fingerprint: [0; 32],
        }
    }

    #[test]
    fn revoking_a_service_reaches_its_oldest_certificate_by_one_row_and_then_by_name() {
        let (dir, now) = (TempDir::new().unwrap(), Timestamp::now());
        let vault = open(&dir, &RootKey::random(), now);
        let admin = act("root", "admin", now);
        issue_many(&vault, &admin);
        let entry = admin.entry("test", "revoke", "credentials");
        let all = move |change: &mut Change<'_>| revoke_all(change, "bot", Some("sluice.internal"), now);
        assert_eq!(vault.write(entry, all).unwrap(), REVOKE_MAX);
        let trust = vault.trust.load();
        let oldest = certificate(0, COUNT as i64, now);
        assert!(!trust.is_serial_revoked(&oldest.serial) && trust.is_certificate_revoked(&oldest));
        assert!(trust.is_serial_revoked(&certificate(COUNT - 1, 1, now).serial));
        assert!(!trust.is_certificate_revoked(&certificate(COUNT, 0, now)), "made from now on: good");
        let whole = crate::feed::snapshot(&vault.store.snapshot().unwrap(), "e", 1).unwrap();
        assert!(Trust::from_snapshot(&whole).is_certificate_revoked(&oldest), "a late follower knows it too");

        // Once more: nothing is in force any more but the three that were left.
        assert_eq!(vault.revoke_credentials(&admin, "bot", None).unwrap_or(0), 3);
        let trust = vault.trust.load();
        assert!((0..COUNT).all(|number| trust.is_serial_revoked(&format!("{number:032x}"))));
        assert!(vault.revoke_credentials(&admin, "bot", None).is_err());
        for _ in 0..2 {
            vault.maintain(now, now + SignedDuration::from_hours(24 * 91)).unwrap();
        }
        let left = vault.store.snapshot().unwrap().keys(Table::Revoked, &Range::prefix(b"", 10)).unwrap();
        assert_eq!(left, Vec::<KeyBytes>::new());
    }
}
