//! The environment over the files: the names of the services Sluice replaces, and `SLUICE__SECTION__KEY`.
//!
//! A variable that is set but empty counts as unset. Where both name a key, `SLUICE__…` wins. A name
//! that asks for what this version lacks is an error, one that would do nothing a warning: silence
//! would be a lie.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::code::Code;
use crate::form::{REDIS_URL, SERVER_NAME, URL, VAULT_URL};
use crate::keys::{LEVEL, PerMinute, RECOVERY_TIMEOUT, THRESHOLD, TOKEN_TTL};
use crate::kind::{Flag, Kind, Maybe, Text, Wrong, count, nearest};
use crate::model::{Config, Instance};
use crate::reader::Reader;
use crate::report::{Diagnostic, quote};
use crate::secret::{self, JWT_SECRET_KEY, VAULT_TOKEN};
use crate::table::unknown_key;

const OVERRIDE: &str = "SLUICE__";

/// Ports of listeners; a later name wins over an earlier one.
const PORTS: [(&str, &str); 5] = [
    ("CORE_SERVICE_PORT", "edge.listen"),
    ("API_GATEWAY_PORT", "edge.listen"),
    ("EVENT_SERVICE_PORT", "events.listen"),
    ("SECURITY_SERVICE_PORT", "vault.listen"),
    ("CIRCUIT_BREAKER_PORT", "control.listen"),
];

/// The one instance of a service.
const INSTANCES: [(&str, &str); 3] = [
    ("DATA_SERVICE_URL", "data_service"),
    ("BACKTESTING_SERVICE_URL", "backtesting_service"),
    ("TRADING_BOT_SERVICE_URL", "trading_bot_service"),
];

/// The name that instance's certificate must carry, where its address is `https`.
const SERVER_NAMES: [(&str, &str); 3] = [
    ("DATA_SERVICE_SNI", "data_service"),
    ("BACKTESTING_SERVICE_SNI", "backtesting_service"),
    ("TRADING_BOT_SERVICE_SNI", "trading_bot_service"),
];

/// Names without effect, and why.
const NO_EFFECT: [(&str, &str); 2] = [
    ("METRICS_UPDATE_INTERVAL", "metrics are always current"),
    ("STREAM_MONITOR_INTERVAL", "the stream's figures are always current"),
];

/// The names with a meaning of their own beside those above.
const OTHERS: [&str; 14] = [
    "CORE_SERVICE_HOST",
    "ENABLE_JWT",
    "ENABLE_MTLS",
    "ENABLE_VAULT",
    "EVENT_CONSUMER_GROUP",
    "EVENT_STREAM_NAME",
    "FAILURE_THRESHOLD",
    "JWT_EXPIRATION_HOURS",
    "LOG_LEVEL",
    "METRICS_ENABLED",
    "RATE_LIMIT_DEFAULT",
    "RECOVERY_TIMEOUT",
    "REDIS_URL",
    "VAULT_URL",
];

/// True where Sluice looks at a variable: what a supervisor hands to its children.
pub fn is_recognised(name: &str) -> bool {
    name.starts_with(OVERRIDE)
        || is_secret(name)
        || OTHERS.contains(&name)
        || [&PORTS[..], &INSTANCES, &SERVER_NAMES, &NO_EFFECT]
            .iter()
            .any(|names| names.iter().any(|(known, _)| *known == name))
}

/// True where a variable holds a secret, or may: it goes by descriptor, and only to roles that need it.
pub fn is_secret(name: &str) -> bool {
    [JWT_SECRET_KEY, "JWT_SECRET_KEY_FILE", "REDIS_URL"].contains(&name) || is_vault_secret(name)
}

/// True where the secret is the vault worker's alone.
pub fn is_vault_secret(name: &str) -> bool {
    [VAULT_TOKEN, "VAULT_TOKEN_FILE"].contains(&name)
}

/// `SLUICE__EDGE__LISTEN` by the path `edge.listen`.
pub(crate) fn overrides(environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    environment
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .filter_map(|(name, _)| {
            let path = name.strip_prefix(OVERRIDE)?.to_ascii_lowercase().replace("__", ".");
            Some((path, name.clone()))
        })
        .collect()
}

/// Lays the environment over everything but the services.
pub(crate) fn apply(reader: &mut Reader<'_>, config: &mut Config) {
    listeners(reader, config);
    let mut set = Overlay { reader };
    set.key("RATE_LIMIT_DEFAULT", "rate_limit.default", &PerMinute, same, &mut config.rate_limit);
    set.key(
        "FAILURE_THRESHOLD",
        "breaker.failure_threshold",
        &THRESHOLD,
        same,
        &mut config.breaker.failure_threshold,
    );
    let recovery = &mut config.breaker.recovery_timeout;
    set.key("RECOVERY_TIMEOUT", "breaker.recovery_timeout", &RECOVERY_TIMEOUT, seconds, recovery);
    set.key("LOG_LEVEL", "log.level", &LEVEL, lower, &mut config.log.level);
    set.key("METRICS_ENABLED", "metrics.enabled", &Flag, truth, &mut config.metrics.enabled);
    set.key("ENABLE_MTLS", "mtls", &Flag, truth, &mut config.mtls);
    set.key("ENABLE_JWT", "auth.enabled", &Flag, truth, &mut config.auth.enabled);
    set.key("JWT_EXPIRATION_HOURS", "vault.token_ttl", &TOKEN_TTL, hours, &mut config.vault.token_ttl);
    set.key("EVENT_STREAM_NAME", "events.stream", &crate::form::STREAM, same, &mut config.events.stream);
    set.key("EVENT_CONSUMER_GROUP", "events.group", &crate::form::STREAM, same, &mut config.events.group);
    set.key("REDIS_URL", "redis.url", &Maybe(REDIS_URL), same, &mut config.redis);
    let external = &mut config.vault.external;
    set.key("ENABLE_VAULT", "vault.external.enabled", &Flag, truth, &mut external.enabled);
    set.key("VAULT_URL", "vault.external.url", &Maybe(VAULT_URL), same, &mut external.url);
    if let Some(token) = secret::from_environment(reader, VAULT_TOKEN, "vault.external.token") {
        external.token = Some(token);
    }
    legacy_key(reader, config);
    without_effect(reader);
}

/// Replaces the instances of services that have a variable of their own, and the name they go by.
pub(crate) fn instances(reader: &mut Reader<'_>, config: &mut Config) {
    for (name, service) in INSTANCES {
        let Some((text, index)) = of_service(reader, config, name, service) else { continue };
        let path = format!("service[{index}].instance[0].url");
        if let Some(url) = reader.parse_variable(name, text, &path, &URL) {
            config.services[index].instances = vec![Instance { url, weight: 1, zone: String::new() }];
        }
    }
    for (name, service) in SERVER_NAMES {
        let Some((text, index)) = of_service(reader, config, name, service) else { continue };
        let path = format!("service[{index}].tls.sni");
        if let Some(sni) = reader.parse_variable(name, text, &path, &SERVER_NAME) {
            config.services[index].tls.sni = sni;
        }
    }
}

/// The text of a service's variable and the service's place; one for a service that is not there is reported.
fn of_service<'r>(
    reader: &mut Reader<'r>,
    config: &Config,
    name: &str,
    service: &str,
) -> Option<(&'r str, usize)> {
    let text = reader.variable(name)?;
    let index = config.services.iter().position(|known| known.name == service);
    if index.is_none() {
        let message = format!("{name} has no effect: there is no service {}", quote(service));
        reader.blame_variable(name, Diagnostic::new(Code::NoEffect, message));
    }
    index.map(|index| (text, index))
}

/// Reports `SLUICE__…` names that no key took.
pub(crate) fn leftovers(reader: &mut Reader<'_>) {
    for (path, name) in reader.unused_overrides() {
        let (table, word) = path.rsplit_once('.').unwrap_or(("", &path));
        let mut unknown = unknown_key(table, word, &[]);
        if unknown.code == Code::UnknownKey {
            let paths = crate::show::key_paths();
            let near =
                nearest(&path, paths.iter().filter(|path| !path.starts_with("service.")).map(String::as_str));
            unknown.help = if path.starts_with("service.") {
                Some("services are set in their files, not by variables".to_owned())
            } else {
                near.map(|path| format!("did you mean {}?", quote(&variable_of(path))))
            };
        }
        unknown.message = format!("{name}: {}", unknown.message);
        reader.blame_variable(&name, unknown);
    }
}

/// `edge.listen` as `SLUICE__EDGE__LISTEN`.
pub(crate) fn variable_of(path: &str) -> String {
    format!("{OVERRIDE}{}", path.to_ascii_uppercase().replace('.', "__"))
}

fn listeners(reader: &mut Reader<'_>, config: &mut Config) {
    let mut set = Overlay { reader };
    let mut host = None;
    set.key("CORE_SERVICE_HOST", "edge.listen", &Maybe(BIND_HOST), same, &mut host);
    if let Some(host) = host {
        config.edge.listen.set_ip(host);
    }
    for (name, path) in PORTS {
        let listen: &mut SocketAddr = match path {
            "edge.listen" => &mut config.edge.listen,
            "events.listen" => &mut config.events.listen,
            "vault.listen" => &mut config.vault.listen,
            _ => &mut config.control.listen,
        };
        let mut port = listen.port();
        set.key(name, path, &count(0..=65_535), same, &mut port);
        listen.set_port(port);
    }
}

fn legacy_key(reader: &mut Reader<'_>, config: &mut Config) {
    let path = "auth.hs256_secret";
    if let Some(secret) = secret::from_environment(reader, JWT_SECRET_KEY, path) {
        config.auth.hs256_secret = Some(secret);
    }
    if let Some(secret) = &config.auth.hs256_secret {
        secret::check_strength(reader, path, secret);
    }
    if let Some(secret) = &config.falco.secret {
        secret::check_strength(reader, "falco.secret", secret);
    }
    if let Some(secret) = &config.kill_switch.secret {
        secret::check_strength(reader, "kill_switch.secret", secret);
    }
}

fn without_effect(reader: &mut Reader<'_>) {
    for (name, why) in NO_EFFECT {
        if reader.variable(name).is_some() {
            let message = format!("{name} has no effect: {why}");
            reader.blame_variable(name, Diagnostic::new(Code::NoEffect, message));
        }
    }
}

/// Lays single variables over fields.
struct Overlay<'r, 'e> {
    reader: &'r mut Reader<'e>,
}

impl Overlay<'_, '_> {
    /// Sets a field from a variable, rewritten first into the form of the file.
    fn key<K: Kind>(
        &mut self,
        name: &str,
        path: &str,
        kind: &K,
        rewrite: fn(&str) -> String,
        into: &mut K::Out,
    ) {
        let Some(text) = self.reader.variable(name) else { return };
        if let Some(exact) = self.reader.set_by(path)
            && exact.starts_with(OVERRIDE)
        {
            let message = format!("{name} has no effect: {exact} sets the same key");
            self.reader.blame_variable(name, Diagnostic::new(Code::NoEffect, message));
            return;
        }
        if let Some(parsed) = self.reader.parse_variable(name, &rewrite(text), path, kind) {
            *into = parsed;
        }
    }
}

/// The interface a listener opens on.
const BIND_HOST: Text<IpAddr> = Text {
    what: "an IP address",
    code: Code::Address,
    parse: |text| match text {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => text.parse().map_err(|_| {
            Wrong::new(format!("{} is not an IP address", quote(text)))
                .help("write 0.0.0.0 for every interface, 127.0.0.1 for this machine alone")
        }),
    },
    show: ToString::to_string,
    pattern: "",
};

fn same(text: &str) -> String {
    text.to_owned()
}

fn lower(text: &str) -> String {
    text.to_ascii_lowercase()
}

/// The words for true and false that shells and compose files use.
fn truth(text: &str) -> String {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "on" | "true" => "true".to_owned(),
        "0" | "no" | "off" | "false" => "false".to_owned(),
        _ => text.to_owned(),
    }
}

/// A bare number is seconds.
fn seconds(text: &str) -> String {
    with_unit(text, 's')
}

/// A bare number is hours.
fn hours(text: &str) -> String {
    with_unit(text, 'h')
}

fn with_unit(text: &str, unit: char) -> String {
    let bare = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    if bare { format!("{text}{unit}") } else { text.to_owned() }
}
