//! What is known of the running roles, and when it is time for the banner.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use sluice_wire::role::Role;
use sluice_wire::start::Ready;

use super::banner::Banner;
use super::child::Happening;

/// How long the banner waits for a system that serves to be well too.
const WELL_WITHIN: Duration = Duration::from_secs(2);

/// What is known of the running roles.
pub(crate) struct Crew {
    pub(crate) ready: BTreeMap<Role, Ready>,
    pub(crate) expected: Vec<Role>,
    pub(crate) announced: bool,
}

impl Crew {
    pub(crate) fn note(&mut self, happening: Happening) {
        match happening {
            Happening::Ready(ready) => {
                tracing::info!(
                    component = "supervisor",
                    role = ready.role.as_str(),
                    pid = ready.pid,
                    "role is ready"
                );
                self.ready.insert(ready.role, ready);
            }
            Happening::Died { role, was_ready, again_in, failures, status } => {
                self.ready.remove(&role);
                tracing::warn!(
                    component = "supervisor",
                    role = role.as_str(),
                    status,
                    was_ready,
                    failures,
                    again_in_ms = again_in.as_millis() as u64,
                    "a role ended and is started again"
                );
            }
            Happening::Ended => {}
        }
    }

    pub(crate) fn tell_who_is_late(&self) {
        let missing: Vec<&str> = self
            .expected
            .iter()
            .filter(|role| !self.ready.contains_key(role))
            .map(|role| role.as_str())
            .collect();
        if missing.is_empty() {
            tracing::warn!(
                component = "supervisor",
                "every role runs, but the edge says it cannot serve yet; ask its /health"
            );
        } else {
            tracing::warn!(component = "supervisor", missing = missing.join(" "), "roles are not ready yet");
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        !self.announced && self.ready.len() == self.expected.len()
    }

    /// The banner, once the edge says that it can serve; until then `None`.
    pub(crate) async fn banner(&self, data_dir: &Path, dev: bool, started: Instant) -> Option<Banner> {
        let edge = self.ready.get(&Role::Edge)?.listeners.get("http")?;
        crate::health::is_ready(edge).await.then_some(())?;
        // Ready is enough to serve; all well is told where it comes within a moment.
        let patient = started.elapsed() < WELL_WITHIN;
        (!patient || crate::health::is_well(edge).await).then_some(())?;
        let token = if dev {
            Some(std::fs::read_to_string(data_dir.join("token")).ok()?.trim().to_owned())
        } else {
            None
        };
        let vault = self.ready.get(&Role::Vault).and_then(|ready| ready.listeners.get("api"));
        let fingerprint = match vault {
            Some(vault) => crate::health::ca_fingerprint(vault).await,
            None => None,
        };
        Some(Banner::new(&self.ready, data_dir, token, fingerprint, started.elapsed(), dev))
    }
}
