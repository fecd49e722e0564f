//! The rate limits of callers: counted by this edge, and with others where `rate_limit.shared` says so.
//!
//! A request is judged by this edge's own table in any case; where edges share, what passes there needs a lease of
//! the shared bucket too ([`sluice_policy::limit::lease`]). Where there is none at hand it waits for the store's
//! answer ([`wait`]): for a tenth of a second at most, for no longer than its caller is willing to, and not beyond its
//! client; then its turn at the table comes. So a Redis that goes away changes nothing but that others are not
//! counted: each edge admits up to the whole limit then, because to refuse a caller who is within it would be the
//! worse fault.

use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwapOption;
use ring::digest::{Context, SHA256};
use sluice_ledger::limits::{SharedLimits, Told, Waiting, Watch};
use sluice_ledger::redis::RedisError;
use sluice_policy::limit::lease::{Outcome, Taken};
use sluice_policy::limit::leases::Name;
use sluice_policy::limit::{Key, Threshold, Verdict, Who};
use sluice_schema::{Config, RateStore, RedisUrl};
use tokio::runtime::Handle;

use crate::clock;
use crate::ctx::Exchange;
use crate::due;
use crate::enter::{Turned, Waits};
use crate::generation::RouteLimit;
use crate::meters::LimitMeters;
use crate::state::Shared;

/// The store that edges share, where there is one.
pub(crate) struct Joint {
    handle: Handle,
    meters: LimitMeters,
    limits: ArcSwapOption<SharedLimits>,
    /// Held while it is changed.
    change: RwLock<()>,
}

impl Joint {
    /// Nothing is shared yet; the work is done on the runtime of `handle`.
    pub(crate) fn new(handle: Handle, meters: LimitMeters) -> Self {
        Self { handle, meters, limits: ArcSwapOption::empty(), change: RwLock::default() }
    }

    /// Shares limits as a configuration says, from now on.
    ///
    /// # Errors
    /// The address is none that the client understands; nothing has changed then.
    pub(crate) fn configure(&self, config: &Config) -> Result<(), RedisError> {
        let _one_at_a_time = self.change.write().unwrap_or_else(PoisonError::into_inner);
        let wanted = config.edge_redis().filter(|_| config.rate_store == RateStore::Redis);
        let present = self.limits.load_full();
        if present.as_ref().map(|limits| limits.url()) == wanted.as_ref() {
            return Ok(());
        }
        let joined = wanted.as_ref().map(|url| self.join(url)).transpose()?;
        self.limits.store(joined.map(Arc::new));
        if wanted.is_none() {
            self.meters.shared.set(0);
        }
        Ok(())
    }

    fn join(&self, url: &RedisUrl) -> Result<SharedLimits, RedisError> {
        let teller = Arc::new(Teller { meters: self.meters.clone() });
        SharedLimits::join(url, &self.handle, clock::now, teller)
    }

    /// Whether limits are shared at present; `None` where nobody asked for it.
    pub(crate) fn is_well(&self) -> Option<bool> {
        self.limits.load().as_ref().map(|limits| limits.shares())
    }
}

/// A request that the store of shared limits decides.
pub(crate) struct Undecided {
    limit: Arc<RouteLimit>,
    key: Key,
    waiting: Waiting,
}

/// What is said of one request.
pub(crate) enum Judged {
    Now(Verdict),
    Later(Undecided),
}

impl Shared {
    /// Takes one request out of a caller's bucket.
    pub(crate) fn judge(&self, limit: &Arc<RouteLimit>, who: Who<'_>) -> Judged {
        let (key, now) = (self.keyer().key(&limit.scope, who), clock::now());
        let joint = self.joint.limits.load();
        let Some(shared) = joint.as_ref() else {
            return Judged::Now(self.limiter.check(key, &limit.limit, now));
        };
        let mut waits = None;
        let verdict = self.limiter.check_with(key, &limit.limit, now, |threshold, here| {
            let terms = match threshold {
                Threshold::Soft => limit.limit.soft_terms,
                Threshold::Hard => limit.limit.hard_terms?,
            };
            let name = || name(&limit.scope, who, threshold);
            let Some((taken, waiting)) = shared.take(key, threshold, &terms, here, now, name) else {
                let reason = if shared.shares() { &self.joint.meters.full } else { &self.joint.meters.away };
                reason.inc();
                return None;
            };
            waits = waiting;
            self.joint.meters.count(&taken);
            Some(taken)
        });
        match waits {
            Some(waiting) if verdict.waits => {
                Judged::Later(Undecided { limit: Arc::clone(limit), key, waiting })
            }
            _ => Judged::Now(verdict),
        }
    }
}

/// Waits for what the store says of a request, and gives it its turn at this edge's table.
pub(crate) async fn wait(
    shared: &Shared,
    x: &mut Exchange,
    client: &mut impl Waits,
    undecided: Undecided,
) -> Result<(Arc<RouteLimit>, Verdict), Turned> {
    let Undecided { limit, key, mut waiting } = undecided;
    due::note(x, client.headers());
    let since = tokio::time::Instant::now();
    let meters = &shared.joint.meters;
    let told = tokio::select! {
        biased;
        told = waiting.told(x.left()) => told,
        () = client.left(x) => {
            x.decision = "client_left";
            return Err(Turned::Left);
        }
    };
    meters.wait_seconds.observe(since.elapsed().as_secs_f64());
    let taken = match told {
        Told::Taken(taken) => Some(taken),
        Told::Alone => None,
        Told::Over => return Err(Turned::Away(due::over(x))),
    };
    match &taken {
        Some(taken) => meters.count(taken),
        None => meters.away.inc(),
    }
    let (verdict, unused) = shared.limiter.settle(key, &limit.limit, clock::now(), taken.as_ref());
    if unused {
        waiting.give_back();
    }
    Ok((limit, verdict))
}

impl LimitMeters {
    fn count(&self, taken: &Taken) {
        match taken.outcome {
            Outcome::Late => self.late.inc(),
            Outcome::Crowded => self.crowded.inc(),
            Outcome::Leased | Outcome::OnCredit | Outcome::Waits | Outcome::Refused(_) => {}
        }
    }
}

/// What a caller's bucket is called in the store: nobody can read from it who it is.
fn name(scope: &str, who: Who<'_>, threshold: Threshold) -> Name {
    let mut hash = Context::new(&SHA256);
    hash.update(b"sluice limit 1");
    who.name(scope, threshold, |bytes| hash.update(bytes));
    let mut name = Name::default();
    name.copy_from_slice(&hash.finish().as_ref()[..size_of::<Name>()]);
    name
}

/// Tells log and metrics how sharing goes.
struct Teller {
    meters: LimitMeters,
}

impl Watch for Teller {
    fn shares(&self, why_not: Option<&RedisError>) {
        let shared = i64::from(why_not.is_none());
        let changes = self.meters.shared.get() != shared;
        self.meters.shared.set(shared);
        match why_not {
            None => tracing::info!(component = "limits", "rates are counted by all edges together"),
            Some(error) if changes => tracing::warn!(
                component = "limits",
                error = error as &dyn std::error::Error,
                "Redis does not answer: this edge counts rates alone until it does"
            ),
            Some(error) => tracing::debug!(
                component = "limits",
                error = error as &dyn std::error::Error,
                "Redis still does not answer"
            ),
        }
    }

    fn called(&self, calls: usize, answered: bool) {
        let counter = if answered { &self.meters.answered } else { &self.meters.failed };
        counter.inc_by(calls as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_bucket_has_one_name_everywhere_and_shares_it_with_nobody() {
        let ip = |text: &str| Who::Address(text.parse().unwrap());
        let callers = [
            Who::Subject("a"),
            Who::Header(b"a"),
            Who::Everybody,
            ip("10.0.0.1"),
            ip("10.0.0.2"),
            ip("2001:db8::1"),
            ip("2001:db8:0:1::1"),
        ];
        let mut names = BTreeSet::new();
        for scope in ["s", "s1", "/auth"] {
            for who in callers {
                names.insert(name(scope, who, Threshold::Soft));
                names.insert(name(scope, who, Threshold::Hard));
            }
        }
        assert_eq!(names.len(), 3 * 2 * callers.len());
        assert_eq!(
            name("s", ip("2001:db8::1"), Threshold::Soft),
            name("s", ip("2001:db8::2"), Threshold::Soft)
        );
        assert_ne!(
            name("s", Who::Subject("1a"), Threshold::Soft),
            name("s1", Who::Subject("a"), Threshold::Soft)
        );
    }
}
