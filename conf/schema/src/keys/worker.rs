//! Keys of the workers and the demo.

use std::path::PathBuf;

use super::{secret, span};
use crate::form::{
    ADDRESS, AUDIENCE, CERTIFICATE_FILE, EVENTS_URL, FSYNC, ISSUER, MOUNT, PATH, SEAL, STREAM, TIMEFRAME,
    TLS_NAME, TRUST_DOMAIN, VAULT_URL,
};
use crate::kind::{Choice, Duration, Flag, List, Maybe, Number, Size, count};
use crate::model::{
    Calc, Candles, Demo, EventStore, Events, ExternalVault, OnRedisDown, PartitionBy, Partitions, Quota,
    Retention, UnknownTypes, Vault, VaultAudit, WhenFull,
};
use crate::table::Table;

const UNKNOWN_TYPES: Choice<UnknownTypes> =
    Choice { words: &[("accept", UnknownTypes::Accept), ("refuse", UnknownTypes::Refuse)], planned: &[] };

const STORE: Choice<EventStore> =
    Choice { words: &[("embedded", EventStore::Embedded), ("redis", EventStore::Redis)], planned: &[] };

const ON_REDIS_DOWN: Choice<OnRedisDown> =
    Choice { words: &[("reject", OnRedisDown::Reject), ("spool", OnRedisDown::Spool)], planned: &[] };

const PARTITION_BY: Choice<PartitionBy> = Choice {
    words: &[("none", PartitionBy::None), ("type", PartitionBy::Type), ("symbol", PartitionBy::Symbol)],
    planned: &[],
};

const WHEN_FULL: Choice<WhenFull> =
    Choice { words: &[("retire", WhenFull::Retire), ("refuse", WhenFull::Refuse)], planned: &[] };

/// A year in milliseconds.
pub(super) const YEAR: u64 = 31_536_000_000;
/// A day in milliseconds.
const DAY: u64 = 86_400_000;

/// Life of a token.
pub(crate) const TOKEN_TTL: Duration = span(1_000, YEAR);

pub(super) fn events(t: &mut Table<'_, '_>, events: &mut Events) {
    t.table("events", "The event worker.", |t| {
        t.key("listen", "Address of its API port.", ADDRESS, &mut events.listen);
        let doc = "Where events are stored: embedded or redis; unset, redis where redis.url is set.";
        t.key("store", doc, Maybe(STORE), &mut events.store);
        let doc = "While Redis takes no events: reject them, or spool them in the worker's own files until it does.";
        t.key("on_redis_down", doc, ON_REDIS_DOWN, &mut events.on_redis_down);
        t.key("stream", "Name of the stream.", STREAM, &mut events.stream);
        let doc = "Consumer group that is made together with a stream in Redis.";
        t.key("group", doc, STREAM, &mut events.group);
        let doc = "When a publish is acknowledged: always (after its sync) or interval:50ms.";
        t.key("fsync", doc, FSYNC, &mut events.fsync);
        let doc = "What is kept; without a bound, everything.";
        t.table("retention", doc, |t| retention(t, &mut events.retention));
        let doc = "Time in which a repeated event_id is a duplicate; 0s means never.";
        t.key("dedup_window", doc, span(0, 7 * DAY), &mut events.dedup_window);
        let doc = "What happens to event types outside the catalogue.";
        t.key("unknown_types", doc, UNKNOWN_TYPES, &mut events.unknown_types);
        let doc = "How events are divided into partitions, each numbered by itself; a stream keeps its partitions.";
        t.table("partitions", doc, |t| partitions(t, &mut events.partitions));
        let doc = "Size of one log segment.";
        t.key("segment_bytes", doc, Size(1 << 20..=4 << 30), &mut events.segment_bytes);
        let doc = "Events a second that one caller may publish; without it, any number.";
        t.key("publish_rate", doc, Maybe(count(1..=1_000_000_000)), &mut events.publish_rate);
        let doc = "Live subscriptions open at a time, by SSE and WebSocket; each takes about 2 KiB.";
        t.key("subscriptions", doc, count(1..=100_000), &mut events.subscriptions);
        t.key("compress", "Whether full segments are compressed.", Flag, &mut events.compress);
        let doc = "Whether the log is encrypted, with a key of the vault or of key_file.";
        t.key("encrypt", doc, Flag, &mut events.encrypt);
        let doc = "Keys of a worker without the vault: 64 hexadecimal digits a line, the last one in use.";
        t.key("key_file", doc, Maybe(PATH), &mut events.key_file);
        let doc = "Where full segments are copied to; retention then drops only what is there.";
        t.key("archive_dir", doc, Maybe(PATH), &mut events.archive_dir);
        resolve(t, events.key_file.as_mut());
        resolve(t, events.archive_dir.as_mut());
        t.table("candles", "Candles made of trades.", |t| candles(t, &mut events.candles));
    });
}

fn partitions(t: &mut Table<'_, '_>, partitions: &mut Partitions) {
    let doc = "What an event's partition is found by: none (there is one), type or symbol.";
    t.key("by", doc, PARTITION_BY, &mut partitions.by);
    t.key("count", "How many partitions there are.", count(1..=64), &mut partitions.count);
}

fn candles(t: &mut Table<'_, '_>, candles: &mut Candles) {
    let doc = "Lengths of the candles made of the trades among the market data; none: no candles.";
    // LIMIT: 16 lengths.
    let lengths = List { item: TIMEFRAME, least: 0, most: 16 };
    t.key("timeframes", doc, lengths, &mut candles.timeframes);
    let doc = "How much later than its candle's end a trade may come and still count.";
    t.key("lateness", doc, span(0, 60_000), &mut candles.lateness);
}

/// A relative path counts from the folder of the main file.
fn resolve(t: &Table<'_, '_>, path: Option<&mut PathBuf>) {
    if let Some(path) = path
        && !t.describing()
    {
        *path = t.reader.base().join(&*path);
    }
}

fn retention(t: &mut Table<'_, '_>, retention: &mut Retention) {
    let doc = "Age of the newest event in a segment at most.";
    t.key("age", doc, Maybe(span(1_000, 100 * YEAR)), &mut retention.age);
    t.key("bytes", "Size of the log at most.", Maybe(Size(1 << 20..=1 << 50)), &mut retention.bytes);
    t.key("count", "Events in the log at most.", Maybe(count(1..=1 << 50)), &mut retention.count);
}

/// LIMIT: names of the vault's port: with its own they fit into one certificate.
const VAULT_NAMES_MAX: usize = 32;

pub(super) fn vault(t: &mut Table<'_, '_>, vault: &mut Vault) {
    t.table("vault", "The vault worker.", |t| {
        t.key("listen", "Address of its API port.", ADDRESS, &mut vault.listen);
        let doc = "Names and addresses under which clients of that port know it: its certificate carries them.";
        t.key("names", doc, List { item: TLS_NAME, least: 0, most: VAULT_NAMES_MAX }, &mut vault.names);
        t.key("issuer", "Issuer of its tokens.", ISSUER, &mut vault.issuer);
        t.key("audience", "Audiences of its tokens.", List::some(AUDIENCE), &mut vault.audience);
        let doc =
            "How it opens: auto (by itself under --dev), shamir (by shares) or file:PATH, outside the data directory.";
        t.key("seal", doc, SEAL, &mut vault.seal);
        let doc = "Life of a token whose request names none, and of a legacy token at most.";
        t.key("token_ttl", doc, TOKEN_TTL, &mut vault.token_ttl);
        let doc = "Life of a leaf certificate whose request names none.";
        t.key("leaf_ttl", doc, span(5_000, 30 * DAY), &mut vault.leaf_ttl);
        let doc = "SPIFFE trust domain of every identity.";
        t.key("trust_domain", doc, TRUST_DOMAIN, &mut vault.trust_domain);
        let doc = "A HashiCorp Vault or OpenBao that keeps the secrets in its stead.";
        t.table("external", doc, |t| external(t, &mut vault.external));
        let doc = "How much of the store one identity may hold; what would be more is refused (429).";
        t.table("quota", doc, |t| quota(t, &mut vault.quota));
        let doc = "How much of the audit log is kept.";
        t.table("audit", doc, |t| audit(t, &mut vault.audit));
    });
}

fn external(t: &mut Table<'_, '_>, external: &mut ExternalVault) {
    t.key("enabled", "Whether secrets are kept there; the rest stays here.", Flag, &mut external.enabled);
    let doc = "Its address, the only one that is connected to; without TLS on this machine alone.";
    t.key("url", doc, Maybe(VAULT_URL), &mut external.url);
    let doc = "Where the token is by which the vault worker is known there: env:NAME or file:PATH.";
    secret(t, "vault.external", "token", doc, &mut external.token);
    let doc = "Who signs its certificate: a PEM file; without one, whom this system believes.";
    t.key("ca", doc, Maybe(CERTIFICATE_FILE), &mut external.ca);
    t.place_values("ca");
    resolve(t, external.ca.as_mut());
    t.key("mount", "Where its KV engine, version 2, is mounted.", MOUNT, &mut external.mount);
    t.key("timeout", "Time for one call.", span(10, 60_000), &mut external.timeout);
}

fn audit(t: &mut Table<'_, '_>, audit: &mut VaultAudit) {
    let doc = "Size of all files of the log at most.";
    t.key("keep_bytes", doc, Size(64 << 10..=1 << 50), &mut audit.keep_bytes);
    let doc =
        "How long ago a file's last record was made when it is removed; unset, its age does not matter.";
    t.key("keep_age", doc, Maybe(span(1_000, 100 * YEAR)), &mut audit.keep_age);
    let doc = "When there is as much as is kept: retire, the oldest file goes, or refuse, nothing is answered (503).";
    t.key("when_full", doc, WHEN_FULL, &mut audit.when_full);
}

fn quota(t: &mut Table<'_, '_>, quota: &mut Quota) {
    t.key("tokens", "Tokens that have not ended.", count(1..=1_000_000), &mut quota.tokens);
    let doc = "Certificates that have not ended.";
    t.key("certificates", doc, count(1..=500_000), &mut quota.certificates);
    let doc = "Tokens of Vault's API, wrapped answers among them.";
    t.key("vault_tokens", doc, count(1..=200_000), &mut quota.vault_tokens);
    let doc = "Wrapped answers, all together.";
    t.key("wrapped_bytes", doc, Size(1 << 10..=1 << 40), &mut quota.wrapped_bytes);
    t.key("secrets", "Secrets.", count(1..=1_000_000), &mut quota.secrets);
    let doc = "Kept versions of its secrets, all together.";
    t.key("secret_bytes", doc, Size(1 << 10..=1 << 50), &mut quota.secret_bytes);
    let doc = "Used assertions of an OAuth client that have not ended.";
    t.key("assertions", doc, count(1..=1_000_000), &mut quota.assertions);
}

pub(super) fn calc(t: &mut Table<'_, '_>, calc: &mut Calc) {
    t.table("calc", "The calculation worker.", |t| {
        t.key("listen", "Address of its API port.", ADDRESS, &mut calc.listen);
        let doc = "Request body at most.";
        t.key("body_bytes", doc, Size(1 << 10..=4 << 30), &mut calc.body_bytes);
        t.key("rows", "Rows of data in one request at most.", count(1..=1_000_000_000), &mut calc.rows);
        t.key("threads", "Compute threads; 0 means one a core.", count(0..=1024), &mut calc.threads);
        let doc = "Files of stored series, all together.";
        t.key("series_bytes", doc, Size(64 << 10..=1 << 50), &mut calc.series_bytes);
        let doc = "Address of the event worker, or of an edge before it; unset, the one that runs beside this worker.";
        t.key("events_url", doc, Maybe(EVENTS_URL), &mut calc.events_url);
        let doc = "File with the token for it, read again for each call.";
        t.key("events_token_file", doc, Maybe(PATH), &mut calc.events_token_file);
        resolve(t, calc.events_token_file.as_mut());
    });
}

pub(super) fn demo(t: &mut Table<'_, '_>, demo: &mut Demo) {
    t.table("demo", "The stand-in services and the market tape.", |t| {
        let speed = Number { least: 0.01, most: 10_000.0 };
        t.key("speed", "Bars of the tape played a second.", speed, &mut demo.speed);
        t.key("data_listen", "Address of the stand-in data service.", ADDRESS, &mut demo.data_listen);
        let doc = "Address of the stand-in backtesting service.";
        t.key("backtesting_listen", doc, ADDRESS, &mut demo.backtesting_listen);
        let doc = "Address of the stand-in trading bot.";
        t.key("trading_bot_listen", doc, ADDRESS, &mut demo.trading_bot_listen);
    });
}
