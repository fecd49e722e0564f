//! Certificates and keys in PEM, as far as a configuration must know them.
//!
//! A key is read by the TLS library that will use it: one that passes here is one it takes.

use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::SigningKey;
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

/// LIMIT: certificates of one file: a chain, or the roots one side believes.
const CERTIFICATES_MAX: usize = 512;

/// What counts of one certificate.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// First second of its time.
    pub(crate) not_before: Date,
    /// Last second of its time.
    pub(crate) not_after: Date,
    /// Whether it carries a DNS name or an IP address.
    pub(crate) is_named: bool,
    /// Whether it may sign others.
    pub(crate) is_ca: bool,
    /// Its public key (SPKI, DER).
    pub(crate) public_key: Vec<u8>,
}

/// A second, and how its day is written (UTC).
#[derive(Clone, Debug)]
pub(crate) struct Date {
    pub(crate) unix_s: i64,
    pub(crate) day: String,
}

/// Why a text holds no certificates, or no key.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum PemFault {
    /// Not one PEM block of the kind that is wanted.
    #[error("holds no {0} in PEM")]
    Nothing(&'static str),
    /// A block that does not end, or is no base64.
    #[error("is broken PEM")]
    Broken,
    /// A block that is no certificate.
    #[error("holds a certificate that cannot be read")]
    Certificate,
    /// A key of a kind the TLS library does not take.
    #[error("holds a private key that TLS cannot use")]
    Key,
    /// More certificates than one file may hold.
    #[error("holds more than {CERTIFICATES_MAX} certificates")]
    Many,
}

/// The certificates of a file, in order, at least one.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<Facts>, PemFault> {
    let mut found = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem) {
        if found.len() == CERTIFICATES_MAX {
            return Err(PemFault::Many);
        }
        found.push(facts(&der.map_err(|error| broken(&error, "certificate"))?)?);
    }
    if found.is_empty() { Err(PemFault::Nothing("certificate")) } else { Ok(found) }
}

/// The private key of a file: PKCS#8, PKCS#1 or SEC1.
pub(crate) fn key(pem: &[u8]) -> Result<Arc<dyn SigningKey>, PemFault> {
    let der = PrivateKeyDer::from_pem_slice(pem).map_err(|error| broken(&error, "private key"))?;
    any_supported_type(&der).map_err(|_| PemFault::Key)
}

/// Whether a private key belongs to a certificate.
pub(crate) fn belong(key: &dyn SigningKey, certificate: &Facts) -> bool {
    key.public_key().is_some_and(|spki| spki.as_ref() == certificate.public_key.as_slice())
}

fn broken(error: &PemError, wanted: &'static str) -> PemFault {
    match error {
        PemError::NoItemsFound => PemFault::Nothing(wanted),
        _ => PemFault::Broken,
    }
}

fn facts(der: &[u8]) -> Result<Facts, PemFault> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| PemFault::Certificate)?;
    let names = certificate.subject_alternative_name().map_err(|_| PemFault::Certificate)?;
    let is_name =
        |name: &GeneralName<'_>| matches!(name, GeneralName::DNSName(_) | GeneralName::IPAddress(_));
    let validity = certificate.validity();
    Ok(Facts {
        not_before: date(validity.not_before),
        not_after: date(validity.not_after),
        is_named: names.is_some_and(|names| names.value.general_names.iter().any(is_name)),
        is_ca: certificate.is_ca(),
        public_key: certificate.public_key().raw.to_vec(),
    })
}

fn date(time: ASN1Time) -> Date {
    let at = time.to_datetime();
    let day = format!("{:04}-{:02}-{:02}", at.year(), u8::from(at.month()), at.day());
    Date { unix_s: time.timestamp(), day }
}
