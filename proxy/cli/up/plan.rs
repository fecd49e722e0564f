//! Everything that is decided before the first role starts: who plays, on which sockets, with which keys.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use sluice_http::InternalKeys;
use sluice_schema::Config;
use sluice_wire::role::Role;
use sluice_wire::start::{HANDOFF_VERSION, Handoff, Ready};

use super::backoff::Backoff;
use super::child::Frozen;
use super::image::{self, Image};
use super::orphans;
use super::process::Recipe;
use super::report::Report;
use super::sockets::{self, Socket, bind_unix, run_dir};
use super::{BACK_WITHIN, DRAINED_WITHIN, FRONT_WITHIN, chance, demo, dir};
use crate::args::{Offset, Up};
use crate::exit::Failure;
use crate::load::{self, Loaded};

/// Name of the supervisor's own socket, beside the internal doors.
const DOOR: &str = "supervisor.sock";

/// What a supervisor has when it begins: new, or from the one it replaces.
pub(crate) struct Plan {
    pub(crate) roles: Vec<Frozen>,
    pub(crate) data_dir: PathBuf,
    /// Where the binary lies that an upgrade takes.
    pub(crate) program: PathBuf,
    /// Added to every port.
    pub(crate) offset: u16,
    /// The configuration in force; `None` when it cannot be read any more.
    pub(crate) config: Option<Config>,
    /// Holds the data directory.
    pub(crate) lock: dir::Lock,
    /// Where `sluice upgrade` asks.
    pub(crate) door: UnixListener,
    /// Roles that are ready already.
    pub(crate) ready: BTreeMap<Role, Ready>,
    /// Whether the banner is printed already.
    pub(crate) announced: bool,
    /// The upgrade that this supervisor came by and has to finish.
    pub(crate) unfinished: Option<Report>,
}

impl Plan {
    /// For a first start.
    pub(crate) fn make(args: &Up, loaded: Loaded) -> Result<Self, Failure> {
        let mut roles = vec![Role::Vault, Role::Events, Role::Calc, Role::Edge];
        if !args.no_demo {
            roles.push(Role::Demo);
        }
        dir::private(&args.common.data_dir)?;
        let data_dir = args.common.data_dir.canonicalize().context("cannot resolve the data directory")?;
        let lock = dir::lock(&data_dir)?;
        let drain = loaded.drain;
        orphans::wait(&data_dir, end_within(Role::Edge, drain) + BACK_WITHIN);
        let offset = match args.port_offset {
            Offset::By(offset) => offset,
            Offset::Auto => sockets::free_offset(&roles, &loaded.config, chance())?,
        };
        let mut config = loaded.config.clone();
        config.port_offset(offset).map_err(Failure::usage)?;
        let opened = sockets::open(&roles, &config, &data_dir)?;
        let door = bind_unix(&door(&data_dir)?)?;
        let program = image::own_path();
        let image = Image::own(&program).context("cannot open this program")?;
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
                image: image.clone(),
                arguments: arguments(*role, args, &data_dir, offset),
                environment: environment.clone(),
                handoff: handoff(
                    *role,
                    &keys,
                    &internal,
                    &sockets,
                    load::secrets_of(*role, &loaded.secrets),
                    end_within(*role, drain),
                ),
                sockets,
            }
        });
        let roles = recipes.map(|recipe| Frozen {
            recipe,
            life: None,
            backoff: Backoff::default(),
            retirees: Vec::new(),
        });
        Ok(Self {
            roles: roles.collect(),
            data_dir,
            program,
            offset,
            config: Some(config),
            lock,
            door,
            ready: BTreeMap::new(),
            announced: false,
            unfinished: None,
        })
    }
}

/// The time a role is given to end. The edge drains as its configuration says; where it says nothing, as long as
/// lets `sluice up` end in a moment.
fn end_within(role: Role, drain: Option<Duration>) -> Duration {
    match role {
        Role::Edge => drain.map_or(FRONT_WITHIN, |drain| drain + DRAINED_WITHIN),
        Role::Demo => FRONT_WITHIN,
        _ => BACK_WITHIN,
    }
}

/// Where the supervisor of a data directory is asked.
pub(crate) fn door(data_dir: &Path) -> anyhow::Result<PathBuf> {
    Ok(run_dir(data_dir)?.join(DOOR))
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

/// What a role is told when it starts.
fn handoff(
    role: Role,
    keys: &BTreeMap<Role, String>,
    internal: &BTreeMap<Role, PathBuf>,
    sockets: &[Socket],
    secrets: BTreeMap<String, String>,
    end_within: Duration,
) -> Handoff {
    let peers = keys.iter().filter(|(peer, _)| **peer != role);
    Handoff {
        version: HANDOFF_VERSION,
        role,
        key: keys.get(&role).cloned().unwrap_or_default(),
        peers: peers.map(|(peer, key)| (*peer, InternalKeys::digest(key))).collect(),
        sockets: internal.iter().map(|(role, path)| (*role, path.to_string_lossy().into_owned())).collect(),
        listeners: sockets.iter().map(|socket| socket.name.clone()).collect(),
        end_within_ms: u64::try_from(end_within.as_millis()).unwrap_or(u64::MAX),
        secrets,
        successor: false,
        detached: false,
    }
}
