//! What keeps the CA going: new intermediates, new lists, the sweep of ended certificates.

use std::sync::Arc;

use jiff::Timestamp;

use super::authority::{self, Issuing};
use super::ops::{Credential, KeyOwner};
use super::rows;
use crate::error::VaultError;
use crate::quota::Held;
use crate::store::{Change, Range, SWEEP_MAX, Table, View};
use crate::v1::{self, Origin};

/// Whether [`upkeep`] has anything to do.
pub(crate) fn needs_upkeep(view: &impl View, now: Timestamp) -> Result<bool, VaultError> {
    let authority = rows::load_authority(view, now)?;
    Ok(authority
        .is_none_or(|authority| authority.intermediates.is_empty() || authority.issuing().is_aging(now)))
}

/// Makes what is missing of the CA: a root on the first start, an intermediate when there is none or the
/// newest is aging. Intermediates that have ended go.
pub(crate) fn upkeep(change: &mut Change<'_>, trust_domain: &str, now: Timestamp) -> Result<(), VaultError> {
    rows::sweep_intermediates(change, now)?;
    let root = match rows::load_authority(change, now)? {
        Some(authority) if !authority.intermediates.is_empty() && !authority.issuing().is_aging(now) => {
            return Ok(());
        }
        Some(authority) => authority.root,
        None => {
            let kept = authority::make_root(trust_domain, now)?;
            rows::save_root(change, &kept);
            Arc::new(Issuing::restore(&kept)?)
        }
    };
    rows::save_intermediate(change, &authority::make_intermediate(&root, trust_domain, now)?, now);
    Ok(())
}

/// Whether [`sweep`] has so many certificates to remove.
pub(crate) fn have_ended(view: &impl View, now: Timestamp, least: usize) -> Result<bool, VaultError> {
    Ok(view.keys(Table::CredentialExpiry, &ended(now, least))?.len() >= least)
}

fn ended(now: Timestamp, limit: usize) -> Range {
    let end = u64::try_from(now.as_second()).unwrap_or(0).to_be_bytes();
    Range { from: Vec::new(), to: end.to_vec(), limit }
}

/// Removes certificates that have ended, with what points to them; how many.
pub(crate) fn sweep(change: &mut Change<'_>, now: Timestamp) -> Result<usize, VaultError> {
    let ended = change.keys(Table::CredentialExpiry, &ended(now, SWEEP_MAX))?;
    for key in &ended {
        let serial = &key[8..];
        if serial.starts_with(b"id/") {
            change.remove(Table::CredentialExpiry, key);
            change.remove(Table::Revoked, serial);
            continue;
        }
        let row = rows::key_of(change, serial)?.ok_or(VaultError::Integrity(Table::Serial.name()))?;
        let credential: Credential = change.require(Table::Credential, &row)?;
        // The mark goes with the row: first goes what lives on only as long as nobody knows of the revocation.
        let is_revoked = credential.revoked_at.is_some();
        if is_revoked && !v1::end_born(change, Origin::Certificate(&credential.serial))? {
            continue;
        }
        if let Some(payer) = credential.payer() {
            change.give_back(Held::Certificates, payer, 1)?;
        }
        change.remove(Table::CredentialExpiry, key);
        change.remove(Table::Serial, serial);
        change.remove(Table::Credential, &row);
        change.remove(Table::Revoked, &rows::serial_key(&credential.serial));
        let owner: Option<KeyOwner> = change.load(Table::LeafKey, credential.key_digest.as_bytes())?;
        if owner.is_some_and(|owner| owner.until <= now) {
            change.remove(Table::LeafKey, credential.key_digest.as_bytes());
        }
    }
    Ok(ended.len())
}
