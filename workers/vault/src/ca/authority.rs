//! Root and intermediates: making, keeping, rotating, and their revocation lists.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, RevokedCertParams, SanType,
    SerialNumber,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use serde_json::value::{RawValue, to_raw_value};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};
use zeroize::Zeroizing;

use super::BACKDATE_S;
use crate::error::VaultError;

/// Life of the root.
const ROOT_LIFE: SignedDuration = SignedDuration::from_hours(24 * 3_652);
/// Life of an intermediate; a new one is made at half of it and the old one stays listed until it ends.
const INTERMEDIATE_LIFE: SignedDuration = SignedDuration::from_hours(24 * 90);
/// Life of a revocation list; a new one is made every hour and at every revocation.
const CRL_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// Bytes of a serial.
const SERIAL_BYTES: usize = 19;
/// Bytes of it that tell the time: what is issued one after another lies side by side in the store.
const SERIAL_TIME_BYTES: usize = 5;

/// A CA certificate with its key.
pub(crate) struct Issuing {
    pub(crate) der: Vec<u8>,
    pub(crate) serial: String,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    /// Subject key identifier, hex: names the issuer in credential rows.
    pub(crate) key_id: String,
    /// Uncompressed public point.
    pub(crate) point: Vec<u8>,
    pub(super) issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// The same as JSON, once for every answer that shows it.
    shown: Box<RawValue>,
}

/// The root and every intermediate that has not ended, oldest first.
#[derive(Clone)]
pub(crate) struct Authority {
    pub(crate) root: Arc<Issuing>,
    pub(crate) intermediates: Vec<Arc<Issuing>>,
}

/// A certificate that must no longer be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevokedCertificate {
    /// Serial, hex.
    pub(crate) serial: String,
    /// `key_id` of its issuer.
    pub(crate) issuer: String,
    /// When it was revoked.
    pub(crate) at: Timestamp,
}

/// A certificate and key as they are kept: to be sealed.
pub(crate) struct Kept {
    pub(crate) der: Vec<u8>,
    pub(crate) key: Zeroizing<Vec<u8>>,
}

impl Issuing {
    /// Restores a CA from its kept form.
    pub(crate) fn restore(kept: &Kept) -> Result<Self, VaultError> {
        let crypto = |what| VaultError::Crypto(what);
        let key = KeyPair::try_from(kept.key.as_slice()).map_err(|_| crypto("a CA key does not parse"))?;
        let point = key.public_key_raw().to_vec();
        let (_, parsed) =
            X509Certificate::from_der(&kept.der).map_err(|_| crypto("a CA certificate does not parse"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != point.as_slice() {
            return Err(crypto("a CA certificate does not fit its key"));
        }
        let key_id = subject_key_id(&parsed).ok_or_else(|| crypto("a CA certificate lacks its key id"))?;
        let validity = parsed.validity();
        let (not_before, not_after) = (seconds(&validity.not_before)?, seconds(&validity.not_after)?);
        let serial = hex(parsed.raw_serial());
        let issuer = Issuer::from_ca_cert_der(&kept.der.as_slice().into(), key)
            .map_err(|_| crypto("a CA certificate cannot issue"))?;
        let pem = pem("CERTIFICATE", &kept.der);
        let shown = to_raw_value(&pem).map_err(|_| crypto("a CA certificate does not show"))?;
        Ok(Self { der: kept.der.clone(), serial, not_before, not_after, key_id, point, issuer, pem, shown })
    }

    /// The certificate, PEM.
    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate, PEM, as JSON.
    pub(super) fn shown(&self) -> &RawValue {
        &self.shown
    }

    /// Whether a successor is due: half of its life is over.
    pub(crate) fn is_aging(&self, now: Timestamp) -> bool {
        let half = self.not_after.duration_since(self.not_before) / 2;
        now.duration_since(self.not_before) >= half
    }
}

/// Makes a root.
pub(crate) fn make_root(trust_domain: &str, now: Timestamp) -> Result<Kept, VaultError> {
    let key = generate()?;
    let mut params = ca_params("Sluice Root CA", trust_domain, now, now + ROOT_LIFE)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    let certificate = params.self_signed(&key).map_err(|_| VaultError::Crypto("root certificate"))?;
    Ok(Kept { der: certificate.der().to_vec(), key: Zeroizing::new(key.serialize_der()) })
}

/// Makes an intermediate under `root`.
pub(crate) fn make_intermediate(
    root: &Issuing,
    trust_domain: &str,
    now: Timestamp,
) -> Result<Kept, VaultError> {
    let key = generate()?;
    let end = (now + INTERMEDIATE_LIFE).min(root.not_after);
    let mut params = ca_params("Sluice Issuing CA", trust_domain, now, end)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.use_authority_key_identifier_extension = true;
    let certificate =
        params.signed_by(&key, &root.issuer).map_err(|_| VaultError::Crypto("intermediate certificate"))?;
    Ok(Kept { der: certificate.der().to_vec(), key: Zeroizing::new(key.serialize_der()) })
}

impl Authority {
    /// The intermediate that issues now.
    pub(crate) fn issuing(&self) -> &Arc<Issuing> {
        self.intermediates.last().unwrap_or(&self.root)
    }

    /// Intermediates, newest first, then the root; PEM.
    pub(crate) fn chain_pem(&self) -> String {
        let intermediates = self.intermediates.iter().rev().map(|ca| ca.pem());
        intermediates.chain([self.root.pem()]).collect()
    }

    /// Revocation lists of the issuing intermediate, the older ones and the root, in this order; DER.
    pub(crate) fn crls(
        &self,
        revoked: &[RevokedCertificate],
        number: u64,
        now: Timestamp,
    ) -> Result<Vec<Vec<u8>>, VaultError> {
        let issuers = self.intermediates.iter().rev().chain([&self.root]);
        issuers.map(|issuing| crl(issuing, revoked, number, now)).collect()
    }
}

fn crl(
    issuing: &Issuing,
    revoked: &[RevokedCertificate],
    number: u64,
    now: Timestamp,
) -> Result<Vec<u8>, VaultError> {
    let own = revoked.iter().filter(|certificate| certificate.issuer == issuing.key_id);
    let entry = |certificate: &RevokedCertificate| {
        Ok(RevokedCertParams {
            serial_number: SerialNumber::from(
                unhex(&certificate.serial).ok_or(VaultError::Crypto("serial"))?,
            ),
            revocation_time: date(certificate.at)?.to_datetime(),
            reason_code: None,
            invalidity_date: None,
        })
    };
    let params = CertificateRevocationListParams {
        this_update: date(now - SignedDuration::from_secs(BACKDATE_S))?.to_datetime(),
        next_update: date(now + CRL_LIFE)?.to_datetime(),
        crl_number: SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: own.map(entry).collect::<Result<_, VaultError>>()?,
        key_identifier_method: KeyIdMethod::PreSpecified(unhex(&issuing.key_id).unwrap_or_default()),
    };
    let crl = params.signed_by(&issuing.issuer).map_err(|_| VaultError::Crypto("revocation list"))?;
    Ok(crl.der().to_vec())
}

fn ca_params(
    name: &str,
    trust_domain: &str,
    now: Timestamp,
    end: Timestamp,
) -> Result<CertificateParams, VaultError> {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::OrganizationName, "Sluice");
    let mut mark = [0; 4];
    SystemRandom::new().fill(&mut mark).expect("the kernel's random source does not fail once seeded");
    subject.push(DnType::CommonName, format!("{name} {trust_domain} {}", hex(&mark)));
    params.distinguished_name = subject;
    params.serial_number = Some(SerialNumber::from_slice(&new_serial(now)));
    params.not_before = date(now - SignedDuration::from_secs(BACKDATE_S))?.to_datetime();
    params.not_after = date(end)?.to_datetime();
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let id = format!("spiffe://{trust_domain}");
    params.subject_alt_names =
        vec![SanType::URI(id.try_into().map_err(|_| VaultError::Crypto("trust domain is not ASCII"))?)];
    Ok(params)
}

pub(super) fn generate() -> Result<KeyPair, VaultError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_| VaultError::Crypto("key generation"))
}

/// A serial: the milliseconds of 8.7 years, then 112 random bits. Its first bit is clear and its second set, so its length
/// is always the same.
pub(super) fn new_serial(now: Timestamp) -> [u8; SERIAL_BYTES] {
    let mut serial = [0; SERIAL_BYTES];
    let (time, random) = serial.split_at_mut(SERIAL_TIME_BYTES);
    time.copy_from_slice(&now.as_millisecond().to_be_bytes()[8 - SERIAL_TIME_BYTES..]);
    time[0] = time[0] & 0x3f | 0x40;
    SystemRandom::new().fill(random).expect("the kernel's random source does not fail once seeded");
    serial
}

/// A date in whole seconds; its `to_datetime` has the type the certificate library wants.
pub(super) fn date(at: Timestamp) -> Result<ASN1Time, VaultError> {
    ASN1Time::from_timestamp(at.as_second()).map_err(|_| VaultError::Crypto("a date is out of range"))
}

pub(super) fn seconds(time: &ASN1Time) -> Result<Timestamp, VaultError> {
    Timestamp::from_second(time.timestamp()).map_err(|_| VaultError::Crypto("a date is out of range"))
}

fn subject_key_id(certificate: &X509Certificate<'_>) -> Option<String> {
    use x509_parser::extensions::ParsedExtension;
    certificate.iter_extensions().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(hex(id.0)),
        _ => None,
    })
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40);
    text.extend(["-----BEGIN ", label, "-----\n"]);
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        text.extend([line, "\n"]);
        rest = tail;
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    pairs.map(|pair| Some((nibble(pair[0])? * 16 + nibble(pair[1])?) as u8)).collect()
}
