//! A new root key, for whoever shows enough of the present one: other shares, a key file in the place of shares, shares
//! in the place of a key file.
//!
//! With verification the new key counts only after enough of its shares have come back: the present shares stay
//! good until then, so an answer that was lost on its way costs nothing. Without, it counts at once. In both cases
//! the switch is one commit, and a new key-encryption key begins with it, so that an older copy of the keyring opens
//! nothing new.

use std::time::Instant;

use sluice_audit::Entry;
use uuid::Uuid;

use super::ceremony::{Ceremony, Given};
use super::{Barrier, WRONG_PROOF, conflict, invalid, lock};
use crate::error::VaultError;
use crate::request::Act;
use crate::seal::{Proof, RootKey, Shape};

const NONE: &str = "no such rekey is under way";

/// A rekey under way.
pub(super) struct Rekey {
    target: Shape,
    verify: bool,
    present: Ceremony,
    /// The new key and its shares that came back.
    fresh: Option<(RootKey, Ceremony)>,
}

/// How a rekey stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RekeyStatus {
    /// Name of the gathering of the present shares.
    pub(crate) nonce: Uuid,
    /// How the new key is to be had.
    pub(crate) target: Shape,
    /// Shares given so far, of those now gathered.
    pub(crate) progress: u8,
    /// Shares it takes.
    pub(crate) required: u8,
    /// Whether the new shares have to come back.
    pub(crate) verify: bool,
    /// Name of the gathering of the new shares, once that has begun.
    pub(crate) verification: Option<Uuid>,
}

/// What a share led to.
pub(crate) enum RekeyGiven {
    /// More are needed.
    More(RekeyStatus),
    /// The new shares, shown this once. With verification they do not count yet.
    Made(Vec<Proof>, RekeyStatus),
    /// The new shares count, the former do not any more.
    Done,
}

impl Rekey {
    /// Whether its shares are to be forgotten. A new key that was shown is not: it may be in somebody's hands.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.fresh.is_none() && self.present.is_stale(now)
    }

    fn status(&self) -> RekeyStatus {
        let gathering = self.fresh.as_ref().map_or(&self.present, |(_, ceremony)| ceremony);
        RekeyStatus {
            nonce: self.present.nonce(),
            target: self.target,
            progress: gathering.progress(),
            required: gathering.threshold(),
            verify: self.verify,
            verification: self.fresh.as_ref().map(|(_, ceremony)| ceremony.nonce()),
        }
    }

    /// The gathering with this name.
    fn gathering(&mut self, nonce: Uuid) -> Option<&mut Ceremony> {
        let gathering = match &mut self.fresh {
            None => &mut self.present,
            Some((_, ceremony)) => ceremony,
        };
        Some(gathering).filter(|gathering| gathering.nonce() == nonce)
    }
}

impl Barrier {
    /// How the rekey stands; `None`: there is none.
    pub(crate) fn rekey_status(&self) -> Option<RekeyStatus> {
        self.state().rekeying.as_ref().map(Rekey::status)
    }

    /// Begins a rekey. The vault has to be open.
    pub(crate) fn rekey_begin(
        &self,
        act: &Act,
        target: Shape,
        verify: bool,
    ) -> Result<RekeyStatus, VaultError> {
        let _acting = lock(&self.acting);
        let entry = act.entry("seal", "rekey_begin", "vault");
        let vault = self.vault().ok_or(VaultError::Sealed)?;
        self.forget_stale();
        if self.rekey_status().is_some() {
            return Err(self.refuse(entry, conflict("a rekey is under way; cancel it first")));
        }
        self.record(entry)?;
        let present = Ceremony::of(vault.store.keyring().shape(), Uuid::new_v4());
        Ok(self.state().rekeying.insert(Rekey { target, verify, present, fresh: None }).status())
    }

    /// Forgets a rekey; the present shares stay.
    pub(crate) fn rekey_cancel(&self, act: &Act) -> Result<(), VaultError> {
        let _acting = lock(&self.acting);
        self.state().rekeying = None;
        self.record(act.entry("seal", "rekey_cancel", "vault"))
    }

    /// Forgets the new shares that came back; they are the same ones as before.
    pub(crate) fn rekey_verify_restart(&self, act: &Act) -> Result<RekeyStatus, VaultError> {
        let _acting = lock(&self.acting);
        let entry = act.entry("seal", "rekey_restart", "vault");
        let restarted = {
            let mut state = self.state();
            let rekey = state.rekeying.as_mut();
            rekey.and_then(|rekey| {
                let target = rekey.target;
                let (_, ceremony) = rekey.fresh.as_mut()?;
                *ceremony = Ceremony::of(target, Uuid::new_v4());
                Some(rekey.status())
            })
        };
        match restarted {
            Some(status) => self.record(entry).map(|()| status),
            None => Err(self.refuse(entry, conflict(NONE))),
        }
    }

    /// Takes a share, or the key of a vault that opens by a key file, for the gathering named `nonce`: one of the present shares, or, when the new ones have been made
    /// and have to come back, one of these.
    pub(crate) fn rekey_give(&self, act: &Act, nonce: Uuid, proof: Proof) -> Result<RekeyGiven, VaultError> {
        let _acting = lock(&self.acting);
        let entry = act.entry("seal", "rekey", "vault");
        self.forget_stale();
        let (given, fresh) = {
            let mut state = self.state();
            let rekey = state.rekeying.as_mut();
            let fresh = rekey.as_ref().and_then(|rekey| rekey.fresh.as_ref().map(|(root, _)| root.clone()));
            (rekey.and_then(|rekey| rekey.gathering(nonce)).map(|gathering| gathering.show(proof)), fresh)
        };
        match given {
            None => Err(self.refuse(entry, conflict(NONE))),
            Some(Err(unfit)) => Err(self.refuse(entry, invalid(unfit.text()))),
            Some(Ok(Given::More)) => {
                self.record(entry)?;
                self.rekey_status().map(RekeyGiven::More).ok_or_else(|| conflict(NONE))
            }
            Some(Ok(Given::Enough(root))) => self.rekey_enough(act, entry, &root, fresh),
        }
    }

    fn rekey_enough(
        &self,
        act: &Act,
        entry: Entry,
        root: &RootKey,
        fresh: Option<RootKey>,
    ) -> Result<RekeyGiven, VaultError> {
        let vault = self.vault().ok_or(VaultError::Sealed)?;
        let keyring = vault.store.keyring();
        if !fresh.as_ref().unwrap_or(keyring.root()).is(root) {
            return Err(self.refuse(entry, invalid(WRONG_PROOF)));
        }
        self.record(entry)?;
        match fresh {
            Some(fresh) => self.rekey_switch(act, fresh).map(|()| RekeyGiven::Done),
            None => self.rekey_make(act),
        }
    }

    /// Makes the new key; it counts at once or after its shares have come back.
    fn rekey_make(&self, act: &Act) -> Result<RekeyGiven, VaultError> {
        let fresh = RootKey::random();
        let status = {
            let mut state = self.state();
            let rekey = state.rekeying.as_mut().ok_or_else(|| conflict(NONE))?;
            if rekey.verify {
                let back = Ceremony::of(rekey.target, Uuid::new_v4());
                rekey.fresh = Some((fresh.clone(), back));
            }
            rekey.status()
        };
        let keys = Proof::all_of(&fresh, status.target);
        if !status.verify {
            self.rekey_switch(act, fresh)?;
        }
        Ok(RekeyGiven::Made(keys, status))
    }

    fn rekey_switch(&self, act: &Act, root: RootKey) -> Result<(), VaultError> {
        let vault = self.vault().ok_or(VaultError::Sealed)?;
        let target = self.rekey_status().ok_or_else(|| conflict(NONE))?.target;
        vault.rekey(act, root, target)?;
        let mut state = self.state();
        state.rekeying = None;
        state.shape = Some(target);
        // What was gathered of the former key shows nothing any more.
        state.rooting = None;
        tracing::warn!(component = "seal", "the vault has a new root key");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn shares_are_forgotten_but_no_key_that_was_shown() {
        let (begun, later) = (Instant::now(), Instant::now() + Duration::from_secs(15 * 60));
        let gathering = || Ceremony::new(3, Uuid::nil(), begun);
        let mut rekey = Rekey { target: Shape::File, verify: true, present: gathering(), fresh: None };
        assert!(!rekey.is_stale(begun) && rekey.is_stale(later));
        rekey.fresh = Some((RootKey::random(), gathering()));
        assert!(!rekey.is_stale(later));
    }
}
