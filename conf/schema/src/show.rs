//! The effective configuration: every key with its value and where the value comes from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use schemars::Schema;
use serde::Serialize;
use serde_json::Value;

use crate::keys;
use crate::model::{Config, Service};
use crate::planned::without_indexes;
use crate::reader::{Description, Reader};
use crate::table::Table;

/// Where an effective value comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum Origin {
    /// Nobody set it.
    #[default]
    Default,
    /// A file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A variable of the environment.
    Env {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env { name } => write!(f, "env {name}"),
        }
    }
}

/// Origins of every value somebody set, by path such as `service.data_service.timeouts.total`.
pub type Origins = BTreeMap<String, Origin>;

/// One key with its effective value.
#[derive(Clone, Debug, Serialize)]
pub struct Setting {
    /// Dotted path; a service stands by its name, an instance by its index.
    pub path: String,
    /// What it means.
    pub doc: &'static str,
    /// As it would be written; `null` where nothing would be. Secrets and header fields with credentials are `"***"`.
    pub value: Value,
    #[serde(skip)]
    pub(crate) schema: Option<Schema>,
    /// False for the other form of a value that has two.
    #[serde(skip)]
    pub(crate) shown: bool,
}

/// Every key with its effective value, in the order of the file.
pub fn settings(config: &Config) -> Vec<Setting> {
    written(describe(config), config)
}

/// The keys outside services, as [`settings`] gives them. Costs no more for many services.
pub(crate) fn settings_outside_services(config: &Config) -> Vec<Setting> {
    let config = config.without_services();
    written(walk(config.clone(), false, keys::sections), &config)
}

/// The keys of one service, as [`settings`] gives them.
pub(crate) fn settings_of(service: &Service) -> Vec<Setting> {
    let config = Config { services: vec![service.clone()], ..Config::default() };
    written(walk(config.clone(), false, keys::services), &config)
}

/// What would be written of what is described.
fn written(description: Description, config: &Config) -> Vec<Setting> {
    let mut settings = description.settings;
    settings.retain(|setting| setting.shown && !setting.value.is_null());
    for setting in &mut settings {
        setting.path = named(&setting.path, config);
    }
    settings
}

/// The origin of one value; a service's own default is as old as what it falls back on.
pub fn origin_of(origins: &Origins, path: &str) -> Origin {
    origins.get(path).or_else(|| origins.get(&fallback(path)?)).cloned().unwrap_or_default()
}

/// The key a service's value falls back on.
fn fallback(path: &str) -> Option<String> {
    let own = path.strip_prefix("service.")?;
    let at = ["breaker.", "rate_limit", "body_bytes", "tls.client_cert"]
        .iter()
        .find_map(|key| own.rfind(&format!(".{key}")))?;
    let key = &own[at + 1..];
    match key {
        "body_bytes" => Some("edge.limits.body_bytes".to_owned()),
        "tls.client_cert" => Some("mtls".to_owned()),
        "rate_limit" | "rate_limit.requests" => Some("rate_limit.default".to_owned()),
        _ => key.starts_with("breaker.").then(|| key.to_owned()),
    }
}

/// The configuration as a file that means the same, each value with its origin when origins are given.
/// A secret is a comment, a header field with credentials `***`.
pub fn to_toml(config: &Config, origins: Option<&Origins>) -> String {
    let mut lines: Vec<String> = Vec::new();
    let mut header = String::new();
    for setting in describe(config).settings {
        if !setting.shown || setting.value.is_null() {
            continue;
        }
        let (table, key) = split_header(&setting.path);
        if table != header {
            if !lines.is_empty() {
                lines.push(String::new());
            }
            let name = without_indexes(table);
            lines.push(if table.ends_with(']') { format!("[[{name}]]") } else { format!("[{name}]") });
            table.clone_into(&mut header);
        }
        let comment = origins
            .map(|origins| format!("  # {}", origin_of(origins, &named(&setting.path, config))))
            .unwrap_or_default();
        lines.push(if setting.value == "***" {
            format!("# {key} is set{comment}")
        } else {
            format!("{key} = {}{comment}", toml_text(&setting.value))
        });
    }
    lines.push(String::new());
    lines.join("\n")
}

/// The header a key stands under, and the rest of its path.
fn split_header(path: &str) -> (&str, &str) {
    let at = match path.rfind(']') {
        Some(bracket) => bracket + 1,
        None => path.find('.').unwrap_or(0),
    };
    (&path[..at], path[at..].trim_start_matches('.'))
}

/// A value as TOML on one line.
pub(crate) fn toml_text(value: &Value) -> String {
    toml::Value::try_from(value).map_or_else(|_| value.to_string(), |value| value.to_string())
}

/// `service[3].prefix` as `service.data_service.prefix`.
pub(crate) fn named(path: &str, config: &Config) -> String {
    let Some((index, rest)) = path.strip_prefix("service[").and_then(|rest| rest.split_once(']')) else {
        return path.to_owned();
    };
    match index.parse::<usize>().ok().and_then(|index| config.services.get(index)) {
        Some(service) => format!("service.{}{rest}", service.name),
        None => path.to_owned(),
    }
}

/// Every key of this version, without indexes: `service.instance.url`.
pub(crate) fn key_paths() -> &'static BTreeSet<String> {
    static PATHS: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
        let described = describe(&keys::specimen());
        described.settings.iter().map(|setting| without_indexes(&setting.path)).collect()
    });
    &PATHS
}

/// Lists the keys of a configuration by walking it.
pub(crate) fn describe(config: &Config) -> Description {
    walk(config.clone(), false, everything)
}

/// The same with the JSON Schema of each key, which costs far more than its value.
pub(crate) fn describe_schemas(config: &Config) -> Description {
    walk(config.clone(), true, everything)
}

fn everything(t: &mut Table<'_, '_>, config: &mut Config) {
    keys::sections(t, config);
    keys::services(t, config);
}

fn walk(
    mut config: Config,
    schemas: bool,
    keys: impl FnOnce(&mut Table<'_, '_>, &mut Config),
) -> Description {
    let nothing = BTreeMap::new();
    let no_files = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let mut reader = Reader::describing(&nothing, &no_files, schemas);
    let mut root = Table::root(&mut reader, None, 0);
    keys(&mut root, &mut config);
    reader.into_description()
}
