//! What handlers share: the open vault, its metrics (`figures`), and the room for its work, or the fact that it is
//! sealed (`room`), and what is due from time to time (`upkeep`).

mod figures;
mod later;
mod room;
mod upkeep;

pub(crate) use figures::Figures;
pub(crate) use later::{Changed, Recorded};
pub(crate) use room::{Context, Health};

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::{SignedDuration, Timestamp};
use sluice_audit::{AuditError, Decision, Entry, Log, OpenError};
use sluice_http::TrustCell;
use sluice_wire::feed::Jwk;
use tokio::sync::Notify;
use tokio::task::block_in_place;
use tokio_util::sync::CancellationToken;

use crate::acme;
use crate::ca::{Authority, Expiring, Lists, Pace};
use crate::config::Settings;
use crate::error::VaultError;
use crate::falco::{Rules, ShutOut, Watch};
use crate::feed::{self, Hub};
use crate::refusals::{Refusals, is_unknown};
use crate::seal::{KeyFileError, RootKey, Shape};
use crate::store::{Change, Store, StoreError, Table, View as _};
use crate::token::Signers;
use crate::user::{Cost, Guard, Pool};
use crate::v1;
use crate::witness;
use upkeep::make_ready;

/// Life of the development administrator's token.
const DEV_TOKEN_LIFE: SignedDuration = SignedDuration::from_hours(12);
/// How full the audit log is when it is said.
const FILL_WARNED: f64 = 0.8;

/// Why the vault does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnsealError {
    /// The audit log.
    #[error("the audit log does not open")]
    Audit(#[source] OpenError),
    /// The store.
    #[error("the vault store does not open")]
    Store(#[source] StoreError),
    /// What is in it.
    #[error("the vault's keys cannot be made ready")]
    State(#[source] VaultError),
    /// The writer's thread.
    #[error("the store's writer cannot start")]
    Thread(#[source] io::Error),
    /// The key file.
    #[error("the key file is not used")]
    KeyFile(#[source] KeyFileError),
    /// The configuration says something else than the store.
    #[error("the store was made with `seal = \"{0}\"`; set this in [vault]")]
    OpensBy(&'static str),
}

/// The open vault. Its operations are in the modules of what they are about; they block.
pub(crate) struct Vault {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) audit: Arc<Log>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) trust: TrustCell,
    pub(crate) authority: ArcSwap<Authority>,
    pub(crate) lists: Lists,
    pub(crate) signers: ArcSwap<Signers>,
    pub(crate) figures: Figures,
    pub(crate) outbox_bell: Arc<Notify>,
    pub(crate) api_keys: Arc<v1::Keys>,
    /// Signs the audit log's checkpoints; the public part.
    pub(crate) audit_key: Jwk,
    pub(crate) role_pace: Mutex<Pace>,
    pub(crate) expiring: Mutex<Expiring>,
    pub(crate) falco: Mutex<Watch>,
    pub(crate) shut_out: ShutOut,
    pub(crate) rules: Rules,
    pub(crate) acme: acme::Desk,
    pub(crate) refusals: Refusals,
    pub(crate) passwords: Pool,
    pub(crate) guard: Guard,
    /// Rung when there are rows to seal anew.
    pub(crate) rotated: Notify,
    ending: CancellationToken,
    /// INVARIANT: the last field: when it drops, the store is closed and its keys are wiped.
    closed: Closed,
}

/// Tells when the vault has been closed: when its last user has let it go.
#[derive(Default)]
struct Closed(Arc<(Mutex<bool>, Condvar)>);

impl Drop for Closed {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

impl Vault {
    /// Ends streams and tasks and waits at most `patience` until the last user is gone and the store is closed.
    pub(crate) fn let_go(self: Arc<Self>, patience: Duration) {
        self.ending.cancel();
        self.hub.end();
        let (closed, audit) = (Arc::clone(&self.closed.0), Arc::clone(&self.audit));
        drop(self);
        let (is_closed, bell) = &*closed;
        let guard = is_closed.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = bell.wait_timeout_while(guard, patience, |closed| !*closed);
        if waited.is_ok_and(|(_, timeout)| timeout.timed_out()) {
            tracing::warn!(component = "seal", "an operation is under way; the keys go when it ends");
        }
        // An open vault signs up to here; a log that takes nothing any longer says so itself.
        drop(audit.sign_with(None, Timestamp::now()));
    }

    /// Cancelled when the vault is to be closed.
    pub(crate) fn ending(&self) -> CancellationToken {
        self.ending.clone()
    }

    /// Opens the store with the root key (makes it in this shape if there is none) and makes everything ready to
    /// serve.
    pub(crate) fn open(
        settings: Settings,
        root: &RootKey,
        shape: Shape,
        audit: Arc<Log>,
        trust: TrustCell,
        figures: Figures,
        now: Timestamp,
    ) -> Result<Self, UnsealError> {
        let idle = Store::open(&settings.store(), root, shape, Arc::clone(&audit), now);
        let idle = idle.map_err(UnsealError::Store)?.with_quotas(settings.quotas.clone());
        let (epoch, seq) = idle.feed();
        let view = idle.snapshot().map_err(UnsealError::State)?;
        let state = feed::snapshot(&view, epoch, seq).map_err(UnsealError::State)?;
        drop(view);
        let hub = Arc::new(Hub::new(state, trust.clone()));
        let publisher = Arc::clone(&hub);
        let store =
            idle.start(Box::new(move |messages| publisher.publish(messages))).map_err(UnsealError::Thread)?;
        let (authority, signers) = make_ready(&store, &settings, now).map_err(UnsealError::State)?;
        let alerts = &settings.falco;
        let (rules, watch) = (
            Rules::new(&alerts.responses),
            Watch::new(alerts.window_ms, alerts.rate, alerts.responses.len()),
        );
        let api_keys = ready_api(&store).map_err(UnsealError::State)?;
        let (audit_key, signer) = witness::ready(&store).map_err(UnsealError::State)?;
        let vault = Self {
            settings,
            store,
            audit,
            hub,
            trust,
            authority: ArcSwap::from_pointee(authority),
            lists: Lists::default(),
            signers: ArcSwap::from_pointee(signers),
            figures,
            outbox_bell: Arc::default(),
            api_keys: Arc::new(api_keys),
            audit_key,
            role_pace: Mutex::new(Pace::default()),
            expiring: Mutex::new(Expiring::default()),
            falco: Mutex::new(watch),
            shut_out: ShutOut::default(),
            rules,
            acme: acme::Desk::new().map_err(UnsealError::State)?,
            refusals: Refusals::new(),
            passwords: Pool::sized(Cost::CURRENT),
            guard: Guard::new(),
            rotated: Notify::new(),
            ending: CancellationToken::new(),
            closed: Closed::default(),
        };
        vault.look_at_quarantines().map_err(UnsealError::State)?;
        vault.show_days_left(now);
        vault.tell_hidden().map_err(UnsealError::State)?;
        vault.watch_log();
        let signed = vault.audit.sign_with(Some(signer), now);
        signed.map_err(|error| UnsealError::State(VaultError::Audit(error)))?;
        Ok(vault)
    }

    /// Secrets that were kept here are neither served nor lost while an external vault keeps them.
    fn tell_hidden(&self) -> Result<(), VaultError> {
        let secrets = self.store.snapshot()?.count(Table::SecretHead)?;
        if self.settings.external.is_some() && secrets > 0 {
            tracing::warn!(
                component = "external",
                secrets,
                "secrets kept here are not served: an external vault is"
            );
        }
        Ok(())
    }

    /// Shows how full the audit log is, and says it before records go or nothing is answered any more.
    pub(crate) fn watch_log(&self) {
        let (bytes, keep) = self.audit.fill();
        let before = self.figures.audit_fill.get();
        let fill = bytes as f64 / keep.max(1) as f64;
        self.figures.audit_fill.set(fill);
        if fill >= FILL_WARNED && before < FILL_WARNED {
            tracing::warn!(
                component = "audit",
                bytes,
                keep,
                "the audit log is 80 % of what is kept; see [vault.audit]"
            );
        }
    }

    fn show_days_left(&self, now: Timestamp) {
        let authority = self.authority.load();
        for (name, issuing) in [("root", &authority.root), ("intermediate", authority.issuing())] {
            let left = issuing.not_after.duration_since(now).as_secs_f64();
            self.figures.certificate_left.with_label_values(&[name]).set(left);
        }
    }

    /// Writes a fresh administrator's token to `<data-dir>/token`, and a root token of Vault's API beside it to
    /// `<data-dir>/vault-token`; both end at the same time.
    pub(crate) fn write_dev_token(&self, now: Timestamp) -> Result<PathBuf, VaultError> {
        let root = self.mint_root(DEV_TOKEN_LIFE.as_secs(), now)?;
        self.write_private("vault-token", &root)?;
        let issued = self.mint_dev_admin(DEV_TOKEN_LIFE, now)?;
        self.write_private("token", &issued.token)
    }

    /// Writes a file in the data directory that only its owner reads.
    pub(crate) fn write_private(&self, name: &str, text: &str) -> Result<PathBuf, VaultError> {
        let path = self.settings.data_dir.join(name);
        let aside = path.with_extension("new");
        // Anything left over has an unknown mode; a new file has ours from its first moment.
        let written = remove_if_there(&aside)
            .and_then(|()| OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside))
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .and_then(|()| fs::rename(&aside, &path));
        written.map_err(|error| VaultError::Store(Box::new(redb::Error::Io(error))))?;
        Ok(path)
    }

    /// Runs a change and records it, timed. The operations' way into the store.
    pub(crate) fn write<T: Send + 'static>(
        &self,
        entry: Entry,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, VaultError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let done = self.store.write(entry, work);
        self.outbox_bell.notify_one();
        done
    }

    /// Queues a change with its record, for those who wait for it without a thread.
    pub(crate) fn change<T: Send + 'static>(
        &self,
        entry: Entry,
        work: impl FnOnce(&mut Change<'_>) -> Result<T, VaultError> + Send + 'static,
    ) -> Changed<T> {
        Changed { queued: self.store.queue(entry, work), bell: Arc::clone(&self.outbox_bell) }
    }

    /// Submits the record of a read whose outcome is known, for those who wait for it without a thread.
    pub(crate) fn recorded<T>(&self, entry: Entry, outcome: Result<T, VaultError>) -> Recorded<T> {
        let began = Instant::now();
        let decision = if outcome.is_ok() { Decision::Allow } else { Decision::Error };
        let record = match self.store.arrears() {
            None => Ok(self.audit.submit(entry.decision(decision), Timestamp::now())),
            Some(error) => Err(VaultError::Audit(error)),
        };
        Recorded { outcome, record, began, seconds: self.figures.audit_seconds.clone() }
    }

    /// Runs a read and records it before its result is handed out.
    pub(crate) fn read<T>(
        &self,
        entry: Entry,
        work: impl FnOnce() -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        let outcome = work();
        let decision = if outcome.is_ok() { Decision::Allow } else { Decision::Error };
        self.record(entry.decision(decision))?;
        outcome
    }

    /// Records a refusal; the error to answer with.
    pub(crate) fn refuse(&self, entry: Entry, error: VaultError) -> VaultError {
        if matches!(error, VaultError::Anonymous) {
            return self.refuse_unknown(entry).err().unwrap_or(error);
        }
        self.note(entry, error.is_denial()).err().unwrap_or(error)
    }

    /// Records what was refused before it became an operation.
    pub(crate) fn note(&self, entry: Entry, denied: bool) -> Result<(), VaultError> {
        if is_unknown(&entry) {
            return self.refuse_unknown(entry);
        }
        let entry = entry.decision(if denied { Decision::Deny } else { Decision::Error });
        self.refused(entry, true)
    }

    /// Records or counts the refusal of a caller nobody knows.
    pub(crate) fn refuse_unknown(&self, entry: Entry) -> Result<(), VaultError> {
        self.refused(entry.decision(Decision::Deny), false)
    }

    /// Records or counts a refusal.
    fn refused(&self, entry: Entry, is_known: bool) -> Result<(), VaultError> {
        let now = Timestamp::now();
        self.record_all(self.refusals.entries(entry, is_known, now), now)
    }

    /// Whether the audit log takes records and has those of every commit.
    fn is_recording(&self) -> bool {
        self.audit.is_writable() && self.store.arrears().is_none()
    }

    /// Runs what happens at another server: recorded before, so that nothing is asked of it without a record, and
    /// again where it fails.
    pub(crate) fn abroad<T>(
        &self,
        entry: Entry,
        work: impl FnOnce() -> Result<T, VaultError>,
    ) -> Result<T, VaultError> {
        self.record(entry.clone().decision(Decision::Allow))?;
        work().map_err(|error| self.refuse(entry, error))
    }

    fn record(&self, entry: Entry) -> Result<(), VaultError> {
        self.record_all(vec![entry], Timestamp::now())
    }

    fn record_all(&self, entries: Vec<Entry>, now: Timestamp) -> Result<(), VaultError> {
        // A read might show what the log does not know of yet.
        if let Some(error) = self.store.arrears() {
            return Err(VaultError::Audit(error));
        }
        let began = Instant::now();
        if entries.is_empty() {
            let closed = AuditError::Failed("it refuses records since an earlier failure");
            return if self.audit.is_writable() { Ok(()) } else { Err(VaultError::Audit(closed)) };
        }
        let recorded = block_in_place(|| self.audit.append_all(entries, now));
        self.figures.audit_seconds.observe(began.elapsed().as_secs_f64());
        recorded.map(|_| ()).map_err(VaultError::Audit)
    }
}

/// Makes and loads what Vault's API needs.
fn ready_api(store: &Store) -> Result<v1::Keys, VaultError> {
    if v1::Keys::are_missing(&store.snapshot()?)? {
        store.write(own_entry("create"), v1::Keys::make)?;
    }
    v1::Keys::load(&store.snapshot()?)
}

pub(crate) fn own_entry(op: &'static str) -> Entry {
    Entry::new("store", op).actor("vault")
}

fn remove_if_there(path: &std::path::Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
