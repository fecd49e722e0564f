//! The verification state a process holds, swapped as the feed brings news.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use sluice_identity::claims::Claims;
use sluice_identity::token::{self, HsKey, Rules, TokenError};
use sluice_identity::trust::{Applied, Trust};
use sluice_schema::Config;
use sluice_wire::feed::Message;
use sluice_wire::role::Role;
use tokio::sync::watch;

/// Keys, revocations and rules, shared by every request of a process. Cheap to clone.
#[derive(Clone)]
pub struct TrustCell(Arc<Shared>);

struct Shared {
    trust: ArcSwap<Trust>,
    rules: Rules,
    /// Milliseconds from `began` to the last message, plus one; 0: never.
    heard_at_ms: AtomicU64,
    began: Instant,
    changed: watch::Sender<()>,
}

impl TrustCell {
    /// An empty state with the rules of a configuration, for a role.
    pub fn new(config: &Config, role: Role) -> Self {
        let rules = Rules {
            issuer: config.vault.issuer.clone(),
            audiences: config.vault.audience.iter().cloned().chain([role.to_string()]).collect(),
            leeway_s: config.auth.leeway.as_secs() as i64,
            hs256: config.auth.hs256_secret.as_ref().map(|secret| HsKey::new(secret.expose())),
            legacy_lifetime_max_s: config.vault.token_ttl.as_secs() as i64,
        };
        Self(Arc::new(Shared {
            trust: ArcSwap::from_pointee(Trust::empty()),
            rules,
            heard_at_ms: AtomicU64::new(0),
            began: Instant::now(),
            changed: watch::Sender::new(()),
        }))
    }

    /// Applies a message of the feed. One follower a process calls this.
    pub fn apply(&self, message: &Message) -> Applied {
        self.0.heard_at_ms.store(self.elapsed_ms() + 1, Ordering::Relaxed);
        if matches!(message, Message::Heartbeat) {
            return Applied::Unchanged;
        }
        let mut next = Trust::clone(&self.0.trust.load());
        let applied = next.apply(message);
        if applied == Applied::Changed {
            self.0.trust.store(Arc::new(next));
            self.0.changed.send_replace(());
        }
        applied
    }

    /// Restores a state that was kept on disk; it counts as not heard.
    pub fn restore(&self, trust: Trust) {
        self.0.trust.store(Arc::new(trust));
        self.0.changed.send_replace(());
    }

    /// Hears of every change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.0.changed.subscribe()
    }

    /// The state now.
    pub fn load(&self) -> Arc<Trust> {
        self.0.trust.load_full()
    }

    /// The rules beside keys and revocations.
    pub fn rules(&self) -> &Rules {
        &self.0.rules
    }

    /// Verifies a token now.
    pub fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        token::verify(token, &self.0.trust.load(), &self.0.rules, now_s())
    }

    /// Milliseconds since the feed was last heard; `None` when never.
    pub fn age_ms(&self) -> Option<u64> {
        match self.0.heard_at_ms.load(Ordering::Relaxed) {
            0 => None,
            at => Some(self.elapsed_ms().saturating_sub(at - 1)),
        }
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.0.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

pub(crate) fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
