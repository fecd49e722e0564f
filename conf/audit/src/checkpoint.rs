//! Signed checkpoints: records that say, with a key the role keeps, how the log stood just before them.
//!
//! A hash chain shows that records belong together, not who wrote them: whoever may write both files can write a
//! whole log anew. With a key that lies elsewhere he cannot: `{"type":"audit","op":"checkpoint","path":"<r><s>"}` holds
//! the ES256 signature (hexadecimal) over `"sluice-audit-checkpoint/1\0" ‖ role ‖ 0 ‖ number of the record before
//! (8 bytes, big endian) ‖ its hash`.

use std::time::Duration;

use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::record::{Digest, Entry, Record};

/// Signs bytes: 64 bytes of ECDSA P-256 with SHA-256, r ‖ s; `None` when it cannot.
pub type Signer = Box<dyn Fn(&[u8]) -> Option<[u8; 64]> + Send>;

/// LIMIT: records that stand unsigned while there is a signer.
pub(crate) const RECORDS_MAX: u64 = 1_000;
/// How long a record stands unsigned while there is a signer.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(60);

/// The kind and verb of a checkpoint.
const CHECKPOINT: (&str, &str) = ("audit", "checkpoint");

/// The public part of the key that a log's checkpoints are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointKey {
    /// The role whose log it signs.
    pub role: String,
    /// Uncompressed P-256 point, 65 bytes.
    pub point: Vec<u8>,
}

/// The entry that signs record `seq` and all before it; `None` when the signer cannot.
pub(crate) fn entry(signer: &Signer, role: &str, seq: u64, hash: Digest) -> Option<Entry> {
    let signature = signer(&message(role, seq, hash))?;
    let (r, s) = signature.split_at(32);
    let [r, s] = [r, s].map(|half| half.try_into().ok().map(Digest));
    Some(Entry::new(CHECKPOINT.0, CHECKPOINT.1).actor(role).path(format!("{}{}", r?, s?)))
}

/// Whether a record is a checkpoint, signed or not.
pub(crate) fn is_one(record: &Record) -> bool {
    (record.kind.as_str(), record.op.as_str()) == CHECKPOINT && record.actor == record.role
}

impl CheckpointKey {
    /// Whether this key signed the record before a checkpoint.
    pub(crate) fn has_signed(&self, record: &Record) -> bool {
        let Some((r, s)) = record.path.split_at_checked(64) else { return false };
        let (Some(r), Some(s)) = (Digest::parse(r), Digest::parse(s)) else { return false };
        let message = message(&record.role, record.seq.saturating_sub(1), record.prev);
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point);
        key.verify(&message, &[r.0, s.0].concat()).is_ok()
    }
}

fn message(role: &str, seq: u64, hash: Digest) -> Vec<u8> {
    [b"sluice-audit-checkpoint/1\0", role.as_bytes(), &[0], &seq.to_be_bytes(), &hash.0].concat()
}
