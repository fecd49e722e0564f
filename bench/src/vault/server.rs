//! The vaults that are measured and how each is made ready: Sluice's worker behind its own paths and behind `/v1/`,
//! alone and opened by a share, beside the edge that hears of revocations; OpenBao with Raft and an audit file.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::ask::{Desk, Dialect, NAME};
use crate::account::pin_process;
use crate::process::{Guarded, Launch};
use crate::program::{Identity, Program};
use crate::sluice::{self, Banner, PROGRAM, up};
use crate::subject::{
    Running, Site, StartError, Starting, Subject, fill, free_address, path_text, start_origin,
};

const START_LIMIT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const SLUICE: &str = include_str!("../../peers/sluice-vault.toml");
const ALONE: &str = include_str!("../../peers/sluice-shamir.toml");
const OPENBAO: &str = include_str!("../../peers/openbao.hcl");
/// What the asking service may do in Vault's API: what is measured and nothing else.
const POLICY: &str = r#"path "secret/data/bench/*" { capabilities = ["create", "read", "update"] }
path "pki/issue/bench" { capabilities = ["create", "update"] }
path "pki/sign/bench" { capabilities = ["create", "update"] }
"#;

/// A vault with one configuration.
#[derive(Debug)]
pub(crate) struct Server {
    name: &'static str,
    policies: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Sluice's vault, in this language.
    Sluice(Option<PathBuf>, Dialect),
    /// Sluice's vault without other roles, opened by a share.
    Alone(Option<PathBuf>),
    /// The edge, and the vault from which it hears of revocations.
    Edge(Option<PathBuf>),
    OpenBao,
}

/// Every vault; `program` is the Sluice that was asked for.
pub(crate) fn all(program: Option<&Path>) -> Vec<Server> {
    let ours = || sluice::binary(program);
    vec![
        Server {
            name: "sluice-vault",
            policies: "the vault at its own port and paths: JWT ES256 of the service, sealed rows, rows and audit records \
                       on the disk before each answer (validation alone leaves no record)",
            kind: Kind::Sluice(ours(), Dialect::Own),
        },
        Server {
            name: "sluice-vault-v1",
            policies: "the same by Vault's API: a token of Vault's kind and its policy, KV 2, PKI with stored certificates",
            kind: Kind::Sluice(ours(), Dialect::V1),
        },
        Server {
            name: "sluice-shamir",
            policies: "the vault alone, opened by one share; the database's pages and a digest over all rows are checked",
            kind: Kind::Alone(ours()),
        },
        Server {
            name: "sluice-revoking",
            policies: "the edge as sluice-policy, beside the vault that tells it of revocations; CPU is the edge's",
            kind: Kind::Edge(ours()),
        },
        Server {
            name: "openbao",
            policies: "Raft on the disk (one node, synced), audit file (written before each answer, not synced), a token with \
                       the same policy, KV 2, PKI with stored P-256 certificates and no leases, GOMAXPROCS=1 \
                       where it has a core of its own",
            kind: Kind::OpenBao,
        },
    ]
}

impl Subject for Server {
    fn name(&self) -> &str {
        self.name
    }

    fn program(&self) -> &str {
        match self.kind {
            Kind::OpenBao => Program::Bao.name(),
            _ => PROGRAM,
        }
    }

    fn policies(&self) -> &str {
        self.policies
    }

    fn sets_request_id(&self) -> bool {
        false
    }

    fn start<'a>(&'a self, site: &'a Site<'a>) -> Starting<'a> {
        Box::pin(async move {
            let found = |program: &'a Option<PathBuf>| {
                program.as_deref().ok_or_else(|| StartError::Missing(sluice::ABSENT.into()))
            };
            match &self.kind {
                Kind::Sluice(program, dialect) => Ok(supervised(found(program)?, site, *dialect).await?),
                Kind::Alone(program) => Ok(alone(found(program)?, site).await?),
                Kind::Edge(program) => Ok(edge(found(program)?, site).await?),
                Kind::OpenBao => openbao(site).await,
            }
        })
    }
}

/// `sluice up` with the vault alone on the first core; the other roles idle beside the generator.
async fn supervised(program: &Path, site: &Site<'_>, dialect: Dialect) -> anyhow::Result<Running> {
    let identity = Identity::ask(program, "--version", program.display().to_string())?;
    let config = site.dir.join("sluice.toml");
    write(&config, SLUICE)?;
    let (child, banner) = up(program, site, config).await?;
    let mut desk = desk(&banner, site)?;
    let cpu_root = banner.pids.vault.context("the ready line names no vault process")?;
    pin(site, cpu_root)?;
    match dialect {
        Dialect::Own => {
            let wish = json!({ "permissions": ["read", "write"] });
            let made = desk.must("POST", &format!("/tokens/{NAME}"), Some(&wish))?;
            desk.token = text(&made["token"])?;
        }
        Dialect::V1 => {
            let root = site.dir.join("data/vault-token");
            let root = std::fs::read_to_string(&root).with_context(|| format!("read {}", root.display()))?;
            desk = Desk { dialect, root: root.trim().to_owned(), ..desk };
            admit(&mut desk)?;
        }
    }
    Ok(running(identity, desk, cpu_root, child))
}

/// What the ready line says of the vault, as its administrator sees it.
fn desk(banner: &Banner, site: &Site<'_>) -> anyhow::Result<Desk> {
    let url = banner.vault.as_deref().context("the ready line has no vault")?;
    let address = url.strip_prefix("http://").unwrap_or(url);
    let root = banner.token.clone().context("the ready line has no token")?;
    Ok(Desk {
        address: address.parse().with_context(|| format!("address of the vault `{address}`"))?,
        dialect: Dialect::Own,
        token: root.clone(),
        root,
        audit: site.dir.join("data/audit/vault.jsonl"),
        share: None,
    })
}

/// The worker by itself: no supervisor opens it, one share does.
async fn alone(program: &Path, site: &Site<'_>) -> anyhow::Result<Running> {
    let identity = Identity::ask(program, "--version", program.display().to_string())?;
    let address = free_address()?;
    let config = site.dir.join("sluice.toml");
    write(&config, &fill(ALONE, &[("listen", &address.to_string())])?)?;
    let mut arguments: Vec<OsString> = ["worker", "vault", "--conf"].map(Into::into).into();
    arguments.extend([config.into_os_string(), "--data-dir".into(), site.dir.join("data").into_os_string()]);
    let core = site.cores.map(|cores| cores.proxy);
    let launch = Launch { program, arguments, core, dir: &site.dir, environment: Vec::new() };
    let mut child = launch.start()?;
    let mut desk = closed(address, site.dir.join("data/audit/vault.jsonl"));
    open_first(&mut child, &mut desk).await?;
    desk.token.clone_from(&desk.root);
    let cpu_root = child.pid();
    Ok(running(identity, desk, cpu_root, child))
}

/// The edge with its policies before an origin; what is asked of the vault is its administrator's.
async fn edge(program: &Path, site: &Site<'_>) -> anyhow::Result<Running> {
    let dir = site.dir.join("origin");
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let origin = start_origin(&Site { dir, ..site.clone() }).await.context("start the origin")?;
    let site = Site { origin: origin.address, ..site.clone() };
    let (running, banner) = sluice::policy(Some(program)).begin(program, &site).await?;
    Ok(Running { desk: Some(desk(&banner, &site)?), beside: origin.child, ..running })
}

async fn openbao(site: &Site<'_>) -> Result<Running, StartError> {
    let (program, source) = site.programs.find(Program::Bao).await.map_err(StartError::Missing)?;
    let identity = Identity::of(Program::Bao, &program, source)?;
    let (address, cluster) = (free_address()?, free_address()?);
    let raft = site.dir.join("raft");
    std::fs::create_dir_all(&raft).with_context(|| format!("create {}", raft.display()))?;
    let values = [
        ("listen", &*address.to_string()),
        ("cluster", &cluster.to_string()),
        ("dir", path_text(&site.dir)?),
    ];
    let config = site.dir.join("openbao.hcl");
    write(&config, &fill(OPENBAO, &values)?)?;
    let arguments = ["server", "-config", path_text(&config)?].iter().map(OsString::from).collect();
    let core = site.cores.map(|cores| cores.proxy);
    // Where it has one core, one thread runs its routines, as one thread serves in other peers.
    let threads = core.map(|_| ("GOMAXPROCS".into(), "1".into()));
    let environment = threads.into_iter().chain([("HOME".into(), site.dir.clone().into())]).collect();
    let launch = Launch { program: &program, arguments, core, dir: &site.dir, environment };
    let mut child = launch.start()?;
    let mut desk = closed(address, site.dir.join("audit.log"));
    open_first(&mut child, &mut desk).await?;
    mount(&mut child, &desk).await?;
    admit(&mut desk)?;
    let cpu_root = child.pid();
    Ok(running(identity, desk, cpu_root, child))
}

/// A vault of Vault's API that nobody has opened yet.
fn closed(address: std::net::SocketAddr, audit: PathBuf) -> Desk {
    Desk { address, dialect: Dialect::V1, token: String::new(), root: String::new(), audit, share: None }
}

/// Makes a vault that opens by one share, and opens it.
async fn open_first(child: &mut Guarded, desk: &mut Desk) -> anyhow::Result<()> {
    let asked = desk.clone();
    let health = |desk: &Desk| desk.call("", "GET", "/v1/sys/health", None).map(|(status, _)| status);
    child.until("an answer of the vault", START_LIMIT, || health(&asked).ok()).await?;
    let split = json!({ "secret_shares": 1, "secret_threshold": 1 });
    let made = desk.must("PUT", "/v1/sys/init", Some(&split))?;
    let share = text(&made["keys_base64"][0])?;
    desk.root = text(&made["root_token"])?;
    let (status, told) = desk.call("", "PUT", "/v1/sys/unseal", Some(&json!({ "key": share })))?;
    ensure!(status == 200, "unseal: status {status}: {told}");
    desk.share = Some(share);
    let asked = desk.clone();
    let serves = || health(&asked).ok().filter(|status| *status == 200);
    child.until("an open vault", START_LIMIT, serves).await?;
    Ok(())
}

/// What a new OpenBao lacks: KV 2 at `secret/`, and an authority of P-256 at `pki/`.
async fn mount(child: &mut Guarded, desk: &Desk) -> anyhow::Result<()> {
    let kv = json!({ "type": "kv", "options": { "version": "2" } });
    desk.must("POST", "/v1/sys/mounts/secret", Some(&kv))?;
    let pki = json!({ "type": "pki", "config": { "max_lease_ttl": "87600h" } });
    desk.must("POST", "/v1/sys/mounts/pki", Some(&pki))?;
    let root = json!({ "common_name": "bench root", "key_type": "ec", "key_bits": 256, "ttl": "87600h" });
    desk.must("POST", "/v1/pki/root/generate/internal", Some(&root))?;
    // The mount makes itself ready after it has been answered.
    let began = Instant::now();
    let probe = json!({ "data": { "a": "b" } });
    loop {
        let (status, told) = desk.call(&desk.root, "POST", "/v1/secret/data/probe", Some(&probe))?;
        if status == 200 {
            return Ok(());
        }
        ensure!(began.elapsed() < START_LIMIT, "the mount of secrets does not become ready: {told}");
        child.assert_alive()?;
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The policy, the role of certificates and the token of the service that asks, alike in both vaults.
fn admit(desk: &mut Desk) -> anyhow::Result<()> {
    desk.must("PUT", &format!("/v1/sys/policies/acl/{NAME}"), Some(&json!({ "policy": POLICY })))?;
    let role = json!({
        "allowed_domains": "bench.example", "allow_subdomains": true, "key_type": "ec", "key_bits": 256,
        "ttl": "24h", "max_ttl": "24h",
    });
    desk.must("POST", &format!("/v1/pki/roles/{NAME}"), Some(&role))?;
    let wish = json!({ "policies": [NAME], "ttl": "12h", "meta": { "service": NAME } });
    let made = desk.must("POST", "/v1/auth/token/create", Some(&wish))?;
    desk.token = text(&made["auth"]["client_token"])?;
    Ok(())
}

fn text(value: &Value) -> anyhow::Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("a text was expected: {value}"))
}

fn pin(site: &Site<'_>, pid: u32) -> anyhow::Result<()> {
    site.cores.map_or(Ok(0), |cores| pin_process(pid, cores.proxy)).map(|_threads| ())
}

fn running(identity: Identity, desk: Desk, cpu_root: u32, child: Guarded) -> Running {
    let address = desk.address;
    Running { desk: Some(desk), ..Running::new(identity, address, cpu_root, child) }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_whole() {
        let listen = ("listen", "127.0.0.1:7");
        let alone: toml::Table = toml::from_str(&fill(ALONE, &[listen]).unwrap()).unwrap();
        assert_eq!(alone["vault"]["seal"].as_str(), Some("shamir"));
        assert!(toml::from_str::<toml::Table>(SLUICE).is_ok());
        let bao = fill(OPENBAO, &[listen, ("cluster", "127.0.0.1:8"), ("dir", "/d")]).unwrap();
        for expected in ["/d/raft", "/d/audit.log", "\"127.0.0.1:7\"", "127.0.0.1:8"] {
            assert!(bao.contains(expected), "{bao}");
        }
        assert_eq!(POLICY.matches(&format!("/{NAME}")).count(), 3);
    }
}
