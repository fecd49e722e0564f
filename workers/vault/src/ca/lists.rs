//! Revocation lists: made when somebody asks for them, beside the feed, which brings serials as they are revoked.
//!
//! A list names every revoked certificate, so what one more costs grows with them; made at each revocation they would
//! stall the writer. A short list is made anew whenever it has changed, so it is never old; a long one (more than
//! [`AT_ONCE_MAX`] entries) once a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};

use super::authority::pem;
use super::rows;
use crate::context::{Vault, own_entry};
use crate::error::VaultError;

/// Entries up to which lists are made anew at once.
const AT_ONCE_MAX: usize = 1_000;
/// How old a longer list may be while there are newer revocations.
const PAUSE: Duration = Duration::from_secs(1);
/// Age at which lists are made anew in any case: they are valid for a day.
const AGE_MAX: SignedDuration = SignedDuration::from_hours(1);

/// The lists as they were made last.
#[derive(Default)]
pub(crate) struct Lists {
    made: ArcSwapOption<Made>,
    /// One is made at a time.
    making: Mutex<()>,
}

struct Made {
    pem: String,
    entries: usize,
    /// What they were made of: the hub's number, and who issues.
    certificates: u64,
    issuer: String,
    at: Timestamp,
    began: Instant,
}

impl Lists {
    /// Lets them be made anew.
    pub(crate) fn forget(&self) {
        self.made.store(None);
    }
}

impl Vault {
    /// The revocation lists, PEM: the issuing intermediate's first. What was revoked more than a second and the time
    /// of making them ago is in them.
    pub(crate) fn revocation_lists(&self, now: Timestamp) -> Result<String, VaultError> {
        if let Some(made) = self.known_lists(now) {
            return Ok(made);
        }
        let _alone = self.lists.making.lock().unwrap_or_else(PoisonError::into_inner);
        match self.known_lists(now) {
            Some(made) => Ok(made),
            None => self.make_lists(now),
        }
    }

    fn known_lists(&self, now: Timestamp) -> Option<String> {
        let made = self.lists.made.load_full()?;
        let fits = made.issuer == self.authority.load().issuing().serial
            && now.duration_since(made.at).abs() < AGE_MAX;
        let rests = made.entries > AT_ONCE_MAX && made.began.elapsed() < PAUSE;
        (fits && (made.certificates == self.hub.certificates() || rests)).then(|| made.pem.clone())
    }

    fn make_lists(&self, now: Timestamp) -> Result<String, VaultError> {
        let (began, certificates) = (Instant::now(), self.hub.certificates());
        // The number is taken before the rows are looked at: a higher one never says less.
        let number = self.store.write(own_entry("lists"), |change| Ok(change.next_crl_number()))?;
        let (authority, revoked) = (self.authority.load_full(), rows::revoked(&self.store.snapshot()?)?);
        let lists = authority.crls(&revoked, number, now)?;
        let pem: String = lists.iter().map(|list| pem("X509 CRL", list)).collect();
        let issuer = authority.issuing().serial.clone();
        let made = Made { pem: pem.clone(), entries: revoked.len(), certificates, issuer, at: now, began };
        self.lists.made.store(Some(made.into()));
        Ok(pem)
    }
}
