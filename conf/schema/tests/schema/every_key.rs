//! Each key, changed alone, changes the checked configuration, is shown with its new value and origin,
//! and reads back from what is shown. That something comes of it is asked in `observed.rs`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sluice_schema::{Config, Loaded, Mode, Origin, Source, json_schema, settings, to_toml};

use crate::{check_in, check_text, service};

/// Every key with a value that is not its default.
pub(crate) const OTHER_VALUES: &[(&str, &str)] = &[
    ("acme.http_port", "8080"),
    ("acme.names", "{ bot = [\"bot.example.com\", \"*.bot.example.com\"] }"),
    ("acme.networks", "[\"10.1.0.0/16\"]"),
    (
        "auth.api_key",
        "[{ name = \"desk\", sha256 = \"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\", permissions = [\"read\"] }]",
    ),
    ("auth.enabled", "false"),
    ("auth.feed_max_age", "\"30s\""),
    ("auth.hs256_secret", "\"env:OTHER_KEY\""),
    ("auth.leeway", "\"1s\""),
    ("auth.roles", "{ trader = [\"read\", \"trade\"] }"),
    ("calc.body_bytes", "\"1MiB\""),
    ("calc.events_token_file", "\"/run/calc.token\""),
    ("calc.events_url", "\"http://10.0.0.5:8011\""),
    ("calc.listen", "\"127.0.0.1:18013\""),
    ("calc.rows", "10"),
    ("calc.series_bytes", "\"1GiB\""),
    ("calc.threads", "2"),
    ("control.hosts", "[\"ops.example.com\"]"),
    ("control.listen", "\"127.0.0.1:18012\""),
    ("control.read_allow", "[\"10.0.0.0/8\"]"),
    ("demo.backtesting_listen", "\"127.0.0.1:18002\""),
    ("demo.data_listen", "\"127.0.0.1:18001\""),
    ("demo.speed", "10"),
    ("demo.trading_bot_listen", "\"127.0.0.1:18003\""),
    ("drain.deadline", "\"10s\""),
    ("drain.lame_duck", "\"1s\""),
    ("edge.audit.keep_age", "\"90d\""),
    ("edge.audit.keep_bytes", "\"1GiB\""),
    ("edge.limits.body_bytes", "\"2MiB\""),
    ("edge.limits.connections", "5"),
    ("edge.limits.connections_per_ip", "5"),
    ("edge.limits.header_bytes", "\"16KiB\""),
    ("edge.limits.header_count", "50"),
    ("edge.limits.header_timeout", "\"5s\""),
    ("edge.limits.idle_timeout", "\"5s\""),
    ("edge.limits.uri_bytes", "\"4KiB\""),
    ("edge.listen", "\"127.0.0.1:18000\""),
    ("edge.plain_secrets", "true"),
    ("edge.proxy_protocol", "true"),
    ("edge.threads", "2"),
    (
        "edge.tls.certificate",
        "[{ cert = \"/a.pem\", key = \"/a.key\" }, { cert = \"/b.pem\", key = \"/b.key\" }]",
    ),
    ("edge.tls.client_auth", "\"required\""),
    ("edge.tls.client_ca", "\"/ca.pem\""),
    ("edge.tls.listen", "\"127.0.0.1:18443\""),
    ("edge.tls.names", "[\"edge.example.com\", \"*.example.org\", \"10.0.0.1\"]"),
    ("edge.trusted_proxies", "[\"10.0.0.1\"]"),
    ("edge.zone", "\"a\""),
    ("events.archive_dir", "\"/var/lib/sluice-archive\""),
    ("events.candles.lateness", "\"5s\""),
    ("events.candles.timeframes", "[\"1m\", \"5m\"]"),
    ("events.compress", "false"),
    ("events.dedup_window", "\"0s\""),
    ("events.encrypt", "false"),
    ("events.fsync", "\"interval:50ms\""),
    ("events.key_file", "\"/etc/sluice/events.key\""),
    ("events.group", "\"others\""),
    ("events.listen", "\"127.0.0.1:18011\""),
    ("events.on_redis_down", "\"spool\""),
    ("events.partitions.by", "\"symbol\""),
    ("events.partitions.count", "4"),
    ("events.publish_rate", "1000"),
    ("events.retention.age", "\"30d\""),
    ("events.retention.bytes", "\"100GiB\""),
    ("events.retention.count", "1000"),
    ("events.segment_bytes", "\"1MiB\""),
    ("events.store", "\"embedded\""),
    ("events.stream", "\"other\""),
    ("events.subscriptions", "10"),
    ("events.unknown_types", "\"refuse\""),
    ("idempotency.ttl", "\"1h\""),
    ("falco.dedup_window", "\"5m\""),
    ("falco.rate", "7"),
    (
        "falco.responses",
        "[{ rule = \"*\", priority = \"alert\", action = \"quarantine\", identity = \"bot\", ttl = \"1m\", quorum = 2, dry_run = false }, \
         { rule = \"r\", action = \"kill_switch\", scope = \"symbol\", target = \"BTC/USDT\", dry_run = false }]",
    ),
    ("falco.secret", "\"env:OTHER_KEY\""),
    ("kill_switch.secret", "\"env:OTHER_KEY\""),
    ("kill_switch.symbol_header", "\"x-instrument\""),
    ("log.access", "\"file:/var/log/sluice.log\""),
    ("log.level", "\"debug\""),
    ("log.sample", "0.25"),
    ("metrics.allow", "[]"),
    ("metrics.enabled", "false"),
    (
        "notify",
        "[{ kind = \"alertmanager\", url = \"http://127.0.0.1:9093/api/v2/alerts\", level = \"info\" }]",
    ),
    ("otlp.endpoint", "\"http://127.0.0.1:4318\""),
    ("rate_limit.default", "0"),
    ("rate_limit.shared", "\"redis\""),
    ("redis.ca", "\"/ca.pem\""),
    ("redis.client_cert", "{ cert = \"/a.pem\", key = \"/a.key\" }"),
    ("redis.url", "\"redis://127.0.0.1:6379/2\""),
    ("registry.allow", "[\"10.0.0.0/8\"]"),
    ("registry.max", "5"),
    ("registry.ttl", "\"60s\""),
    ("service.allow", "[\"10.0.0.0/8\"]"),
    ("service.auth_required", "false"),
    ("service.balance", "\"least_connections\""),
    ("service.body_bytes", "\"64KiB\""),
    ("service.breaker.failure_rate", "0.25"),
    ("service.breaker.failure_threshold", "7"),
    ("service.breaker.half_open_max", "1"),
    ("service.breaker.min_calls", "5"),
    ("service.breaker.recovery_timeout", "\"10s\""),
    ("service.breaker.slow_call", "\"1s\""),
    ("service.breaker.slow_rate", "0.5"),
    ("service.breaker.success_threshold", "1"),
    ("service.breaker.window", "\"5s\""),
    ("service.compress", "true"),
    ("service.concurrency.limit", "20"),
    ("service.concurrency.max", "100"),
    ("service.concurrency.queue", "5"),
    ("service.concurrency.queue_timeout", "\"1s\""),
    ("service.cors.credentials", "true"),
    ("service.cors.origins", "[\"https://desk.example.com\"]"),
    ("service.deny", "[\"10.0.0.0/8\"]"),
    ("service.enabled", "false"),
    ("service.fair_key", "\"header:x-desk\""),
    ("service.fallback.body", "\"later\""),
    ("service.fallback.stale", "\"30s\""),
    ("service.fallback.status", "502"),
    ("service.forward_authorization", "true"),
    ("service.hash_on", "\"ip\""),
    ("service.headers", "{ x-desk = \"a\", x-beta = \"*\" }"),
    ("service.health.healthy", "1"),
    ("service.health.interval", "\"10s\""),
    ("service.health.path", "\"/ping\""),
    ("service.health.timeout", "\"1s\""),
    ("service.health.unhealthy", "1"),
    ("service.hosts", "[\"a.example.com\", \"*.example.org\"]"),
    ("service.idempotency", "\"required\""),
    ("service.instance.url", "\"http://127.0.0.1:8009\""),
    ("service.instance.weight", "3"),
    ("service.instance.zone", "\"a\""),
    ("service.lane", "\"order\""),
    ("service.methods", "[\"GET\"]"),
    ("service.mirror", "\"canary\""),
    ("service.name", "\"other\""),
    ("service.outlier.base_ejection", "\"1s\""),
    ("service.outlier.consecutive", "3"),
    ("service.outlier.max_ejected", "0.25"),
    ("service.panic_threshold", "0.25"),
    ("service.permissions", "{ GET = [\"read\"], POST = [] }"),
    ("service.prefix", "\"/other\""),
    ("service.rate_limit", "5"),
    ("service.rate_limit.burst", "7"),
    ("service.rate_limit.hard", "5000"),
    ("service.rate_limit.key", "\"header:x-desk\""),
    ("service.rate_limit.per", "\"1s\""),
    ("service.rate_limit.requests", "5"),
    ("service.request_headers.add", "{ \"x-a\" = \"1\" }"),
    ("service.request_headers.remove", "[\"x-a\"]"),
    ("service.request_headers.set", "{ \"x-a\" = \"1\" }"),
    ("service.response_headers.add", "{ \"x-a\" = \"1\" }"),
    ("service.response_headers.remove", "[\"x-a\"]"),
    ("service.response_headers.set", "{ \"x-a\" = \"1\" }"),
    ("service.retry.attempts", "3"),
    ("service.retry.budget", "0.5"),
    ("service.retry.hedge", "\"50ms\""),
    ("service.retry.min_per_second", "1"),
    ("service.retry.on", "[\"connect\", \"500\"]"),
    ("service.rewrite.match", "\"^/v1/(.*)$\""),
    ("service.rewrite.replace", "\"/v2\""),
    ("service.slow_start", "\"5s\""),
    ("service.split", "[{ service = \"canary\", weight = 5 }]"),
    ("service.strip_prefix", "false"),
    ("service.timeouts.connect", "\"500ms\""),
    ("service.timeouts.first_byte", "\"2s\""),
    ("service.timeouts.idle", "\"30s\""),
    ("service.timeouts.total", "\"30s\""),
    ("service.tls.ca", "\"/ca.pem\""),
    ("service.tls.client_cert", "{ cert = \"/a.pem\", key = \"/a.key\" }"),
    ("service.tls.sni", "\"data.example.com\""),
    ("service.tls.verify", "false"),
    ("vault.audit.keep_age", "\"90d\""),
    ("vault.audit.keep_bytes", "\"1GiB\""),
    ("vault.audit.when_full", "\"refuse\""),
    ("vault.audience", "[\"a\", \"b\"]"),
    ("vault.external.ca", "\"/ca.pem\""),
    ("vault.external.enabled", "true"),
    ("vault.external.mount", "\"kv/trading\""),
    ("vault.external.timeout", "\"1s\""),
    ("vault.external.token", "\"env:OTHER_KEY\""),
    ("vault.external.url", "\"https://vault.example.com:8200\""),
    ("vault.issuer", "\"https://vault.example.com:8443/x\""),
    ("vault.leaf_ttl", "\"1h\""),
    ("vault.listen", "\"127.0.0.1:18009\""),
    ("vault.names", "[\"vault.bank.example\", \"*.vault.example\", \"10.0.0.1\"]"),
    ("vault.quota.assertions", "3"),
    ("vault.quota.certificates", "3"),
    ("vault.quota.secret_bytes", "\"1MiB\""),
    ("vault.quota.secrets", "3"),
    ("vault.quota.tokens", "3"),
    ("vault.quota.vault_tokens", "3"),
    ("vault.quota.wrapped_bytes", "\"2MiB\""),
    ("vault.seal", "\"file:/etc/sluice/key\""),
    ("vault.token_ttl", "\"1h\""),
    ("vault.trust_domain", "\"example.com\""),
];

/// Holds a key long enough for HS256.
const OTHER_KEY: (&str, &str) = ("OTHER_KEY", "0123456789abcdef0123456789abcdef");

pub(crate) fn loaded(text: &str, environment: &[(&str, &str)]) -> Loaded {
    let environment: Vec<_> = environment.iter().copied().chain([OTHER_KEY]).collect();
    check_in(text, &environment, Mode::default()).unwrap_or_else(|report| panic!("{text}\n{report}"))
}

/// Keys that cannot be set without others, and those.
const NEEDED: [(&str, &[(&str, &str)]); 2] = [
    ("rate_limit.shared", &[("redis.url", "\"redis://127.0.0.1:6379\"")]),
    (
        "vault.external.enabled",
        &[
            ("vault.external.url", "\"https://vault.example.com:8200\""),
            ("vault.external.token", "\"env:OTHER_KEY\""),
        ],
    ),
];

/// What a key cannot be set without.
pub(crate) fn needed(path: &str) -> &'static [(&'static str, &'static str)] {
    NEEDED.iter().find(|(key, _)| *key == path).map_or(&[], |(_, others)| others)
}

fn needed_lines(path: &str) -> String {
    needed(path).iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

/// The base file with one key set to another value.
pub(crate) fn with(path: &str, value: &str) -> String {
    let base = service("");
    match path.strip_prefix("service.") {
        None => format!("{path} = {value}\n{}{base}", needed_lines(path)),
        Some("name") => base.replace("\"data\"", value),
        Some("prefix") => base.replace("\"/api/data\"", value),
        Some("instance.url") => base.replace("\"http://127.0.0.1:8001\"", value),
        Some("instance.weight") => format!("{base}weight = {value}\n"),
        Some("instance.zone") => format!("{base}zone = {value}\n"),
        Some(key) => service(&format!("{key} = {value}")) + named_by(value),
    }
}

/// The other service that a value names.
fn named_by(value: &str) -> &'static str {
    let canary = "[[service]]\nname = \"canary\"\nprefix = \"\"\n[[service.instance]]\nurl = \"http://127.0.0.1:8002\"\n";
    if value.contains("\"canary\"") { canary } else { "" }
}

/// Every key path of the JSON Schema.
fn schema_paths() -> BTreeSet<String> {
    fn walk(schema: &Value, path: &str, out: &mut BTreeSet<String>) {
        for form in schema["anyOf"].as_array().into_iter().flatten().chain([schema]) {
            let object = if form["items"]["properties"].is_object() { &form["items"] } else { form };
            match object["properties"].as_object() {
                Some(properties) => {
                    for (name, property) in properties {
                        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                        walk(property, &path, out);
                    }
                }
                None if form["type"].is_string() || form["oneOf"].is_array() => {
                    out.insert(path.to_owned());
                }
                None => {}
            }
        }
    }
    let mut out = BTreeSet::new();
    walk(&json_schema(), "", &mut out);
    out
}

/// A configuration without the lines its services stand on.
fn without_lines(config: &Config) -> Config {
    let mut config = config.clone();
    config.services.iter_mut().for_each(|service| service.source = Source::Api);
    config
}

fn shown(config: &Config) -> BTreeMap<String, Value> {
    settings(config).into_iter().map(|setting| (setting.path, setting.value)).collect()
}

#[test]
fn the_table_of_this_test_names_every_key() {
    let known: BTreeSet<String> = OTHER_VALUES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(known, schema_paths());
}

#[test]
fn every_key_changes_the_checked_configuration() {
    let base = without_lines(&loaded(&service(""), &[]).config);
    for (path, value) in OTHER_VALUES {
        let changed = without_lines(&loaded(&with(path, value), &[]).config);
        assert_ne!(changed, base, "{path} changes nothing");
        assert_ne!(shown(&changed), shown(&base), "{path} is not shown");
    }
}

#[test]
fn a_secret_is_shown_as_set_and_no_more() {
    let loaded = loaded("auth.hs256_secret = \"env:OTHER_KEY\"", &[]);
    assert_eq!(shown(&loaded.config)["auth.hs256_secret"], "***");
    let text = to_toml(&loaded.config, Some(&loaded.origins));
    assert!(text.contains("\n# hs256_secret is set  # sluice.toml:1\n"), "{text}");
    assert!(!text.contains(OTHER_KEY.1) && !format!("{:?}", loaded.config).contains(OTHER_KEY.1));
}

#[test]
fn what_is_shown_reads_back_as_the_same_configuration() {
    // What is shown of a secret does not bring it back, nor what cannot be set without one.
    let secrets = [
        "auth.hs256_secret",
        "falco.secret",
        "kill_switch.secret",
        "vault.external.enabled",
        "vault.external.token",
    ];
    for (path, value) in OTHER_VALUES.iter().filter(|(path, _)| !secrets.contains(path)) {
        let changed = loaded(&with(path, value), &[]);
        let text = to_toml(&changed.config, Some(&changed.origins));
        let again = loaded(&text, &[]);
        assert_eq!(without_lines(&again.config), without_lines(&changed.config), "{path}\n{text}");
    }
}

#[test]
fn every_key_outside_services_can_be_set_by_a_variable() {
    for (path, value) in OTHER_VALUES.iter().filter(|(path, _)| !path.starts_with("service.")) {
        let name = format!("SLUICE__{}", path.to_uppercase().replace('.', "__"));
        // Strings stand in the environment without quotes.
        let bare = value.trim_matches('"');
        let by_variable = loaded(&(needed_lines(path) + &service("")), &[(&name, bare)]);
        let by_file = loaded(&with(path, value), &[]);
        assert_eq!(without_lines(&by_variable.config), without_lines(&by_file.config), "{name}");
        assert_eq!(by_variable.origin(path), Origin::Env { name });
    }
}

#[test]
fn every_value_has_the_origin_of_its_line() {
    let text = "[edge]\nthreads = 2\n\n[[service]]\nname = \"data\"\nprefix = \"/d\"\ntimeouts.total = \"20s\"\nenabled = false\n";
    let loaded = check_in(text, &[("FAILURE_THRESHOLD", "9"), ("RATE_LIMIT_DEFAULT", "7")], Mode::default())
        .expect("a right file");
    let file = |line| Origin::File { path: "sluice.toml".into(), line };
    let env = |name: &str| Origin::Env { name: name.to_owned() };
    for (path, origin) in [
        ("edge.threads", file(2)),
        ("edge.listen", Origin::Default),
        ("service.data.prefix", file(6)),
        ("service.data.timeouts.total", file(7)),
        ("service.data.timeouts.connect", Origin::Default),
        ("service.data.breaker.failure_threshold", env("FAILURE_THRESHOLD")),
        ("service.data.rate_limit", env("RATE_LIMIT_DEFAULT")),
    ] {
        assert_eq!(loaded.origin(path), origin, "{path}");
    }
}

#[test]
fn the_shown_text_names_value_and_origin() {
    let loaded = check_text(&service("rate_limit = { requests = 5, per = \"1s\" }")).expect("a right file");
    let text = to_toml(&loaded.config, Some(&loaded.origins));
    for line in [
        "listen = \"0.0.0.0:8000\"  # default",
        "limits.header_bytes = \"32KiB\"  # default",
        "[[service]]",
        "name = \"data\"  # sluice.toml:2",
        "rate_limit.requests = 5  # sluice.toml:4",
        "rate_limit.burst = 5  # default",
        "[[service.instance]]",
        "url = \"http://127.0.0.1:8001\"  # sluice.toml:6",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}\n{text}");
    }
}
