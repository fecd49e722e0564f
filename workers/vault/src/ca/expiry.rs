//! Certificates that nobody renews: the event stream is told of each once, while there is time.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use jiff::{SignedDuration, Timestamp};
use sluice_audit::Entry;

use super::ops::Watched;
use crate::context::Vault;
use crate::error::VaultError;
use crate::outbox::security_event;

/// Told when less is left than this part of a certificate's life, and than [`LEFT_MAX`].
const LIFE_PART: i32 = 5;
const LEFT_MAX: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How often certificates are looked through: it reads the newest one of every service.
const LOOK_PERIOD: SignedDuration = SignedDuration::from_mins(5);

/// What was told, since this start.
#[derive(Debug, Default)]
pub(crate) struct Expiring {
    told: BTreeSet<String>,
    looked_at: Option<Timestamp>,
}

impl Vault {
    /// Tells the event stream of certificates in force that end soon.
    pub(crate) fn tell_expiring(&self, now: Timestamp) -> Result<(), VaultError> {
        let mut expiring = self.expiring.lock().unwrap_or_else(PoisonError::into_inner);
        if expiring.looked_at.is_some_and(|at| now.duration_since(at).abs() < LOOK_PERIOD) {
            return Ok(());
        }
        let due: Vec<Watched> = self.in_force()?.into_iter().filter(|one| one.ends_soon(now)).collect();
        expiring.told.retain(|serial| due.iter().any(|one| one.serial == *serial));
        let new: Vec<Watched> = due.into_iter().filter(|one| !expiring.told.contains(&one.serial)).collect();
        let serials: Vec<String> = new.iter().map(|one| one.serial.clone()).collect();
        if !new.is_empty() {
            let entry = Entry::new("store", "expiring")
                .actor("vault")
                .path(format!("outbox/{} certificates", new.len()));
            self.write(entry, move |change| {
                new.iter().try_for_each(|one| {
                    let ends = one.not_after.to_string();
                    let details = [
                        ("name", one.name.as_str()),
                        ("certificate", one.kind),
                        ("serial_number", one.serial.as_str()),
                        ("not_after", ends.as_str()),
                    ];
                    change.emit(&security_event("certificate_expiring", now, &details))
                })
            })?;
        }
        expiring.told.extend(serials);
        expiring.looked_at = Some(now);
        Ok(())
    }
}

impl Watched {
    /// Whether it is time to say so.
    fn ends_soon(&self, now: Timestamp) -> bool {
        let left = self.not_after.duration_since(now);
        let life = self.not_after.duration_since(self.not_before);
        !left.is_negative() && left < (life / LIFE_PART).min(LEFT_MAX)
    }
}
