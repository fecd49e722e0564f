//! What a role and the vault say to each other about the role's certificate:
//! `POST /internal/certificates` at the vault's internal door.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// LIMIT: DNS names of one certificate, and addresses of one certificate.
pub const NAMES_MAX: usize = 64;

/// A role's wish for a certificate of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateRequest {
    /// PKCS#10 request, PEM. Only its key is used; the key itself never leaves the role.
    pub csr: String,
    /// DNS names to be found under, beside the role's own: lower case; `*.` may stand for one label of the edge's.
    #[serde(default)]
    pub dns_names: Vec<String>,
    /// IP addresses to be found under.
    #[serde(default)]
    pub ip_addresses: Vec<String>,
}

/// A role's new certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleCertificate {
    /// The certificate alone, PEM.
    pub certificate: String,
    /// Its intermediate and the root, in this order, PEM.
    pub ca_chain: String,
    /// The root, PEM.
    pub ca_certificate: String,
    /// Serial, lower-case hex.
    pub serial_number: String,
    /// `spiffe://<trust domain>/role/<role>`.
    pub spiffe_id: String,
    /// When it was made.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When to ask for the next: two thirds of its life, less a little by chance so that not all ask at once.
    pub renew_at: Timestamp,
}
