//! What the edge tells a worker of the credential behind a caller that it vouches for.

use std::fmt;
use std::str::FromStr;

/// LIMIT: bytes of an id.
const ID_BYTES_MAX: usize = 128;

/// A verified token or certificate, without itself. As text `<issued> <ends> <id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// When it was issued, unix seconds.
    pub issued_at_s: i64,
    /// When it ends, unix seconds.
    pub expires_at_s: i64,
    /// `jti` of a token, serial of a certificate in lower-case hex.
    pub id: String,
}

/// The text is no proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not `<issued> <ends> <id>`")]
pub struct NoProof;

impl Proof {
    /// A proof; `None` where the id cannot travel in a header.
    pub fn new(issued_at_s: i64, expires_at_s: i64, id: &str) -> Option<Self> {
        let fits = (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self { issued_at_s, expires_at_s, id: id.to_owned() })
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.issued_at_s, self.expires_at_s, self.id)
    }
}

impl FromStr for Proof {
    type Err = NoProof;

    fn from_str(text: &str) -> Result<Self, NoProof> {
        let mut parts = text.split(' ');
        let mut time = || parts.next().and_then(|part| part.parse::<i64>().ok()).ok_or(NoProof);
        let (issued_at_s, expires_at_s) = (time()?, time()?);
        let proof = parts.next().and_then(|id| Self::new(issued_at_s, expires_at_s, id)).ok_or(NoProof)?;
        if parts.next().is_none() { Ok(proof) } else { Err(NoProof) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_proof_is_none() {
        assert_eq!("1 2 a".parse(), Ok(Proof::new(1, 2, "a").unwrap()));
        let long = format!("1 2 {}", "a".repeat(129));
        for bad in ["", "1", "1 2", "1 2 ", "1  2 a", "x 2 a", "1 2 a b", " 1 2 a", &long] {
            assert_eq!(bad.parse::<Proof>(), Err(NoProof), "{bad}");
        }
        assert!(Proof::new(1, 2, "a b").is_none() && Proof::new(1, 2, "ä").is_none());
    }

    proptest! {
        #[test]
        fn it_reads_what_it_writes(issued in any::<i64>(), ends in any::<i64>(), id in "[!-~]{1,128}") {
            let proof = Proof::new(issued, ends, &id).unwrap();
            prop_assert_eq!(proof.to_string().parse(), Ok(proof));
        }
    }
}
