//! What stands between the keys and everybody: making the vault, opening it, closing it, new keys for it.
//!
//! The barrier lives as long as the role; behind it is the open vault or nothing. A vault that opens by a key file
//! is open from the start; one that opens by shares waits for `threshold` of them ([`Barrier::unseal`]), given one by
//! one. Closing ([`Barrier::seal`]) lets the vault go: streams and tasks end, and with the last operation under way
//! its keys are wiped. Each step is recorded before it is answered; the audit log is open all the time.
//!
//! Nothing here asks who may do it: initialising and unsealing need no credential (whoever has the shares may), the
//! rest is the API's to permit.

mod ceremony;
mod rekey;
mod rooting;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use sluice_audit::{Decision, Entry, Log};
use sluice_http::TrustCell;
use sluice_wire::code::Code;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::config::{Opening, Settings};
use crate::context::{Figures, UnsealError, Vault};
use crate::error::VaultError;
use crate::request::Act;
use crate::seal::{KeyringError, RootKey, Shape, Share, Split};
use crate::store::{Store, StoreError};
use ceremony::{Ceremony, Given, Wrong};
use rekey::Rekey;
use rooting::Rooting;

pub(crate) use rekey::{RekeyGiven, RekeyStatus};
pub(crate) use rooting::{RootGiven, RootStatus};

/// How long closing waits for operations under way; what takes longer keeps the keys until it is done.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// One text for every share that does not fit: nothing tells which one is wrong.
const WRONG_SHARES: &str = "the shares do not open the vault; all of them have to be given anew";
/// One text for a share that is there already and for one that says so because it is damaged.
const REPEATED_SHARE: &str = "a share of this place was given already, or one of the two is damaged";

/// One text for whatever is not the present root key.
const WRONG_PROOF: &str = "this is not the root key; all of its shares have to be given anew";
const NO_SHARES: &str = "this vault opens by a key file: its 64 digits are wanted, no shares";
const NO_KEY_FILE: &str = "this vault opens by shares: they are wanted, no key file";

/// The barrier.
pub(crate) struct Barrier {
    settings: Settings,
    trust: TrustCell,
    figures: Figures,
    audit: Arc<Log>,
    open: ArcSwapOption<Vault>,
    /// One step at a time: opening takes as long as reading the store.
    acting: Mutex<()>,
    state: Mutex<State>,
    opened: Notify,
}

#[derive(Default)]
struct State {
    /// How the root key of the store is had; `None`: there is no store yet.
    shape: Option<Shape>,
    unsealing: Option<Ceremony>,
    wrong: Wrong,
    rekeying: Option<Rekey>,
    rooting: Option<Rooting>,
}

/// How the vault stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealStatus {
    /// Whether there is a store.
    pub(crate) initialized: bool,
    /// Whether it is closed.
    pub(crate) sealed: bool,
    /// `shamir` or `file`.
    pub(crate) kind: &'static str,
    /// Shares it takes, 0 before there is a store.
    pub(crate) threshold: u8,
    /// Shares there are, 0 before there is a store.
    pub(crate) shares: u8,
    /// Shares given so far.
    pub(crate) progress: u8,
    /// Name of the gathering, when one is under way.
    pub(crate) nonce: Option<Uuid>,
}

/// What a new vault gives its maker, once.
pub(crate) struct Made<T> {
    /// The shares of the root key.
    pub(crate) shares: Vec<Share>,
    /// What `first` made.
    pub(crate) first: Result<T, VaultError>,
}

impl Barrier {
    /// A closed barrier before what is in the data directory; one that opens by a key file is opened at once.
    pub(crate) fn new(
        settings: Settings,
        trust: TrustCell,
        figures: Figures,
        now: Timestamp,
    ) -> Result<Self, UnsealError> {
        figures.sealed.set(1);
        let root = settings.root_key().map_err(UnsealError::KeyFile)?;
        let log = Log::open_with(&settings.data_dir.join("audit/vault.jsonl"), "vault", settings.audit);
        let audit = Arc::new(log.map_err(UnsealError::Audit)?);
        let shape = Store::shape(&settings.store()).map_err(UnsealError::Store)?;
        match (shape, &settings.opening) {
            (Some(Shape::Shares(_)), Opening::Dev(_) | Opening::File(_)) => {
                return Err(UnsealError::OpensBy("shamir"));
            }
            (Some(Shape::File), Opening::Shares) => return Err(UnsealError::OpensBy("file:PATH")),
            _ => {}
        }
        let barrier = Self {
            settings,
            trust,
            figures,
            audit,
            open: ArcSwapOption::empty(),
            acting: Mutex::new(()),
            state: Mutex::new(State { shape, ..State::default() }),
            opened: Notify::new(),
        };
        if let Some(root) = root {
            barrier.open_by_file(&root, now)?;
        }
        Ok(barrier)
    }

    /// Proxies whose word about their clients' addresses is taken.
    pub(crate) fn trusted(&self) -> &[ipnet::IpNet] {
        &self.settings.trusted
    }

    /// The open vault.
    pub(crate) fn vault(&self) -> Option<Arc<Vault>> {
        self.open.load_full()
    }

    /// Waits until there is an open vault.
    pub(crate) async fn opened(&self) -> Arc<Vault> {
        loop {
            let opened = self.opened.notified();
            if let Some(vault) = self.vault() {
                return vault;
            }
            opened.await;
        }
    }

    /// How it stands. Never waits for a step under way.
    pub(crate) fn seal_status(&self) -> SealStatus {
        let state = self.state();
        let (shares, threshold) = state.shape.map_or((0, 0), Shape::counts);
        SealStatus {
            initialized: state.shape.is_some(),
            sealed: self.open.load().is_none(),
            kind: state.shape.map_or(self.settings.opening.word(), Shape::word),
            threshold,
            shares,
            progress: state.unsealing.as_ref().map_or(0, Ceremony::progress),
            nonce: state.unsealing.as_ref().map(Ceremony::nonce),
        }
    }

    /// Makes the vault: a root key, its shares, CA and signing keys. `first` works on the vault while it is open
    /// for this; then it is sealed. Only once.
    pub(crate) fn init<T>(
        &self,
        act: &Act,
        split: Split,
        first: impl FnOnce(&Vault) -> Result<T, VaultError>,
    ) -> Result<Made<T>, VaultError> {
        let _acting = lock(&self.acting);
        let entry = act.entry("seal", "init", "vault");
        if self.settings.opening != Opening::Shares {
            let error = conflict("this vault does not open by shares; it is made at its first start");
            return Err(self.refuse(entry, error));
        }
        if self.state().shape.is_some() {
            return Err(self.refuse(entry, conflict("the vault is initialised already")));
        }
        // Before there is a store: one whose shares nobody was given could only be deleted.
        self.record(entry.clone())?;
        let root = RootKey::random();
        let shape = Shape::Shares(split);
        let vault = match self.make(&root, shape, act.now) {
            Ok(vault) => vault,
            Err(error) => return Err(self.refuse(entry, VaultError::opening(error))),
        };
        self.state().shape = Some(shape);
        let first = first(&vault);
        vault.let_go(CLOSE_MAX);
        tracing::info!(component = "seal", "the vault was initialised");
        Ok(Made { shares: root.divide(split), first })
    }

    /// Takes a share; with enough of them the vault opens.
    pub(crate) fn unseal(&self, act: &Act, share: Share) -> Result<SealStatus, VaultError> {
        let _acting = lock(&self.acting);
        let entry = act.entry("seal", "unseal", "vault");
        let Some(Shape::Shares(split)) = self.state().shape else {
            return Err(self.refuse(entry, conflict("there is no vault here that opens by shares")));
        };
        if self.vault().is_some() {
            return Ok(self.seal_status());
        }
        self.forget_stale();
        let shut_s = self.state().wrong.shut_s(Instant::now());
        if let Some(left_s) = shut_s {
            let error = VaultError::Later(Code::TooManyFailures, "too many wrong shares".into(), left_s);
            return Err(self.refuse(entry, error));
        }
        let given = {
            let mut state = self.state();
            let fresh = || Ceremony::new(split.threshold(), Uuid::new_v4(), Instant::now());
            state.unsealing.get_or_insert_with(fresh).give(share)
        };
        match given {
            Err(_) => return Err(self.refuse(entry, invalid(REPEATED_SHARE))),
            Ok(Given::More) => self.record(entry)?,
            Ok(Given::Enough(root)) => {
                self.state().unsealing = None;
                // Looked at before the whole file is: wrong shares are not to cost as much as right ones.
                if Store::is_key(&self.settings.store(), &root).is_ok_and(|fits| !fits) {
                    self.state().wrong.add(Instant::now());
                    return Err(self.refuse(entry, invalid(WRONG_SHARES)));
                }
                self.open_by(&root, entry, act.now)?;
            }
        }
        Ok(self.seal_status())
    }

    fn open_by(&self, root: &RootKey, entry: Entry, now: Timestamp) -> Result<(), VaultError> {
        match self.open(root, now) {
            // What cannot be recorded does not happen.
            Ok(()) => self.record(entry).inspect_err(|_| self.close()),
            Err(UnsealError::Store(StoreError::Keyring(KeyringError::WrongKey))) => {
                Err(self.refuse(entry, invalid(WRONG_SHARES)))
            }
            Err(error) => Err(self.refuse(entry, VaultError::opening(error))),
        }
    }

    /// Forgets shares that were given too long ago and never became enough.
    pub(crate) fn forget_stale(&self) {
        let (mut state, now) = (self.state(), Instant::now());
        if state.unsealing.as_ref().is_some_and(|gathering| gathering.is_stale(now)) {
            state.unsealing = None;
        }
        if state.rooting.as_ref().is_some_and(|rooting| rooting.is_stale(now)) {
            state.rooting = None;
        }
        if state.rekeying.as_ref().is_some_and(|rekey| rekey.is_stale(now)) {
            state.rekeying = None;
        }
    }

    /// Forgets the shares given so far.
    pub(crate) fn unseal_reset(&self, act: &Act) -> Result<SealStatus, VaultError> {
        let _acting = lock(&self.acting);
        self.state().unsealing = None;
        self.record(act.entry("seal", "reset", "vault"))?;
        Ok(self.seal_status())
    }

    /// Closes the vault: everything is 503 until it is unsealed again.
    pub(crate) fn seal(&self, act: &Act) -> Result<(), VaultError> {
        let _acting = lock(&self.acting);
        if self.vault().is_none() {
            return Err(VaultError::Sealed);
        }
        self.record(act.entry("seal", "seal", "vault"))?;
        self.close();
        tracing::warn!(component = "seal", "the vault was sealed");
        Ok(())
    }

    /// Begins a new key-encryption key: new records use it at once, the others in the background. Its number.
    pub(crate) fn rotate(&self, act: &Act) -> Result<u32, VaultError> {
        self.vault().ok_or(VaultError::Sealed)?.rotate(act)
    }

    /// Lets the vault go, if there is one, and waits a while for its operations to end.
    pub(crate) fn close(&self) {
        {
            let mut state = self.state();
            (state.rekeying, state.rooting) = (None, None);
        }
        if let Some(vault) = self.open.swap(None) {
            self.figures.sealed.set(1);
            vault.let_go(CLOSE_MAX);
        }
    }

    /// Opens by the key file, or by the one that a rekey has put beside it and not yet in its place.
    fn open_by_file(&self, root: &RootKey, now: Timestamp) -> Result<(), UnsealError> {
        let opened = self.open(root, now);
        let Err(UnsealError::Store(StoreError::Keyring(KeyringError::WrongKey))) = opened else {
            return opened;
        };
        let Some((path, root)) = self.settings.key_beside() else { return opened };
        self.open(&root, now)?;
        let file = path.display().to_string();
        tracing::warn!(
            component = "seal",
            file,
            "a rekey was broken off: the vault was opened by this new key file"
        );
        Ok(())
    }

    fn open(&self, root: &RootKey, now: Timestamp) -> Result<(), UnsealError> {
        // Only a store that opens by a key file is made by opening it.
        let vault = self.make(root, Shape::File, now)?;
        self.state().shape = Some(vault.store.keyring().shape());
        vault.offer_first(now).map_err(UnsealError::State)?;
        if self.settings.dev {
            vault.write_dev_token(now).map_err(UnsealError::State)?;
        }
        self.state().wrong = Wrong::default();
        self.open.store(Some(vault));
        self.figures.sealed.set(0);
        self.opened.notify_waiters();
        Ok(())
    }

    fn make(&self, root: &RootKey, shape: Shape, now: Timestamp) -> Result<Arc<Vault>, UnsealError> {
        let (settings, audit) = (self.settings.clone(), Arc::clone(&self.audit));
        let (trust, figures) = (self.trust.clone(), self.figures.clone());
        Vault::open(settings, root, shape, audit, trust, figures, now).map(Arc::new)
    }

    /// Records a refusal; the error to answer with.
    fn refuse(&self, entry: Entry, error: VaultError) -> VaultError {
        self.record(entry.decision(Decision::Error)).err().unwrap_or(error)
    }

    fn record(&self, entry: Entry) -> Result<(), VaultError> {
        self.audit.append(entry, Timestamp::now()).map(|_| ()).map_err(VaultError::Audit)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn conflict(text: &'static str) -> VaultError {
    VaultError::invalid(Code::Conflict, text)
}

fn invalid(text: &'static str) -> VaultError {
    VaultError::invalid(Code::BadRequest, text)
}
