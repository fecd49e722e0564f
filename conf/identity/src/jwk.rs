//! Verification keys.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use sluice_wire::feed::Jwk;

/// Longest accepted key id, bytes.
pub const KID_BYTES_MAX: usize = 64;

/// A P-256 public key, checked for shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Key id.
    pub kid: String,
    /// Uncompressed point, 65 bytes.
    pub(crate) point: Vec<u8>,
}

/// A published key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwkError {
    /// Not an ES256 signature key.
    #[error("only EC P-256 keys for ES256 signatures are used")]
    Kind,
    /// A coordinate is not 32 bytes of base64url.
    #[error("a coordinate is not 32 bytes of base64url")]
    Coordinate,
    /// The key id is too long or empty.
    #[error("the key id is empty or longer than 64 bytes")]
    Kid,
}

impl PublicKey {
    /// Uncompressed point, 65 bytes.
    pub fn point(&self) -> &[u8] {
        &self.point
    }
}

impl TryFrom<&Jwk> for PublicKey {
    type Error = JwkError;

    fn try_from(jwk: &Jwk) -> Result<Self, JwkError> {
        if jwk.kty != "EC" || jwk.crv != "P-256" || jwk.alg != "ES256" || jwk.usage != "sig" {
            return Err(JwkError::Kind);
        }
        if jwk.kid.is_empty() || jwk.kid.len() > KID_BYTES_MAX {
            return Err(JwkError::Kid);
        }
        let mut point = vec![0x04];
        for coordinate in [&jwk.x, &jwk.y] {
            let bytes = URL_SAFE_NO_PAD.decode(coordinate).map_err(|_| JwkError::Coordinate)?;
            if bytes.len() != 32 {
                return Err(JwkError::Coordinate);
            }
            point.extend_from_slice(&bytes);
        }
        Ok(Self { kid: jwk.kid.clone(), point })
    }
}

/// Makes the published form of an uncompressed P-256 point (65 bytes), with its RFC 7638
/// thumbprint as key id; `None` when the point has another form.
pub fn publish(point: &[u8]) -> Option<Jwk> {
    let [0x04, coordinates @ ..] = point else { return None };
    let (x, y) = coordinates.split_at_checked(32).filter(|(_, y)| y.len() == 32)?;
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let kid = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()));
    Some(Jwk { kty: "EC".into(), crv: "P-256".into(), x, y, kid, usage: "sig".into(), alg: "ES256".into() })
}
