//! What shows that somebody has the root key: shares of it, or the key itself where a file keeps it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::keyfile::{self, RootKey};
use super::shamir::Share;
use super::shape::Shape;

/// A share, or the whole key. No Debug: it is a secret.
#[derive(Clone)]
pub(crate) enum Proof {
    /// One of the shares of a vault that opens by shares.
    Share(Share),
    /// The key of a vault that opens by a key file.
    Key(RootKey),
}

impl Proof {
    /// Reads the 64 digits of a key file, or a share in hexadecimal or base64; `None`: it is neither.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.len() {
            64 => keyfile::parse(text.as_bytes()).map(Self::Key),
            _ => Share::parse(text).map(Self::Share),
        }
    }

    /// What a new root key of this shape is handed out as.
    pub(crate) fn all_of(root: &RootKey, shape: Shape) -> Vec<Self> {
        match shape {
            Shape::File => vec![Self::Key(root.clone())],
            Shape::Shares(split) => root.divide(split).into_iter().map(Self::Share).collect(),
        }
    }

    /// In hexadecimal; that of a key is what its file holds.
    pub(crate) fn to_hex(&self) -> Zeroizing<String> {
        match self {
            Self::Share(share) => share.to_hex(),
            Self::Key(root) => root.to_hex(),
        }
    }

    /// In base64.
    pub(crate) fn to_base64(&self) -> Zeroizing<String> {
        match self {
            Self::Share(share) => share.to_base64(),
            Self::Key(root) => Zeroizing::new(STANDARD.encode(root.bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Split;

    #[test]
    fn what_is_handed_out_reads_back() {
        let root = RootKey::random();
        let [key] = Proof::all_of(&root, Shape::File).try_into().ok().unwrap();
        assert_eq!(key.to_base64().len(), 44);
        let Some(Proof::Key(read)) = Proof::parse(&key.to_hex()) else { panic!("64 digits are a key") };
        assert!(read.is(&root));
        for share in Proof::all_of(&root, Shape::Shares(Split::new(3, 2).unwrap())) {
            for text in [share.to_hex(), share.to_base64()] {
                assert!(matches!(Proof::parse(&text), Some(Proof::Share(_))), "66 digits or 44 characters");
            }
        }
        for neither in ["", "ab", &"zz".repeat(32), &"00".repeat(33), &key.to_base64()] {
            assert!(Proof::parse(neither).is_none(), "{neither}");
        }
    }
}
