//! Starting one role in this process.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Read as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sluice_http::{Doors, InternalKeys, Listener, Start, Stop, Stopper, TrustCell};
use sluice_schema::{Config, Mode};
use sluice_telemetry::log;
use sluice_telemetry::metric::{self, Name};
use sluice_wire::role::Role;
use sluice_wire::start::{HANDOFF_VERSION, Handoff};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::RoleArgs;
use crate::exit::{self, Code, Failure};
use crate::{feed, load, up};

/// Threads of a role's runtime. The edge has threads of its own beside it.
const RUNTIME_THREADS: usize = 2;
/// Time kept between the end of a drain and being killed.
const DRAIN_MARGIN: Duration = Duration::from_millis(500);

/// Runs one role until it is told to end.
pub(crate) fn run(role: Role, args: &RoleArgs) -> Result<Code, Failure> {
    let handoff = if args.supervised { Some(read_handoff(role)?) } else { None };
    limits();
    let mut environment = load::environment();
    let secrets = handoff.as_ref().map(|handoff| handoff.secrets.clone()).unwrap_or_default();
    environment.extend(secrets);
    // A role that is handed no secrets need not have them; one that runs alone must.
    // The supervisor has judged certificates; a restart must not fail for one that has ended since.
    let now_unix_s = (role == Role::Edge && !args.supervised).then(load::now_unix_s);
    let mode = Mode { dev: args.common.dev, secrets_required: !args.supervised, now_unix_s };
    let mut config = load::config_with(&args.common.conf, &environment, mode)?.config;
    config.port_offset(args.port_offset).map_err(Failure::usage)?;
    let guard = log::init(role.as_str(), config.log.level.as_str());
    if let Some(handoff) = &handoff {
        fit_drain(&mut config, Duration::from_millis(handoff.end_within_ms));
    }
    let (stopper, stop) = Stopper::new();
    let start = start(role, args, (config, environment), handoff, stop, &guard)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        listen_for_end(stopper, args.supervised)?;
        feed::follow_for(&start);
        play(role, start).await
    })?;
    runtime.shutdown_background();
    Ok(exit::OK)
}

async fn play(role: Role, start: Start) -> anyhow::Result<()> {
    match role {
        Role::Edge => sluice_gateway::run(start, console_asset).await?,
        Role::Events => sluice_events::run(start).await?,
        Role::Vault => sluice_vault::run(start).await?,
        Role::Calc => sluice_calc_worker::run(start).await?,
        Role::Demo => sluice_demo::run(start).await?,
        Role::Supervisor => bail!("the supervisor is not a role of its own"),
    }
    Ok(())
}

fn console_asset(path: &str) -> Option<sluice_http::Asset> {
    let asset = sluice_console::asset(path)?;
    Some(sluice_http::Asset { content_type: asset.content_type, bytes: asset.bytes, etag: asset.etag })
}

/// Draining must be over before the supervisor kills: what is still in flight then gets its answer,
/// and the edge closes its books. A third of the time at most is lame duck.
fn fit_drain(config: &mut Config, end_within: Duration) {
    let within = end_within.saturating_sub(DRAIN_MARGIN);
    let (lame_duck, deadline) = (config.drain.lame_duck.min(within / 3), config.drain.deadline.min(within));
    if (lame_duck, deadline) != (config.drain.lame_duck, config.drain.deadline) {
        tracing::info!(
            component = "start",
            lame_duck_ms = lame_duck.as_millis() as u64,
            deadline_ms = deadline.as_millis() as u64,
            "drain times are fitted into the time the supervisor grants"
        );
        config.drain.lame_duck = lame_duck;
        config.drain.deadline = deadline;
    }
}

/// The first line of standard input, from the supervisor.
fn read_handoff(role: Role) -> anyhow::Result<Handoff> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the handoff")?;
    let handoff: Handoff =
        serde_json::from_str(&line).context("the handoff is not what a supervisor writes")?;
    if handoff.version != HANDOFF_VERSION || handoff.role != role {
        bail!("the handoff is meant for another version or role; `--supervised` is for `sluice up` only");
    }
    Ok(handoff)
}

/// No core dumps (they would hold keys), and as many descriptors as the system allows.
fn limits() {
    let _already_lower = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let files = getrlimit(Resource::Nofile);
    let _stays_as_it_is = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files });
}

fn start(
    role: Role,
    args: &RoleArgs,
    (config, environment): (Config, BTreeMap<String, String>),
    handoff: Option<Handoff>,
    stop: Stop,
    guard: &log::LogGuard,
) -> anyhow::Result<Start> {
    up::private_dir(&args.common.data_dir)?;
    let data_dir = args.common.data_dir.canonicalize().context("cannot resolve the data directory")?;
    up::private_dir(&data_dir.join(role.as_str()))?;
    let doors = match &handoff {
        Some(handoff) => handed_doors(handoff)?,
        None => own_doors(role, &config)?,
    };
    let keys = handoff
        .as_ref()
        .map_or_else(InternalKeys::alone, |handoff| InternalKeys::new(handoff.key.clone(), &handoff.peers));
    let sockets: BTreeMap<Role, PathBuf> = handoff
        .map(|handoff| handoff.sockets.into_iter().map(|(role, path)| (role, path.into())).collect())
        .unwrap_or_default();
    let registry = metric::registry(role.as_str());
    let dropped = guard.dropped();
    metric::pulled(&registry, Name::LogDropped, move || dropped.lines());
    Ok(Start {
        role,
        trust: TrustCell::new(&config, role),
        config: Arc::new(config),
        config_path: args.common.conf.clone(),
        data_dir,
        dev: args.common.dev,
        port_offset: args.port_offset,
        environment,
        keys: Arc::new(keys),
        sockets,
        doors: Mutex::new(doors),
        stop,
        registry,
        log: guard.level(),
        announce: true,
    })
}

/// The sockets that came with this process, named by the handoff.
fn handed_doors(handoff: &Handoff) -> anyhow::Result<Doors> {
    let mut handed = ListenFd::from_env();
    if handed.len() != handoff.listeners.len() {
        bail!("{} sockets were handed down, {} were announced", handed.len(), handoff.listeners.len());
    }
    let mut doors = Doors::default();
    for (index, name) in handoff.listeners.iter().enumerate() {
        let missing = || format!("socket `{name}` was not handed down");
        let listener = if name == "internal" {
            Listener::Unix(handed.take_unix_listener(index)?.with_context(missing)?)
        } else {
            Listener::Tcp(handed.take_tcp_listener(index)?.with_context(missing)?)
        };
        doors.insert(name.clone(), listener);
    }
    Ok(doors)
}

/// The sockets of a role that runs alone.
fn own_doors(role: Role, config: &Config) -> anyhow::Result<Doors> {
    let mut doors = Doors::default();
    for (name, address) in up::tcp_of(role, config) {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        doors.insert(name, Listener::Tcp(listener));
    }
    Ok(doors)
}

/// Ends the process on SIGTERM or ctrl-C, and when the supervisor's pipe closes.
fn listen_for_end(stopper: Stopper, supervised: bool) -> anyhow::Result<()> {
    let stopper = Arc::new(stopper);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Only the edge reloads; without a handler the signal would end any other role.
    let mut hangup = signal(SignalKind::hangup())?;
    let on_signal = Arc::clone(&stopper);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {}
            }
        }
        on_signal.stop();
    });
    if supervised {
        // A thread, because a read from a pipe cannot be cancelled and must not hold the runtime.
        std::thread::Builder::new().name("supervisor-pipe".into()).spawn(move || {
            let mut rest = Vec::new();
            let _end_or_error = std::io::stdin().lock().take(1 << 20).read_to_end(&mut rest);
            stopper.stop();
        })?;
    }
    Ok(())
}
