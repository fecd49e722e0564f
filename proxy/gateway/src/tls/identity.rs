//! The edge's own certificate: asked of the vault, renewed before it ends, kept for a start without it.
//!
//! The key is made here and leaves this process only for a file of mode 0600 in the data directory, so
//! that an edge that starts while the vault is away serves on. It is renewed when the vault said (two
//! thirds of its life), when the names it must carry change, when it was revoked, at each start (the
//! authority may be another by then), and each [`RETRY`] while that fails.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier as _;
use serde::{Deserialize, Serialize};
use sluice_client::{CertificateRequest, Client, ClientError, RoleCertificate, RoleKey, RoleKeyFault, pem};
use sluice_http::{ClientVerifier, TrustCell};
use sluice_identity::certificate::ClientCertificate;
use sluice_identity::trust::Trust;
use sluice_schema::{Authority, Certificate, ClientAuth, Config};
use sluice_wire::certificate::NAMES_MAX;
use sluice_wire::role::Role;
use tokio::time::Instant;

use super::provider;
use crate::conn::TlsSession;
use crate::state::Shared;

/// Between two looks at names and time, and between two questions to a vault that does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks whether it was revoked: until it has another, instances refuse the edge.
const LOOK: Duration = Duration::from_millis(25);

/// The edge's certificate with its key.
pub(crate) struct RoleIdentity {
    /// The certificate, then its issuers.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The authority's roots.
    pub(crate) roots: Vec<CertificateDer<'static>>,
    /// Another number with each certificate.
    pub(crate) generation: u64,
    key: RoleKey,
    names: Names,
    renew_at: Timestamp,
    serial: String,
}

/// What a certificate is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Names {
    dns: Vec<String>,
    ip: Vec<IpAddr>,
}

/// No certificate for now.
#[derive(Debug, thiserror::Error)]
enum IdentityError {
    #[error("the vault is not there")]
    NoVault,
    #[error("the key cannot be made")]
    Key(#[from] RoleKeyFault),
    #[error("the vault gives none")]
    Vault(#[from] ClientError),
    #[error("the vault's answer cannot be read")]
    Answer,
}

/// The edge's own certificate, as it is now.
pub(crate) struct EdgeIdentity {
    current: ArcSwapOption<RoleIdentity>,
    file: PathBuf,
}

impl EdgeIdentity {
    /// With what was kept in the role's folder, where that is still good.
    pub(crate) fn open(role_dir: &Path) -> Self {
        let file = role_dir.join("identity.json");
        let kept = Kept::read(&file).and_then(|kept| RoleIdentity::of(&kept, 1).ok());
        // Only until the vault answers.
        let kept = kept.map(|kept| RoleIdentity { renew_at: Timestamp::UNIX_EPOCH, ..kept });
        Self { current: ArcSwapOption::new(kept.map(Arc::new)), file }
    }

    /// The certificate; `None` until the vault has given one.
    pub(crate) fn current(&self) -> Option<Arc<RoleIdentity>> {
        self.current.load_full()
    }

    /// Waits for [`RETRY`], less where the certificate is revoked meanwhile.
    async fn until_revoked(&self, trust: &TrustCell) {
        let over = Instant::now() + RETRY;
        while Instant::now() < over {
            tokio::time::sleep(LOOK).await;
            let current = self.current.load();
            if current.as_ref().is_some_and(|identity| trust.load().is_serial_revoked(&identity.serial)) {
                return;
            }
        }
    }

    /// Asks the vault where that is due. True: there is a new certificate.
    async fn renew(
        &self,
        vault: Option<&Client>,
        names: &Names,
        trust: &Trust,
    ) -> Result<bool, IdentityError> {
        let current = self.current();
        let due = |identity: &Arc<RoleIdentity>| {
            identity.names != *names
                || Timestamp::now() >= identity.renew_at
                || trust.is_serial_revoked(&identity.serial)
        };
        if current.as_ref().is_some_and(|identity| !due(identity)) {
            return Ok(false);
        }
        let vault = vault.ok_or(IdentityError::NoVault)?;
        let key = RoleKey::generate()?;
        let request = CertificateRequest {
            csr: key.request()?,
            dns_names: names.dns.clone(),
            ip_addresses: names.ip.iter().map(ToString::to_string).collect(),
        };
        let kept = Kept::new(&key, vault.role_certificate(&request).await?, names.clone());
        let generation = current.map_or(1, |identity| identity.generation + 1);
        let identity = RoleIdentity::of(&kept, generation)?;
        if let Err(error) = kept.write(&self.file) {
            tracing::warn!(component = "tls", %error, "the edge's certificate is not kept for the next start");
        }
        self.current.store(Some(Arc::new(identity)));
        Ok(true)
    }
}

impl RoleIdentity {
    fn of(kept: &Kept, generation: u64) -> Result<Self, IdentityError> {
        let certificates = |text: &str| {
            CertificateDer::pem_slice_iter(text.as_bytes())
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| IdentityError::Answer)
        };
        let key =
            PrivatePkcs8KeyDer::from_pem_slice(kept.key.as_bytes()).map_err(|_| IdentityError::Answer)?;
        let mut chain = certificates(&kept.certificate)?;
        let roots = certificates(&kept.root)?;
        // Clients have the root; what they lack is what stands between.
        chain.extend(certificates(&kept.chain)?.into_iter().filter(|issuer| !roots.contains(issuer)));
        let leaf = chain.first().and_then(|leaf| ClientCertificate::parse(leaf).ok());
        Ok(Self {
            serial: leaf.ok_or(IdentityError::Answer)?.serial,
            chain,
            roots,
            generation,
            key: RoleKey::from_pkcs8(key.secret_pkcs8_der())?,
            names: kept.names.clone(),
            renew_at: kept.renew_at,
        })
    }

    /// Whether the authority that gave it has signed what a client shows too.
    pub(crate) fn vouches_for(&self, session: &TlsSession, trust: &TrustCell) -> bool {
        let Some((leaf, issuers)) = session.chain.split_first() else { return false };
        let verifier = ClientVerifier::new(provider(), true, &self.roots, trust.clone());
        verifier.is_ok_and(|verifier| verifier.verify_client_cert(leaf, issuers, UnixTime::now()).is_ok())
    }

    /// Its private key.
    pub(crate) fn key(&self) -> PrivateKeyDer<'_> {
        PrivateKeyDer::Pkcs8(self.key.pkcs8().into())
    }
}

/// The file between two starts.
#[derive(Serialize, Deserialize)]
struct Kept {
    key: String,
    certificate: String,
    chain: String,
    root: String,
    names: Names,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

impl Kept {
    fn new(key: &RoleKey, given: RoleCertificate, names: Names) -> Self {
        Self {
            key: pem("PRIVATE KEY", key.pkcs8()),
            certificate: given.certificate,
            chain: given.ca_chain,
            root: given.ca_certificate,
            names,
            renew_at: given.renew_at,
            expires_at: given.expires_at,
        }
    }

    /// What was kept, unless it has ended.
    fn read(file: &Path) -> Option<Self> {
        let kept: Self = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
        (kept.expires_at > Timestamp::now()).then_some(kept)
    }

    fn write(&self, file: &Path) -> std::io::Result<()> {
        let beside = file.with_extension("new");
        if let Some(dir) = file.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let mut out =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        out.write_all(&serde_json::to_vec(self)?)?;
        out.sync_all()?;
        std::fs::rename(beside, file)
    }
}

/// The names that the configuration needs, and how many do not fit: those of this machine, of the listener, then
/// of the services' hosts, as far as the vault lets the edge have them.
fn names(config: &Config) -> (Names, usize) {
    let mut dns = vec!["localhost".to_owned()];
    let mut ip = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
    let mut take = |name: &String| match name.parse() {
        Ok(address) if !ip.contains(&address) => ip.push(address),
        Err(_) if !dns.contains(name) => dns.push(name.clone()),
        _ => {}
    };
    if let Some(tls) = &config.edge.tls {
        if !tls.listen.ip().is_unspecified() {
            take(&tls.listen.ip().to_string());
        }
        tls.names.iter().for_each(&mut take);
        let hosts = config.enabled_services().flat_map(|service| &service.hosts);
        hosts.filter(|host| may_carry(host, &config.vault.trust_domain)).for_each(take);
    }
    let left_out = dns.len().saturating_sub(NAMES_MAX) + ip.len().saturating_sub(NAMES_MAX);
    dns.truncate(NAMES_MAX);
    ip.truncate(NAMES_MAX);
    (Names { dns, ip }, left_out)
}

/// Whether the listener cannot do without what the vault gives.
fn needs_vault(config: &Config) -> bool {
    config.edge.tls.as_ref().is_some_and(|tls| {
        let clients = tls.client_auth != ClientAuth::Off && tls.client_ca == Authority::Auto;
        clients || tls.certificate == Certificate::Auto
    })
}

/// Whether the vault gives the edge a certificate with this name: none of another role, nor of all in the trust
/// domain. One name that it does not give would cost the whole certificate.
fn may_carry(host: &str, trust_domain: &str) -> bool {
    let label = host.strip_suffix(trust_domain).and_then(|rest| rest.strip_suffix('.')).unwrap_or(host);
    label != "*" && label.parse::<Role>().map_or(true, |role| role == Role::Edge)
}

/// Keeps the certificate good, for ever.
pub(crate) async fn keep(shared: Arc<Shared>) -> Infallible {
    let vault = shared.workers.client(Role::Vault);
    let mut told = false;
    loop {
        let config = Arc::clone(&shared.generation().config);
        let (names, left_out) = names(&config);
        let trust = shared.trust.load();
        match shared.identity.renew(vault.as_ref(), &names, &trust).await {
            Ok(false) => shared.identity.until_revoked(&shared.trust).await,
            Err(IdentityError::NoVault) => {
                if needs_vault(&config) && !std::mem::replace(&mut told, true) {
                    tracing::warn!(
                        component = "tls",
                        "the TLS listener needs the vault worker, which `sluice up` runs: name files instead"
                    );
                }
                tokio::time::sleep(RETRY).await;
            }
            Ok(true) => {
                told = false;
                tracing::info!(component = "tls", "the edge has a new certificate");
                if left_out > 0 {
                    tracing::warn!(component = "tls", left_out, "more names than one certificate carries");
                }
                shared.identity_changed().await;
                // Not sooner, whatever is revoked: a loop must not wear the vault out.
                tokio::time::sleep(RETRY).await;
            }
            Err(error) => {
                if !told {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(component = "tls", %error, cause, "the edge's certificate is not renewed");
                }
                told = true;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_schema::EdgeTls;

    fn config(names: &[&str], hosts: &[String]) -> Config {
        let mut config = Config::default();
        config.edge.tls = Some(EdgeTls {
            listen: "0.0.0.0:8443".parse().unwrap(),
            certificate: Certificate::Auto,
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            client_auth: ClientAuth::Off,
            client_ca: Authority::Auto,
        });
        let mut service = config.service("a", "/a");
        service.hosts = hosts.to_vec();
        config.services.push(service);
        config
    }

    #[test]
    fn hosts_are_asked_for_as_what_they_are() {
        let hosts = [
            "10.1.2.3",
            "*.shop.example",
            "shop.example",
            "vault",
            "calc.sluice.internal",
            "*.sluice.internal",
        ];
        let (names, left_out) = names(&config(&["gate.example", "10.0.0.10"], &hosts.map(str::to_owned)));
        assert_eq!(names.dns, ["localhost", "gate.example", "*.shop.example", "shop.example"]);
        assert!(names.ip.contains(&"10.1.2.3".parse().unwrap()), "an address is no DNS name");
        assert!(names.ip.contains(&"10.0.0.10".parse().unwrap()));
        assert_eq!(left_out, 0);
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let hosts: Vec<String> = (0..100).map(|n| format!("h{n}.example")).collect();
        let (names, left_out) = names(&config(&["z.example"], &hosts));
        assert_eq!((names.dns.len(), left_out), (NAMES_MAX, 102 - NAMES_MAX));
        assert_eq!(names.dns[1], "z.example", "what is named for the listener comes first");
    }
}
