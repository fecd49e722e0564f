//! Ending certificates before their time.

use jiff::Timestamp;
use sluice_identity::grants::ADMIN;
use sluice_wire::feed::Change as FeedChange;
use sluice_wire::role::Role;

use super::authority::Authority;
use super::ops::{CREDENTIALS_MAX, Credential, may_see};
use super::rows;
use super::upkeep::crl_pem;
use crate::access;
use crate::context::Vault;
use crate::error::VaultError;
use crate::feed::RevokedRow;
use crate::outbox::security_event;
use crate::request::Act;
use crate::store::{Change, Table, View};

/// LIMIT: certificates of one service revoked by one call, the newest first; a second call goes on.
const REVOKE_MAX: usize = 1_000;
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
        let authority = self.authority.load_full();
        let (service, now) = (service.to_owned(), act.now);
        let revoked = self.write(entry, move |change| {
            let serials = revoke(change, &service, serial.as_deref(), now)?;
            if serials.is_empty() {
                return Err(VaultError::NotFound("this service has no such certificate in force".into()));
            }
            announce_revoked(change, &authority, &service, &serials, now)?;
            Ok(serials.len())
        })?;
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

/// Whether a service has certificates.
pub(crate) fn has_any(view: &impl View, service: &str) -> Result<bool, VaultError> {
    Ok(!view.keys(Table::Credential, &rows::of_service(service, 1))?.is_empty())
}

/// Revokes a service's certificates in force within another change.
pub(crate) fn revoke_all(
    change: &mut Change<'_>,
    authority: &Authority,
    service: &str,
    now: Timestamp,
) -> Result<(), VaultError> {
    let serials = revoke(change, service, None, now)?;
    if serials.is_empty() { Ok(()) } else { announce_revoked(change, authority, service, &serials, now) }
}

/// Marks a service's certificates (those in force, newest first, or the one named) as revoked; their serials.
fn revoke(
    change: &mut Change<'_>,
    service: &str,
    serial: Option<&str>,
    now: Timestamp,
) -> Result<Vec<String>, VaultError> {
    let keys = match serial {
        // By its own index: a service may have more rows than a list should hold.
        Some(serial) => change.load::<Vec<u8>>(Table::Serial, serial.as_bytes())?.into_iter().collect(),
        None => change.keys(Table::Credential, &rows::of_service(service, CREDENTIALS_MAX as usize))?,
    };
    let mut serials = Vec::new();
    for key in keys.iter().rev() {
        if serials.len() == REVOKE_MAX {
            break;
        }
        let credential: Credential = change.require(Table::Credential, key)?;
        if credential.service == service && credential.is_live(now) {
            serials.push(credential.serial.clone());
            revoke_row(change, key, credential, now);
        }
    }
    Ok(serials)
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

/// Tells followers and listeners of revoked certificates; the last one brings the new lists.
pub(super) fn announce_revoked(
    change: &mut Change<'_>,
    authority: &Authority,
    service: &str,
    serials: &[String],
    now: Timestamp,
) -> Result<(), VaultError> {
    let mut crl = Some(crl_pem(change, authority, now)?);
    for (position, serial) in serials.iter().enumerate() {
        let crl = if position + 1 == serials.len() { crl.take() } else { None };
        change.announce(FeedChange::Serial { serial: serial.clone(), crl });
        change.emit(&security_event(
            "credential_revoked",
            now,
            &[("service", service), ("serial_number", serial)],
        ))?;
    }
    Ok(())
}
