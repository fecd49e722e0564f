//! The `sluice` binary: every role, the supervisor and the operator's commands.
//!
//! Knows: arguments, exit codes, which crate plays which role. Must not know: how any of them
//! works inside.

mod args;
mod audit;
mod check;
mod config;
mod control;
mod diff;
mod events;
mod exit;
mod explain;
mod feed;
mod fmt;
mod health;
mod kernels;
mod kill_switch;
mod load;
mod notify;
mod pause;
mod progress;
mod reload;
mod role;
mod say;
mod series;
mod successor;
mod tap;
mod up;
mod upgrade;
mod upstream;
mod vault;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::{Args, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First statement: with two providers linked and none chosen, rustls panics at its first use.
    let _installed_once = rustls::crypto::ring::default_provider().install_default();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _closed_output = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    if args.quiet {
        say::be_quiet();
    }
    let result = match args.command {
        Command::Up(up) => up::run(&up),
        Command::Proxy(role) => role::run(sluice_wire::role::Role::Edge, &role),
        Command::Worker(worker) if worker.says_kernels() => kernels::say(),
        Command::Worker(worker) => role::run(worker.role(), worker.args()),
        Command::Demo(role) => role::run(sluice_wire::role::Role::Demo, &role),
        Command::Upgrade(upgrade) => upgrade::run(&upgrade),
        Command::Check(check) => check::run(&check),
        Command::Fmt(fmt) => fmt::run(&fmt),
        Command::Config(config) => config::run(&config),
        Command::Diff(diff) => diff::run(&diff),
        Command::Explain(explain) => explain::run(&explain),
        Command::Reload(reload) => reload::run(&reload),
        Command::Rollback(rollback) => reload::roll_back(&rollback),
        Command::Upstream(upstream) => upstream::run(&upstream),
        Command::Tap(tap) => tap::run(&tap),
        Command::KillSwitch(kill) => kill_switch::run(&kill),
        Command::Events(events) => events::run(&events),
        Command::Series(series) => series::run(&series),
        Command::Vault(vault) => vault::run(&vault),
        Command::Audit(audit) => audit::run(&audit),
        Command::Health(health) => health::run(&health),
    };
    match result {
        Ok(code) => code.into(),
        Err(failure) => {
            exit::report(&failure);
            failure.code.into()
        }
    }
}
