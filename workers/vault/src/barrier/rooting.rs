//! A root token for whoever shows enough of the root key, but no credential: when every other one was lost.
//!
//! Whoever begins it hands over, or is given, a pad as long as the token; the token leaves the vault XORed with it, so
//! those who give the last share do not learn it.

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::ceremony::{Ceremony, Given};
use super::{Barrier, WRONG_PROOF, conflict, invalid, lock};
use crate::error::VaultError;
use crate::request::Act;
use crate::seal::Proof;
use crate::v1;

const NONE: &str = "no such root generation is under way";

/// A root token under way.
pub(super) struct Rooting {
    pad: Zeroizing<String>,
    present: Ceremony,
}

impl Rooting {
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.present.is_stale(now)
    }
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RootStatus {
    /// Name of the gathering; `None`: nothing is under way.
    pub(crate) nonce: Option<Uuid>,
    /// Shares given so far.
    pub(crate) progress: u8,
    /// Shares it takes.
    pub(crate) required: u8,
}

/// What a share led to.
pub(crate) enum RootGiven {
    /// More are needed.
    More(RootStatus),
    /// The token, XORed with the pad, in base64 without padding.
    Made(RootStatus, Zeroizing<String>),
}

impl Barrier {
    /// How it stands.
    pub(crate) fn root_status(&self) -> RootStatus {
        let state = self.state();
        let required = state.shape.map_or(0, |shape| shape.counts().1);
        state.rooting.as_ref().map_or(RootStatus { nonce: None, progress: 0, required }, |rooting| {
            RootStatus {
                nonce: Some(rooting.present.nonce()),
                progress: rooting.present.progress(),
                required,
            }
        })
    }

    /// Begins. `pad` has [`v1::ROOT_TOKEN_BYTES`] characters; without one it is made and handed back.
    pub(crate) fn root_begin(
        &self,
        act: &Act,
        pad: Option<Zeroizing<String>>,
    ) -> Result<(RootStatus, Option<Zeroizing<String>>), VaultError> {
        let _acting = lock(&self.acting);
        let entry = act.entry("seal", "root_begin", "vault");
        let vault = self.vault().ok_or(VaultError::Sealed)?;
        self.forget_stale();
        if self.root_status().nonce.is_some() {
            return Err(self.refuse(entry, conflict("a root generation is under way; cancel it first")));
        }
        if pad.as_ref().is_some_and(|pad| pad.len() != v1::ROOT_TOKEN_BYTES) {
            return Err(self.refuse(entry, invalid("the OTP must be as long as a token")));
        }
        let made = if pad.is_none() { Some(v1::root_pad()?) } else { None };
        let pad = pad.or_else(|| made.clone()).ok_or_else(|| conflict(NONE))?;
        self.record(entry)?;
        let present = Ceremony::of(vault.store.keyring().shape(), Uuid::new_v4());
        self.state().rooting = Some(Rooting { pad, present });
        Ok((self.root_status(), made))
    }

    /// Forgets it.
    pub(crate) fn root_cancel(&self, act: &Act) -> Result<(), VaultError> {
        let _acting = lock(&self.acting);
        self.state().rooting = None;
        self.record(act.entry("seal", "root_cancel", "vault"))
    }

    /// Takes a share, or the key of a vault that opens by a key file.
    pub(crate) fn root_give(&self, act: &Act, nonce: Uuid, proof: Proof) -> Result<RootGiven, VaultError> {
        let _acting = lock(&self.acting);
        let entry = act.entry("seal", "root", "vault");
        let vault = self.vault().ok_or(VaultError::Sealed)?;
        self.forget_stale();
        let given = {
            let mut state = self.state();
            let rooting = state.rooting.as_mut().filter(|rooting| rooting.present.nonce() == nonce);
            rooting.map(|rooting| rooting.present.show(proof))
        };
        match given {
            None => Err(self.refuse(entry, conflict(NONE))),
            Some(Err(unfit)) => Err(self.refuse(entry, invalid(unfit.text()))),
            Some(Ok(Given::More)) => {
                self.record(entry)?;
                Ok(RootGiven::More(self.root_status()))
            }
            Some(Ok(Given::Enough(root))) if !vault.store.keyring().root().is(&root) => {
                Err(self.refuse(entry, invalid(WRONG_PROOF)))
            }
            Some(Ok(Given::Enough(_))) => {
                self.record(entry)?;
                let rooting = self.state().rooting.take().ok_or_else(|| conflict(NONE))?;
                let token = Zeroizing::new(vault.mint_root(0, act.now)?);
                tracing::warn!(component = "seal", "a root token was made by shares of the root key");
                let required = rooting.present.threshold();
                let status = RootStatus { nonce: Some(nonce), progress: required, required };
                Ok(RootGiven::Made(status, veiled(&token, &rooting.pad)))
            }
        }
    }
}

/// A token under its pad, in base64 without padding.
fn veiled(token: &str, pad: &str) -> Zeroizing<String> {
    let bytes: Zeroizing<Vec<u8>> =
        Zeroizing::new(token.bytes().zip(pad.bytes()).map(|(a, b)| a ^ b).collect());
    Zeroizing::new(STANDARD_NO_PAD.encode(&*bytes))
}
