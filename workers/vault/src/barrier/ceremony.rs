//! Shares that come in one by one until there are enough. Pure.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{NO_KEY_FILE, NO_SHARES, REPEATED_SHARE};
use crate::seal::{Proof, RootKey, Shape, Share, unite};

/// LIMIT: how long shares that are too few are kept.
const GATHERING_MAX: Duration = Duration::from_secs(15 * 60);
/// LIMIT: sets of wrong shares, and for how long no share is taken then.
const WRONG_MAX: u32 = 5;
const LOCK: Duration = Duration::from_secs(15 * 60);

/// A gathering of shares.
pub(super) struct Ceremony {
    nonce: Uuid,
    threshold: u8,
    /// Whether it is the key itself that is shown.
    whole: bool,
    given: Vec<Share>,
    began: Instant,
}

/// How many sets of wrong shares were given. Past [`WRONG_MAX`] within [`LOCK`] no share is taken for that long.
#[derive(Debug, Default)]
pub(super) struct Wrong {
    many: u32,
    since: Option<Instant>,
}

/// What a further share led to.
pub(super) enum Given {
    /// More are needed.
    More,
    /// There are enough; this is what they give together, be it the key or not.
    Enough(RootKey),
}

/// A share of this place was given before: the same one, or one of the two is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Repeated;

/// What is shown is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// [`Repeated`].
    Repeated,
    /// A share where the key itself is wanted.
    Share,
    /// A key where shares are wanted.
    Key,
}

impl Unfit {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Repeated => REPEATED_SHARE,
            Self::Share => NO_SHARES,
            Self::Key => NO_KEY_FILE,
        }
    }
}

impl Wrong {
    /// Seconds until shares are taken again; `None`: they are.
    pub(super) fn shut_s(&self, now: Instant) -> Option<u64> {
        let passed = now.duration_since(self.since?);
        let left = LOCK.checked_sub(passed).filter(|left| self.many >= WRONG_MAX && !left.is_zero());
        left.map(|left| left.as_secs() + 1)
    }

    pub(super) fn add(&mut self, now: Instant) {
        let over = self.since.is_none_or(|since| now.duration_since(since) >= LOCK);
        self.many = if over { 1 } else { self.many + 1 };
        if over || self.many >= WRONG_MAX {
            self.since = Some(now);
        }
    }
}

impl Ceremony {
    pub(super) fn new(threshold: u8, nonce: Uuid, now: Instant) -> Self {
        Self { nonce, threshold, whole: false, given: Vec::new(), began: now }
    }

    /// A gathering of what shows a root key that is had like this.
    pub(super) fn of(shape: Shape, nonce: Uuid) -> Self {
        Self { whole: shape == Shape::File, ..Self::new(shape.counts().1, nonce, Instant::now()) }
    }

    /// Whether it was begun so long ago that its shares are to be forgotten.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        now.duration_since(self.began) >= GATHERING_MAX
    }

    /// Names this gathering, so that shares meant for another one are not mixed in.
    pub(super) const fn nonce(&self) -> Uuid {
        self.nonce
    }

    pub(super) const fn threshold(&self) -> u8 {
        self.threshold
    }

    pub(super) fn progress(&self) -> u8 {
        self.given.len() as u8
    }

    /// Takes a share, or the key itself where that is what is had.
    pub(super) fn show(&mut self, proof: Proof) -> Result<Given, Unfit> {
        match (proof, self.whole) {
            (Proof::Share(share), false) => self.give(share).map_err(|Repeated| Unfit::Repeated),
            (Proof::Key(root), true) => Ok(Given::Enough(root)),
            (Proof::Share(_), true) => Err(Unfit::Share),
            (Proof::Key(_), false) => Err(Unfit::Key),
        }
    }

    /// Takes a share. After [`Given::Enough`] it begins anew: nothing tells which of the shares was wrong.
    pub(super) fn give(&mut self, share: Share) -> Result<Given, Repeated> {
        if self.given.iter().any(|known| known.is_at_place_of(&share)) {
            return Err(Repeated);
        }
        self.given.push(share);
        if self.given.len() < usize::from(self.threshold) {
            return Ok(Given::More);
        }
        let shares = std::mem::take(&mut self.given);
        Ok(Given::Enough(RootKey::new(&unite(&shares))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Split;

    #[test]
    fn enough_shares_are_the_key_and_a_place_counts_once() {
        let key = RootKey::random();
        let shares = key.divide(Split::new(5, 3).unwrap());
        let mut ceremony = Ceremony::new(3, Uuid::nil(), Instant::now());
        assert!(matches!(ceremony.give(shares[4].clone()), Ok(Given::More)));
        assert!(ceremony.give(shares[4].clone()).is_err());
        assert!(matches!(ceremony.give(shares[0].clone()), Ok(Given::More)));
        assert_eq!(ceremony.progress(), 2);
        let Ok(Given::Enough(given)) = ceremony.give(shares[2].clone()) else { panic!("three are enough") };
        assert!(given.is(&key));
        assert_eq!(ceremony.progress(), 0, "no share is kept");
    }

    #[test]
    fn gatherings_end_and_wrong_sets_are_few() {
        let start = Instant::now();
        let ceremony = Ceremony::new(3, Uuid::nil(), start);
        assert!(!ceremony.is_stale(start + GATHERING_MAX / 2) && ceremony.is_stale(start + GATHERING_MAX));
        let mut wrong = Wrong::default();
        for _ in 1..WRONG_MAX {
            wrong.add(start);
            assert_eq!(wrong.shut_s(start), None);
        }
        wrong.add(start + LOCK / 2);
        assert_eq!(wrong.shut_s(start + LOCK / 2), Some(LOCK.as_secs() + 1));
        assert_eq!(wrong.shut_s(start + LOCK + LOCK / 2), None);
        wrong.add(start + LOCK * 2);
        assert_eq!(wrong.shut_s(start + LOCK * 2), None, "it begins anew");
    }
}
