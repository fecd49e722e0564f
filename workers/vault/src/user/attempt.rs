//! One try of a password: let in by the lockout, hashed by the pool, recorded.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::request::Parts;
use ipnet::IpNet;
use sluice_audit::Entry;
use sluice_http::{Peer, address_key, origin};
use sluice_wire::code::Code;

use super::lockout::{End, Gate, Lockout};
use super::password::{self, Password};
use super::rows::{self, User};
use crate::context::Vault;
use crate::error::VaultError;
use crate::outbox::security_event;
use crate::request::Act;

/// LIMIT: tries under way, those that wait for others among them.
const UNDER_WAY_MAX: usize = 64;
/// Longest wait for tries before this one.
const PATIENCE: Duration = Duration::from_secs(5);
/// What `Retry-After` says then.
const RETRY_S: u64 = 2;

/// Where a try comes from: an address (of IPv6 a /64), or another role.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source(Option<IpAddr>);

/// The lockout, shared.
pub(crate) struct Guard {
    lockout: Mutex<Lockout>,
    ended: Condvar,
    under_way: AtomicUsize,
    // Its clock: what the wall clock does must not open or shut anything.
    began: Instant,
}

/// A try.
pub(crate) struct Try<'a> {
    pub(crate) act: &'a Act,
    /// For records: what stands before the user's name.
    pub(crate) place: &'static str,
    /// As it came.
    pub(crate) name: &'a str,
    pub(crate) password: &'a Password,
    pub(crate) source: &'a Source,
}

/// A user who gave the right password.
pub(crate) struct Proven {
    pub(crate) name: String,
    pub(crate) user: User,
}

/// Counts a try for as long as it lasts.
struct Inside<'a>(&'a Guard);

impl Source {
    /// Of a request.
    pub(crate) fn of(parts: &Parts, trusted: &[IpNet]) -> Self {
        let peer = parts.extensions.get::<Peer>();
        Self(peer.and_then(|peer| origin(peer, &parts.headers, trusted)).map(address_key))
    }

    /// For records.
    pub(crate) fn text(&self) -> String {
        self.0.map_or_else(|| "internal".to_owned(), |ip| ip.to_string())
    }
}

impl Try<'_> {
    fn entry(&self, op: &'static str, shown: &str, source: &str) -> Entry {
        let entry = self.act.entry("auth", op, format!("{}{shown}", self.place));
        entry.actor("unverified").request(self.act.request_id.clone(), source.to_owned())
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Guard {
    pub(crate) fn new() -> Self {
        Self {
            lockout: Mutex::new(Lockout::default()),
            ended: Condvar::new(),
            under_way: AtomicUsize::new(0),
            began: Instant::now(),
        }
    }

    /// Lets a user in again whose password was set.
    pub(crate) fn forget(&self, name: &str) {
        self.lockout.lock().unwrap_or_else(PoisonError::into_inner).forget(name);
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    /// Begins a try, when those before it have ended.
    fn begin(&self, name: &str, source: &str) -> Result<Inside<'_>, VaultError> {
        let inside = Inside(self);
        if self.under_way.fetch_add(1, Ordering::Relaxed) >= UNDER_WAY_MAX {
            return Err(later(Code::Overloaded, "too many logins at a time", RETRY_S));
        }
        let until = Instant::now() + PATIENCE;
        let mut lockout = self.lockout.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let now_ms = self.now_ms();
            match lockout.begin(name, source, now_ms) {
                Gate::Open => return Ok(inside),
                Gate::Shut(until_ms) => {
                    let left_s = u64::try_from(until_ms - now_ms).unwrap_or(0).div_ceil(1_000);
                    return Err(later(Code::TooManyFailures, "too many failed logins", left_s.max(1)));
                }
                Gate::Wait if Instant::now() >= until => {
                    return Err(later(Code::Overloaded, "too many logins at a time", RETRY_S));
                }
                Gate::Wait => {
                    let waited = self.ended.wait_timeout(lockout, PATIENCE);
                    lockout = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Judges something else than a password that a source shows for a name, under the same bounds; also whether this
    /// was the try that shuts the name out from there. What `is_wrong` says no to was not judged.
    pub(crate) fn judge<T>(
        &self,
        name: &str,
        source: &str,
        judge: impl FnOnce() -> Result<T, VaultError>,
        is_wrong: impl FnOnce(&VaultError) -> bool,
    ) -> (Result<T, VaultError>, bool) {
        let _inside = match self.begin(name, source) {
            Ok(inside) => inside,
            Err(error) => return (Err(error), false),
        };
        let judged = judge();
        let end = match &judged {
            Ok(_) => End::Right,
            Err(error) if is_wrong(error) => End::Wrong,
            Err(_) => End::Dropped,
        };
        (judged, self.end(name, source, end))
    }

    fn end(&self, name: &str, source: &str, end: End) -> bool {
        let mut lockout = self.lockout.lock().unwrap_or_else(PoisonError::into_inner);
        let shuts = lockout.end(name, source, end, self.now_ms());
        self.ended.notify_all();
        shuts
    }
}

fn later(code: Code, text: &str, retry_s: u64) -> VaultError {
    VaultError::Later(code, text.to_owned(), retry_s)
}

impl Vault {
    /// Judges a try; whatever is wrong about it is recorded, and has one answer at one price.
    pub(crate) fn prove(&self, tried: &Try<'_>) -> Result<Proven, VaultError> {
        // What is no name is a name of nobody.
        let name = rows::name(tried.name).unwrap_or_default();
        let source = tried.source.text();
        let judged = self.judge(tried, &name, &source);
        let outcome = match &judged {
            Ok(_) => "granted",
            Err(VaultError::Anonymous) => "wrong",
            Err(VaultError::Later(Code::TooManyFailures, ..)) => "locked_out",
            Err(_) => "busy",
        };
        self.figures.logins.with_label_values(&[outcome]).inc();
        judged
    }

    fn judge(&self, tried: &Try<'_>, name: &str, source: &str) -> Result<Proven, VaultError> {
        let user = rows::find(&self.store.snapshot()?, name)?;
        // A name that nobody has may be a password in the wrong field.
        let shown = if user.is_some() { name } else { "?" };
        let entry = || tried.entry("login", shown, source);
        let inside = match self.guard.begin(name, source) {
            Ok(inside) => inside,
            Err(error) => {
                self.refuse_unknown(entry())?;
                return Err(error);
            }
        };
        let kept = user.as_ref().map(|user| &user.password);
        let judged = if tried.password.is_too_long() {
            Ok(false)
        } else {
            password::is_right(&self.passwords, tried.password, kept)
        };
        let end = match &judged {
            Ok(true) => End::Right,
            Ok(false) => End::Wrong,
            Err(_) => End::Dropped,
        };
        let shuts = self.guard.end(name, source, end);
        drop(inside);
        if let (Ok(true), Some(user)) = (&judged, user) {
            return Ok(Proven { name: name.to_owned(), user: self.freshen(tried, name, user)? });
        }
        self.refuse_unknown(entry())?;
        if shuts {
            let event =
                security_event("login_locked_out", tried.act.now, &[("user", shown), ("source", source)]);
            let entry = tried.entry("lock_out", shown, source);
            self.write(entry, move |change| change.emit(&event))?;
        }
        Err(judged.err().unwrap_or(VaultError::Anonymous))
    }

    /// Hashes the password anew where what a hash costs has changed since.
    fn freshen(&self, tried: &Try<'_>, name: &str, user: User) -> Result<User, VaultError> {
        if !user.password.is_dated(self.passwords.cost()) {
            return Ok(user);
        }
        // Where the pool is busy the next login does it.
        let Ok(hash) = password::hash_new(&self.passwords, tried.password) else { return Ok(user) };
        let entry =
            tried.act.entry("user", "rehash", format!("auth/users/{name}")).actor(rows::subject(name));
        let (name, before) = (name.to_owned(), user.updated);
        self.write(entry, move |change| {
            // Set by somebody else meanwhile: that one stays.
            match rows::find(change, &name)? {
                Some(mut now) if now.updated == before => {
                    now.password = hash;
                    rows::save(change, &name, &now)
                }
                _ => Ok(()),
            }
        })?;
        Ok(user)
    }
}
