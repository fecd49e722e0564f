//! Each name of the environment has its effect, or says that it has none.

use std::path::Path;

use serde_json::{Value, json};
use sluice_schema::{Document, Mode, Origin, check, environment, settings};

use crate::{Environment, check_in, check_text, service};

const LONG_KEY: &str = "0123456789abcdef0123456789abcdef";

/// Name, text, key, value shown.
fn effects() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    vec![
        ("CORE_SERVICE_HOST", "127.0.0.1", "edge.listen", json!("127.0.0.1:8000")),
        ("CORE_SERVICE_HOST", "localhost", "edge.listen", json!("127.0.0.1:8000")),
        ("CORE_SERVICE_PORT", "9000", "edge.listen", json!("0.0.0.0:9000")),
        ("API_GATEWAY_PORT", "9001", "edge.listen", json!("0.0.0.0:9001")),
        ("EVENT_SERVICE_PORT", "9011", "events.listen", json!("127.0.0.1:9011")),
        ("SECURITY_SERVICE_PORT", "9009", "vault.listen", json!("127.0.0.1:9009")),
        ("CIRCUIT_BREAKER_PORT", "9012", "control.listen", json!("127.0.0.1:9012")),
        ("RATE_LIMIT_DEFAULT", "77", "rate_limit.default", json!(77)),
        ("RATE_LIMIT_DEFAULT", "77", "service.data_service.rate_limit", json!(77)),
        ("FAILURE_THRESHOLD", "9", "service.data_service.breaker.failure_threshold", json!(9)),
        ("RECOVERY_TIMEOUT", "30", "service.data_service.breaker.recovery_timeout", json!("30s")),
        ("RECOVERY_TIMEOUT", "500ms", "service.data_service.breaker.recovery_timeout", json!("500ms")),
        ("LOG_LEVEL", "DEBUG", "log.level", json!("debug")),
        ("LOG_LEVEL", "WARNING", "log.level", json!("warn")),
        ("METRICS_ENABLED", "False", "metrics.enabled", json!(false)),
        ("ENABLE_JWT", "0", "auth.enabled", json!(false)),
        ("JWT_SECRET_KEY", LONG_KEY, "auth.hs256_secret", json!("***")),
        ("JWT_EXPIRATION_HOURS", "12", "vault.token_ttl", json!("12h")),
        ("EVENT_STREAM_NAME", "orders", "events.stream", json!("orders")),
        ("EVENT_CONSUMER_GROUP", "desks", "events.group", json!("desks")),
        ("DATA_SERVICE_URL", "http://data:9", "service.data_service.instance[0].url", json!("http://data:9")),
        (
            "BACKTESTING_SERVICE_URL",
            "http://b:9",
            "service.backtesting_service.instance[0].url",
            json!("http://b:9"),
        ),
        ("VAULT_URL", "https://vault:8200/", "vault.external.url", json!("https://vault:8200")),
        ("VAULT_TOKEN", "s.token", "vault.external.token", json!("***")),
        ("ENABLE_MTLS", "no", "service.data_service.tls.client_cert", json!("off")),
        (
            "TRADING_BOT_SERVICE_URL",
            "http://t:9/",
            "service.trading_bot_service.instance[0].url",
            json!("http://t:9"),
        ),
    ]
}

/// Names that change nothing and say so, or ask for nothing.
const OTHERS: [&str; 4] = ["REDIS_URL", "ENABLE_VAULT", "METRICS_UPDATE_INTERVAL", "STREAM_MONITOR_INTERVAL"];

/// Every name the environment page of the contract lists.
const CONTRACT: [&str; 26] = [
    "CORE_SERVICE_HOST",
    "CORE_SERVICE_PORT",
    "API_GATEWAY_PORT",
    "EVENT_SERVICE_PORT",
    "SECURITY_SERVICE_PORT",
    "CIRCUIT_BREAKER_PORT",
    "REDIS_URL",
    "EVENT_STREAM_NAME",
    "EVENT_CONSUMER_GROUP",
    "ENABLE_MTLS",
    "ENABLE_JWT",
    "ENABLE_VAULT",
    "VAULT_URL",
    "VAULT_TOKEN",
    "JWT_SECRET_KEY",
    "JWT_EXPIRATION_HOURS",
    "RATE_LIMIT_DEFAULT",
    "FAILURE_THRESHOLD",
    "RECOVERY_TIMEOUT",
    "LOG_LEVEL",
    "METRICS_ENABLED",
    "METRICS_UPDATE_INTERVAL",
    "STREAM_MONITOR_INTERVAL",
    "DATA_SERVICE_URL",
    "BACKTESTING_SERVICE_URL",
    "TRADING_BOT_SERVICE_URL",
];

fn three_services() -> String {
    ["data_service", "backtesting_service", "trading_bot_service"]
        .map(|name| {
            service("").replace("\"data\"", &format!("\"{name}\"")).replace("/api/data", &format!("/{name}"))
        })
        .concat()
}

#[test]
fn every_name_has_its_effect() {
    for (name, text, path, value) in effects() {
        let loaded = check_in(&three_services(), &[(name, text)], Mode::default())
            .unwrap_or_else(|report| panic!("{name}\n{report}"));
        assert!(loaded.warnings.is_empty(), "{name}\n{}", loaded.warnings);
        let shown = settings(&loaded.config).into_iter().find(|setting| setting.path == path);
        assert_eq!(shown.map(|setting| setting.value), Some(value), "{name}");
        assert_eq!(loaded.origin(path), Origin::Env { name: name.to_owned() }, "{name} {path}");
    }
}

#[test]
fn every_name_of_the_contract_is_tested_and_recognised() {
    for name in CONTRACT {
        assert!(environment::is_recognised(name), "{name}");
        assert!(effects().iter().any(|effect| effect.0 == name) || OTHERS.contains(&name), "{name}");
    }
    assert!(!environment::is_recognised("HOME"));
    assert!(environment::is_recognised("SLUICE__EDGE__LISTEN"));
    assert!(environment::is_secret("JWT_SECRET_KEY"));
}

#[test]
fn an_instance_by_variable_can_be_https_with_its_name() {
    let https = [("DATA_SERVICE_URL", "https://127.0.0.1:8001"), ("DATA_SERVICE_SNI", "Demo")];
    let loaded = check_in(&three_services(), &https, Mode::default()).expect("right");
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let named = loaded.config.services.iter().filter(|service| !service.tls.sni.is_empty());
    let named: Vec<_> = named.map(|service| (service.name.as_str(), service.tls.sni.as_str())).collect();
    assert_eq!(named, [("data_service", "demo")]);
    let origin = Origin::Env { name: "DATA_SERVICE_SNI".to_owned() };
    assert_eq!(loaded.origin("service.data_service.tls.sni"), origin);
    let unnamed = check_in(&three_services(), &https[..1], Mode::default());
    assert!(unnamed.is_err_and(|report| report.to_string().contains("E0313")));
    let unused = check_in(&three_services(), &https[1..], Mode::default()).expect("only a warning");
    assert!(unused.warnings.to_string().contains("`tls.sni` has no effect"), "{}", unused.warnings);
    for name in ["DATA_SERVICE_SNI", "BACKTESTING_SERVICE_SNI", "TRADING_BOT_SERVICE_SNI"] {
        assert!(environment::is_recognised(name), "{name}");
        let nobody = check_in("", &[(name, "demo")], Mode::default()).expect("only a warning");
        assert!(nobody.warnings.to_string().contains("there is no service"), "{}", nobody.warnings);
    }
}

#[test]
fn harmless_forms_of_the_other_names_say_nothing() {
    let quiet =
        [("ENABLE_VAULT", "false"), ("ENABLE_MTLS", "true"), ("REDIS_URL", ""), ("JWT_SECRET_KEY", "")];
    let loaded = check_in("", &quiet, Mode::default()).expect("nothing is asked for");
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    assert_eq!(loaded.config, sluice_schema::Config::default());
}

#[test]
fn an_external_vault_needs_address_token_and_tls() {
    let asked = |more: &[(&str, &str)], mode| {
        let all: Vec<_> = [("ENABLE_VAULT", "true")].iter().chain(more).copied().collect();
        check_in("", &all, mode).map_err(|report| report.to_string())
    };
    let whole = [("VAULT_URL", "https://vault:8200"), ("VAULT_TOKEN", "hunter2")];
    let loaded = asked(&whole, Mode::default()).expect("right");
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    let external = &loaded.config.vault.external;
    assert!(external.enabled && external.token.as_ref().is_some_and(|token| token.expose() == b"hunter2"));
    assert!(!format!("{:?}", loaded.config).contains("hunter2"));
    for part in &whole {
        let refused = asked(&[*part], Mode::default()).expect_err("half of it");
        assert!(refused.contains("E0104") && !refused.contains("hunter2"), "{refused}");
    }
    // A role that is handed no secrets does not ask for one.
    let alone = Mode { secrets_required: false, ..Mode::default() };
    assert!(asked(&whole[..1], alone).is_ok());
    for (url, fits) in [
        ("http://127.0.0.1:8200", true),
        ("http://[::1]:8200", true),
        ("http://localhost:8200", true),
        ("http://vault:8200", false),
        ("http://10.0.0.1:8200", false),
        ("https://u:hunter2@vault", false),
        ("https://vault/v1", false),
        ("unix:/run/vault", false),
        ("h2c://127.0.0.1", false),
    ] {
        let checked = asked(&[("VAULT_URL", url), whole[1]], Mode::default());
        assert_eq!(checked.is_ok(), fits, "{url}");
        assert!(checked.err().is_none_or(|report| report.contains("E0205") && !report.contains("hunter2")));
    }
    let dev = Mode { dev: true, ..Mode::default() };
    let loaded = asked(&[("VAULT_URL", "http://vault:8200"), whole[1]], dev).expect("under --dev");
    assert!(loaded.warnings.to_string().contains("in the clear"), "{}", loaded.warnings);
    for name in ["VAULT_TOKEN", "VAULT_TOKEN_FILE"] {
        assert!(environment::is_secret(name) && environment::is_vault_secret(name));
    }
    assert!(!environment::is_vault_secret("JWT_SECRET_KEY"));
}

#[test]
fn the_address_of_redis_by_variable_wins_and_is_not_shown() {
    let url = [("REDIS_URL", "redis://:hunter2@cache:6379")];
    let loaded = check_in("[redis]\nurl = \"redis://other\"", &url, Mode::default()).expect("right");
    assert_eq!(
        loaded.config.redis.as_ref().map(sluice_schema::RedisUrl::expose),
        Some("redis://:hunter2@cache:6379")
    );
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    assert_eq!(loaded.config.events.store, None);
    assert_eq!(loaded.origin("redis.url"), Origin::Env { name: "REDIS_URL".to_owned() });
}

#[test]
fn the_gateway_port_wins_over_the_core_port() {
    let both =
        [("CORE_SERVICE_PORT", "9000"), ("API_GATEWAY_PORT", "9001"), ("CORE_SERVICE_HOST", "127.0.0.1")];
    let loaded = check_in("edge.listen = \"0.0.0.0:1\"", &both, Mode::default()).expect("right");
    assert_eq!(loaded.config.edge.listen.to_string(), "127.0.0.1:9001");
}

#[test]
fn the_exact_name_wins_over_the_old_one_and_says_so() {
    let both = [("API_GATEWAY_PORT", "9001"), ("SLUICE__EDGE__LISTEN", "127.0.0.1:9002")];
    let loaded = check_in("", &both, Mode::default()).expect("right");
    assert_eq!(loaded.config.edge.listen.port(), 9002);
    assert!(loaded.warnings.to_string().contains("API_GATEWAY_PORT has no effect"));
}

#[test]
fn a_service_keeps_what_its_file_says() {
    let text = service("rate_limit = 5\nbreaker = { failure_threshold = 2 }");
    let defaults = [("RATE_LIMIT_DEFAULT", "77"), ("FAILURE_THRESHOLD", "9"), ("RECOVERY_TIMEOUT", "30")];
    let config = check_in(&text, &defaults, Mode::default()).expect("right").config;
    let service = &config.services[0];
    assert_eq!(service.rate_limit.as_ref().map(|limit| limit.requests), Some(5));
    assert_eq!(service.breaker.failure_threshold, 2);
    assert_eq!(service.breaker.recovery_timeout.as_secs(), 30);
    assert_eq!(config.service("new", "/new").breaker.failure_threshold, 9);
}

#[test]
fn dev_opens_the_public_listener_on_loopback_unless_told_otherwise() {
    let dev = Mode { dev: true, ..Mode::default() };
    let listen = |text: &str, environment: &[(&str, &str)]| {
        check_in(text, environment, dev).expect("right").config.edge.listen.to_string()
    };
    assert_eq!(listen("", &[]), "127.0.0.1:8000");
    assert_eq!(listen("", &[("API_GATEWAY_PORT", "9000")]), "127.0.0.1:9000");
    assert_eq!(listen("", &[("CORE_SERVICE_HOST", "0.0.0.0")]), "0.0.0.0:8000");
    assert_eq!(listen("edge.listen = \"0.0.0.0:1\"", &[]), "0.0.0.0:1");
}

#[test]
fn a_secret_file_is_read_beside_the_file_that_names_it() {
    let read = |path: &Path| match path.to_str() {
        Some("conf/jwt.key" | "/run/jwt") => Ok(format!("{LONG_KEY}\n").into_bytes()),
        _ => Err(std::io::ErrorKind::NotFound.into()),
    };
    let mode = Mode::default();
    let documents = [Document::new("conf/sluice.toml", "[auth]\nhs256_secret = \"file:jwt.key\"\n")];
    let loaded = check(&documents, &Environment::new(), mode, &read).expect("the key is there");
    let secret = loaded.config.auth.hs256_secret.expect("a key");
    assert_eq!(secret.expose(), LONG_KEY.as_bytes());
    assert_eq!(format!("{secret:?}"), "Secret(32 bytes)");

    let by_variable = Environment::from([("JWT_SECRET_KEY_FILE".to_owned(), "/run/jwt".to_owned())]);
    let loaded = check(&[], &by_variable, mode, &read).expect("the key is there");
    assert_eq!(loaded.origin("auth.hs256_secret"), Origin::Env { name: "JWT_SECRET_KEY_FILE".to_owned() });

    let missing = Environment::from([("JWT_SECRET_KEY_FILE".to_owned(), "/run/none".to_owned())]);
    let report = check(&[], &missing, mode, &read).expect_err("no such file");
    assert_eq!(report.findings()[0].code, "E0403");
}

#[test]
fn a_role_without_secrets_starts_all_the_same() {
    let text = "[auth]\nhs256_secret = \"env:ELSEWHERE\"\n";
    assert!(check_text(text).is_err());
    let loaded = check_in(text, &[], Mode { secrets_required: false, ..Mode::default() }).expect("no key");
    assert_eq!(loaded.config.auth.hs256_secret, None);
    assert_eq!(loaded.secret_variables, ["ELSEWHERE"]);
}
