//! A certificate request: of everything it says, only the public key is believed.

use rcgen::SubjectPublicKeyInfo;
use ring::digest;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
    VerificationAlgorithm,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer as _;

/// LIMIT: longest request, PEM.
const CSR_BYTES_MAX: usize = 16 * 1024;

/// Why a request is refused. Texts are public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CsrError {
    /// Longer than the limit.
    #[error("a certificate request has at most 16384 bytes")]
    TooLong,
    /// Not one request, or not one PEM block with one.
    #[error("this is not one certificate request")]
    Malformed,
    /// A key or signature that is not accepted.
    #[error(
        "a request's key is P-256, P-384, Ed25519 or RSA of 2048 bits and more, signed with SHA-256 or SHA-384"
    )]
    Algorithm,
    /// Whoever made the request does not hold the key.
    #[error("the request's signature is not of its own key")]
    Signature,
}

/// The public key of a request whose holder proved possession.
#[derive(Debug)]
pub(crate) struct RequestedKey {
    pub(super) key: SubjectPublicKeyInfo,
    /// SHA-256 of the whole key info.
    pub(crate) digest: [u8; 32],
}

impl RequestedKey {
    /// Reads a PEM request.
    pub(crate) fn parse(pem: &str) -> Result<Self, CsrError> {
        if pem.len() > CSR_BYTES_MAX {
            return Err(CsrError::TooLong);
        }
        let (rest, block) = parse_x509_pem(pem.as_bytes()).map_err(|_| CsrError::Malformed)?;
        let labelled = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"].contains(&block.label.as_str());
        if !labelled || !rest.trim_ascii().is_empty() {
            return Err(CsrError::Malformed);
        }
        Self::from_der(&block.contents)
    }

    /// Reads a DER request.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > CSR_BYTES_MAX {
            return Err(CsrError::TooLong);
        }
        let (trailing, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
        if !trailing.is_empty() {
            return Err(CsrError::Malformed);
        }
        let info = &request.certification_request_info;
        let algorithm = algorithm(&request.signature_algorithm.algorithm.to_id_string())?;
        let point = info.subject_pki.subject_public_key.data.as_ref();
        // ring refuses keys of another family or size than the algorithm's.
        UnparsedPublicKey::new(algorithm, point)
            .verify(info.raw, request.signature_value.data.as_ref())
            .map_err(|_| CsrError::Signature)?;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| CsrError::Algorithm)?;
        Ok(Self { key, digest: spki_digest(info.subject_pki.raw) })
    }
}

pub(super) fn spki_digest(spki: &[u8]) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, spki).as_ref());
    bytes
}

fn algorithm(oid: &str) -> Result<&'static dyn VerificationAlgorithm, CsrError> {
    match oid {
        "1.2.840.10045.4.3.2" => Ok(&ECDSA_P256_SHA256_ASN1),
        "1.2.840.10045.4.3.3" => Ok(&ECDSA_P384_SHA384_ASN1),
        "1.3.101.112" => Ok(&ED25519),
        "1.2.840.113549.1.1.11" => Ok(&RSA_PKCS1_2048_8192_SHA256),
        _ => Err(CsrError::Algorithm),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use rcgen::{CertificateParams, KeyPair};

    fn request() -> (KeyPair, Vec<u8>) {
        let key = super::super::authority::generate().unwrap();
        let der = CertificateParams::new(vec!["x".to_owned()]).unwrap().serialize_request(&key).unwrap();
        (key, der.der().to_vec())
    }

    fn pem(der: &[u8]) -> String {
        super::super::authority::pem("CERTIFICATE REQUEST", der)
    }

    #[test]
    fn sound_request_gives_its_key() {
        let (_, der) = request();
        assert!(RequestedKey::parse(&pem(&der)).is_ok());
    }

    #[test]
    fn forged_torn_and_padded_requests_are_refused() {
        let (_, der) = request();
        let mut forged = der.clone();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert!(RequestedKey::parse(&pem(&forged)).is_err());
        let mut trailing = der.clone();
        trailing.push(0);
        assert_eq!(RequestedKey::parse(&pem(&trailing)).unwrap_err(), CsrError::Malformed);
        let two = format!("{0}{0}", pem(&der));
        assert_eq!(RequestedKey::parse(&two).unwrap_err(), CsrError::Malformed);
        assert!(RequestedKey::parse(&pem(&der[..der.len() / 2])).is_err());
        assert!(RequestedKey::parse(&super::super::authority::pem("CERTIFICATE", &der)).is_err());
        assert!(RequestedKey::parse("").is_err());
        assert_eq!(RequestedKey::parse(&"A".repeat(20_000)).unwrap_err(), CsrError::TooLong);
        let garbage = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            STANDARD.encode([0x30; 64])
        );
        assert!(RequestedKey::parse(&garbage).is_err());
    }
}
