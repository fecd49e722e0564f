//! Client certificates: who a certificate says its holder is.
//!
//! The chain and the proof of possession are TLS's business and done before; this reads the leaf, and reads
//! it more strictly than TLS libraries do: one that two readers could understand differently is refused, so
//! that no other process sees another name in it. Refused are: trailing bytes anywhere it is read, a second
//! extension of one kind, an unknown critical extension, a CA, usages that do not allow client
//! authentication, name constraints, names that are not critical under an empty subject, a name with a byte that is not printable ASCII (so also NUL), a wildcard that is not the
//! whole first label, and a `spiffe://` name that is not the only URI or not as the standard writes it.
//! Cost: one pass and one digest a handshake.

mod spiffe;

#[cfg(test)]
mod tests;

use ring::digest;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{
    BasicConstraints, ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension, SubjectAlternativeName,
    X509Extension,
};
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::oid_registry::{
    OID_X509_EXT_BASIC_CONSTRAINTS, OID_X509_EXT_EXTENDED_KEY_USAGE, OID_X509_EXT_KEY_USAGE,
    OID_X509_EXT_SUBJECT_ALT_NAME, Oid,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::{X509Name, X509Version};

pub use spiffe::{SPIFFE_ID_BYTES_MAX, SpiffeId, SpiffeIdError, TRUST_DOMAIN_BYTES_MAX};

/// LIMIT: longest certificate, DER bytes.
pub const CERTIFICATE_BYTES_MAX: usize = 16 * 1024;
/// LIMIT: longest serial, octets (RFC 5280, 4.1.2.2).
pub const SERIAL_OCTETS_MAX: usize = 20;
/// LIMIT: extensions of one certificate.
const EXTENSIONS_MAX: usize = 64;
/// LIMIT: alternative names of one certificate: 64 DNS names and 64 addresses of a role, and its own.
const NAMES_MAX: usize = 160;
/// LIMIT: attributes of the subject.
const ATTRIBUTES_MAX: usize = 32;
/// LIMIT: longest subject as text, bytes.
const SUBJECT_BYTES_MAX: usize = 1_024;

/// What a client certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its workload identity, where it has one.
    pub spiffe: Option<SpiffeId>,
    /// Serial in lower-case hex without a sign octet: as the vault revokes by it.
    pub serial: String,
    /// From when it is valid, unix seconds.
    pub not_before_unix_s: i64,
    /// Until when it is valid, unix seconds.
    pub not_after_unix_s: i64,
    /// Subject, `CN=bot,O=Sluice`, in the certificate's order; printable ASCII. Empty where it has none.
    pub subject: String,
    /// SHA-256 of the whole certificate.
    pub fingerprint: [u8; 32],
}

/// Why a certificate is not believed, whoever signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Longer than the limit, or more extensions or names than the limits.
    #[error("the certificate is larger than the limits")]
    TooLarge,
    /// Not one DER certificate, or an extension that is read does not parse to its last byte.
    #[error("the certificate is malformed")]
    Malformed,
    /// Not version 3.
    #[error("the certificate is not of version 3")]
    Version,
    /// The serial is not a positive integer of at most 20 octets, written as DER writes it.
    #[error("the serial is not a positive number of at most 20 octets")]
    Serial,
    /// It ends before it begins.
    #[error("the certificate ends before it begins")]
    Validity,
    /// It may sign certificates: a CA is nobody's identity.
    #[error("a CA certificate is not accepted as a client's")]
    Authority,
    /// Its usages leave client authentication out.
    #[error("the certificate is not for client authentication")]
    Usage,
    /// An extension that occurs twice, or a critical one that is unknown.
    #[error("an extension occurs twice or is critical and unknown")]
    Extension,
    /// A name that is empty, too long, a wildcard or not printable ASCII.
    #[error("a name is not plain printable ASCII")]
    Name,
    /// A SPIFFE id beside another URI: which of them is meant cannot be told.
    #[error("a SPIFFE id must be the only URI of its certificate")]
    TwoUris,
    /// The SPIFFE id is not as the standard writes it.
    #[error("the SPIFFE id is not valid")]
    SpiffeId(#[source] SpiffeIdError),
}

impl CertificateError {
    /// Bounded word for metrics and logs.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Version => "version",
            Self::Serial => "serial",
            Self::Validity => "validity",
            Self::Authority => "authority",
            Self::Usage => "usage",
            Self::Extension => "extension",
            Self::Name => "name",
            Self::TwoUris => "two_uris",
            Self::SpiffeId(_) => "spiffe_id",
        }
    }
}

impl ClientCertificate {
    /// Reads a leaf, DER. Neither its signature nor the time is looked at.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(CertificateError::TooLarge);
        }
        let certificate: X509Certificate<'_> = whole(der)?;
        if certificate.version() != X509Version::V3 {
            return Err(CertificateError::Version);
        }
        let validity = certificate.validity();
        let (from, until) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        if until < from {
            return Err(CertificateError::Validity);
        }
        let extensions = certificate.extensions();
        check_extensions(extensions)?;
        check_usages(extensions)?;
        let subject = subject(certificate.subject())?;
        // RFC 5280, 4.2.1.6: where nothing else names the holder, nobody may pass the names over.
        let passed_over =
            |found: &X509Extension<'_>| found.oid == OID_X509_EXT_SUBJECT_ALT_NAME && !found.critical;
        if subject.is_empty() && extensions.iter().any(passed_over) {
            return Err(CertificateError::Extension);
        }
        Ok(Self {
            spiffe: spiffe_id(extensions)?,
            serial: serial(certificate.raw_serial())?,
            not_before_unix_s: from,
            not_after_unix_s: until,
            subject,
            fingerprint: fingerprint(der),
        })
    }

    /// Whether it is valid at a time, unix seconds.
    pub fn is_valid_at(&self, now_unix_s: i64) -> bool {
        (self.not_before_unix_s..=self.not_after_unix_s).contains(&now_unix_s)
    }
}

fn fingerprint(der: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, der);
    digest.as_ref().try_into().expect("SHA-256 is 32 bytes")
}

/// Reads a value that fills its bytes to the last.
fn whole<'a, T: FromDer<'a, E>, E>(bytes: &'a [u8]) -> Result<T, CertificateError>
where
    E: std::fmt::Debug,
{
    match T::from_der(bytes) {
        Ok(([], value)) => Ok(value),
        _ => Err(CertificateError::Malformed),
    }
}

fn check_extensions(extensions: &[X509Extension<'_>]) -> Result<(), CertificateError> {
    if extensions.len() > EXTENSIONS_MAX {
        return Err(CertificateError::TooLarge);
    }
    for (position, extension) in extensions.iter().enumerate() {
        match extension.parsed_extension() {
            ParsedExtension::ParseError { .. } => return Err(CertificateError::Malformed),
            // Only an authority limits the names of others.
            ParsedExtension::NameConstraints(_) => return Err(CertificateError::Authority),
            ParsedExtension::UnsupportedExtension { .. } if extension.critical => {
                return Err(CertificateError::Extension);
            }
            _ => {}
        }
        if extensions[..position].iter().any(|earlier| earlier.oid == extension.oid) {
            return Err(CertificateError::Extension);
        }
    }
    Ok(())
}

fn read<'a, T: FromDer<'a, E>, E: std::fmt::Debug>(
    extensions: &'a [X509Extension<'a>],
    oid: &Oid<'_>,
) -> Result<Option<T>, CertificateError> {
    extensions.iter().find(|extension| extension.oid == *oid).map(|found| whole(found.value)).transpose()
}

fn check_usages(extensions: &[X509Extension<'_>]) -> Result<(), CertificateError> {
    let constraints: Option<BasicConstraints> = read(extensions, &OID_X509_EXT_BASIC_CONSTRAINTS)?;
    let usage: Option<KeyUsage> = read(extensions, &OID_X509_EXT_KEY_USAGE)?;
    let purposes: Option<ExtendedKeyUsage<'_>> = read(extensions, &OID_X509_EXT_EXTENDED_KEY_USAGE)?;
    let signs = |usage: &KeyUsage| usage.key_cert_sign() || usage.crl_sign();
    if constraints.is_some_and(|found| found.ca) || usage.as_ref().is_some_and(signs) {
        return Err(CertificateError::Authority);
    }
    // Who may be a client is said, not left open: `anyExtendedKeyUsage` and no purposes at all are no leave.
    let allowed = usage.is_none_or(|usage| usage.digital_signature())
        && purposes.is_some_and(|purposes| purposes.client_auth);
    if allowed { Ok(()) } else { Err(CertificateError::Usage) }
}

fn spiffe_id(extensions: &[X509Extension<'_>]) -> Result<Option<SpiffeId>, CertificateError> {
    let found: Option<SubjectAlternativeName<'_>> = read(extensions, &OID_X509_EXT_SUBJECT_ALT_NAME)?;
    let Some(names) = found.map(|found| found.general_names) else { return Ok(None) };
    if names.len() > NAMES_MAX {
        return Err(CertificateError::TooLarge);
    }
    let mut uris = Vec::new();
    for name in &names {
        check_name(name)?;
        if let GeneralName::URI(uri) = name {
            uris.push(*uri);
        }
    }
    // In whatever case it is written: `SPIFFE://…` is refused below, not passed over.
    let claims = |uri: &&str| uri.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("spiffe:"));
    match uris.as_slice() {
        [uri] if claims(uri) => uri.parse().map(Some).map_err(CertificateError::SpiffeId),
        several if several.iter().any(claims) => Err(CertificateError::TwoUris),
        _ => Ok(None),
    }
}

fn check_name(name: &GeneralName<'_>) -> Result<(), CertificateError> {
    let plain = |text: &str, bytes_max: usize| is_plain(text, bytes_max) && !text.contains(' ');
    let sound = match name {
        // Nobody is known by such a name; a server's certificate may carry it beside its identity.
        GeneralName::DNSName(text) => {
            plain(text, 253) && !text.strip_prefix("*.").unwrap_or(text).contains('*')
        }
        GeneralName::RFC822Name(text) => plain(text, 320),
        GeneralName::URI(text) => plain(text, SPIFFE_ID_BYTES_MAX),
        GeneralName::IPAddress(octets) => [4, 16].contains(&octets.len()),
        GeneralName::Invalid(..) => return Err(CertificateError::Malformed),
        // Nothing here reads these.
        GeneralName::DirectoryName(_)
        | GeneralName::OtherName(..)
        | GeneralName::X400Address(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_) => true,
    };
    if sound { Ok(()) } else { Err(CertificateError::Name) }
}

fn is_plain(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

fn serial(octets: &[u8]) -> Result<String, CertificateError> {
    let magnitude = match octets {
        // The sign octet of a number whose first bit is set.
        [0, rest @ ..] if rest.first().is_some_and(|first| *first >= 0x80) => rest,
        [first, ..] if (1..0x80).contains(first) => octets,
        _ => return Err(CertificateError::Serial),
    };
    if magnitude.len() > SERIAL_OCTETS_MAX {
        return Err(CertificateError::Serial);
    }
    Ok(hex(magnitude))
}

fn subject(name: &X509Name<'_>) -> Result<String, CertificateError> {
    let mut text = String::new();
    for (position, attribute) in name.iter_attributes().enumerate() {
        let value = attribute.as_str().map_err(|_| CertificateError::Name)?;
        if !is_plain(value, SUBJECT_BYTES_MAX) {
            return Err(CertificateError::Name);
        }
        if position > 0 {
            text.push(',');
        }
        match oid2abbrev(attribute.attr_type(), oid_registry()) {
            Ok(known) => text.push_str(known),
            Err(_) => text.push_str(&attribute.attr_type().to_id_string()),
        }
        text.push('=');
        for letter in value.chars() {
            // RFC 4514: a value cannot pretend to be another attribute.
            if ",+\"\\<>;=#".contains(letter) {
                text.push('\\');
            }
            text.push(letter);
        }
        if position >= ATTRIBUTES_MAX || text.len() > SUBJECT_BYTES_MAX {
            return Err(CertificateError::TooLarge);
        }
    }
    Ok(text)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}
