//! What the vault takes from the configuration, once, at start.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::SignedDuration;
use ring::digest;
use sluice_audit::{Limits, WhenFull};
use sluice_http::Start;
use sluice_identity::grants::Grants;
use sluice_identity::kill::KillKey;
use sluice_schema::{Config, FalcoAction, Seal};

use crate::external::{External, OpenError};
use crate::falco::{Action, Response, Stop};
use crate::quota::Quotas;
use crate::seal::{KeyFileError, RootKey};

/// The vault's settings.
#[derive(Clone)]
pub(crate) struct Settings {
    /// State of all roles.
    pub(crate) data_dir: PathBuf,
    /// Relaxed start-up rules: key file in the data directory, admin token at every start.
    pub(crate) dev: bool,
    /// How it opens.
    pub(crate) opening: Opening,
    /// `iss` of its tokens.
    pub(crate) issuer: String,
    /// `aud` of a token whose request names none.
    pub(crate) audience: Vec<String>,
    /// SPIFFE trust domain.
    pub(crate) trust_domain: String,
    /// Names and addresses by which clients of its port may know it, beside those of every role.
    pub(crate) names: Vec<String>,
    pub(crate) addresses: Vec<IpAddr>,
    /// Life of a token whose request names none, and the longest anyone but an administrator gets.
    pub(crate) token_ttl: SignedDuration,
    /// Life of a leaf whose request names none, and the longest anyone but an administrator gets.
    pub(crate) leaf_ttl: SignedDuration,
    /// What a service may be given by whoever holds `tokens:mint`.
    pub(crate) roles: BTreeMap<String, Grants>,
    /// How alerts are taken and answered.
    pub(crate) falco: Falco,
    /// How much of the audit log is kept.
    pub(crate) audit: Limits,
    /// How much of the store one identity may hold.
    pub(crate) quotas: Quotas,
    /// Who orders which names over ACME, and where that is proved.
    pub(crate) acme: sluice_schema::Acme,
    /// Proxies whose word about a client's address the edge takes.
    pub(crate) trusted: Vec<IpNet>,
    /// Tolerated clock difference, seconds; revocations outlive tokens by it.
    pub(crate) leeway_s: i64,
    /// Who keeps the secrets, unless this vault does.
    pub(crate) external: Option<Arc<External>>,
}

/// `[falco]`.
#[derive(Clone)]
pub(crate) struct Falco {
    /// SHA-256 of the secret path; none: there is no such path.
    pub(crate) secret: Option<[u8; 32]>,
    /// How long a repeated alert is not told again.
    pub(crate) window_ms: i64,
    /// Alerts a second.
    pub(crate) rate: i64,
    /// What is done for which alerts.
    pub(crate) responses: Vec<Response>,
    /// Seals kill switches, so that edges believe them over Redis.
    pub(crate) kill_key: Option<KillKey>,
}

/// Where the root key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A key file in the data directory, made on the first start.
    Dev(PathBuf),
    /// An operator's key file outside the data directory.
    File(PathBuf),
    /// By shares, given while it runs.
    Shares,
    /// Nothing is configured: the vault stays sealed.
    Sealed,
}

impl Opening {
    /// How it is named to clients.
    pub(crate) const fn word(&self) -> &'static str {
        if matches!(self, Self::Shares) { "shamir" } else { "file" }
    }
}

impl Settings {
    /// The settings of a start.
    pub(crate) fn new(start: &Start) -> Result<Self, OpenError> {
        let vault = &start.config.vault;
        let opening = match &vault.seal {
            Seal::Shamir => Opening::Shares,
            Seal::File(path) => Opening::File(path.clone()),
            Seal::Auto if start.dev => Opening::Dev(start.data_dir.join("vault/unseal.key")),
            Seal::Auto => Opening::Sealed,
        };
        let roles = &start.config.auth.roles;
        let external = vault.external.enabled.then(|| External::open(&vault.external)).transpose()?;
        let (mut names, mut addresses) = (Vec::new(), Vec::new());
        for name in &vault.names {
            name.parse().map_or_else(|_| names.push(name.clone()), |address| addresses.push(address));
        }
        if !vault.listen.ip().is_unspecified() {
            addresses.push(vault.listen.ip());
        }
        Ok(Self {
            data_dir: start.data_dir.clone(),
            dev: start.dev,
            opening,
            issuer: vault.issuer.clone(),
            audience: vault.audience.clone(),
            trust_domain: vault.trust_domain.clone(),
            names,
            addresses,
            token_ttl: SignedDuration::from_secs(vault.token_ttl.as_secs() as i64),
            leaf_ttl: SignedDuration::from_secs(vault.leaf_ttl.as_secs() as i64),
            roles: roles.iter().map(|(name, words)| (name.clone(), words.iter().collect())).collect(),
            falco: falco(&start.config),
            audit: limits(&vault.audit),
            quotas: Quotas(vault.quota.clone()),
            acme: start.config.acme.clone(),
            trusted: start.config.edge.trusted_proxies.clone(),
            leeway_s: start.config.auth.leeway.as_secs() as i64,
            external: external.map(Arc::new),
        })
    }

    /// The store's file.
    pub(crate) fn store(&self) -> PathBuf {
        self.data_dir.join("vault/store.redb")
    }

    /// The root key, where a key file holds it.
    pub(crate) fn root_key(&self) -> Result<Option<RootKey>, KeyFileError> {
        match &self.opening {
            Opening::Sealed | Opening::Shares => Ok(None),
            Opening::File(path) => RootKey::production(path, &self.data_dir).map(Some),
            Opening::Dev(path) => {
                let dir = self.data_dir.join("vault");
                make_private(&dir).map_err(|source| KeyFileError::Io { path: dir.clone(), source })?;
                RootKey::dev(path, self.store().exists()).map(Some)
            }
        }
    }
}

impl Settings {
    /// The key that a rekey has put beside the key file, where there is one.
    pub(crate) fn key_beside(&self) -> Option<(PathBuf, RootKey)> {
        let beside = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".new");
            PathBuf::from(name)
        };
        let (path, root) = match &self.opening {
            Opening::File(path) => (beside(path), RootKey::production(&beside(path), &self.data_dir)),
            Opening::Dev(path) => (beside(path), RootKey::dev(&beside(path), true)),
            Opening::Shares | Opening::Sealed => return None,
        };
        root.ok().map(|root| (path, root))
    }
}

fn limits(audit: &sluice_schema::VaultAudit) -> Limits {
    let age = audit.keep_age.map(|age| SignedDuration::from_secs(age.as_secs() as i64));
    let when_full = match audit.when_full {
        sluice_schema::WhenFull::Retire => WhenFull::Retire,
        sluice_schema::WhenFull::Refuse => WhenFull::Refuse,
    };
    Limits::keeping(audit.keep_bytes, age, when_full)
}

fn make_private(dir: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn falco(config: &Config) -> Falco {
    let (kill_switch, config) = (&config.kill_switch, &config.falco);
    let hash = |secret: &[u8]| {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, secret).as_ref());
        hash
    };
    let response = |written: &sluice_schema::FalcoResponse| Response {
        rule: written.rule.clone(),
        priority: written.priority.as_str().parse().expect("both know Falco's words"),
        action: match written.action {
            FalcoAction::Notify => Action::Notify,
            FalcoAction::Quarantine => Action::Quarantine,
            FalcoAction::KillSwitch => Action::Kill,
        },
        identity: written.identity.clone(),
        stop: written
            .scope
            .map(|scope| Stop { scope: scope.as_str().to_owned(), target: written.target.clone() }),
        ttl_ms: written.ttl.as_millis() as i64,
        quorum: written.quorum as usize,
        dry_run: written.dry_run,
    };
    Falco {
        secret: config.secret.as_ref().map(|secret| hash(secret.expose())),
        window_ms: config.dedup_window.as_millis() as i64,
        rate: config.rate as i64,
        responses: config.responses.iter().map(response).collect(),
        kill_key: kill_switch.secret.as_ref().map(|secret| KillKey::new(secret.expose())),
    }
}
