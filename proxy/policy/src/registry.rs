//! What may be registered over `POST /api/register`.
//!
//! Purpose: let a service announce itself without letting it take over another's paths or turn the
//! edge into a way to addresses it must not reach.
//!
//! [`Raw`] is the body in either of the two spellings the clients use; [`Registration`] is the checked
//! value, and the only way to one is [`Registration::try_from`], also for one read back from the
//! ledger. [`admit`] compares it with what routes already; [`AddressRules`] judges a target address: at
//! registration, and again by the shell at each connect and probe, since a name may resolve to another
//! address later.
//!
//! Exact rules of [`admit`]: no reserved prefix at or above it; no enabled service of a file at or above
//! it, `/` excepted, since everything lies below that; no other registration with its prefix; no service
//! of a file with its name. The same registration again changes nothing; another one of the same name
//! replaces the old.

pub mod address;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sluice_schema::{Config, Instance, InstanceUrl, RateLimit, Scheme, Service, Source, UrlError};
use sluice_wire::code::Code;
use thiserror::Error;

use crate::path::normalise;
use crate::reserved::{covering, is_below};
use crate::route::is_prefix;

pub use address::{AddressFault, AddressRules};

/// Instances of one registration at most.
pub const INSTANCES_MAX: usize = 64;
/// The longest lease, one year.
pub const TTL_MAX_S: u64 = 365 * 86_400;
/// Bytes of a prefix or health path at most.
pub const PATH_BYTES_MAX: usize = 256;
/// Requests a minute at most.
pub const RATE_MAX: u64 = 1_000_000_000;

/// The body of a registration; each value may come by either of its names.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a registration, which is an object")]
pub struct Raw {
    name: Option<String>,
    service_name: Option<String>,
    prefix: Option<String>,
    path_prefix: Option<String>,
    url: Option<String>,
    instances: Option<Vec<RawInstance>>,
    health_endpoint: Option<String>,
    rate_limit: Option<u64>,
    auth_required: Option<bool>,
    ttl: Option<u64>,
}

/// An instance, as its address alone or with a weight.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "an instance is its address, or an object of `url` and `weight`")]
enum RawInstance {
    Url(String),
    Weighted(RawWeighted),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawWeighted {
    url: String,
    weight: Option<u32>,
}

/// A checked registration. Two are equal when they ask for the same.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(try_from = "Raw", into = "Stored")]
pub struct Registration {
    /// Name of the service, unique.
    pub name: String,
    /// Its prefix, never `/`.
    pub prefix: String,
    /// Its instances, addresses unique.
    pub instances: Vec<Instance>,
    /// Path of its health check; `None`: the default's.
    pub health_endpoint: Option<String>,
    /// Requests a minute and client; `None`: the default, 0: no limit.
    pub rate_limit: Option<u64>,
    /// Whether a valid identity is needed; true unless it says otherwise.
    pub auth_required: bool,
    /// Lease in seconds; `None`: the registry's default.
    pub ttl_s: Option<u64>,
}

/// A registration as it is written: the second spelling of the body.
#[derive(Debug, Serialize)]
struct Stored {
    name: String,
    prefix: String,
    instances: Vec<StoredInstance>,
    #[serde(skip_serializing_if = "Option::is_none")]
    health_endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit: Option<u64>,
    auth_required: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
}

#[derive(Debug, Serialize)]
struct StoredInstance {
    url: String,
    weight: u32,
}

/// What admitting a registration does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It is new.
    Adds,
    /// It replaces one of the same name.
    Replaces,
    /// It is there already; only its lease begins anew.
    Renews,
}

/// Why a registration is refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RegistrationFault {
    /// Neither spelling of a value is there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// Both spellings of a value are there and differ.
    #[error("`{0}` and `{1}` are both given and differ")]
    Twice(&'static str, &'static str),
    /// Not `[A-Za-z0-9_.-]{1,64}`.
    #[error("a service name takes 1 to 64 of A-Z a-z 0-9 _ . -")]
    Name,
    /// Not a prefix, or `/`.
    #[error("a prefix takes `/` and segments of A-Z a-z 0-9 - . _ ~, and is not `/` alone")]
    Prefix,
    /// Not a plain absolute path.
    #[error("`health_endpoint` is an absolute path without query")]
    HealthEndpoint,
    /// Not an instance address.
    #[error("instance {index}: {source}")]
    Url {
        /// Index in the list.
        index: usize,
        /// What is wrong with it.
        source: UrlError,
    },
    /// The same address twice.
    #[error("instance {0} is listed twice")]
    SameUrl(usize),
    /// None, or more than [`INSTANCES_MAX`].
    #[error("1 to {INSTANCES_MAX} instances are possible")]
    Instances,
    /// A number out of its range.
    #[error("`{0}` is out of range")]
    Range(&'static str),
    /// The prefix lies in one of Sluice's own.
    #[error("the prefix lies in the reserved {0}")]
    Reserved(&'static str),
    /// A service of a file, or another registration, has the prefix.
    #[error("the prefix belongs to service `{0}`")]
    PrefixTaken(String),
    /// A service of a file has the name.
    #[error("a configured service has this name")]
    NameTaken,
    /// No room for another one.
    #[error("the registry is full: {0} services")]
    Full(usize),
    /// An instance that may not be reached.
    #[error("instance {index}: {source}")]
    Address {
        /// Index in the list.
        index: usize,
        /// Why not.
        source: AddressFault,
    },
}

impl RegistrationFault {
    /// Machine word and status of the answer.
    pub const fn code(&self) -> Code {
        match self {
            Self::Reserved(_) | Self::PrefixTaken(_) => Code::PrefixTaken,
            Self::NameTaken | Self::Full(_) => Code::Conflict,
            Self::Address { .. } => Code::AddressDenied,
            _ => Code::Unprocessable,
        }
    }
}

impl TryFrom<Raw> for Registration {
    type Error = RegistrationFault;

    fn try_from(raw: Raw) -> Result<Self, RegistrationFault> {
        let name = one_of(raw.name, "name", raw.service_name, "service_name")?;
        if sluice_schema::form::service_name(&name).is_err() {
            return Err(RegistrationFault::Name);
        }
        let prefix = one_of(raw.prefix, "prefix", raw.path_prefix, "path_prefix")?;
        let prefix = prefix.trim_end_matches('/').to_owned();
        if prefix.len() > PATH_BYTES_MAX || !is_prefix(&prefix) {
            return Err(RegistrationFault::Prefix);
        }
        if raw.health_endpoint.as_deref().is_some_and(|path| !is_health_path(path)) {
            return Err(RegistrationFault::HealthEndpoint);
        }
        if raw.rate_limit.is_some_and(|rate| rate > RATE_MAX) {
            return Err(RegistrationFault::Range("rate_limit"));
        }
        if raw.ttl.is_some_and(|ttl| !(1..=TTL_MAX_S).contains(&ttl)) {
            return Err(RegistrationFault::Range("ttl"));
        }
        Ok(Self {
            name,
            prefix,
            instances: instances(raw.url, raw.instances)?,
            health_endpoint: raw.health_endpoint,
            rate_limit: raw.rate_limit,
            auth_required: raw.auth_required.unwrap_or(true),
            ttl_s: raw.ttl,
        })
    }
}

impl From<Registration> for Stored {
    fn from(registration: Registration) -> Self {
        let Registration { name, prefix, instances, health_endpoint, rate_limit, auth_required, ttl_s } =
            registration;
        let instance =
            |instance: Instance| StoredInstance { url: instance.url.to_string(), weight: instance.weight };
        Self {
            name,
            prefix,
            instances: instances.into_iter().map(instance).collect(),
            health_endpoint,
            rate_limit,
            auth_required,
            ttl: ttl_s,
        }
    }
}

impl Registration {
    /// The service that routes for it, everything else by the configuration's defaults.
    pub fn service(&self, config: &Config) -> Service {
        let mut service = config.service(&self.name, &self.prefix);
        service.instances.clone_from(&self.instances);
        service.auth_required = self.auth_required;
        service.source = Source::Api;
        if let Some(path) = &self.health_endpoint {
            service.health.path.clone_from(path);
        }
        match self.rate_limit {
            Some(0) => service.rate_limit = None,
            Some(requests) => service.rate_limit = Some(RateLimit::per_minute(requests)),
            None => {}
        }
        service
    }

    /// Its lease: its own, else the registry's; `None`: until it is deleted.
    pub fn lease(&self, config: &Config) -> Option<Duration> {
        self.ttl_s.map(Duration::from_secs).or(config.registry.ttl)
    }
}

/// Compares a registration with what routes already: the services of the files and the other
/// registrations.
///
/// # Errors
/// [`RegistrationFault`]; its code is 409 `prefix_taken` or `conflict`.
pub fn admit<'a>(
    registration: &Registration,
    config: &Config,
    registered: impl IntoIterator<Item = &'a Registration>,
) -> Result<Effect, RegistrationFault> {
    if let Some(reserved) = covering(&registration.prefix) {
        return Err(RegistrationFault::Reserved(reserved.prefix));
    }
    for service in config.enabled_services() {
        if service.name == registration.name {
            return Err(RegistrationFault::NameTaken);
        }
        if service.prefix.len() > 1 && is_below(&registration.prefix, &service.prefix) {
            return Err(RegistrationFault::PrefixTaken(service.name.clone()));
        }
    }
    let (mut effect, mut count) = (Effect::Adds, 0);
    for other in registered {
        count += 1;
        if other.name == registration.name {
            effect = if other == registration { Effect::Renews } else { Effect::Replaces };
        } else if other.prefix == registration.prefix {
            return Err(RegistrationFault::PrefixTaken(other.name.clone()));
        }
    }
    if effect == Effect::Adds && count >= config.registry.max {
        return Err(RegistrationFault::Full(config.registry.max));
    }
    Ok(effect)
}

fn one_of(
    first: Option<String>,
    first_name: &'static str,
    second: Option<String>,
    second_name: &'static str,
) -> Result<String, RegistrationFault> {
    match (first, second) {
        (Some(first), Some(second)) if first != second => {
            Err(RegistrationFault::Twice(first_name, second_name))
        }
        (Some(value), _) | (None, Some(value)) => Ok(value),
        (None, None) => Err(RegistrationFault::Missing(first_name)),
    }
}

fn instances(
    url: Option<String>,
    listed: Option<Vec<RawInstance>>,
) -> Result<Vec<Instance>, RegistrationFault> {
    let listed = match (url, listed) {
        (Some(_), Some(_)) => return Err(RegistrationFault::Twice("url", "instances")),
        (Some(url), None) => vec![RawInstance::Url(url)],
        (None, Some(listed)) => listed,
        (None, None) => return Err(RegistrationFault::Missing("url")),
    };
    if !(1..=INSTANCES_MAX).contains(&listed.len()) {
        return Err(RegistrationFault::Instances);
    }
    let mut instances: Vec<Instance> = Vec::with_capacity(listed.len());
    for (index, raw) in listed.into_iter().enumerate() {
        let (url, weight) = match raw {
            RawInstance::Url(url) => (url, 1),
            RawInstance::Weighted(raw) => (raw.url, raw.weight.unwrap_or(1)),
        };
        let url: InstanceUrl = url.parse().map_err(|source| RegistrationFault::Url { index, source })?;
        // A socket's path leaves no address to judge, and no registration can name what TLS checks.
        if matches!(url.scheme, Scheme::Https | Scheme::Unix) {
            let source = UrlError::FilesOnly(url.scheme.as_str());
            return Err(RegistrationFault::Url { index, source });
        }
        if !(1..=65_535).contains(&weight) {
            return Err(RegistrationFault::Range("weight"));
        }
        if instances.iter().any(|known| known.url == url) {
            return Err(RegistrationFault::SameUrl(index));
        }
        instances.push(Instance { url, weight, zone: String::new() });
    }
    Ok(instances)
}

fn is_health_path(path: &str) -> bool {
    path.len() <= PATH_BYTES_MAX
        && normalise(path.as_bytes()).is_ok_and(|form| form.query().is_none() && !form.is_rewritten())
}

#[cfg(test)]
mod tests;
