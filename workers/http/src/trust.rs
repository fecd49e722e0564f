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

use crate::verified::{Remembered, Shown, Verified, key_of};

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
    /// Counts what was heard of keys and revocations.
    generation: AtomicU64,
    remembered: Remembered,
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
            generation: AtomicU64::new(0),
            remembered: Remembered::default(),
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
            self.replace(next);
        }
        applied
    }

    /// Restores a state that was kept on disk; it counts as not heard.
    pub fn restore(&self, trust: Trust) {
        self.replace(trust);
    }

    fn replace(&self, trust: Trust) {
        self.0.trust.store(Arc::new(trust));
        // After the store: what is verified under the older state is never taken for newer.
        self.0.generation.fetch_add(1, Ordering::Release);
        self.0.changed.send_replace(());
    }

    /// Hears of every change of keys and revocations.
    pub fn changes(&self) -> watch::Receiver<()> {
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

    /// What a token says that is good now; its signature is not checked again where nothing has changed since.
    pub fn verify_again(&self, token: &str) -> Result<Arc<Claims>, TokenError> {
        self.recognise(token).map(|verified| verified.claims)
    }

    /// Verifies now that a token is ours, whomever it is meant for: to end it.
    pub fn verify_issued(&self, token: &str) -> Result<Claims, TokenError> {
        token::verify_issued(token, &self.0.trust.load(), &self.0.rules, now_s())
    }

    /// Verifies a token now, from memory where that is sound.
    pub(crate) fn recognise(&self, token: &str) -> Result<Verified, TokenError> {
        if token.len() > token::TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        // Before the state is looked at: what changes in between makes the entry stale, never wrong.
        let generation = self.0.generation.load(Ordering::Acquire);
        let (key, now_s) = (key_of(token), now_s());
        if let Some(verified) = self.0.remembered.find(&key, generation, self.0.rules.leeway_s, now_s) {
            return Ok(verified);
        }
        let claims = token::verify(token, &self.0.trust.load(), &self.0.rules, now_s)?;
        let verified = Verified::new(claims);
        self.0.remembered.keep(key, generation, verified.clone());
        Ok(verified)
    }

    /// The same with the memory of a connection: the token it showed last is known without being hashed.
    pub(crate) fn recognise_again(&self, token: &str, shown: &Shown) -> Result<Verified, TokenError> {
        let generation = self.0.generation.load(Ordering::Acquire);
        if let Some(verified) = shown.find(token, generation, self.0.rules.leeway_s, now_s()) {
            return Ok(verified);
        }
        let verified = self.recognise(token)?;
        shown.keep(token, generation, &verified);
        Ok(verified)
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
