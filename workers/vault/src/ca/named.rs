//! Certificates for names that belong to no service: those of roles of Vault's API.
//!
//! They carry no SPIFFE id of this trust domain, so nobody becomes a service or role by them.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData as _, SanType, SerialNumber,
};
use ring::digest;
use sluice_audit::Entry;
use x509_parser::pem::parse_x509_pem;
use zeroize::Zeroizing;

use super::BACKDATE_S;
use super::authority::{Issuing, date, generate, hex, new_serial, pem, unhex};
use super::csr::{RequestedKey, spki_digest};
use super::leaf::Leaf;
use super::ops::{Credential, keep};
use super::revoke::{announce_revoked, revoke_row};
use super::rows;
use crate::context::Vault;
use crate::error::VaultError;
use crate::store::{Change, Range, Table, View as _};

/// LIMIT: serials of one listing.
const SERIALS_MAX: usize = 10_000;

/// What a certificate is to say; names are checked already.
pub(crate) struct NamedRequest {
    pub(crate) common_name: String,
    pub(crate) dns_names: Vec<String>,
    pub(crate) ip_addresses: Vec<IpAddr>,
    pub(crate) uris: Vec<String>,
    pub(crate) ttl: SignedDuration,
    pub(crate) server: bool,
    pub(crate) client: bool,
    pub(crate) key: Option<RequestedKey>,
}

/// A new certificate.
pub(crate) struct Named {
    pub(crate) pem: String,
    pub(crate) private_key: Option<Zeroizing<String>>,
    /// Hex.
    pub(crate) serial: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
}

/// A certificate that is known.
pub(crate) struct Known {
    pub(crate) pem: String,
    pub(crate) holder: String,
    /// Key id of its issuer, hex.
    pub(crate) issuer: String,
    pub(crate) revoked_at: Option<Timestamp>,
}

/// A signed certificate that nobody has seen: it counts once it is kept.
pub(crate) struct Signed {
    pub(crate) named: Named,
    credential: Credential,
}

impl Signed {
    /// Keeps it within a change.
    pub(crate) fn keep(&self, change: &mut Change<'_>) -> Result<(), VaultError> {
        keep(change, &self.credential, self.credential.issued_at)
    }
}

impl Vault {
    /// Issues a certificate to be kept under `holder`.
    pub(crate) fn issue_named(
        &self,
        entry: Entry,
        holder: &str,
        request: NamedRequest,
        now: Timestamp,
    ) -> impl Future<Output = Result<Named, VaultError>> + Send + use<> {
        let signed = self.sign_named(holder, request, now);
        let kept =
            signed.map(|signed| self.change(entry, move |change| signed.keep(change).map(|()| signed)));
        let certificates = self.figures.certificates.clone();
        async move {
            let signed = kept?.done().await?;
            certificates.inc();
            Ok(signed.named)
        }
    }

    /// Signs a certificate that is to be kept under `holder`.
    pub(crate) fn sign_named(
        &self,
        holder: &str,
        request: NamedRequest,
        now: Timestamp,
    ) -> Result<Signed, VaultError> {
        let own = format!("spiffe://{}/", self.settings.trust_domain);
        let spiffe_id = request.uris.iter().find(|uri| uri.starts_with(&own)).cloned().unwrap_or_default();
        let mut leaf = make(self.authority.load().issuing(), request, now)?;
        leaf.spiffe_id = spiffe_id;
        let credential = Credential::of(holder, &leaf, now);
        let named = Named {
            pem: leaf.pem,
            private_key: leaf.private_key.take(),
            serial: leaf.serial,
            not_before: now - SignedDuration::from_secs(BACKDATE_S),
            not_after: leaf.not_after,
        };
        Ok(Signed { named, credential })
    }

    /// The certificate with a serial (hex), whosever it is.
    pub(crate) fn known_certificate(&self, serial: &str) -> Result<Option<Known>, VaultError> {
        let view = self.store.snapshot()?;
        let Some(row) = rows::key_of(&view, serial.as_bytes())? else { return Ok(None) };
        let credential: Credential = view.require(Table::Credential, &row)?;
        Ok(Some(Known {
            pem: credential.certificate_pem().to_owned(),
            revoked_at: credential.revoked_at,
            issuer: credential.issuer,
            holder: credential.service,
        }))
    }

    /// SHA-256 of the certificate with a serial (hex) as tokens name it, base64url; `None` where it was not issued here.
    pub(crate) fn digest_of(&self, serial: &str) -> Result<Option<String>, VaultError> {
        let Some(known) = self.known_certificate(serial)? else { return Ok(None) };
        let wrong = |_| VaultError::Crypto("a certificate that was issued here");
        let (_, block) = parse_x509_pem(known.pem.as_bytes()).map_err(wrong)?;
        Ok(Some(URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, &block.contents))))
    }

    /// Serials of certificates that have not ended, hex.
    pub(crate) fn known_serials(&self) -> Result<Vec<String>, VaultError> {
        let keys = self.store.snapshot()?.keys(Table::Serial, &Range::prefix(b"", SERIALS_MAX))?;
        Ok(keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect())
    }

    /// Revokes the certificate with a serial (hex); since when it is.
    pub(crate) fn revoke_known(
        &self,
        entry: Entry,
        serial: &str,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, VaultError> {
        let serial = serial.to_owned();
        let since = self.write(entry, move |change| {
            let Some(row) = rows::key_of(change, serial.as_bytes())? else {
                return Ok(None);
            };
            let credential: Credential = change.require(Table::Credential, &row)?;
            if credential.revoked_at.is_some() {
                return Ok(credential.revoked_at);
            }
            let holder = credential.service.clone();
            revoke_row(change, &row, credential, now);
            announce_revoked(change, &holder, &[serial], now)?;
            Ok(Some(now))
        })?;
        self.figures.revocations.with_label_values(&["certificate"]).inc();
        Ok(since)
    }

    /// Has new revocation lists made.
    pub(crate) fn renew_lists(&self, entry: Entry, now: Timestamp) -> Result<(), VaultError> {
        self.read(entry, || {
            self.lists.forget();
            self.revocation_lists(now).map(drop)
        })
    }
}

fn make(issuing: &Issuing, request: NamedRequest, now: Timestamp) -> Result<Leaf, VaultError> {
    let failed = |_| VaultError::Crypto("leaf certificate");
    let serial = new_serial(now);
    let not_after = (now + request.ttl).min(issuing.not_after);
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, request.common_name.as_str());
    params.distinguished_name = subject;
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let usages = [
        (request.server, ExtendedKeyUsagePurpose::ServerAuth),
        (request.client, ExtendedKeyUsagePurpose::ClientAuth),
    ];
    params.extended_key_usages =
        usages.into_iter().filter(|(wanted, _)| *wanted).map(|(_, usage)| usage).collect();
    let ascii =
        |text: &str| text.to_owned().try_into().map_err(|_| VaultError::Crypto("a name is not ASCII"));
    for name in &request.dns_names {
        params.subject_alt_names.push(SanType::DnsName(ascii(name)?));
    }
    for uri in &request.uris {
        params.subject_alt_names.push(SanType::URI(ascii(uri)?));
    }
    params.subject_alt_names.extend(request.ip_addresses.iter().map(|address| SanType::IpAddress(*address)));
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = date(now - SignedDuration::from_secs(BACKDATE_S))?.to_datetime();
    params.not_after = date(not_after)?.to_datetime();
    let (certificate, private_key, key_digest) = if let Some(requested) = request.key {
        (params.signed_by(&requested.key, &issuing.issuer).map_err(failed)?, None, requested.digest)
    } else {
        let key = generate()?;
        let certificate = params.signed_by(&key, &issuing.issuer).map_err(failed)?;
        let digest = spki_digest(&key.subject_public_key_info());
        (certificate, Some(Zeroizing::new(key.serialize_pem())), digest)
    };
    Ok(Leaf {
        pem: pem("CERTIFICATE", certificate.der()),
        private_key,
        serial: hex(&serial),
        not_after: Timestamp::from_second(not_after.as_second()).unwrap_or(not_after),
        spiffe_id: String::new(),
        dns_names: request.dns_names,
        issuer: issuing.key_id.clone(),
        key_digest,
    })
}

/// A serial as clients write it (`aa:bb`, `aa-bb`, `aabb`), as hex.
pub(crate) fn serial_of(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|c| !":-".contains(*c)).collect::<String>().to_ascii_lowercase();
    (plain.len() <= 40 && unhex(&plain).is_some()).then_some(plain)
}
