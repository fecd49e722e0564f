//! From arguments and environment to a checked configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sluice_schema::environment::{is_recognised, is_secret, is_vault_secret};
use sluice_schema::{Config, Mode, Origin, Report, check, load};
use sluice_wire::role::Role;

use crate::exit::{self, Failure};
use crate::say;

/// The configuration file that may be absent: everything has a default.
const DEFAULT_PATH: &str = "conf/sluice.toml";

/// A checked configuration and what the roles need to load the same.
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// The time of a drain, where somebody wrote `[drain]` down.
    pub(crate) drain: Option<Duration>,
    /// Variables that are no secrets.
    pub(crate) environment: BTreeMap<String, String>,
    /// Variables that are.
    pub(crate) secrets: BTreeMap<String, String>,
}

/// The variables of this process; names and values that are not UTF-8 are none of ours.
pub(crate) fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The time by which certificates are judged.
pub(crate) fn now_unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Loads with this process's environment; prints everything that is wrong.
pub(crate) fn config(path: &Path, dev: bool) -> Result<Loaded, Failure> {
    config_with(path, &environment(), Mode { dev, now_unix_s: Some(now_unix_s()), ..Mode::default() })
}

/// Loads with the given environment; prints everything that is wrong.
pub(crate) fn config_with(
    path: &Path,
    environment: &BTreeMap<String, String>,
    mode: Mode,
) -> Result<Loaded, Failure> {
    let loaded = read(path, environment, mode).map_err(|report| {
        print(&report);
        Failure::new(exit::USAGE, anyhow::anyhow!("{} error(s) in the configuration", report.errors()))
    })?;
    print(&loaded.warnings);
    let wanted = |name: &str| is_secret(name) || loaded.secret_variables.iter().any(|known| known == name);
    let (secrets, rest): (BTreeMap<_, _>, BTreeMap<_, _>) = environment
        .iter()
        .filter(|(name, _)| is_recognised(name) || wanted(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .partition(|(name, _)| wanted(name));
    let written = |key: &str| loaded.origin(key) != Origin::Default;
    let drain = ["drain.lame_duck", "drain.deadline"].into_iter().any(written);
    let drain = drain.then_some(loaded.config.drain.deadline);
    Ok(Loaded { config: loaded.config, drain, environment: rest, secrets })
}

/// Loads without printing. The default file may be absent, a named one may not.
pub(crate) fn read(
    path: &Path,
    environment: &BTreeMap<String, String>,
    mode: Mode,
) -> Result<sluice_schema::Loaded, Report> {
    if path == Path::new(DEFAULT_PATH) && !path.exists() {
        return check(&[], environment, mode, &|path| std::fs::read(path));
    }
    load(path, environment, mode)
}

/// The secrets that a role needs: all but the demo verify tokens, and the vault alone speaks to an external one.
pub(crate) fn secrets_of(role: Role, secrets: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    match role {
        Role::Demo | Role::Supervisor => BTreeMap::new(),
        Role::Vault => secrets.clone(),
        _ => {
            let others = secrets.iter().filter(|(name, _)| !is_vault_secret(name));
            others.map(|(name, value)| (name.clone(), value.clone())).collect()
        }
    }
}

/// Prints findings on standard error, in colour on a terminal unless NO_COLOR is set.
pub(crate) fn print(report: &Report) {
    if !report.is_empty() {
        say::problem(&report.render(colour(&std::io::stderr())));
    }
}

/// Whether to write colour to an output.
pub(crate) fn colour(output: &impl std::io::IsTerminal) -> bool {
    output.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_for_an_external_vault_is_handed_to_the_vault_alone() {
        let names = ["JWT_SECRET_KEY", "VAULT_TOKEN", "VAULT_TOKEN_FILE"];
        let secrets: BTreeMap<_, _> = names.map(|name| (name.to_owned(), "x".to_owned())).into();
        for role in Role::ALL {
            let handed = secrets_of(role, &secrets).into_keys().collect::<Vec<_>>();
            let expected: &[&str] = match role {
                Role::Vault => &names,
                Role::Demo | Role::Supervisor => &[],
                _ => &names[..1],
            };
            assert_eq!(handed, expected, "{role:?}");
        }
    }
}
