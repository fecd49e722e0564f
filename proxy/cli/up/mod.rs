//! `sluice up`: the supervisor.
//!
//! Opens every socket, starts the roles in order (vault, events, calc, edge, demo; nobody waits for
//! a later one), starts them again when they die, prints the banner when everything answers, and
//! ends all of them on ctrl-C or SIGTERM: first what faces clients, then what stands behind. SIGHUP
//! reloads, SIGUSR2 or `sluice upgrade` puts a new binary in force without closing a port.

mod backoff;
mod banner;
mod child;
mod control;
mod crew;
mod demo;
mod dir;
mod handover;
mod hold;
mod holder;
mod image;
mod orphans;
mod plan;
mod process;
mod reexec;
mod renewal;
mod report;
mod sockets;
mod supervisor;

use std::io::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use sluice_telemetry::log;
use sluice_wire::role::Role;

use crate::args::Up;
use crate::exit::{self, Code, Failure};
use crate::load;
use hold::Hold;
use plan::Plan;
use supervisor::Signals;

pub(crate) use control::Ask;
pub(crate) use dir::private as private_dir;
pub(crate) use handover::{Serving, hand_over};
pub(crate) use image::{Image, own_path};
pub(crate) use plan::door;
pub(crate) use process::Recipe;
pub(crate) use report::{Line, Report};
pub(crate) use sockets::{Bound, Socket, listen, tcp_of};

/// From the wish to end until a role that faces clients is killed, where no configuration says how long it drains.
const FRONT_WITHIN: Duration = Duration::from_secs(6);
/// What a drain that is configured gets on top, to end in.
const DRAINED_WITHIN: Duration = Duration::from_millis(500);
/// From then until the others are; without `[drain]` in the configuration `sluice up` is gone within 10 s.
const BACK_WITHIN: Duration = Duration::from_secs(3);
/// Roles that face clients end first.
const FRONT: [Role; 2] = [Role::Edge, Role::Demo];

/// Runs `sluice up`.
pub(crate) fn run(args: &Up) -> Result<Code, Failure> {
    let started = std::time::Instant::now();
    if args.self_test {
        load::config(&args.common.conf, args.common.dev)?;
        writeln!(std::io::stdout(), "{}", reexec::fit()).context("cannot answer")?;
        return Ok(exit::OK);
    }
    // First of all, and until somebody listens: a signal would end the process, and with it every role it
    // has adopted. Threads that start meanwhile never take one.
    let hold = Hold::take();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    runtime.block_on(async {
        let signals = Signals::listen()?;
        let (plan, log) = if reexec::is_adopting() {
            let plan = reexec::adopt(args)?;
            let level = plan.config.as_ref().map_or("info", |config| config.log.level.as_str());
            let log = log::init("supervisor", level);
            (plan, log)
        } else {
            let loaded = load::config(&args.common.conf, args.common.dev)?;
            let log = log::init("supervisor", loaded.config.log.level.as_str());
            (Plan::make(args, loaded)?, log)
        };
        drop(hold);
        let code = supervisor::run(plan, signals, args, started).await;
        drop(log);
        code
    })
}

fn chance() -> u64 {
    let mut bytes = [0; 8];
    let random = ring::rand::SystemRandom::new();
    let _less_spread = ring::rand::SecureRandom::fill(&random, &mut bytes);
    u64::from_le_bytes(bytes)
}
