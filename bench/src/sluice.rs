//! Sluice as a subject: `sluice up` on free ports, bare or with the whole policy chain.
//!
//! The supervisor starts several processes; the edge alone is the proxy, so its CPU time is the one that
//! counts and it alone goes to the proxy core. The workers stay on the load core: they idle,
//! and what they disturb there is charged to Sluice's own latency.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use crate::account::pin_process;
use crate::check::ask;
use crate::fault::told;
use crate::load::Place;
use crate::process::{Guarded, Launch};
use crate::program::{Identity, find_in_path};
use crate::subject::{Running, Site, StartError, Starting, Subject, fill, path_text};
use crate::transport::Papers;

/// A main file and the file of the service that is asked.
type Templates = (&'static str, &'static str);

const BARE: Templates =
    (include_str!("../peers/sluice-bare.toml"), include_str!("../peers/sluice-bare.service.toml"));
const POLICY: Templates =
    (include_str!("../peers/sluice-policy.toml"), include_str!("../peers/sluice-policy.service.toml"));
const ORDERS: Templates =
    (include_str!("../peers/sluice-orders.toml"), include_str!("../peers/sluice-orders.service.toml"));
/// The program of all subjects here.
pub(crate) const PROGRAM: &str = "sluice";
/// Why it is not measured where it is not there.
pub(crate) const ABSENT: &str = "no `sluice` beside this binary or in PATH; see --sluice";
/// Folder of its services.
const SERVICES: &str = "services.d";
/// Services in one file: its size has a bound.
const SERVICES_A_FILE: u32 = 1000;
/// Ready within 3 s is the product's promise; an unoptimised build on a busy machine is given more.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// Sluice with one configuration.
#[derive(Debug, Clone)]
pub(crate) struct Sluice {
    name: &'static str,
    policies: &'static str,
    templates: Templates,
    authorized: bool,
    keeps_keys: bool,
    /// Services in all, each a route of its own.
    services: u32,
    program: Option<PathBuf>,
}

/// The ready line of `sluice up --json`; other keys are not ours.
#[derive(Deserialize)]
pub(crate) struct Banner {
    event: String,
    pub(crate) edge: String,
    edge_tls: Option<String>,
    pub(crate) events: Option<String>,
    pub(crate) vault: Option<String>,
    pub(crate) calc: Option<String>,
    pub(crate) token: Option<String>,
    pub(crate) pids: Pids,
}

#[derive(Deserialize)]
pub(crate) struct Pids {
    pub(crate) edge: u32,
    pub(crate) events: Option<u32>,
    pub(crate) vault: Option<u32>,
    pub(crate) calc: Option<u32>,
}

/// The binary asked for, else one beside ours or in PATH.
pub(crate) fn binary(asked: Option<&Path>) -> Option<PathBuf> {
    let beside = || std::env::current_exe().ok().map(|own| own.with_file_name("sluice"));
    match asked {
        Some(path) => Some(path.to_owned()),
        None => beside().filter(|path| path.is_file()).or_else(|| find_in_path("sluice")),
    }
}

/// Starts `sluice up` below a site's directory, on the generator's core, and reads its ready line.
pub(crate) async fn up(
    program: &Path,
    site: &Site<'_>,
    config: PathBuf,
) -> anyhow::Result<(Guarded, Banner)> {
    let data = site.dir.join("data");
    let mut arguments: Vec<_> =
        ["up", "--dev", "--json", "--no-demo", "--port-offset", "auto"].map(Into::into).into();
    arguments.extend(["--data-dir".into(), data.into_os_string(), "--conf".into(), config.into_os_string()]);
    let core = site.cores.map(|cores| cores.load);
    let launch = Launch { program, arguments, core, dir: &site.dir, environment: Vec::new() };
    let mut child = launch.start()?;
    let line = child.first_line(READY_LIMIT).await?;
    Ok((child, Banner::parse(&line)?))
}

/// Every configuration; `program` is the binary asked for, else it is looked for beside ours and in PATH.
pub(crate) fn all(program: Option<&Path>) -> Vec<Sluice> {
    let bare = bare(program);
    vec![
        policy(program),
        Sluice {
            name: "sluice-orders",
            policies: "as sluice-policy, in the order lane, and each key is on the disk before its request leaves",
            templates: ORDERS,
            authorized: true,
            keeps_keys: true,
            ..bare.clone()
        },
        with_services("sluice-routes-1", "as sluice-bare, one service", 1, &bare),
        with_services("sluice-routes-10", "as sluice-bare, 10 services", 10, &bare),
        with_services("sluice-routes-100", "as sluice-bare, 100 services", 100, &bare),
        with_services("sluice-routes-1000", "as sluice-bare, 1,000 services", 1_000, &bare),
        with_services("sluice-routes-10000", "as sluice-bare, 10,000 services", 10_000, &bare),
        bare,
    ]
}

fn with_services(name: &'static str, policies: &'static str, services: u32, bare: &Sluice) -> Sluice {
    Sluice { name, policies, services, ..bare.clone() }
}

fn bare(program: Option<&Path>) -> Sluice {
    Sluice {
        name: "sluice-bare",
        policies: "forwards, with request id and metrics",
        templates: BARE,
        authorized: false,
        keeps_keys: false,
        services: 1,
        program: binary(program),
    }
}

/// The whole policy chain.
pub(crate) fn policy(program: Option<&Path>) -> Sluice {
    Sluice {
        name: "sluice-policy",
        policies: "JWT ES256 (verified-token cache), permission, rate limit, lanes, breaker, metrics, request id, access log",
        templates: POLICY,
        authorized: true,
        ..bare(program)
    }
}

impl Subject for Sluice {
    fn name(&self) -> &str {
        self.name
    }

    fn program(&self) -> &'static str {
        PROGRAM
    }

    fn policies(&self) -> &str {
        self.policies
    }

    fn sets_request_id(&self) -> bool {
        true
    }

    fn keeps_keys(&self) -> bool {
        self.keeps_keys
    }

    fn start<'a>(&'a self, site: &'a Site<'a>) -> Starting<'a> {
        Box::pin(async move {
            let missing = || StartError::Missing(ABSENT.into());
            let program = self.program.as_ref().ok_or_else(missing)?;
            Ok(self.begin(program, site).await?.0)
        })
    }
}

impl Sluice {
    /// Starts it; also what its ready line says.
    pub(crate) async fn begin(&self, program: &Path, site: &Site<'_>) -> anyhow::Result<(Running, Banner)> {
        let identity = Identity::ask(program, "--version", program.display().to_string())?;
        let config = self.write_config(site)?;
        let (child, banner) = up(program, site, config).await?;
        let url = if site.papers.is_some() { banner.edge_tls.as_ref() } else { Some(&banner.edge) };
        let url = url.context("the ready line has no address for TLS")?;
        let address = url.split_once("://").map_or(url.as_str(), |(_, address)| address);
        let address = address.parse().with_context(|| format!("edge address `{address}`"))?;
        if let Some(cores) = site.cores {
            pin_process(banner.pids.edge, cores.proxy)?;
        }
        let authorization = match (self.authorized, &banner.token) {
            (true, Some(token)) => Some(format!("Bearer {token}")),
            (true, None) => anyhow::bail!("the ready line has no token"),
            (false, _) => None,
        };
        // No token without the permission can be had without asking the vault for one.
        let new = Running::new(identity, address, banner.pids.edge, child);
        // The supervisor tells its roles.
        let reload = new.child.as_ref().and_then(|child| told(child.pid()));
        let others = match &authorization {
            Some(bearer) => others(&banner, bearer, site.tokens.es256.others.len())?,
            None => Vec::new(),
        };
        let services = Some(site.dir.join(SERVICES));
        Ok((Running { authorization, others, reload, services, trust: site.trust(), ..new }, banner))
    }

    fn write_config(&self, site: &Site<'_>) -> anyhow::Result<PathBuf> {
        let services = site.dir.join(SERVICES);
        std::fs::create_dir_all(&services).with_context(|| format!("create {}", services.display()))?;
        let origin = site.origin.to_string();
        let instance = |address| format!("[[service.instance]]\nurl = \"http://{address}\"\n");
        let spare = site.spare.map(instance).unwrap_or_default();
        let tls = site.papers.map_or_else(|| Ok(String::new()), Papers::sluice)?;
        let values = [
            ("dir", path_text(&site.dir)?),
            ("origin", origin.as_str()),
            ("tls", tls.as_str()),
            ("spare", spare.as_str()),
        ];
        let config = site.dir.join("sluice.toml");
        for (path, template) in
            [(&config, self.templates.0), (&services.join("bench.toml"), self.templates.1)]
        {
            write(path, &fill(template, &values)?)?;
        }
        for first in (1..self.services).step_by(SERVICES_A_FILE as usize) {
            let last = self.services.min(first + SERVICES_A_FILE);
            write(&services.join(format!("other-{first:05}.toml")), &siblings(first..last, &origin))?;
        }
        Ok(config)
    }
}

/// Credentials of so many services, made by the vault.
fn others(banner: &Banner, bearer: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let url = banner.vault.as_deref().context("the ready line has no vault")?;
    let address = url.strip_prefix("http://").unwrap_or(url);
    let vault = Place::plain(address.parse().with_context(|| format!("address of the vault `{address}`"))?);
    let one = |number| Ok(format!("Bearer {}", issued(&vault, bearer, &format!("bench-{number}"))?));
    (0..count).map(one).collect()
}

/// A token of a service, which nobody was asked with yet.
pub(crate) fn issued(vault: &Place, bearer: &str, service: &str) -> anyhow::Result<String> {
    let request = posted(vault, &format!("/tokens/{service}"), bearer, r#"{"permissions":["read"]}"#);
    let answer = ask(vault, &request)?;
    let read: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let words = || format!("status {}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    Ok(read["token"].as_str().with_context(words)?.to_owned())
}

/// A POST of JSON as its bytes.
pub(crate) fn posted(place: &Place, path: &str, bearer: &str, body: &str) -> Vec<u8> {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        place.address,
        body.len()
    )
    .into_bytes()
}

/// Services beside the one that is asked, one path segment further down, so that a look-up passes among them.
fn siblings(numbers: std::ops::Range<u32>, origin: &str) -> String {
    let mut text = String::new();
    for number in numbers {
        // Probed once a day: what is measured is the routes, not ten thousand probes of one origin.
        write!(
            text,
            "[[service]]\nname = \"other-{number:05}\"\nprefix = \"/bench/other-{number:05}\"\n\
             auth_required = false\nhealth = {{ interval = \"24h\" }}\n\
             [[service.instance]]\nurl = \"http://{origin}\"\n"
        )
        .expect("writing to a String cannot fail");
    }
    text
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

impl Banner {
    pub(crate) fn parse(line: &str) -> anyhow::Result<Self> {
        let banner: Self =
            serde_json::from_str(line).context("the first line of `sluice up` is no ready line")?;
        anyhow::ensure!(banner.event == "ready", "first event is `{}`, not `ready`", banner.event);
        Ok(banner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Transport;

    #[test]
    fn ready_line_is_read_and_others_are_refused() {
        let line = r#"{"event":"ready","edge":"http://127.0.0.1:1","control":"x","token":"t","pids":{"edge":7,"vault":8}}"#;
        let banner = Banner::parse(line).unwrap();
        assert_eq!((banner.pids.edge, banner.token.as_deref()), (7, Some("t")));
        assert!(Banner::parse(&line.replace("ready", "failed")).is_err());
        assert!(Banner::parse("starting").is_err());
    }

    #[test]
    fn configuration_files_are_whole() {
        let tokens = crate::tokens::Tokens::make(0).unwrap();
        let programs = crate::program::Programs::new(Path::new("/no/cache"), false).unwrap();
        let origin = "127.0.0.1:9".parse().unwrap();
        for sluice in all(Some(Path::new("/no/sluice"))) {
            let dir = tempfile::tempdir().unwrap();
            let site = Site {
                origin,
                spare: None,
                body_bytes: 16,
                dir: dir.path().into(),
                cores: None,
                tokens: &tokens,
                programs: &programs,
                transport: Transport::Plain,
                papers: None,
            };
            let config = std::fs::read_to_string(sluice.write_config(&site).unwrap()).unwrap();
            let service = std::fs::read_to_string(dir.path().join("services.d/bench.toml")).unwrap();
            toml::from_str::<toml::Table>(&config).unwrap();
            let service: toml::Table = toml::from_str(&service).unwrap();
            assert_eq!(service["service"][0]["auth_required"].as_bool(), Some(sluice.authorized));
            assert!(service["service"][0]["instance"][0]["url"].as_str().unwrap().ends_with(":9"));
            assert_eq!(service["service"][0].get("idempotency").is_some(), sluice.keeps_keys);
            let files = std::fs::read_dir(dir.path().join("services.d")).unwrap();
            let texts = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap());
            let services: usize = texts
                .map(|text| {
                    toml::from_str::<toml::Table>(&text).unwrap()["service"].as_array().unwrap().len()
                })
                .sum();
            assert_eq!(services, sluice.services as usize, "{}", sluice.name);
        }
    }
}
