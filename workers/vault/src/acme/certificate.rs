//! Certificates that were ordered here: handed out, revoked, and when they are best renewed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::api::Answer;
use super::holder;
use super::key::AccountKey;
use super::problem::{Word, malformed, not_found, refused};
use super::request::{Posted, Signer};
use crate::ca::{Known, hex};
use crate::context::Vault;
use crate::error::VaultError;

/// When a client asks again for the time to renew, seconds (RFC 9773, section 4.3).
const ASK_AGAIN_S: u64 = 21_600;
/// LIMIT: bytes of a certificate that is to be revoked.
const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;

#[derive(Deserialize)]
struct Revocation {
    certificate: String,
    reason: Option<i64>,
}

impl Vault {
    /// `certificate/SERIAL`: the certificate and its intermediate.
    pub(super) fn acme_certificate(&self, posted: &Posted, serial: &str) -> Result<Answer, VaultError> {
        let (_, account) = self.acme_signed(posted)?;
        let known = self.known_certificate(serial)?;
        let known = known.filter(|known| known.holder == holder(&account.service)).ok_or_else(not_found)?;
        let authority = self.authority.load_full();
        let issuer = authority.intermediates.iter().find(|issuing| issuing.key_id == known.issuer);
        Ok(Answer::chain(known.pem + issuer.ok_or_else(not_found)?.pem()))
    }

    /// `revoke-certificate`: by an account of the service it was made for, or by whoever holds its key.
    pub(super) fn acme_revoke(&self, posted: &Posted) -> Result<Answer, VaultError> {
        let opened = self.acme_known(posted)?;
        let wish: Revocation = opened.json()?;
        if wish.reason.is_some_and(|reason| !(0..=10).contains(&reason) || reason == 7) {
            return Err(refused(Word::BadRevocationReason, "reason is 0 to 10 without 7"));
        }
        let der = URL_SAFE_NO_PAD.decode(&wish.certificate).ok();
        let der = der.filter(|der| der.len() <= CERTIFICATE_BYTES_MAX);
        let der = der.ok_or_else(|| malformed("certificate is no base64url of a DER certificate"))?;
        let (known, serial) = self.acme_shown_certificate(&der)?.ok_or_else(not_found)?;
        let service = known.holder.strip_prefix("acme/").unwrap_or_default().to_owned();
        let (is_his, actor) = match &opened.signer {
            Signer::Account(account) => (account.service == service, account.service.clone()),
            Signer::Bare => (is_key_of(&opened.key, &der), service.clone()),
        };
        let entry = posted.act.entry("acme", "revoke", format!("credentials/acme/{service}/{serial}"));
        let entry = entry.actor(&actor);
        if !is_his {
            let error = refused(Word::Unauthorized, "the certificate is of another service");
            return Err(self.acme_refuse(entry.actor("unverified"), error));
        }
        if known.revoked_at.is_some() {
            return Err(refused(Word::AlreadyRevoked, "the certificate was revoked already"));
        }
        self.revoke_known(entry, &serial, posted.act.now)?;
        Ok(Answer::nothing())
    }

    /// The certificate of this very DER, and its serial.
    fn acme_shown_certificate(&self, der: &[u8]) -> Result<Option<(Known, String)>, VaultError> {
        let parsed = X509Certificate::from_der(der);
        let (_, certificate) = parsed.map_err(|_| malformed("certificate is none"))?;
        let serial = hex(certificate.raw_serial());
        let known = self.known_certificate(&serial)?.filter(|known| {
            let is_same = parse_x509_pem(known.pem.as_bytes()).is_ok_and(|(_, block)| block.contents == der);
            is_same && known.holder.starts_with("acme/")
        });
        Ok(known.map(|known| (known, serial)))
    }

    /// The certificate with an identifier of RFC 9773: the issuer's key id and the serial, base64url.
    pub(super) fn acme_named(&self, id: &str) -> Result<Option<Known>, VaultError> {
        let parts = id.split_once('.').and_then(|(issuer, serial)| {
            Some((URL_SAFE_NO_PAD.decode(issuer).ok()?, URL_SAFE_NO_PAD.decode(serial).ok()?))
        });
        let Some((issuer, serial)) = parts.filter(|(_, serial)| serial.len() <= 20) else {
            return Err(malformed("this identifies no certificate"));
        };
        let known = self.known_certificate(&hex(&serial))?;
        Ok(known.filter(|known| known.issuer == hex(&issuer) && known.holder.starts_with("acme/")))
    }

    /// `renewal-info/ID`: between two thirds and three quarters of its life; at once where it was revoked.
    pub(super) fn acme_renewal_info(&self, id: &str, now: Timestamp) -> Result<Answer, VaultError> {
        let known = self.acme_named(id)?.ok_or_else(not_found)?;
        let (begin, end) = life(&known.pem).ok_or(VaultError::Crypto("a certificate does not parse"))?;
        Ok(Answer::json(200, window(begin, end, known.revoked_at.is_some(), now)).again_in(ASK_AGAIN_S))
    }
}

/// Pure.
fn window(begin: Timestamp, end: Timestamp, is_revoked: bool, now: Timestamp) -> Value {
    let life = end.duration_since(begin);
    let (start, end) = if is_revoked {
        (now - SignedDuration::from_hours(2), now - SignedDuration::from_hours(1))
    } else {
        (begin + life * 2 / 3, begin + life * 3 / 4)
    };
    json!({ "suggestedWindow": { "start": start, "end": end } })
}

fn life(pem: &str) -> Option<(Timestamp, Timestamp)> {
    let (_, block) = parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, certificate) = X509Certificate::from_der(&block.contents).ok()?;
    let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    Some((at(certificate.validity().not_before)?, at(certificate.validity().not_after)?))
}

fn is_key_of(key: &AccountKey, der: &[u8]) -> bool {
    X509Certificate::from_der(der).is_ok_and(|(_, certificate)| key.is_of(certificate.public_key()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life_or_at_once() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (begin, end) = (at("2026-11-21T00:00:00Z"), at("2026-11-22T00:00:00Z"));
        let told = window(begin, end, false, begin);
        assert_eq!(told["suggestedWindow"]["start"], "2026-11-21T16:00:00Z");
        assert_eq!(told["suggestedWindow"]["end"], "2026-11-21T18:00:00Z");
        let told = window(begin, end, true, at("2026-11-21T05:00:00Z"));
        assert_eq!(told["suggestedWindow"]["end"], "2026-11-21T04:00:00Z");
    }
}
