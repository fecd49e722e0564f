//! The product under callgrind: `sluice up` with all its roles, asked one thing after the other.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::history::Count;
use super::profile_of;
use crate::load::{Link, Place};
use crate::process::Launch;
use crate::program::Programs;
use crate::question::{Question, Request};
use crate::sluice::{Banner, issued, posted};
use crate::subject::{PATH, Site, fill, path_text, start_origin};
use crate::tokens::Tokens;
use crate::transport::Transport;
use crate::voice::{Expects, Voice};

const CONFIG: &str = include_str!("../../peers/count.toml");
const SERVICES: &str = include_str!("../../peers/count.service.toml");
/// Under callgrind all roles take tens of times as long to start.
const READY_LIMIT: Duration = Duration::from_secs(90);
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// Asked before it counts: pools, caches and tables are filled by then.
const WARM: u32 = 30;
/// So many that what a role does by itself meanwhile is a small part.
const ASKED: u32 = 1_000;
/// Of what takes long.
const ASKED_LONG: u32 = 150;
/// Forwarded and nothing else; and with everything: token, permission, limit, lane, breaker, access log.
const BARE: &str = "proxied request";
const WHOLE: &str = "proxied request, whole policy chain";
const EVENT_BYTES: usize = 200;
const BATCH: u32 = 100;

/// One operation of a role.
struct Operation {
    name: &'static str,
    role: u32,
    place: Place,
    /// Asked in turn.
    requests: Vec<Request>,
    expects: Expects,
    asked: u32,
}

/// Starts everything, counts each operation, ends everything.
pub(super) async fn count(sluice: &Path, valgrind: &Path, dir: &Path) -> anyhow::Result<Vec<Count>> {
    let (tokens, programs) = (Tokens::make(0)?, Programs::new(dir, false)?);
    let site = |name: &str, origin| {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir)?;
        let (transport, papers, body_bytes) = (Transport::Plain, None, 1024);
        anyhow::Ok(Site {
            spare: None,
            origin,
            body_bytes,
            dir,
            cores: None,
            tokens: &tokens,
            programs: &programs,
            transport,
            papers,
        })
    };
    let origin =
        start_origin(&site("origin", ([127, 0, 0, 1], 0).into())?).await.context("start the origin")?;
    let site = site("sluice", origin.address)?;
    let launch = Launch {
        program: valgrind,
        arguments: arguments(sluice, &site)?,
        core: None,
        dir: &site.dir,
        environment: Vec::new(),
    };
    let mut child = launch.start()?;
    let banner = Banner::parse(&child.first_line(READY_LIMIT).await?)?;
    let mut counts = Vec::new();
    for (number, operation) in operations(&banner)?.into_iter().enumerate() {
        let name = operation.name;
        counts.push(one(operation, &site.dir).await.with_context(|| format!("count {name} ({number})"))?);
        child.assert_alive()?;
    }
    let of = |name: &str| counts.iter().find(|count| count.name == name).context("an operation is missing");
    let policy = of(WHOLE)?.without(of(BARE)?);
    counts.push(policy);
    Ok(counts)
}

fn arguments(sluice: &Path, site: &Site<'_>) -> anyhow::Result<Vec<std::ffi::OsString>> {
    let services = site.dir.join("services.d");
    std::fs::create_dir_all(&services)?;
    let origin = site.origin.to_string();
    let values = [("dir", path_text(&site.dir)?), ("origin", origin.as_str())];
    let config = site.dir.join("sluice.toml");
    std::fs::write(&config, fill(CONFIG, &values)?)?;
    std::fs::write(services.join("count.toml"), fill(SERVICES, &values)?)?;
    let out = format!("--callgrind-out-file={}/counted.%p", path_text(&site.dir)?);
    let words = ["--tool=callgrind", "--quiet", "--trace-children=yes", "--combine-dumps=no", &out];
    let mut arguments: Vec<_> = words.map(Into::into).into();
    arguments.push(sluice.into());
    arguments.extend(
        ["up", "--dev", "--json", "--no-demo", "--port-offset", "auto", "--data-dir"].map(Into::into),
    );
    arguments.extend([site.dir.join("data").into_os_string(), "--conf".into(), config.into_os_string()]);
    Ok(arguments)
}

fn operations(banner: &Banner) -> anyhow::Result<Vec<Operation>> {
    let place = |url: &str| {
        let address = url.strip_prefix("http://").unwrap_or(url).parse();
        anyhow::Ok(Place::plain(address.with_context(|| format!("address `{url}`"))?))
    };
    let bearer = format!("Bearer {}", banner.token.as_ref().context("the ready line has no token")?);
    let edge = place(&banner.edge)?;
    let events = place(banner.events.as_ref().context("no events worker")?)?;
    let vault = place(banner.vault.as_ref().context("no vault")?)?;
    let guarded = format!("/guarded{PATH}");
    let get = |path: &str, credentials: Option<&str>| {
        Question::default().request(&edge.address.to_string(), path, credentials)
    };
    let unseen = (0..WARM + ASKED_LONG).map(|_| {
        let token = issued(&vault, &bearer, "counted")?;
        anyhow::Ok(get(&guarded, Some(&format!("Bearer {token}"))))
    });
    let unseen = unseen.collect::<Result<Vec<_>, _>>().context("issue tokens")?;
    let proxied = |name, requests, asked| {
        let (role, place, expects) = (banner.pids.edge, edge.clone(), Expects::Body(1024));
        Operation { name, role, place, requests, expects, asked }
    };
    let publish = |name, batch, asked| {
        let host = events.address.to_string();
        let (bytes, expects) = Voice::Http.publish(&host, Some(&bearer), batch, EVENT_BYTES, false);
        let (role, place) = (banner.pids.events.unwrap_or_default(), events.clone());
        Operation { name, role, place, requests: vec![Request::with_places(bytes)], expects, asked }
    };
    Ok(vec![
        proxied(BARE, vec![get(PATH, None)], ASKED),
        proxied(WHOLE, vec![get(&guarded, Some(&bearer))], ASKED),
        proxied("proxied request with a token the edge has not seen", unseen, ASKED_LONG),
        publish("event published", 1, ASKED),
        publish("batch of a hundred events published", BATCH, ASKED_LONG),
        Operation {
            name: "token checked by the vault",
            role: banner.pids.vault.unwrap_or_default(),
            requests: vec![Request::plain(posted(&vault, "/tokens/validate", &bearer, "{}"))],
            place: vault,
            expects: Expects::Says("\"valid\":true"),
            asked: ASKED,
        },
    ])
}

async fn one(mut operation: Operation, dir: &Path) -> anyhow::Result<Count> {
    let link = operation.place.link(None).await?;
    for number in 0..WARM {
        operation.ask(&link, number).await?;
    }
    tell(operation.role, "zero").await?;
    for number in 0..operation.asked {
        operation.ask(&link, WARM + number).await?;
    }
    let before = dumps(operation.role, dir);
    tell(operation.role, "dump").await?;
    let new = dumps(operation.role, dir).into_iter().find(|path| !before.contains(path));
    Ok(Count::of(operation.name, &profile_of(&new.context("callgrind wrote nothing")?)?, operation.asked))
}

impl Operation {
    async fn ask(&mut self, link: &Link, number: u32) -> anyhow::Result<()> {
        let turn = number as usize % self.requests.len();
        link.send(self.requests[turn].next(0, number.into()))?;
        let reading = async {
            let mut buffer = Vec::new();
            loop {
                ensure!(link.receive(&mut buffer).await? > 0, "closed");
                if let Some(found) = self.expects.read(&buffer)? {
                    let right = found.right && (200..300).contains(&found.response.status);
                    ensure!(right, "not the right answer: {}", String::from_utf8_lossy(&buffer));
                    return Ok(());
                }
            }
        };
        tokio::time::timeout(ANSWER_LIMIT, reading).await.context("no answer in time")?
    }
}

/// Says something to the callgrind that a process runs under.
async fn tell(process: u32, word: &str) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new("vgdb");
    command.arg(format!("--pid={process}")).arg(word).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER_LIMIT, command.output()).await;
    let output =
        output.with_context(|| format!("callgrind does not {word} in time"))?.context("start vgdb")?;
    ensure!(output.status.success(), "vgdb {word}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What the callgrind of a process has written.
fn dumps(process: u32, dir: &Path) -> Vec<PathBuf> {
    let prefix = format!("counted.{process}.");
    let names =
        |name: Option<&std::ffi::OsStr>| name.is_some_and(|name| name.to_string_lossy().starts_with(&prefix));
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| names(path.file_name())).collect()
}
