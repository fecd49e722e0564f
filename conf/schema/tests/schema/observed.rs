//! No key is dead: for each one there is a test that runs the product and sees what the key does.
//!
//! `every_key.rs` proves that a changed value reaches the checked configuration; that alone would also
//! hold for a key that nobody reads. So this file asks three things more of every key:
//!
//! - another value is a difference: `diff` names the key, and nothing beside it that was not written;
//! - a value of another type is an error on the key's own line;
//! - an observer: a test, named in [`OBSERVERS`], that starts an edge, a worker or a whole instance with
//!   the key written and asserts what comes of it. The sources are read to make sure of what can be
//!   made sure of without judgement: the test is there, it starts something, it writes the key, and it
//!   lies where the product is tested. Tests of parsing, of pure decisions and of configuration objects
//!   start nothing and so cannot be named.
//!
//! What stays a matter of reading is whether the assertion is about the key. A row that only happens to
//! write a key is a mistake of whoever adds it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use sluice_schema::diff;

use crate::conf;
use crate::every_key::{OTHER_VALUES, loaded, needed, with};
use crate::service;

const ADMISSION: &str = "proxy/gateway/tests/edge/admission.rs";
const BALANCE: &str = "proxy/gateway/tests/edge/balance.rs";
const EJECTION: &str = "proxy/gateway/tests/edge/ejection.rs";
const KEYS: &str = "proxy/gateway/tests/edge/keys.rs";
const KILL: &str = "proxy/gateway/tests/edge/kill.rs";
const KILL_BETWEEN: &str = "proxy/gateway/tests/edge/kill/between.rs";
const LANES: &str = "proxy/gateway/tests/edge/lanes.rs";
const SECURE: &str = "proxy/gateway/tests/edge/secure.rs";
const SHAPE: &str = "proxy/gateway/tests/edge/shape.rs";
const SHAPE_ANSWERS: &str = "proxy/gateway/tests/edge/shape_answers.rs";
const TLS: &str = "proxy/gateway/tests/edge/tls.rs";
const UPSTREAMS: &str = "proxy/gateway/tests/edge/upstreams.rs";
const FRAMING: &str = "proxy/gateway/tests/edge/framing.rs";
const OBSERVE: &str = "proxy/gateway/tests/edge/observe.rs";
const EVENTS: &str = "workers/events/tests/api/keys.rs";
const EVENTS_REDIS: &str = "workers/events/tests/api/on_redis/shared.rs";
const INSTANCE: &str = "tests/keys.rs";

const IDEMPOTENCY: &str = "proxy/gateway/tests/edge/idempotency.rs";

/// File, test, and the keys it observes.
const OBSERVERS: &[(&str, &str, &[&str])] = &[
    (
        IDEMPOTENCY,
        "keys_belong_to_their_caller_and_matter_only_where_they_are_honoured",
        &["service.idempotency"],
    ),
    (IDEMPOTENCY, "a_key_is_forgotten_after_its_time", &["idempotency.ttl"]),
    ("proxy/gateway/tests/edge/limits.rs", "three_edges_admit_one_limit", &["rate_limit.shared"]),
    (
        "proxy/gateway/tests/edge/idempotency/shared.rs",
        "without_its_store_an_order_is_not_sent",
        &["redis.url"],
    ),
    (
        "proxy/gateway/tests/edge/idempotency/shared.rs",
        "a_redis_of_another_authority_is_not_believed",
        &["redis.ca", "redis.client_cert"],
    ),
    (ADMISSION, "with_tokens_switched_off_services_are_open_and_workers_are_not", &["auth.enabled"]),
    (
        "proxy/gateway/tests/edge/api_keys.rs",
        "a_key_is_a_caller_with_the_permissions_of_its_entry",
        &["auth.api_key"],
    ),
    (KILL_BETWEEN, "over_redis_edges_obey_what_is_signed_with_their_key", &["kill_switch.secret"]),
    (KILL, "a_symbol_is_read_from_the_configured_header", &["kill_switch.symbol_header"]),
    (ADMISSION, "tokens_of_the_older_platforms_open_services_only", &["auth.hs256_secret"]),
    (ADMISSION, "a_token_is_needed_and_its_grants_decide", &["service.permissions"]),
    (ADMISSION, "without_keys_protected_routes_answer_503_and_open_ones_work", &["service.auth_required"]),
    (ADMISSION, "credentials_reach_the_upstream_only_when_asked_for", &["service.forward_authorization"]),
    (ADMISSION, "addresses_are_listed_and_deny_wins", &["service.allow", "service.deny"]),
    (ADMISSION, "trusted_proxies_name_the_client", &["edge.trusted_proxies"]),
    (ADMISSION, "wrong_methods_name_the_right_ones", &["service.methods"]),
    (ADMISSION, "the_access_log_has_one_line_a_request_and_no_secret", &["log.access", "service.name"]),
    (
        ADMISSION,
        "a_limit_has_headers_and_two_thresholds",
        &[
            "service.rate_limit.requests",
            "service.rate_limit.per",
            "service.rate_limit.burst",
            "service.rate_limit.hard",
        ],
    ),
    (
        ADMISSION,
        "header_policies_apply_both_ways",
        &[
            "service.request_headers.set",
            "service.request_headers.add",
            "service.request_headers.remove",
            "service.response_headers.set",
            "service.response_headers.add",
            "service.response_headers.remove",
        ],
    ),
    (
        FRAMING,
        "a_head_that_drips_gets_408_and_silence_is_closed",
        &["edge.limits.header_timeout", "edge.limits.idle_timeout"],
    ),
    (FRAMING, "connections_of_one_address_are_capped", &["edge.limits.connections_per_ip"]),
    (FRAMING, "sizes_have_their_own_codes", &["service.body_bytes"]),
    (
        "proxy/gateway/tests/edge/proxy_protocol.rs",
        "strangers_cannot_name_a_client",
        &["edge.proxy_protocol"],
    ),
    (
        "proxy/gateway/tests/edge/slow.rs",
        "a_slow_reader_is_held_to_the_total_time",
        &["service.timeouts.total"],
    ),
    (
        "proxy/gateway/tests/edge/streaming.rs",
        "draining_says_so_finishes_what_runs_and_ends",
        &["drain.lame_duck"],
    ),
    (
        UPSTREAMS,
        "instances_that_fail_their_probes_are_left_out_until_they_recover",
        &[
            "service.health.healthy",
            "service.health.interval",
            "service.health.unhealthy",
            "service.panic_threshold",
        ],
    ),
    (UPSTREAMS, "silence_is_504_within_the_first_byte_timeout", &["service.timeouts.first_byte"]),
    (
        UPSTREAMS,
        "the_breaker_opens_answers_by_itself_and_recovers",
        &[
            "service.breaker.failure_threshold",
            "service.breaker.half_open_max",
            "service.breaker.recovery_timeout",
            "service.breaker.success_threshold",
        ],
    ),
    (UPSTREAMS, "weights_are_kept_smoothly", &["service.instance.weight", "service.instance.url"]),
    (UPSTREAMS, "least_connections_avoids_the_busy_one", &["service.balance"]),
    (BALANCE, "a_hashed_header_always_finds_the_same_instance", &["service.hash_on"]),
    (BALANCE, "the_own_zone_is_preferred_and_spills_over", &["edge.zone", "service.instance.zone"]),
    (BALANCE, "an_instance_that_is_back_takes_up_its_share_slowly", &["service.slow_start"]),
    (
        EJECTION,
        "an_ejected_instance_is_left_alone_and_returns",
        &["service.outlier.base_ejection", "service.outlier.consecutive"],
    ),
    (EJECTION, "a_share_is_ejected_at_most_and_the_last_one_never", &["service.outlier.max_ejected"]),
    (UPSTREAMS, "hosts_tell_services_apart", &["service.hosts"]),
    (
        SECURE,
        "an_instance_is_believed_by_its_authority_and_name",
        &["service.tls.sni", "service.tls.ca", "service.tls.verify"],
    ),
    (
        SHAPE,
        "preflights_are_answered_before_anything_is_asked",
        &["service.cors.origins", "service.cors.credentials"],
    ),
    (
        SHAPE,
        "paths_are_rewritten_after_they_were_judged",
        &["service.rewrite.match", "service.rewrite.replace"],
    ),
    (SHAPE, "a_share_of_the_callers_meets_the_canary_and_stays_there", &["service.split"]),
    (SHAPE_ANSWERS, "texts_are_compressed_for_who_takes_them", &["service.compress"]),
    (SHAPE_ANSWERS, "an_older_answer_stands_in_for_a_failed_one", &["service.fallback.stale"]),
    (
        SHAPE_ANSWERS,
        "a_fixed_answer_stands_in_where_the_upstream_failed",
        &["service.fallback.status", "service.fallback.body"],
    ),
    (SHAPE_ANSWERS, "a_mirror_gets_copies_and_its_answers_go_nowhere", &["service.mirror"]),
    (SECURE, "the_edge_shows_its_certificate_where_it_is_asked", &["service.tls.client_cert"]),
    (TLS, "the_name_picks_the_certificate", &["edge.tls.certificate"]),
    (
        TLS,
        "a_client_needs_a_certificate_where_it_is_required",
        &["edge.tls.client_auth", "edge.tls.client_ca"],
    ),
    (TLS, "the_automatic_certificate_comes_from_the_vault_and_is_renewed", &["edge.tls.names"]),
    (TLS, "secrets_pass_over_tls_or_where_plain_text_is_allowed", &["edge.plain_secrets"]),
    (OBSERVE, "a_sample_keeps_every_error", &["log.sample"]),
    (OBSERVE, "spans_reach_a_collector", &["otlp.endpoint"]),
    (KEYS, "service_headers_tell_services_apart", &["service.headers"]),
    (
        KEYS,
        "sizes_of_a_head_are_as_configured",
        &["edge.limits.header_bytes", "edge.limits.header_count", "edge.limits.uri_bytes"],
    ),
    (KEYS, "bodies_of_services_without_a_limit_take_that_of_the_edge", &["edge.limits.body_bytes"]),
    (
        KEYS,
        "the_audit_log_keeps_as_much_as_it_is_told_and_says_so",
        &["edge.audit.keep_age", "edge.audit.keep_bytes"],
    ),
    (KEYS, "connections_in_all_are_capped", &["edge.limits.connections"]),
    (KEYS, "clocks_may_differ_by_the_leeway", &["auth.leeway"]),
    (KEYS, "issuer_and_audience_are_as_configured", &["vault.issuer", "vault.audience"]),
    (KEYS, "a_silent_feed_degrades_past_its_age", &["auth.feed_max_age"]),
    (KEYS, "who_may_read_is_as_configured", &["control.read_allow", "metrics.allow", "metrics.enabled"]),
    (KEYS, "hosts_of_the_control_port_are_as_configured", &["control.hosts"]),
    (
        KEYS,
        "the_registry_is_bounded_and_its_leases_have_a_default",
        &["registry.allow", "registry.max", "registry.ttl"],
    ),
    (
        KEYS,
        "limits_are_shared_as_configured",
        &["rate_limit.default", "service.rate_limit", "service.rate_limit.key"],
    ),
    (
        KEYS,
        "a_service_that_is_off_does_not_route_and_one_may_keep_its_prefix",
        &["service.enabled", "service.prefix", "service.strip_prefix"],
    ),
    (KEYS, "probes_ask_the_configured_path", &["service.health.path"]),
    (KEYS, "a_probe_without_answer_fails_after_its_time", &["service.health.timeout"]),
    (
        KEYS,
        "a_share_of_failures_opens_the_breaker_after_enough_calls",
        &["service.breaker.failure_rate", "service.breaker.min_calls"],
    ),
    (KEYS, "failures_older_than_the_window_are_forgotten", &["service.breaker.window"]),
    (
        KEYS,
        "a_share_of_slow_calls_opens_the_breaker",
        &["service.breaker.slow_call", "service.breaker.slow_rate"],
    ),
    (
        KEYS,
        "what_is_tried_again_is_as_configured",
        &[
            "service.retry.attempts",
            "service.retry.budget",
            "service.retry.min_per_second",
            "service.retry.on",
        ],
    ),
    (
        "proxy/gateway/tests/edge/hedging.rs",
        "the_first_answer_wins_and_the_other_try_is_given_up",
        &["service.retry.hedge"],
    ),
    (KEYS, "a_connection_has_its_own_time", &["service.timeouts.connect"]),
    (KEYS, "a_silent_stream_ends_after_the_idle_time", &["service.timeouts.idle"]),
    (
        "workers/vault/tests/it/bounds.rs",
        "nobody_takes_the_store_from_the_others",
        &[
            "vault.quota.certificates",
            "vault.quota.secret_bytes",
            "vault.quota.secrets",
            "vault.quota.tokens",
            "vault.quota.vault_tokens",
            "vault.quota.wrapped_bytes",
        ],
    ),
    (
        "workers/vault/tests/it/audit.rs",
        "the_log_keeps_as_much_as_it_is_told_and_says_so",
        &["vault.audit.keep_age", "vault.audit.keep_bytes", "vault.audit.when_full"],
    ),
    (
        "workers/vault/tests/it/door.rs",
        "the_port_shows_its_names_and_takes_tokens_and_certificates",
        &["vault.names"],
    ),
    (
        "workers/vault/tests/it/oauth.rs",
        "a_key_of_its_own_proves_a_client_once_an_assertion",
        &["vault.quota.assertions"],
    ),
    (
        "workers/calc/tests/api/feed.rs",
        "a_worker_alone_finds_the_event_worker_by_its_address",
        &["calc.events_token_file", "calc.events_url"],
    ),
    (KEYS, "a_drain_ends_at_its_deadline", &["drain.deadline"]),
    (
        INSTANCE,
        "every_key_of_an_instance_shows",
        &[
            "auth.roles",
            "calc.body_bytes",
            "calc.listen",
            "calc.rows",
            "calc.series_bytes",
            "calc.threads",
            "control.listen",
            "demo.backtesting_listen",
            "demo.data_listen",
            "demo.speed",
            "demo.trading_bot_listen",
            "edge.listen",
            "edge.threads",
            "edge.tls.listen",
            "events.dedup_window",
            "events.listen",
            "events.stream",
            "log.level",
            "vault.leaf_ttl",
            "vault.listen",
            "vault.token_ttl",
            "vault.trust_domain",
        ],
    ),
    (
        "workers/events/tests/api/candles.rs",
        "trades_become_candles_of_every_length",
        &["events.candles.timeframes", "events.candles.lateness"],
    ),
    (
        "workers/vault/tests/it/falco.rs",
        "the_configuration_decides_what_is_told_and_done",
        &["falco.secret", "falco.dedup_window", "falco.rate", "falco.responses"],
    ),
    (
        "workers/vault/tests/it/acme.rs",
        "the_configuration_decides_who_orders_what_and_where_it_is_proved",
        &["acme.names", "acme.networks", "acme.http_port"],
    ),
    ("workers/events/tests/api/notify.rs", "every_target_is_told_in_its_own_form", &["notify"]),
    (EVENTS, "retention_by_age_is_as_configured", &["events.retention.age"]),
    (EVENTS, "retention_by_bytes_is_as_configured", &["events.retention.bytes"]),
    (LANES, "cancels_flow_while_orders_are_shed", &["service.lane", "service.concurrency.queue"]),
    (
        LANES,
        "a_request_waits_no_longer_than_its_time",
        &["service.concurrency.limit", "service.concurrency.queue_timeout"],
    ),
    (LANES, "an_adaptive_limit_has_its_bound", &["service.concurrency.max"]),
    (
        "proxy/gateway/tests/edge/lanes/fairness.rs",
        "an_account_at_fifty_times_the_load_leaves_the_others_alone",
        &["service.fair_key"],
    ),
    (EVENTS, "segments_have_the_configured_size", &["events.segment_bytes"]),
    (EVENTS, "files_are_encrypted_and_compressed_as_configured", &["events.compress", "events.encrypt"]),
    (EVENTS, "a_key_file_is_where_it_is_configured", &["events.key_file"]),
    (EVENTS, "full_segments_are_archived_where_it_is_configured", &["events.archive_dir"]),
    ("workers/events/tests/api/live.rs", "what_retention_took_is_told", &["events.retention.count"]),
    ("workers/events/tests/api/limits.rs", "one_caller_publishes_so_fast", &["events.publish_rate"]),
    ("workers/events/tests/api/limits.rs", "so_many_may_subscribe", &["events.subscriptions"]),
    (
        "workers/events/tests/api/partitions.rs",
        "every_partition_counts_by_itself",
        &["events.partitions.by", "events.partitions.count"],
    ),
    (EVENTS_REDIS, "the_own_log_is_used_where_it_is_asked_for", &["events.store"]),
    (
        "workers/events/tests/api/on_redis/spool.rs",
        "what_redis_does_not_take_is_kept_and_stored_in_order_once_it_does",
        &["events.on_redis_down"],
    ),
    (EVENTS_REDIS, "stream_and_group_are_named_as_configured", &["events.group"]),
    ("workers/events/tests/api/publish.rs", "interval_mode_says_memory", &["events.fsync"]),
    ("workers/events/tests/api/publish.rs", "bad_events_are_refused_by_name", &["events.unknown_types"]),
    (
        "workers/vault/tests/it/external.rs",
        "the_configuration_decides_where_secrets_are_and_how_it_is_asked",
        &[
            "vault.external.ca",
            "vault.external.enabled",
            "vault.external.mount",
            "vault.external.timeout",
            "vault.external.token",
            "vault.external.url",
        ],
    ),
    (
        "workers/vault/tests/it/start.rs",
        "production_opens_by_a_key_file_and_writes_no_token",
        &["vault.seal"],
    ),
];

/// What a test calls that runs the product: a helper of one of the harnesses.
const STARTS: [&str; 9] = [
    "Setup::new(",
    "edge_for(",
    "edge_at(",
    "Up::new(",
    "World::with(",
    "setup().start()",
    "Setup::default()",
    "setup(acme).start()",
    "setup(ca).start()",
];

/// A source of tests: the body of each function, and which of them are tests.
struct Source {
    bodies: BTreeMap<String, String>,
    tests: BTreeSet<String>,
}

impl Source {
    fn read(path: &str) -> Self {
        let root = conf().parent().expect("conf lies in the repository").to_path_buf();
        let text = fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        let (mut bodies, mut tests) = (BTreeMap::new(), BTreeSet::new());
        let mut is_test = false;
        let mut open: Option<String> = None;
        for line in text.lines() {
            let head = line.trim_start_matches("pub ").trim_start_matches("async ");
            if let Some(name) = head.strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next()) {
                open = Some(name.to_owned());
                if std::mem::take(&mut is_test) {
                    tests.insert(name.to_owned());
                }
            } else if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                is_test = true;
            } else if line.starts_with("const ") || line.starts_with("static ") {
                open = line.split([' ', ':']).nth(1).map(str::to_owned);
            }
            if let Some(name) = &open {
                let body: &mut String = bodies.entry(name.clone()).or_default();
                body.push_str(line);
                body.push('\n');
            }
            if line == "}" || line.ends_with("\"#;") {
                open = None;
            }
        }
        Self { bodies, tests }
    }

    /// The text of a test with that of every function and constant of the file it uses.
    fn text(&self, test: &str) -> String {
        let mut used = BTreeSet::from([test]);
        let mut text = String::new();
        let mut next = vec![test];
        while let Some(name) = next.pop() {
            let body = &self.bodies[name];
            for other in self.bodies.keys().filter(|other| has_word(body, other)) {
                if used.insert(other) {
                    next.push(other);
                }
            }
            text.push_str(body);
        }
        // An escaped line end is no letter of the word behind it.
        text.replace("\\n", " ")
    }
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + word.len()..]);
        !before.ends_with(is_part) && !after.starts_with(is_part)
    })
}

/// Keys that the harness writes for every service of a test: it is enough that the test has one.
fn is_written(text: &str, key: &str) -> bool {
    let word = key.rsplit('.').next().unwrap_or(key);
    let by_harness = ["service.name", "service.prefix", "service.instance.url"].contains(&key);
    has_word(text, word) || (by_harness && has_word(text, "service"))
}

#[test]
fn every_key_has_a_test_that_sees_what_it_does() {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for (path, test, keys) in OBSERVERS {
        let runs_the_product = path.starts_with("tests/")
            || path.starts_with("proxy/gateway/tests/")
            || (path.starts_with("workers/") && path.contains("/tests/"));
        assert!(runs_the_product, "{path} does not test the product");
        let source = Source::read(path);
        assert!(source.tests.contains(*test), "{path} has no test {test}");
        let text = source.text(test);
        assert!(STARTS.iter().any(|start| text.contains(start)), "{test} of {path} starts nothing");
        for key in *keys {
            assert!(is_written(&text, key), "{test} of {path} does not write {key}");
            assert!(seen.insert(key, test).is_none(), "{key} is listed twice");
        }
    }
    let known: BTreeSet<&str> = OTHER_VALUES.iter().map(|(key, _)| *key).collect();
    let observed: BTreeSet<&str> = seen.into_keys().collect();
    let dead: Vec<_> = known.difference(&observed).collect();
    assert!(dead.is_empty(), "no test sees what these keys do: {dead:?}");
    let gone: Vec<_> = observed.difference(&known).collect();
    assert!(gone.is_empty(), "these are no keys: {gone:?}");
}

#[test]
fn another_value_of_a_key_is_a_difference_that_names_it() {
    let base = loaded(&service(""), &[]).config;
    for (path, value) in OTHER_VALUES {
        let changed = diff(&base, &loaded(&with(path, value), &[]).config);
        let named: Vec<String> = changed
            .keys
            .iter()
            .map(|key| key.path.clone())
            .chain(changed.changed.iter().flat_map(|service| {
                service
                    .keys
                    .iter()
                    .map(|key| format!("service.{}", key.path.replace("instance[0]", "instance")))
            }))
            .collect();
        let renamed = *path == "service.name" && changed.added == ["other"] && changed.removed == ["data"];
        // A value with a short form is shown in that where it fits.
        let is_named = |named: &String| named == path || path.starts_with(&format!("{named}."));
        assert!(renamed || named.iter().any(is_named), "{path}: {changed}");
        // What else changes is what was not there before: a table that one key makes, the long form of
        // a value, a limit that services take over.
        let beside = named.iter().filter(|named| named != path).all(|named| {
            let table = path.rsplit_once('.').map_or("", |(table, _)| table);
            named.starts_with(table)
                || named.starts_with("service.") && !path.starts_with("service.")
                || needed(path).iter().any(|(other, _)| named == other)
        });
        assert!(beside, "{path}: {changed}");
    }
}

#[test]
fn a_value_of_another_type_is_an_error_on_the_line_of_its_key() {
    for (path, value) in OTHER_VALUES {
        // No key takes a date.
        let text = with(path, "1979-05-27");
        let wanted = text.lines().position(|line| line.contains("1979")).expect("the line") + 1;
        let Err(report) = crate::check_in(&text, &[], sluice_schema::Mode::default()) else {
            panic!("{path} takes a date in place of {value}");
        };
        let findings = report.findings();
        let found = findings.iter().any(|finding| finding.line == Some(wanted) && finding.code == "E0103");
        assert!(found, "{path}\n{report}");
    }
}

#[test]
fn sources_are_read_as_they_are() {
    let this = Source::read("conf/schema/tests/schema/observed.rs");
    assert!(this.tests.contains("sources_are_read_as_they_are"));
    assert!(!this.tests.contains("has_word"));
    assert!(this.text("every_key_has_a_test_that_sees_what_it_does").contains("fn has_word"));
    assert!(has_word("a = b, rows = 1", "rows") && !has_word("arrows", "rows"));
    assert!(Path::new(INSTANCE).is_relative());
}
