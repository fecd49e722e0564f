//! Sluice as a subject: `sluice up` on free ports, bare or with the whole policy chain.
//!
//! The supervisor starts several processes; the edge alone is the proxy, so its CPU time is the one that
//! counts and it alone goes to the proxy core. The workers stay on the load core: they idle,
//! and what they disturb there is charged to Sluice's own latency.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;

use crate::account::pin_process;
use crate::process::{Launch, find_in_path, version_of};
use crate::subject::{Running, Site, StartError, Starting, Subject, fill, path_text};

const BARE: (&str, &str) =
    (include_str!("../peers/sluice-bare.toml"), include_str!("../peers/sluice-bare.service.toml"));
const POLICY: (&str, &str) =
    (include_str!("../peers/sluice-policy.toml"), include_str!("../peers/sluice-policy.service.toml"));
/// Ready within 3 s is the product's promise; an unoptimised build on a busy machine is given more.
const READY_LIMIT: Duration = Duration::from_secs(20);

/// Sluice with one configuration.
#[derive(Debug)]
pub(crate) struct Sluice {
    name: &'static str,
    policies: &'static str,
    templates: (&'static str, &'static str),
    authorized: bool,
    program: Option<PathBuf>,
}

/// The ready line of `sluice up --json`; other keys are not ours.
#[derive(Deserialize)]
struct Banner {
    event: String,
    edge: String,
    token: Option<String>,
    pids: Pids,
}

#[derive(Deserialize)]
struct Pids {
    edge: u32,
}

/// Both configurations; `program` is the binary asked for, else it is looked for beside ours and in PATH.
pub(crate) fn all(program: Option<&Path>) -> Vec<Sluice> {
    let beside = || std::env::current_exe().ok().map(|own| own.with_file_name("sluice"));
    let program = match program {
        Some(path) => Some(path.to_owned()),
        None => beside().filter(|path| path.is_file()).or_else(|| find_in_path("sluice")),
    };
    vec![
        Sluice {
            name: "sluice-bare",
            policies: "forwards, with request id and metrics",
            templates: BARE,
            authorized: false,
            program: program.clone(),
        },
        Sluice {
            name: "sluice-policy",
            policies: "JWT ES256 (verified-token cache), permission, rate limit, breaker, metrics, request id, access log",
            templates: POLICY,
            authorized: true,
            program,
        },
    ]
}

impl Subject for Sluice {
    fn name(&self) -> &str {
        self.name
    }

    fn policies(&self) -> &str {
        self.policies
    }

    fn sets_request_id(&self) -> bool {
        true
    }

    fn start<'a>(&'a self, site: &'a Site<'a>) -> Starting<'a> {
        Box::pin(async move {
            let missing =
                || StartError::Missing("no `sluice` beside this binary or in PATH; see --sluice".into());
            let program = self.program.as_ref().ok_or_else(missing)?;
            Ok(self.start_with(program, site).await?)
        })
    }
}

impl Sluice {
    async fn start_with(&self, program: &Path, site: &Site<'_>) -> anyhow::Result<Running> {
        let version = version_of(program, OsStr::new("--version"))?;
        let config = self.write_config(site)?;
        let data = site.dir.join("data");
        let mut arguments: Vec<_> =
            ["up", "--dev", "--json", "--no-demo", "--port-offset", "auto"].map(Into::into).into();
        arguments.extend([
            "--data-dir".into(),
            data.into_os_string(),
            "--conf".into(),
            config.into_os_string(),
        ]);
        let launch = Launch { program, arguments, core: site.cores.map(|cores| cores.load), dir: &site.dir };
        let mut child = launch.start()?;
        let line = child.first_line(READY_LIMIT).await?;
        let banner = Banner::parse(&line)?;
        let address = banner.edge.strip_prefix("http://").unwrap_or(&banner.edge);
        let address = address.parse().with_context(|| format!("edge address `{address}`"))?;
        if let Some(cores) = site.cores {
            pin_process(banner.pids.edge, cores.proxy)?;
        }
        let authorization = match (self.authorized, banner.token) {
            (true, Some(token)) => Some(format!("Bearer {token}")),
            (true, None) => anyhow::bail!("the ready line has no token"),
            (false, _) => None,
        };
        Ok(Running { version, address, authorization, cpu_root: banner.pids.edge, child })
    }

    fn write_config(&self, site: &Site<'_>) -> anyhow::Result<PathBuf> {
        let services = site.dir.join("services.d");
        std::fs::create_dir_all(&services).with_context(|| format!("create {}", services.display()))?;
        let origin = site.origin.to_string();
        let values = [("dir", path_text(&site.dir)?), ("origin", origin.as_str())];
        let config = site.dir.join("sluice.toml");
        for (path, template) in
            [(&config, self.templates.0), (&services.join("bench.toml"), self.templates.1)]
        {
            std::fs::write(path, fill(template, &values)?)
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(config)
    }
}

impl Banner {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let banner: Self =
            serde_json::from_str(line).context("the first line of `sluice up` is no ready line")?;
        anyhow::ensure!(banner.event == "ready", "first event is `{}`, not `ready`", banner.event);
        Ok(banner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let tokens = crate::tokens::Tokens::make().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let origin = "127.0.0.1:9".parse().unwrap();
        let site = Site { origin, body_bytes: 16, dir: dir.path().into(), cores: None, tokens: &tokens };
        for sluice in all(Some(Path::new("/no/sluice"))) {
            let config = std::fs::read_to_string(sluice.write_config(&site).unwrap()).unwrap();
            let service = std::fs::read_to_string(dir.path().join("services.d/bench.toml")).unwrap();
            toml::from_str::<toml::Table>(&config).unwrap();
            let service: toml::Table = toml::from_str(&service).unwrap();
            assert_eq!(service["service"][0]["auth_required"].as_bool(), Some(sluice.authorized));
            assert!(service["service"][0]["instance"][0]["url"].as_str().unwrap().ends_with(":9"));
        }
    }
}
