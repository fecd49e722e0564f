//! What a reload would change, and which roles must start again for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_wire::role::Role;

use crate::model::{Config, Service};
use crate::show::{settings_of, settings_outside_services, toml_text};

/// The difference between two configurations.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Diff {
    /// Names of services that are new.
    pub added: Vec<String>,
    /// Names of services that are gone.
    pub removed: Vec<String>,
    /// Services that changed.
    pub changed: Vec<ServiceChange>,
    /// Keys outside services that changed.
    pub keys: Vec<KeyChange>,
}

/// A service that changed.
#[derive(Clone, Debug, Serialize)]
pub struct ServiceChange {
    /// Its name.
    pub name: String,
    /// Its keys that changed, by path below the service; none where only its name is told.
    pub keys: Vec<KeyChange>,
}

/// A key that changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct KeyChange {
    /// Dotted path.
    pub path: String,
    /// Value before; absent where there was none. Secrets are `"***"`.
    pub old: Option<Value>,
    /// Value after; absent where there is none.
    pub new: Option<Value>,
    /// Roles that take the new value only when they start again.
    pub restart: Vec<Role>,
}

/// Roles that read the shared sections once, at their start.
const WORKERS: &[Role] = &[Role::Vault, Role::Events, Role::Calc, Role::Demo];
const ALL: &[Role] = &[Role::Vault, Role::Events, Role::Calc, Role::Edge, Role::Demo];

/// Key, or the table it lies in, to the roles that must start again; the first match counts.
/// What is not listed the edge takes over at once and nobody else reads.
const RESTART: &[(&str, &[Role])] = &[
    ("edge.listen", &[Role::Edge]),
    ("edge.threads", &[Role::Edge]),
    ("edge.proxy_protocol", &[Role::Edge]),
    ("edge.tls.listen", &[Role::Edge]),
    ("edge.audit", &[Role::Edge]),
    ("control.listen", &[Role::Edge]),
    ("log.access", &[Role::Edge]),
    ("log.level", WORKERS),
    ("metrics", WORKERS),
    ("drain", WORKERS),
    ("auth.hs256_secret", ALL),
    ("auth.leeway", ALL),
    ("auth.roles", &[Role::Vault]),
    ("vault.issuer", ALL),
    ("vault.audience", ALL),
    ("vault.token_ttl", ALL),
    ("vault.trust_domain", ALL),
    ("vault", &[Role::Vault]),
    ("falco", &[Role::Vault]),
    ("acme", &[Role::Vault]),
    ("events", &[Role::Events]),
    ("notify", &[Role::Events]),
    ("redis", &[Role::Events]),
    ("calc", &[Role::Calc]),
    ("demo", &[Role::Demo]),
];

/// Every effective value of a configuration, for programs that compare two without reading the files of
/// both. Secrets are `"***"`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Effective {
    /// Keys outside services, by dotted path.
    pub keys: BTreeMap<String, Value>,
    /// Keys of each service, by its name and the path below it.
    pub services: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Effective {
    /// The values of a configuration.
    pub fn of(config: &Config) -> Self {
        let services = config.services.iter().map(|service| (service.name.clone(), service_keys(service)));
        Self { keys: outside_services(config), services: services.collect() }
    }

    /// What changes from these values to `new`. A secret that became another cannot be told.
    pub fn diff(&self, new: &Self) -> Diff {
        let missing_in = |there: &Self, name: &String| !there.services.contains_key(name);
        let changed = self.services.iter().filter_map(|(name, before)| {
            let keys = changes(before, new.services.get(name)?, |_| Vec::new());
            (!keys.is_empty()).then(|| ServiceChange { name: name.clone(), keys })
        });
        Diff {
            added: new.services.keys().filter(|name| missing_in(self, name)).cloned().collect(),
            removed: self.services.keys().filter(|name| missing_in(new, name)).cloned().collect(),
            changed: changed.collect(),
            keys: changes(&self.keys, &new.keys, |path| restart(path).to_vec()),
        }
    }
}

/// What changes from `old` to `new`.
pub fn diff(old: &Config, new: &Config) -> Diff {
    diff_of(old, new, usize::MAX)
}

/// What changes from `old` to `new`. Of more than `most` services that changed, the names alone are told after
/// that many: where everything changed nobody reads on, and each key has its price.
pub fn diff_of(old: &Config, new: &Config, most: usize) -> Diff {
    let (old_names, new_names) = (by_name(old), by_name(new));
    let mut diff = Diff {
        added: new_names
            .keys()
            .filter(|name| !old_names.contains_key(*name))
            .map(ToString::to_string)
            .collect(),
        removed: old_names
            .keys()
            .filter(|name| !new_names.contains_key(*name))
            .map(ToString::to_string)
            .collect(),
        ..Diff::default()
    };
    let (old_keys, new_keys) = (outside_services(old), outside_services(new));
    diff.keys = changes(&old_keys, &new_keys, |path| restart(path).to_vec());
    // What is not shown, or not as it is.
    for (path, changed) in [
        ("auth.hs256_secret", old.auth.hs256_secret != new.auth.hs256_secret),
        ("falco.secret", old.falco.secret != new.falco.secret),
        ("kill_switch.secret", old.kill_switch.secret != new.kill_switch.secret),
        ("notify", old.notify != new.notify),
    ] {
        if changed && !diff.keys.iter().any(|key| key.path == path) {
            diff.keys.push(hidden_change(path));
        }
    }
    for (name, before) in &old_names {
        let Some(after) = new_names.get(name).filter(|after| !same(before, after)) else { continue };
        if diff.changed.len() >= most {
            diff.changed.push(ServiceChange { name: (*name).to_owned(), keys: Vec::new() });
            continue;
        }
        let mut keys = changes(&service_keys(before), &service_keys(after), |_| Vec::new());
        if keys.is_empty() {
            // What differs is a value that is not shown: a field with credentials.
            keys.push(hidden_change("request_headers or response_headers"));
        }
        diff.changed.push(ServiceChange { name: (*name).to_owned(), keys });
    }
    diff
}

impl Diff {
    /// True where nothing changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.keys.is_empty()
    }

    /// Every role that must start again.
    pub fn restarts(&self) -> BTreeSet<Role> {
        self.keys.iter().flat_map(|key| key.restart.iter().copied()).collect()
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.added {
            writeln!(f, "+ service {name}")?;
        }
        for name in &self.removed {
            writeln!(f, "- service {name}")?;
        }
        for service in &self.changed {
            if service.keys.is_empty() {
                writeln!(f, "~ service {}", service.name)?;
            }
            for key in &service.keys {
                writeln!(f, "~ service {} {key}", service.name)?;
            }
        }
        for key in &self.keys {
            writeln!(f, "~ {key}")?;
        }
        Ok(())
    }
}

impl fmt::Display for KeyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| value.as_ref().map_or("unset".to_owned(), toml_text);
        write!(f, "{}: {} -> {}", self.path, show(&self.old), show(&self.new))?;
        if !self.restart.is_empty() {
            let roles: Vec<_> = self.restart.iter().map(|role| role.as_str()).collect();
            write!(f, " (restarts {})", roles.join(", "))?;
        }
        Ok(())
    }
}

type Values = BTreeMap<String, Value>;

fn by_name(config: &Config) -> BTreeMap<&str, &Service> {
    config.services.iter().map(|service| (service.name.as_str(), service)).collect()
}

fn outside_services(config: &Config) -> Values {
    settings_outside_services(config).into_iter().map(|setting| (setting.path, setting.value)).collect()
}

/// True for services that differ at most in the line they stand on.
fn same(one: &Service, other: &Service) -> bool {
    one == other || *one == Service { source: one.source.clone(), ..other.clone() }
}

/// A service's values by path below it.
fn service_keys(service: &Service) -> Values {
    let prefix = format!("service.{}.", service.name);
    settings_of(service)
        .into_iter()
        .filter_map(|setting| Some((setting.path.strip_prefix(&prefix)?.to_owned(), setting.value)))
        .collect()
}

fn changes(old: &Values, new: &Values, restart: impl Fn(&str) -> Vec<Role>) -> Vec<KeyChange> {
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    paths
        .into_iter()
        .filter(|path| old.get(*path) != new.get(*path))
        .map(|path| KeyChange {
            path: path.clone(),
            old: old.get(path).cloned(),
            new: new.get(path).cloned(),
            restart: restart(path),
        })
        .collect()
}

/// A secret became another; neither is shown.
fn hidden_change(path: &str) -> KeyChange {
    let hidden = || Some(Value::from("***"));
    KeyChange { path: path.to_owned(), old: hidden(), new: hidden(), restart: restart(path).to_vec() }
}

fn restart(path: &str) -> &'static [Role] {
    let covers =
        |key: &str| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    RESTART.iter().find(|(key, _)| covers(key)).map_or(&[], |(_, roles)| roles)
}
