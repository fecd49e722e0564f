//! How certificates and CAs lie in the store.
//!
//! A CA row is `length of certificate (4 bytes, big endian) ‖ certificate ‖ PKCS#8 key`, sealed.

use jiff::Timestamp;
use zeroize::Zeroizing;

use super::authority::{Authority, Issuing, Kept, RevokedCertificate};
use super::ops::Credential;
use crate::error::VaultError;
use crate::store::{Change, Range, Table, View};
use std::sync::Arc;

const ROOT: &[u8] = b"root";
const INTERMEDIATES: &[u8] = b"intermediate/";
/// LIMIT: intermediates kept at a time; they end after 90 days and are made every 45.
const INTERMEDIATES_MAX: usize = 16;
/// LIMIT: certificates named in one revocation list: as many as there are.
const REVOKED_MAX: usize = super::ops::CREDENTIALS_MAX as usize;
const SERIALS: &[u8] = b"serial/";

/// Reads the CAs that have not ended; `None` when there is no root yet.
pub(crate) fn load_authority(view: &impl View, now: Timestamp) -> Result<Option<Authority>, VaultError> {
    let Some(root) = load_ca(view, ROOT)? else { return Ok(None) };
    let mut intermediates = Vec::new();
    for key in view.keys(Table::Authority, &Range::prefix(INTERMEDIATES, INTERMEDIATES_MAX))? {
        let issuing = load_ca(view, &key)?.ok_or(VaultError::Integrity(Table::Authority.name()))?;
        if issuing.not_after > now {
            intermediates.push(Arc::new(issuing));
        }
    }
    Ok(Some(Authority { root: Arc::new(root), intermediates }))
}

fn load_ca(view: &impl View, key: &[u8]) -> Result<Option<Issuing>, VaultError> {
    let Some(bytes) = view.bytes(Table::Authority, key)? else { return Ok(None) };
    let damaged = || VaultError::Integrity(Table::Authority.name());
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or_else(damaged)?;
    let (der, key) = rest.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or_else(damaged)?;
    Issuing::restore(&Kept { der: der.to_vec(), key: Zeroizing::new(key.to_vec()) }).map(Some)
}

pub(super) fn save_root(change: &mut Change<'_>, kept: &Kept) {
    save_ca(change, ROOT, kept);
}

pub(super) fn save_intermediate(change: &mut Change<'_>, kept: &Kept, made_at: Timestamp) {
    let key = [INTERMEDIATES, format!("{:016x}", made_at.as_microsecond()).as_bytes()].concat();
    save_ca(change, &key, kept);
}

fn save_ca(change: &mut Change<'_>, key: &[u8], kept: &Kept) {
    let mut bytes = Zeroizing::new(Vec::with_capacity(4 + kept.der.len() + kept.key.len()));
    bytes.extend_from_slice(&(kept.der.len() as u32).to_be_bytes());
    bytes.extend_from_slice(&kept.der);
    bytes.extend_from_slice(&kept.key);
    change.put(Table::Authority, key, &bytes);
}

/// Drops the rows of intermediates that have ended.
pub(super) fn sweep_intermediates(change: &mut Change<'_>, now: Timestamp) -> Result<(), VaultError> {
    for key in change.keys(Table::Authority, &Range::prefix(INTERMEDIATES, INTERMEDIATES_MAX))? {
        if load_ca(change, &key)?.is_some_and(|ca| ca.not_after <= now) {
            change.remove(Table::Authority, &key);
        }
    }
    Ok(())
}

/// Key of a credential: `service‖0‖issue time‖serial`, so a service's last row is its newest.
pub(super) fn credential_key(credential: &Credential) -> Vec<u8> {
    let issued = u64::try_from(credential.issued_at.as_microsecond()).unwrap_or(0);
    [credential.service.as_bytes(), &[0], &issued.to_be_bytes(), credential.serial.as_bytes()].concat()
}

/// The rows of one service.
pub(super) fn of_service(service: &str, limit: usize) -> Range {
    Range::prefix(&[service.as_bytes(), &[0]].concat(), limit)
}

/// Key of the credential with a serial.
pub(super) fn key_of(view: &impl View, serial: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
    let Some(row) = view.bytes(Table::Serial, serial)? else { return Ok(None) };
    // Older versions wrote it as JSON; no service's name begins so.
    if row.starts_with(b"[") {
        return view.load(Table::Serial, serial);
    }
    Ok(Some(row.to_vec()))
}

/// Index row by which an ended credential is found.
pub(super) fn expiry_key(credential: &Credential) -> Vec<u8> {
    ending(credential.not_after, credential.serial.as_bytes())
}

/// Index row of what ends.
pub(super) fn ending(end: Timestamp, key: &[u8]) -> Vec<u8> {
    let end = u64::try_from(end.as_second()).unwrap_or(0);
    [&end.to_be_bytes(), key].concat()
}

/// Key of a revoked serial.
pub(super) fn serial_key(serial: &str) -> Vec<u8> {
    [SERIALS, serial.as_bytes()].concat()
}

/// Every revoked certificate that has not ended.
pub(super) fn revoked(view: &impl View) -> Result<Vec<RevokedCertificate>, VaultError> {
    let keys = view.keys(Table::Revoked, &Range::prefix(SERIALS, REVOKED_MAX))?;
    keys.into_iter()
        .map(|key| {
            let row: crate::feed::RevokedRow = view.require(Table::Revoked, &key)?;
            let serial = String::from_utf8_lossy(&key[SERIALS.len()..]).into_owned();
            Ok(RevokedCertificate { serial, issuer: row.issuer.unwrap_or_default(), at: row.at })
        })
        .collect()
}
