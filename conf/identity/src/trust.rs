//! What a verifier believes: keys and revocations, kept current by the vault's feed.

use std::collections::HashMap;

use sluice_wire::feed::{Change, Delta, Jwk, Message, Revoked, RevokedIdentity, RevokedSubject, Snapshot};

use crate::certificate::{ClientCertificate, SERIAL_OCTETS_MAX, SpiffeId};
use crate::claims::Claims;
use crate::jwk::PublicKey;
use crate::spread::Spread;

/// LIMIT: revoked certificates remembered. The vault's own bound on certificates in force is half of it;
/// when it is passed all the same, every certificate counts as revoked until a snapshot fits again: what
/// cannot be remembered must not be believed.
pub const SERIALS_MAX: usize = 1_000_000;

/// Keys and revocations at one sequence number of the feed.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    epoch: String,
    seq: u64,
    keys: HashMap<String, PublicKey>,
    jti: Spread,
    sub: HashMap<String, i64>,
    serial: Spread,
    serials_overflowed: bool,
    /// Certificates from before a time, unix seconds, are void.
    identity: HashMap<SpiffeId, i64>,
}

/// What applying a message did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The state changed.
    Changed,
    /// A heartbeat, or a change already known.
    Unchanged,
    /// A change is missing in between: ask for a snapshot.
    Gap,
}

impl Trust {
    /// Believes nothing.
    pub fn empty() -> Self {
        Self::default()
    }

    /// The state of a snapshot; keys that cannot be used are left out.
    pub fn from_snapshot(snapshot: &Snapshot) -> Self {
        let mut trust = Self { epoch: snapshot.epoch.clone(), seq: snapshot.seq, ..Self::default() };
        trust.replace_keys(&snapshot.jwks);
        trust.replace_revoked(&snapshot.revoked);
        trust
    }

    /// Applies one message of the feed.
    pub fn apply(&mut self, message: &Message) -> Applied {
        match message {
            Message::Heartbeat => Applied::Unchanged,
            Message::Snapshot(snapshot) => {
                *self = Self::from_snapshot(snapshot);
                Applied::Changed
            }
            Message::Delta(delta) => self.apply_delta(delta),
        }
    }

    fn apply_delta(&mut self, delta: &Delta) -> Applied {
        if delta.epoch != self.epoch || delta.seq > self.seq + 1 {
            return Applied::Gap;
        }
        if delta.seq <= self.seq {
            return Applied::Unchanged;
        }
        match &delta.change {
            Change::Jti { jti } => {
                self.jti.insert(jti);
            }
            Change::Sub(revoked) => self.revoke_subject(revoked),
            Change::Serial { serial } => self.revoke_serial(serial),
            Change::Identity(revoked) => self.revoke_identity(revoked),
            Change::Keys { jwks } => self.replace_keys(jwks),
        }
        self.seq = delta.seq;
        Applied::Changed
    }

    fn replace_keys(&mut self, jwks: &[Jwk]) {
        self.keys = jwks
            .iter()
            .filter_map(|jwk| PublicKey::try_from(jwk).ok())
            .map(|key| (key.kid.clone(), key))
            .collect();
    }

    fn replace_revoked(&mut self, revoked: &Revoked) {
        self.jti = revoked.jti.iter().collect();
        self.serial = Spread::default();
        self.serials_overflowed = false;
        for serial in &revoked.serial {
            self.revoke_serial(serial);
        }
        self.sub.clear();
        for subject in &revoked.sub {
            self.revoke_subject(subject);
        }
        self.identity.clear();
        for identity in &revoked.identity {
            self.revoke_identity(identity);
        }
    }

    fn revoke_subject(&mut self, revoked: &RevokedSubject) {
        let until = self.sub.entry(revoked.sub.clone()).or_insert(revoked.issued_until);
        *until = (*until).max(revoked.issued_until);
    }

    /// What is no SPIFFE id is in no certificate: it is left out.
    fn revoke_identity(&mut self, revoked: &RevokedIdentity) {
        let Ok(id) = revoked.id.parse() else { return };
        let from = self.identity.entry(id).or_insert(revoked.valid_from);
        *from = (*from).max(revoked.valid_from);
    }

    /// A serial longer than any that [`crate::certificate`] accepts can match none: it is left out.
    fn revoke_serial(&mut self, serial: &str) {
        if serial.len() > 2 * SERIAL_OCTETS_MAX {
            return;
        }
        if self.serial.len() < SERIALS_MAX {
            self.serial.insert(serial);
        } else {
            self.serials_overflowed |= !self.serial.contains(serial);
        }
    }

    /// The revocations, in pieces that are numbered from 0; `None` after the last one. A piece may be empty; it holds
    /// a small part of all there are.
    pub fn piece(&self, number: usize) -> Option<Revoked> {
        let owned = |shard: &mut dyn Iterator<Item = &str>| shard.map(str::to_owned).collect();
        let (mut jti, mut serial) = (self.jti.shard(number)?, self.serial.shard(number)?);
        // Subjects and identities are few: one for each that was revoked.
        let (sub, identity) =
            if number == 0 { (self.subjects(), self.identities()) } else { Default::default() };
        Some(Revoked { jti: owned(&mut jti), sub, serial: owned(&mut serial), identity })
    }

    /// How many revocations there are.
    pub fn revoked(&self) -> usize {
        self.jti.len() + self.sub.len() + self.serial.len() + self.identity.len()
    }

    fn identities(&self) -> Vec<RevokedIdentity> {
        let identity =
            |(id, from): (&SpiffeId, &i64)| RevokedIdentity { id: id.to_string(), valid_from: *from };
        self.identity.iter().map(identity).collect()
    }

    fn subjects(&self) -> Vec<RevokedSubject> {
        let subject =
            |(sub, until): (&String, &i64)| RevokedSubject { sub: sub.clone(), issued_until: *until };
        self.sub.iter().map(subject).collect()
    }

    /// Whether any key is known.
    pub fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Epoch and number of the last change applied. A verified-token cache that compares this
    /// pair on every hit sees each revocation.
    pub fn version(&self) -> (&str, u64) {
        (&self.epoch, self.seq)
    }

    /// The key of an id.
    pub(crate) fn key(&self, kid: &str) -> Option<&PublicKey> {
        self.keys.get(kid)
    }

    /// The only key there is, for tokens without a key id.
    pub(crate) fn sole_key(&self) -> Option<&PublicKey> {
        if self.keys.len() == 1 { self.keys.values().next() } else { None }
    }

    /// Whether a token was revoked, by id or by subject. A token without `iat` counts as issued
    /// before any revocation of its subject.
    pub fn is_revoked(&self, claims: &Claims) -> bool {
        claims.jti.as_ref().is_some_and(|jti| self.jti.contains(jti))
            || self.sub.get(&claims.sub).is_some_and(|until| claims.iat.is_none_or(|iat| iat <= *until))
    }

    /// Whether a certificate was revoked, by its serial or with all that its identity had. Nothing is allocated.
    pub fn is_certificate_revoked(&self, certificate: &ClientCertificate) -> bool {
        let from = || certificate.spiffe.as_ref().and_then(|id| self.identity.get(id));
        self.is_serial_revoked(&certificate.serial)
            || (!self.identity.is_empty() && from().is_some_and(|from| certificate.not_before_unix_s < *from))
    }

    /// Whether a certificate was revoked, by serial in lower-case hex, as
    /// [`crate::certificate::ClientCertificate`] has it. One lookup, nothing allocated.
    pub fn is_serial_revoked(&self, serial: &str) -> bool {
        self.serials_overflowed || self.serial.contains(serial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(seq: u64, change: Change) -> Message {
        Message::Delta(Delta { epoch: "e".into(), seq, change })
    }

    fn trust() -> Trust {
        Trust::from_snapshot(&Snapshot {
            epoch: "e".into(),
            seq: 4,
            jwks: vec![],
            revoked: Revoked::default(),
        })
    }

    #[test]
    fn deltas_apply_in_order_and_gaps_are_seen() {
        let mut trust = trust();
        assert_eq!(trust.apply(&delta(4, Change::Jti { jti: "old".into() })), Applied::Unchanged);
        assert_eq!(trust.apply(&delta(5, Change::Jti { jti: "a".into() })), Applied::Changed);
        assert_eq!(trust.apply(&delta(7, Change::Jti { jti: "b".into() })), Applied::Gap);
        let other =
            Message::Delta(Delta { epoch: "f".into(), seq: 6, change: Change::Jti { jti: "c".into() } });
        assert_eq!(trust.apply(&other), Applied::Gap);
        assert_eq!(trust.version(), ("e", 5));
    }

    #[test]
    fn subject_revocation_reaches_tokens_issued_until_then() {
        let mut trust = trust();
        trust.apply(&delta(5, Change::Sub(RevokedSubject { sub: "bot".into(), issued_until: 100 })));
        let claims = |iat| Claims {
            sub: "bot".into(),
            account: None,
            jti: None,
            iat,
            exp: 1_000,
            grants: crate::grants::Grants::default(),
            legacy: false,
            bound: None,
        };
        assert!(trust.is_revoked(&claims(Some(100))));
        assert!(!trust.is_revoked(&claims(Some(101))));
        assert!(trust.is_revoked(&claims(None)));
    }

    #[test]
    fn revoked_serials_come_by_snapshot_and_by_delta() {
        let mut trust = trust();
        let serial = |serial: &str| Change::Serial { serial: serial.into() };
        trust.apply(&delta(5, serial("4a")));
        assert!(trust.is_serial_revoked("4a") && !trust.is_serial_revoked("4A"));
        trust.apply(&delta(6, serial(&"4b".repeat(21))));
        assert_eq!(trust.serial.len(), 1, "no certificate has such a serial");
        let revoked = Revoked { serial: vec!["4c".into()], ..Revoked::default() };
        let snapshot = Snapshot { epoch: "e".into(), seq: 9, jwks: vec![], revoked };
        trust.apply(&Message::Snapshot(snapshot));
        assert!(trust.is_serial_revoked("4c") && !trust.is_serial_revoked("4a"));
    }

    #[test]
    fn one_change_reaches_every_former_certificate_of_an_identity_and_no_other() {
        let mut trust = trust();
        let certificate = |id: &str, serial: &str, not_before_unix_s| ClientCertificate {
            spiffe: id.parse().ok(),
            serial: serial.into(),
            not_before_unix_s,
            not_after_unix_s: 1_000,
            subject: String::new(),
            fingerprint: [0; 32],
        };
        let (bot, other) = ("spiffe://sluice.internal/service/bot", "spiffe://partner.example/service/bot");
        let identity = |id: &str, valid_from| Change::Identity(RevokedIdentity { id: id.into(), valid_from });
        trust.apply(&delta(5, identity(bot, 100)));
        trust.apply(&delta(6, identity(bot, 90)));
        trust.apply(&delta(7, identity("bot", 900)));
        for trust in [
            &trust,
            &Trust::from_snapshot(&Snapshot {
                epoch: "e".into(),
                seq: 8,
                jwks: vec![],
                revoked: trust.piece(0).unwrap(),
            }),
        ] {
            let revoked = |id, at| trust.is_certificate_revoked(&certificate(id, "4a", at));
            assert!(revoked(bot, 99) && !revoked(bot, 100) && !revoked(other, 99) && !revoked("", 99));
        }
        trust.apply(&delta(8, Change::Serial { serial: "4a".into() }));
        assert!(trust.is_certificate_revoked(&certificate(bot, "4a", 500)));
    }

    #[test]
    fn more_revocations_than_fit_revoke_every_certificate() {
        let full = (0..SERIALS_MAX).map(|number| format!("{number:x}")).collect();
        let revoked = Revoked { serial: full, ..Revoked::default() };
        let mut trust = Trust::from_snapshot(&Snapshot { epoch: "e".into(), seq: 4, jwks: vec![], revoked });
        assert!(trust.is_serial_revoked("0") && !trust.is_serial_revoked("strange"));
        trust.apply(&delta(5, Change::Serial { serial: "0".into() }));
        assert!(!trust.is_serial_revoked("strange"), "known already: nothing was left out");
        trust.apply(&delta(6, Change::Serial { serial: "strange".into() }));
        assert!(trust.is_serial_revoked("strange") && trust.is_serial_revoked("any other"));
        assert_eq!(trust.serial.len(), SERIALS_MAX);
        trust.apply(&Message::Snapshot(Snapshot {
            epoch: "e".into(),
            seq: 7,
            jwks: vec![],
            revoked: Revoked::default(),
        }));
        assert!(!trust.is_serial_revoked("strange"), "a snapshot that fits heals it");
    }
}
