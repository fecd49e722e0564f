//! Every key, in the order it is shown: one walk for reading, showing and the JSON Schema.

mod acme;
mod api_key;
mod edge;
mod falco;
mod lane;
mod notify;
mod record;
mod service;
mod shape;
mod tls;
mod worker;

use std::ops::RangeInclusive;
use std::time;

use serde_json::Value;

use crate::form::{PERMISSION, ROLE_NAME, SECRET, SecretRef};
use crate::kind::{Choice, Count, Dict, Duration, Flag, Kind, List, Maybe, Parsed, count};
use crate::model::{Auth, Config, RateLimit, RateStore, Secret, Service};
use crate::secret::resolve;
use crate::table::Table;

pub(crate) use edge::LEVEL;
pub(crate) use service::{RECOVERY_TIMEOUT, THRESHOLD};
pub(crate) use worker::TOKEN_TTL;

/// LIMIT: services in all files together.
pub(crate) const SERVICES_MAX: usize = 10_000;
/// Rates reach up to here.
const RATE_MAX: u64 = 1_000_000_000;

/// The words of `[rate_limit] shared`.
const RATE_STORE: Choice<RateStore> =
    Choice { words: &[("local", RateStore::Local), ("redis", RateStore::Redis)], planned: &[] };

/// Walks the main file but its services.
pub(crate) fn sections(t: &mut Table<'_, '_>, config: &mut Config) {
    // A key without a table stands before all tables.
    notify::notify(t, &mut config.notify);
    edge::edge(t, &mut config.edge);
    edge::control(t, &mut config.control);
    t.table("auth", "How callers are believed.", |t| auth(t, &mut config.auth));
    t.table("rate_limit", "The limit of services that name none.", |t| {
        let doc = "Requests a minute per client and service; 0 means no limit.";
        t.key("default", doc, PerMinute, &mut config.rate_limit);
        let doc =
            "Who counts: local, each edge by itself, or redis, all edges together in the store of redis.url.";
        t.key("shared", doc, RATE_STORE, &mut config.rate_store);
    });
    edge::registry(t, &mut config.registry);
    edge::kill_switch(t, &mut config.kill_switch);
    edge::keys(t, &mut config.keys);
    edge::redis(t, &mut config.redis, &mut config.redis_tls);
    edge::drain(t, &mut config.drain);
    edge::log(t, &mut config.log);
    edge::otlp(t, &mut config.otlp);
    edge::metrics(t, &mut config.metrics);
    worker::events(t, &mut config.events);
    worker::vault(t, &mut config.vault);
    falco::falco(t, &mut config.falco);
    acme::acme(t, &mut config.acme);
    worker::calc(t, &mut config.calc);
    worker::demo(t, &mut config.demo);
}

/// Walks the services of one file.
pub(crate) fn services(t: &mut Table<'_, '_>, config: &mut Config) {
    let mut services = std::mem::take(&mut config.services);
    let fresh = || config.service("", "");
    let doc = "One upstream service.";
    t.items("service", doc, SERVICES_MAX, &mut services, fresh, service::service);
    config.services = services;
}

fn auth(t: &mut Table<'_, '_>, auth: &mut Auth) {
    let doc = "Whether [[service]] routes check tokens; registration, control and workers always do.";
    t.key("enabled", doc, Flag, &mut auth.enabled);

    let doc = "Where the key of legacy HS256 tokens is: env:NAME or file:PATH. Without one they are refused.";
    secret(t, "auth", "hs256_secret", doc, &mut auth.hs256_secret);

    let doc = "Clock difference tolerated in tokens.";
    t.key("leeway", doc, span(0, 300_000), &mut auth.leeway);
    let doc = "Age of the vault's feed past which the edge counts as degraded and passes no orders on.";
    t.key("feed_max_age", doc, span(1_000, 86_400_000), &mut auth.feed_max_age);
    let doc = "Roles: a name to the permissions it may be given.";
    let roles = Dict { key: ROLE_NAME, value: List::of(PERMISSION), most: 256 };
    t.key("roles", doc, roles, &mut auth.roles);
    let doc = "Keys of external clients, sent as X-API-Key: their names, SHA-256 digests and permissions.";
    t.key("api_key", doc, api_key::ApiKeys, &mut auth.api_keys);
}

/// A key of a table that says where a secret is.
fn secret(
    t: &mut Table<'_, '_>,
    table: &str,
    name: &'static str,
    doc: &'static str,
    secret: &mut Option<Secret>,
) {
    let mut reference = secret.as_ref().map(|_| SecretRef::Set);
    t.key(name, doc, Maybe(SECRET), &mut reference);
    if let (false, Some(reference)) = (t.describing(), reference) {
        let place = t.place(name);
        *secret = resolve(t.reader, &format!("{table}.{name}"), &reference, place);
    }
}

/// A duration from `least` to `most` milliseconds.
const fn span(least: u64, most: u64) -> Duration {
    Duration(time::Duration::from_millis(least)..=time::Duration::from_millis(most))
}

/// A rate as an integer: requests a minute, 0 for none.
pub(crate) struct PerMinute;

const PER_MINUTE: Count<u64> = count(0..=RATE_MAX);

impl Kind for PerMinute {
    type Out = Option<RateLimit>;

    fn parse(&self, value: &toml::Spanned<toml::de::DeValue<'_>>) -> Parsed<Self::Out> {
        let requests = PER_MINUTE.parse(value)?;
        Ok((requests > 0).then(|| RateLimit::per_minute(requests)))
    }

    fn show(&self, value: &Self::Out) -> Value {
        match value {
            None => Value::from(0),
            Some(limit) if *limit == RateLimit::per_minute(limit.requests) => Value::from(limit.requests),
            Some(_) => Value::Null,
        }
    }

    fn schema(&self) -> schemars::Schema {
        PER_MINUTE.schema()
    }
}

/// A configuration with one service and one instance of defaults, to describe every key.
pub(crate) fn specimen() -> Config {
    let mut config = Config::default();
    let mut service = Service { source: crate::model::Source::Api, ..config.service("", "") };
    service.instances.push(crate::model::Instance {
        url: "http://127.0.0.1:1".parse().expect("a constant address"),
        weight: 1,
        zone: String::new(),
    });
    config.services.push(service);
    config
}

/// Permissions, headers and the like: operators name at most this many.
const ENTRIES_MAX: usize = 64;

const fn rate() -> RangeInclusive<u64> {
    1..=RATE_MAX
}
