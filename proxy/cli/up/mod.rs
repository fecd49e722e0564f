//! `sluice up`: the supervisor.
//!
//! Opens every socket, starts the roles in order (vault, events, calc, edge, demo; nobody waits for
//! a later one), starts them again when they die, prints the banner when everything answers, and
//! ends all of them on ctrl-C or SIGTERM: first what faces clients, then what stands behind.

mod backoff;
mod banner;
mod child;
mod demo;
mod dir;
mod holder;
mod sockets;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use sluice_http::InternalKeys;
use sluice_telemetry::log;
use sluice_wire::role::Role;
use sluice_wire::start::Ready;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::args::{Offset, Up};
use crate::exit::{self, Code, Failure};
use crate::load::{self, Loaded};
use banner::Banner;
use child::{Happening, Recipe, Wish};

pub(crate) use dir::private as private_dir;
pub(crate) use sockets::tcp_of;

/// From the wish to end until a role that faces clients is killed.
const FRONT_WITHIN: Duration = Duration::from_secs(6);
/// From then until the others are; together `sluice up` is gone within 10 s.
const BACK_WITHIN: Duration = Duration::from_secs(3);
/// How long the banner waits for a system that serves to be well too.
const WELL_WITHIN: Duration = Duration::from_secs(2);
/// Roles that face clients end first.
const FRONT: [Role; 2] = [Role::Edge, Role::Demo];
/// How long `everything answers` may take before it is said who is late. A sealed vault waits for
/// an operator, and a long log takes its time: nobody is ended for it.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Runs `sluice up`.
pub(crate) fn run(args: &Up) -> Result<Code, Failure> {
    let started = std::time::Instant::now();
    let loaded = load::config(&args.common.conf, args.common.dev)?;
    let log = log::init("supervisor", loaded.config.log.level.as_str());
    let plan = Plan::make(args, loaded)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let code = runtime.block_on(supervise(plan, args, started));
    drop(log);
    code
}

/// Everything that is decided before the first role starts.
struct Plan {
    recipes: Vec<Recipe>,
    data_dir: PathBuf,
    dev: bool,
    _lock: dir::Lock,
}

impl Plan {
    fn make(args: &Up, loaded: Loaded) -> Result<Self, Failure> {
        let mut roles = vec![Role::Vault, Role::Events, Role::Calc, Role::Edge];
        if !args.no_demo {
            roles.push(Role::Demo);
        }
        dir::private(&args.common.data_dir)?;
        let data_dir = args.common.data_dir.canonicalize().context("cannot resolve the data directory")?;
        let lock = dir::lock(&data_dir)?;
        let offset = match args.port_offset {
            Offset::By(offset) => offset,
            Offset::Auto => sockets::free_offset(&roles, &loaded.config, chance())?,
        };
        let mut config = loaded.config.clone();
        config.port_offset(offset).map_err(Failure::usage)?;
        let opened = sockets::open(&roles, &config, &data_dir)?;
        let keys: BTreeMap<Role, String> =
            Role::ALL.into_iter().map(|role| (role, InternalKeys::mint())).collect();
        let mut environment = loaded.environment;
        if roles.contains(&Role::Demo) {
            demo::addresses(&config, &mut environment);
        }
        let internal = opened.internal;
        let mut by_role = opened.by_role;
        let recipes = roles.iter().map(|role| {
            let sockets = by_role.remove(role).unwrap_or_default();
            Recipe {
                role: *role,
                program: program(),
                arguments: arguments(*role, args, &data_dir, offset),
                environment: environment.clone(),
                handoff: child::handoff(
                    *role,
                    &keys,
                    &internal,
                    &sockets,
                    load::secrets_of(*role, &loaded.secrets),
                    if FRONT.contains(role) { FRONT_WITHIN } else { BACK_WITHIN },
                ),
                sockets,
            }
        });
        Ok(Self { recipes: recipes.collect(), data_dir, dev: args.common.dev, _lock: lock })
    }
}

fn program() -> PathBuf {
    // The link also works after the file was replaced by a newer build.
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

fn arguments(role: Role, args: &Up, data_dir: &Path, offset: u16) -> Vec<String> {
    let words: &[&str] = match role {
        Role::Edge => &["proxy"],
        Role::Events => &["worker", "events"],
        Role::Vault => &["worker", "vault"],
        Role::Calc => &["worker", "calc"],
        Role::Demo | Role::Supervisor => &["demo"],
    };
    let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    arguments.extend(["--conf".into(), args.common.conf.display().to_string()]);
    arguments.extend(["--data-dir".into(), data_dir.display().to_string()]);
    arguments.extend(["--port-offset".into(), offset.to_string()]);
    if args.common.dev {
        arguments.push("--dev".into());
    }
    arguments.push("--supervised".into());
    arguments
}

async fn supervise(plan: Plan, args: &Up, started: std::time::Instant) -> Result<Code, Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for ctrl-C")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut reload = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let (said, mut hear) = mpsc::channel(64);
    let mut roles = JoinSet::new();
    let mut wishes = BTreeMap::new();
    for recipe in plan.recipes {
        let (wish, wished) = watch::channel(Wish::Run);
        wishes.insert(recipe.role, wish);
        roles.spawn(child::keep(recipe, wished, said.clone()));
    }
    let mut crew =
        Crew { ready: BTreeMap::new(), expected: wishes.keys().copied().collect(), announced: false };
    let mut reloads = 0;
    let late = tokio::time::sleep(READY_WITHIN);
    tokio::pin!(late);
    let code = loop {
        tokio::select! {
            Some(happening) = hear.recv() => crew.note(happening),
            _ = interrupt.recv() => break exit::INTERRUPTED,
            _ = terminate.recv() => break exit::OK,
            _ = reload.recv() => {
                reloads += 1;
                if let Some(edge) = wishes.get(&Role::Edge) {
                    edge.send_replace(Wish::Reload(reloads));
                }
            }
            () = &mut late, if !crew.announced && !late.is_elapsed() => crew.tell_who_is_late(),
            () = child::pause(Duration::from_millis(20)), if crew.is_complete() => {
                if let Some(banner) = crew.banner(&plan.data_dir, plan.dev, started).await {
                    announce(&banner, args);
                    crew.announced = true;
                }
            }
        }
    };
    end(&wishes, &mut roles, hear).await;
    Ok(code)
}

/// What is known of the running roles.
struct Crew {
    ready: BTreeMap<Role, Ready>,
    expected: Vec<Role>,
    announced: bool,
}

impl Crew {
    fn note(&mut self, happening: Happening) {
        match happening {
            Happening::Ready(ready) => {
                tracing::info!(
                    component = "supervisor",
                    role = ready.role.as_str(),
                    pid = ready.pid,
                    "role is ready"
                );
                self.ready.insert(ready.role, ready);
            }
            Happening::Died { role, was_ready, again_in, failures, status } => {
                self.ready.remove(&role);
                tracing::warn!(
                    component = "supervisor",
                    role = role.as_str(),
                    status,
                    was_ready,
                    failures,
                    again_in_ms = again_in.as_millis() as u64,
                    "a role ended and is started again"
                );
            }
            Happening::Ended => {}
        }
    }

    fn tell_who_is_late(&self) {
        let missing: Vec<&str> = self
            .expected
            .iter()
            .filter(|role| !self.ready.contains_key(role))
            .map(|role| role.as_str())
            .collect();
        if missing.is_empty() {
            tracing::warn!(
                component = "supervisor",
                "every role runs, but the edge says it cannot serve yet; ask its /health"
            );
        } else {
            tracing::warn!(component = "supervisor", missing = missing.join(" "), "roles are not ready yet");
        }
    }

    fn is_complete(&self) -> bool {
        !self.announced && self.ready.len() == self.expected.len()
    }

    /// The banner, once the edge says that it can serve; until then `None`.
    async fn banner(&self, data_dir: &Path, dev: bool, started: std::time::Instant) -> Option<Banner> {
        let edge = self.ready.get(&Role::Edge)?.listeners.get("http")?;
        crate::health::is_ready(edge).await.then_some(())?;
        // Ready is enough to serve; all well is told where it comes within a moment.
        let patient = started.elapsed() < WELL_WITHIN;
        (!patient || crate::health::is_well(edge).await).then_some(())?;
        let token = if dev {
            Some(std::fs::read_to_string(data_dir.join("token")).ok()?.trim().to_owned())
        } else {
            None
        };
        let vault = self.ready.get(&Role::Vault).and_then(|ready| ready.listeners.get("api"));
        let fingerprint = match vault {
            Some(vault) => crate::health::ca_fingerprint(vault).await,
            None => None,
        };
        Some(Banner::new(&self.ready, data_dir, token, fingerprint, started.elapsed(), dev))
    }
}

fn announce(banner: &Banner, args: &Up) {
    let mut out = std::io::stdout().lock();
    let text = if args.json {
        banner.to_json() + "\n"
    } else if args.quiet {
        return;
    } else {
        banner.to_text()
    };
    // A closed output means that nobody reads the banner.
    let _nobody_reads = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Ends the roles that face clients, then the others.
async fn end(
    wishes: &BTreeMap<Role, watch::Sender<Wish>>,
    roles: &mut JoinSet<()>,
    mut hear: mpsc::Receiver<Happening>,
) {
    let now = Instant::now();
    let mut front = 0;
    for (role, wish) in wishes {
        if FRONT.contains(role) {
            front += 1;
            wish.send_replace(Wish::End { by: now + FRONT_WITHIN });
        }
    }
    while front > 0 {
        match hear.recv().await {
            Some(Happening::Ended) => front -= 1,
            Some(_) => {}
            None => break,
        }
    }
    for wish in wishes.values() {
        wish.send_replace(Wish::End { by: now + FRONT_WITHIN + BACK_WITHIN });
    }
    drop(hear);
    while roles.join_next().await.is_some() {}
}

fn chance() -> u64 {
    let mut bytes = [0; 8];
    let random = ring::rand::SystemRandom::new();
    let _less_spread = ring::rand::SecureRandom::fill(&random, &mut bytes);
    u64::from_le_bytes(bytes)
}
