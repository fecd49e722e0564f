//! The stores that events are measured on: Sluice's event worker, Redis and NATS JetStream.
//!
//! Each keeps its files in a directory of the run, on one disk; each keeps about the last million events. What an
//! acknowledgement promises is in the subject's name and its words.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::account::pin_process;
use crate::fault::Kept;
use crate::load::Place;
use crate::process::{Guarded, Launch};
use crate::program::{Identity, Program};
use crate::sluice::{ABSENT, PROGRAM, binary, up};
use crate::subject::{Running, Site, StartError, Starting, Subject, fill, free_address, path_text};
use crate::voice::Voice;

/// LIMIT: an answer of JetStream.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
const START_LIMIT: Duration = Duration::from_secs(10);
const SLUICE: &str = include_str!("../peers/sluice-events.toml");
/// Sluice's event worker without a bound on what it keeps.
const KEEPS_ALL: &str = include_str!("../peers/sluice-events-all.toml");
const NATS: &str = include_str!("../peers/nats.conf");
const NATS_STREAM: &str = include_str!("../peers/nats-stream.json");

/// A store with one configuration.
#[derive(Debug)]
pub(crate) struct Store {
    name: &'static str,
    policies: &'static str,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// The event worker of the binary, where there is one.
    Sluice(Option<PathBuf>, &'static str),
    /// The same, whose subscribers are at its WebSocket.
    WebSocket(Option<PathBuf>),
    /// The same, which stores its events in a Redis with this `appendfsync`.
    Through(Option<PathBuf>, &'static str),
    /// Redis with this `appendfsync`.
    Redis(&'static str),
    /// NATS with this `sync_interval`.
    Nats(&'static str),
}

/// Every store; `program` is the Sluice that was asked for.
pub(crate) fn all(program: Option<&Path>) -> Vec<Store> {
    vec![
        Store {
            name: "sluice-events",
            policies: "the event worker at its own port: JWT ES256 (verified-token cache), permission, strict JSON, ids, \
                       dedup, encrypted log, fsync before each answer",
            kind: Kind::Sluice(binary(program), SLUICE),
        },
        Store {
            name: "sluice-events-ws",
            policies: "the same, its subscribers at a WebSocket instead of Server-Sent Events",
            kind: Kind::WebSocket(binary(program)),
        },
        Store {
            name: "sluice-events-all",
            policies: "the same, and nothing is ever forgotten",
            kind: Kind::Sluice(binary(program), KEEPS_ALL),
        },
        Store {
            name: "sluice-redis-everysec",
            policies: "the event worker as above, its events in a Redis that syncs once a second; CPU is the worker's",
            kind: Kind::Through(binary(program), "everysec"),
        },
        Store {
            name: "redis-always",
            policies: "XADD, appendfsync always: an event is on the disk before its answer. No credential, no ids of \
                       events, no check of the text",
            kind: Kind::Redis("always"),
        },
        Store {
            name: "redis-everysec",
            policies: "XADD, appendfsync everysec: a power cut takes up to a second of acknowledged events. Else as \
                       redis-always",
            kind: Kind::Redis("everysec"),
        },
        Store {
            name: "nats-always",
            policies: "JetStream, file store, sync_interval always: as Redis with always",
            kind: Kind::Nats("always"),
        },
        Store {
            name: "nats-default",
            policies: "JetStream, file store, sync_interval 2m, its default: a power cut takes up to two minutes of \
                       acknowledged events",
            kind: Kind::Nats("2m"),
        },
    ]
}

impl Subject for Store {
    fn name(&self) -> &str {
        self.name
    }

    fn program(&self) -> &str {
        match self.kind {
            Kind::Sluice(..) | Kind::WebSocket(_) | Kind::Through(..) => PROGRAM,
            Kind::Redis(_) => Program::Redis.name(),
            Kind::Nats(_) => Program::Nats.name(),
        }
    }

    fn policies(&self) -> &str {
        self.policies
    }

    fn sets_request_id(&self) -> bool {
        self.program() == PROGRAM
    }

    fn start<'a>(&'a self, site: &'a Site<'a>) -> Starting<'a> {
        Box::pin(async move {
            match &self.kind {
                Kind::Sluice(None, _) | Kind::WebSocket(None) | Kind::Through(None, _) => {
                    Err(StartError::Missing(ABSENT.into()))
                }
                Kind::Sluice(Some(program), settings) => Ok(sluice(program, site, settings).await?),
                Kind::WebSocket(Some(program)) => {
                    let running = sluice(program, site, SLUICE).await?;
                    Ok(Running { voice: Voice::WebSocket, ..running })
                }
                Kind::Through(Some(program), sync) => through_redis(program, sync, site).await,
                Kind::Redis(sync) => peer(Program::Redis, sync, site).await,
                Kind::Nats(sync) => peer(Program::Nats, sync, site).await,
            }
        })
    }
}

/// The event worker alone goes to the first core; the other roles idle beside the generator.
async fn sluice(program: &Path, site: &Site<'_>, settings: &str) -> anyhow::Result<Running> {
    let identity = Identity::ask(program, "--version", program.display().to_string())?;
    let config = site.dir.join("sluice.toml");
    write(&config, settings)?;
    let (child, banner) = up(program, site, config).await?;
    let (url, cpu_root) =
        banner.events.zip(banner.pids.events).context("the ready line has no event worker")?;
    let token = banner.token.context("the ready line has no token")?;
    let address = url.strip_prefix("http://").unwrap_or(&url);
    let address = address.parse().with_context(|| format!("address of the event worker `{address}`"))?;
    if let Some(cores) = site.cores {
        pin_process(cpu_root, cores.proxy)?;
    }
    let authorization = Some(format!("Bearer {token}"));
    Ok(Running { authorization, promises: "fsync", ..Running::new(identity, address, cpu_root, child) })
}

/// The same with a Redis beside the generator, as if it were on another machine.
async fn through_redis(program: &Path, sync: &str, site: &Site<'_>) -> Result<Running, StartError> {
    let (path, _) = site.programs.find(Program::Redis).await.map_err(StartError::Missing)?;
    let address = free_address()?;
    let core = site.cores.map(|cores| cores.load);
    let arguments = redis_arguments(site, address, sync)?;
    let dir = site.dir.clone();
    let start = move || {
        let arguments = arguments.clone();
        Launch { program: &path, arguments, core, dir: &dir, environment: Vec::new() }.start()
    };
    let mut redis = start()?;
    wait_greeting(&mut redis, address, Voice::Redis).await?;
    let settings = format!("{SLUICE}\n[redis]\nurl = \"redis://{address}\"\n");
    let running = sluice(program, site, &settings).await?;
    Ok(Running { promises: "aof_everysec", store: Some(Kept::new(address, redis, start)), ..running })
}

async fn peer(program: Program, sync: &str, site: &Site<'_>) -> Result<Running, StartError> {
    let (path, source) = site.programs.find(program).await.map_err(StartError::Missing)?;
    let identity = Identity::of(program, &path, source)?;
    let address = free_address()?;
    let (voice, arguments) = match program {
        Program::Nats => (Voice::Nats, nats_arguments(site, address, sync)?),
        _ => (Voice::Redis, redis_arguments(site, address, sync)?),
    };
    let core = site.cores.map(|cores| cores.proxy);
    let launch =
        Launch { program: &path, arguments, core, dir: &site.dir, environment: environment(program) };
    let mut child = launch.start()?;
    wait_greeting(&mut child, address, voice).await?;
    if voice == Voice::Nats {
        make_stream(address).await.context("make the stream")?;
    }
    let cpu_root = child.pid();
    Ok(Running { voice, ..Running::new(identity, address, cpu_root, child) })
}

fn environment(program: Program) -> Vec<(OsString, OsString)> {
    match program {
        // One thread runs its routines, as one thread serves in the others.
        Program::Nats => vec![("GOMAXPROCS".into(), "1".into())],
        _ => Vec::new(),
    }
}

fn redis_arguments(site: &Site<'_>, address: SocketAddr, sync: &str) -> anyhow::Result<Vec<OsString>> {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let words = [
        ["--bind", &ip],
        ["--port", &port],
        ["--dir", path_text(&site.dir)?],
        ["--appendonly", "yes"],
        ["--appendfsync", sync],
        ["--save", ""],
        // A rewrite of the file while it is measured would be charged to whoever is measured then.
        ["--auto-aof-rewrite-percentage", "0"],
        ["--client-output-buffer-limit", "pubsub 0 0 0"],
    ];
    Ok(words.iter().flatten().map(OsString::from).collect())
}

fn nats_arguments(site: &Site<'_>, address: SocketAddr, sync: &str) -> anyhow::Result<Vec<OsString>> {
    let values = [("listen", &*address.to_string()), ("dir", path_text(&site.dir)?), ("sync", sync)];
    let config = site.dir.join("nats.conf");
    write(&config, &fill(NATS, &values)?)?;
    Ok(vec!["-c".into(), config.into_os_string()])
}

/// Waits until it speaks.
async fn wait_greeting(child: &mut Guarded, address: SocketAddr, voice: Voice) -> anyhow::Result<()> {
    let (words, end): (&str, &[u8]) = match voice {
        Voice::Nats => ("PING\r\n", b"PONG\r\n"),
        _ => ("PING\r\n", b"+PONG\r\n"),
    };
    child.until("an open port", START_LIMIT, || std::net::TcpStream::connect(address).ok()).await?;
    Place::plain(address).link(Some((words, end))).await?;
    Ok(())
}

async fn make_stream(address: SocketAddr) -> anyhow::Result<()> {
    let answer = nats_call(address, "$JS.API.STREAM.CREATE.bench", NATS_STREAM.trim()).await?;
    anyhow::ensure!(!answer.contains("\"error\""), "{answer}");
    Ok(())
}

/// One call of JetStream; its answer.
pub(crate) async fn nats_call(address: SocketAddr, subject: &str, body: &str) -> anyhow::Result<String> {
    let link = Place::plain(address).link(None).await?;
    let words = format!(
        "CONNECT {{\"verbose\":false}}\r\nSUB _INBOX.call 1\r\nPUB {subject} _INBOX.call {}\r\n{body}\r\n",
        body.len()
    );
    let answered = async {
        let mut answer = link.greet(words.as_bytes(), b"MSG _INBOX.call 1 ").await?;
        while !answer.ends_with(b"}\r\n") {
            anyhow::ensure!(answer.len() < ANSWER_BYTES_MAX, "the answer does not end");
            anyhow::ensure!(link.receive(&mut answer).await? > 0, "closed before the answer was whole");
        }
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(START_LIMIT, answered).await.context("no answer")?
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
