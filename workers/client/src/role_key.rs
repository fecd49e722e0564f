//! A role's private key, and the request by which the vault certifies it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use zeroize::Zeroizing;

/// The key cannot be made or used; the cause is in the system's random source or in the key itself.
#[derive(Debug, thiserror::Error)]
#[error("the private key cannot be used")]
pub struct RoleKeyFault;

/// A P-256 key of a role. It leaves the process only by [`Self::pkcs8`].
pub struct RoleKey {
    pkcs8: Zeroizing<Vec<u8>>,
    pair: EcdsaKeyPair,
}

/// What stands before the 65 bytes of an uncompressed P-256 point in a SubjectPublicKeyInfo.
const SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// A CertificationRequestInfo (RFC 2986) up to the key: 98 bytes follow, version 0, an empty name.
const INFO: [u8; 7] = [0x30, 0x62, 0x02, 0x01, 0x00, 0x30, 0x00];
/// No attributes: names are asked for beside the request, extensions of which nobody would read.
const ATTRIBUTES: [u8; 2] = [0xa0, 0x00];
/// ecdsa-with-SHA256.
const ALGORITHM: [u8; 12] = [0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

impl RoleKey {
    /// A new key.
    ///
    /// # Errors
    /// [`RoleKeyFault`] where the system gives no random bytes.
    pub fn generate() -> Result<Self, RoleKeyFault> {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
        Self::from_pkcs8(document.map_err(|_| RoleKeyFault)?.as_ref())
    }

    /// A key that was made before, PKCS#8 in DER.
    ///
    /// # Errors
    /// [`RoleKeyFault`] where the bytes are no P-256 key.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, RoleKeyFault> {
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8, &SystemRandom::new());
        Ok(Self { pkcs8: Zeroizing::new(pkcs8.to_vec()), pair: pair.map_err(|_| RoleKeyFault)? })
    }

    /// The key, PKCS#8 in DER.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// A certificate request for it, PEM.
    ///
    /// # Errors
    /// [`RoleKeyFault`] where the system gives no random bytes.
    pub fn request(&self) -> Result<String, RoleKeyFault> {
        let info = [&INFO[..], &SPKI, self.pair.public_key().as_ref(), &ATTRIBUTES].concat();
        let signature = self.pair.sign(&SystemRandom::new(), &info).map_err(|_| RoleKeyFault)?;
        let signature = signature.as_ref();
        // A bit string without unused bits; a P-256 signature has at most 72 bytes, so one byte tells its length.
        let bits = [&[0x03, signature.len() as u8 + 1, 0][..], signature].concat();
        let content = [&info[..], &ALGORITHM, &bits].concat();
        let request = [&[0x30, 0x81, content.len() as u8][..], &content].concat();
        Ok(pem("CERTIFICATE REQUEST", &request))
    }
}

/// DER as PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for start in (0..text.len()).step_by(64) {
        out.push_str(&text[start..text.len().min(start + 64)]);
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use x509_parser::certification_request::X509CertificationRequest;
    use x509_parser::pem::parse_x509_pem;
    use x509_parser::prelude::FromDer as _;

    #[test]
    fn a_request_is_well_formed_and_signed_by_its_key() {
        for _ in 0..32 {
            let key = RoleKey::from_pkcs8(RoleKey::generate().unwrap().pkcs8()).unwrap();
            let text = key.request().unwrap();
            let (_, pem) = parse_x509_pem(text.as_bytes()).unwrap();
            let (rest, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
            assert!(rest.is_empty());
            let point = &request.certification_request_info.subject_pki.subject_public_key.data;
            assert_eq!(point.as_ref(), key.pair.public_key().as_ref());
            let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point);
            let signed = request.certification_request_info.raw;
            verifier.verify(signed, &request.signature_value.data).unwrap();
        }
    }

    #[test]
    fn other_bytes_are_no_key() {
        assert!(RoleKey::from_pkcs8(b"").is_err());
        assert!(RoleKey::from_pkcs8(&[0x30; 138]).is_err());
    }
}
