//! A certificate request (RFC 2986) for a P-256 key, in DER.

use anyhow::anyhow;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

use crate::tokens::{P256_SPKI_PREFIX, pem};

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;
/// `[0]`, constructed: the attributes.
const ATTRIBUTES: u8 = 0xa0;
/// `id-at-commonName`, 2.5.4.3, with its tag.
const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
/// `ecdsa-with-SHA256`, 1.2.840.10045.4.3.2, with its tag.
const ECDSA_SHA256: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

/// A request, and the public key in it.
pub(super) struct Csr {
    pub(super) pem: String,
    /// Uncompressed, 65 bytes.
    pub(super) point: Vec<u8>,
}

impl Csr {
    /// Makes a key and its request for a name.
    pub(super) fn make(name: &str) -> anyhow::Result<Self> {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_ASN1_SIGNING);
        let document =
            EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| anyhow!("make a P-256 key"))?;
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random)
            .map_err(|error| anyhow!("read the P-256 key back: {error}"))?;
        let point = key.public_key().as_ref().to_vec();
        let pair = tagged(SEQUENCE, &[&COMMON_NAME, &tagged(UTF8_STRING, &[name.as_bytes()])]);
        let subject = tagged(SEQUENCE, &[&tagged(SET, &[&pair])]);
        let version = tagged(INTEGER, &[&[0]]);
        let info =
            tagged(SEQUENCE, &[&version, &subject, &P256_SPKI_PREFIX, &point, &tagged(ATTRIBUTES, &[])]);
        let signature = key.sign(&random, &info).map_err(|_| anyhow!("sign a certificate request"))?;
        let signed = tagged(BIT_STRING, &[&[0], signature.as_ref()]);
        let request = tagged(SEQUENCE, &[&info, &tagged(SEQUENCE, &[&ECDSA_SHA256]), &signed]);
        Ok(Self { pem: pem("CERTIFICATE REQUEST", &request), point })
    }
}

/// A tag, the length of the parts, the parts.
fn tagged(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).expect("a request is small").to_be_bytes();
    let head = match (high, low) {
        (0, 0..0x80) => vec![tag, low],
        (0, _) => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [head, content].concat()
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

    use super::*;

    #[test]
    fn lengths_take_as_few_bytes_as_they_can() {
        assert_eq!(tagged(1, &[]), [1, 0]);
        assert_eq!(tagged(1, &[&[0; 127]])[..2], [1, 127]);
        assert_eq!(tagged(1, &[&[0; 128]])[..3], [1, 0x81, 128]);
        assert_eq!(tagged(1, &[&[0; 300]])[..4], [1, 0x82, 1, 44]);
    }

    #[test]
    fn the_request_is_signed_by_its_own_key() {
        use base64::Engine as _;
        let csr = Csr::make("a.example").unwrap();
        assert_eq!((csr.point.len(), csr.point[0]), (65, 4));
        let body: String = csr.pem.lines().filter(|line| !line.starts_with('-')).collect();
        let der = base64::engine::general_purpose::STANDARD.decode(body).unwrap();
        // The whole has 128 bytes and more, so its head has three bytes; the signed part has fewer, and a head of two.
        let info_bytes = 2 + usize::from(der[4]);
        let (info, rest) = der[3..].split_at(info_bytes);
        let signature = &rest[2 + ECDSA_SHA256.len() + 3..];
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &csr.point).verify(info, signature).unwrap();
    }
}
