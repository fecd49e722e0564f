//! Starting one role in this process.

use std::collections::BTreeMap;
use std::io::{BufRead as _, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sluice_calc_worker::kernels::BUILD;
use sluice_http::{Doors, Handover, InternalKeys, Listener, Start, Stop, Stopper, TrustCell};
use sluice_schema::{Config, Mode};
use sluice_telemetry::log;
use sluice_telemetry::metric::{self, Name};
use sluice_wire::role::Role;
use sluice_wire::start::{HANDOFF_VERSION, Handoff, Order};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::args::RoleArgs;
use crate::exit::{self, Code, Failure};
use crate::successor::Seat;
use crate::{feed, kernels, load, up};

/// Threads of a role's runtime, where there are so many cores for it. The edge has threads of its own beside it.
const RUNTIME_THREADS_MAX: usize = 2;
/// Time kept between the end of a drain and being killed.
const DRAIN_MARGIN: Duration = Duration::from_millis(500);

/// Where the addresses of workers are noted, below the data directory.
pub(crate) const NOTED_EVENTS: &str = "events/api.addr";
pub(crate) const NOTED_VAULT: &str = "vault/api.addr";
pub(crate) const NOTED_CALC: &str = "calc/api.addr";
/// LIMIT: bytes of one order of the supervisor.
const ORDER_BYTES: u64 = 64 << 10;

/// Two threads on one core only wake each other up.
fn runtime_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(RUNTIME_THREADS_MAX)
}

/// Runs one role until it is told to end.
pub(crate) fn run(role: Role, args: &RoleArgs) -> Result<Code, Failure> {
    // Before anything is read or started: what follows is the twin's to do.
    let stays = (role == Role::Calc).then(|| kernels::choose(std::env::args_os()));
    let handoff = if args.supervised { Some(read_handoff(role)?) } else { None };
    // Nobody stands above it: it has its own environment, secrets and successors.
    let alone = handoff.as_ref().is_none_or(|handoff| handoff.detached);
    if role == Role::Vault {
        small_pages();
    }
    limits();
    let mut environment = load::environment();
    let secrets = handoff.as_ref().map(|handoff| handoff.secrets.clone()).unwrap_or_default();
    environment.extend(secrets);
    // A role that is handed no secrets need not have them; one that runs alone must.
    // The supervisor has judged certificates; a restart must not fail for one that has ended since.
    let now_unix_s = (role == Role::Edge && alone).then(load::now_unix_s);
    let mode = Mode { dev: args.common.dev, secrets_required: alone, now_unix_s, ..Mode::default() };
    let mut config = load::config_with(&args.common.conf, &environment, mode)?.config;
    config.port_offset(args.port_offset).map_err(Failure::usage)?;
    let guard = log::init(role.as_str(), config.log.level.as_str());
    if let Some(reason) = stays {
        tracing::info!(component = "kernels", build = BUILD.name(), reason, "computes with");
    }
    let end_within = handoff.as_ref().filter(|_| !alone);
    let end_within = end_within.map(|handoff| Duration::from_millis(handoff.end_within_ms));
    if let (Some(within), false) = (end_within, role == Role::Edge) {
        fit_drain(&mut config, within);
    }
    let (stopper, stop) = Stopper::new();
    let successor = handoff.as_ref().is_some_and(|handoff| handoff.successor);
    let (handover, giver) = Handover::new(successor, end_within);
    let pipe = args.supervised.then(|| Pipe { detached: alone, orders: giver.orders.clone() });
    let start = start(role, args, (config, environment), handoff, (stop, handover), &guard)?;
    let seat = if alone && role == Role::Edge { Some(Seat::of(&start, giver)?) } else { None };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(runtime_threads())
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        listen_for_end(stopper, pipe)?;
        if let Some(seat) = seat {
            seat.keep()?;
        }
        if role != Role::Edge && start.handover.is_successor() && !goes(&start).await {
            return Ok(());
        }
        feed::follow_for(&start);
        play(role, start).await
    })?;
    runtime.shutdown_background();
    Ok(exit::OK)
}

/// A worker's successor has read its configuration, and touches nothing of its predecessor's until that one has
/// ended; false when it is to end before. The edge prepares more than that, by itself.
async fn goes(start: &Start) -> bool {
    start.prepared();
    let go = async { while !matches!(start.handover.next().await, Order::Go(_)) {} };
    tokio::select! {
        () = go => true,
        () = start.stop.wait() => false,
    }
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

/// The vault's memory is many small pieces: in pages of 2 MiB, which the allocator asks for, most of each would be air.
fn small_pages() {
    let _costs_memory_and_nothing_else = nix::sys::prctl::set_thp_disable(true);
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
    (stop, handover): (Stop, Handover),
    guard: &log::LogGuard,
) -> anyhow::Result<Start> {
    up::private_dir(&args.common.data_dir)?;
    let data_dir = args.common.data_dir.canonicalize().context("cannot resolve the data directory")?;
    up::private_dir(&data_dir.join(role.as_str()))?;
    let doors = match &handoff {
        Some(handoff) => handed_doors(handoff)?,
        None => own_doors(role, &config)?,
    };
    match role {
        Role::Events => note_address(&data_dir.join(NOTED_EVENTS), &doors),
        Role::Vault => note_address(&data_dir.join(NOTED_VAULT), &doors),
        Role::Calc => note_address(&data_dir.join(NOTED_CALC), &doors),
        _ => {}
    }
    let keys = handoff
        .as_ref()
        .filter(|handoff| !handoff.detached)
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
        handover,
    })
}

/// Notes where a worker listens, for commands on this machine that do not know its port offset.
fn note_address(path: &Path, doors: &Doors) {
    let Some(address) = doors.address("api") else { return };
    // Beside it, then over it: nobody reads half an address.
    let beside = path.with_extension(format!("addr.{}", std::process::id()));
    let noted = std::fs::write(&beside, address.to_string()).and_then(|()| std::fs::rename(&beside, path));
    if let Err(error) = noted {
        tracing::warn!(component = "start", %error, "the address of this worker is not noted");
    }
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

/// The sockets of a role that runs alone: what systemd hands down under a name, and its own for the rest.
fn own_doors(role: Role, config: &Config) -> anyhow::Result<Doors> {
    let mut wanted = up::tcp_of(role, config);
    let mut doors = Doors::default();
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = ListenFd::from_env();
    for (index, name) in socket_names(&names, handed.len(), &wanted)?.into_iter().enumerate() {
        let listener = handed.take_tcp_listener(index)?;
        let listener = listener.with_context(|| format!("socket `{name}` was not handed down"))?;
        doors.insert(name.clone(), Listener::Tcp(listener));
        wanted.retain(|(known, _)| *known != name);
    }
    for (name, address) in wanted {
        let listener = up::listen(address).with_context(|| format!("cannot listen on {address}"))?;
        doors.insert(name, Listener::Tcp(listener));
    }
    Ok(doors)
}

/// Which door each handed socket is: by its name, or in the order of the doors where none has a name.
fn socket_names(
    names: &str,
    handed: usize,
    wanted: &[(&'static str, SocketAddr)],
) -> anyhow::Result<Vec<String>> {
    let known = || wanted.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    if handed == 0 {
        return Ok(Vec::new());
    }
    if handed > wanted.len() {
        bail!("{handed} sockets were handed down; this role has {} ({})", wanted.len(), known());
    }
    if names.is_empty() {
        return Ok(wanted.iter().take(handed).map(|(name, _)| (*name).to_owned()).collect());
    }
    let named: Vec<String> = names.split(':').map(str::to_owned).collect();
    if named.len() != handed {
        bail!("{handed} sockets were handed down with {} names ({names})", named.len());
    }
    for (index, name) in named.iter().enumerate() {
        if !wanted.iter().any(|(known, _)| known == name) {
            bail!("a socket named `{name}` was handed down; the names are: {}", known());
        }
        if named[..index].contains(name) {
            bail!("two sockets named `{name}` were handed down");
        }
    }
    Ok(named)
}

/// The pipe from whoever started this process.
struct Pipe {
    detached: bool,
    orders: mpsc::Sender<Order>,
}

/// Ends the process on SIGTERM or ctrl-C, and when the supervisor's pipe closes.
fn listen_for_end(stopper: Stopper, pipe: Option<Pipe>) -> anyhow::Result<()> {
    let stopper = Arc::new(stopper);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Only the edge reloads, and only one that runs alone hands over by signal; without a handler these
    // would end any other role.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut upgrade = signal(SignalKind::user_defined2())?;
    let on_signal = Arc::clone(&stopper);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {}
                _ = upgrade.recv() => {}
            }
        }
        on_signal.stop();
    });
    if let Some(pipe) = pipe {
        // A thread, because a read from a pipe cannot be cancelled and must not hold the runtime.
        std::thread::Builder::new().name("supervisor-pipe".into()).spawn(move || {
            if pipe.follow() {
                stopper.stop();
            }
        })?;
    }
    Ok(())
}

impl Pipe {
    /// Passes orders on until the pipe ends; whether that is the end of this process.
    fn follow(&self) -> bool {
        let mut serves = false;
        loop {
            let mut line = String::new();
            let read = std::io::stdin().lock().take(ORDER_BYTES).read_line(&mut line);
            match read {
                Ok(1..) => {}
                Ok(0) | Err(_) => return !(self.detached && serves),
            }
            let Ok(order) = serde_json::from_str::<Order>(&line) else {
                tracing::warn!(component = "start", "a line that is no order is passed over");
                continue;
            };
            serves |= matches!(order, Order::Go(_));
            if self.orders.try_send(order).is_err() {
                tracing::warn!(component = "start", "this role takes no orders");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handed_sockets_are_told_by_name_or_by_order() {
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let wanted = [("http", address), ("tls", address), ("control", address)];
        let names = |text: &str, handed| socket_names(text, handed, &wanted);
        assert_eq!(names("", 0).unwrap(), Vec::<String>::new());
        assert_eq!(names("", 2).unwrap(), ["http", "tls"]);
        assert_eq!(names("control:http", 2).unwrap(), ["control", "http"]);
        for (text, handed, says) in [
            ("sluice-edge.socket", 1, "the names are: http, tls, control"),
            ("http:http", 2, "two sockets named `http`"),
            ("http", 2, "2 sockets were handed down with 1 names"),
            ("", 4, "this role has 3"),
        ] {
            let error = names(text, handed).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
