//! Upgrades as jobs beside the supervisor's loop: what is checked first, which role comes next.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sluice_wire::role::Role;
use tokio::sync::{mpsc, oneshot};

use super::child::{Command, Renewal};
use super::handover::has_successors;
use super::reexec::{self, Fit};
use super::report::Report;

/// What a job asks the supervisor to do next.
pub(crate) enum Job {
    /// Nothing: it is over.
    Over,
    /// Become the new program, and go on with the roles.
    Become {
        /// Who is told.
        report: Report,
        /// The program lets signals through that are held for it.
        holds: bool,
    },
}

/// One role to renew.
pub(crate) struct Turn {
    pub(crate) role: Role,
    pub(crate) keeper: mpsc::Sender<Command>,
    /// The addresses to listen on, where they changed.
    pub(crate) doors: Option<Vec<(&'static str, SocketAddr)>>,
}

/// Roles to renew, one after the other.
pub(crate) struct Turns {
    pub(crate) each: Vec<Turn>,
    /// The program to run; `None`: what runs.
    pub(crate) program: Option<PathBuf>,
    pub(crate) retire_within: Duration,
}

/// Checks a program, then asks the supervisor to become it.
pub(crate) async fn everything(program: PathBuf, report: Report, jobs: mpsc::Sender<Job>) {
    let next = match checked(&program, &report).await {
        Ok(Fit { holds, .. }) => Job::Become { report, holds },
        Err(why) => {
            report.close(Err(why));
            Job::Over
        }
    };
    // The supervisor is ending where nobody takes it.
    drop(jobs.send(next).await);
}

/// Renews roles, and says how it went.
pub(crate) async fn roles(turns: Turns, check: bool, report: Report, jobs: mpsc::Sender<Job>) {
    let checked = match &turns.program {
        // The edge shows by getting prepared what it can do, a worker only once the old one has ended.
        Some(program) if check && turns.each.iter().any(|turn| !has_successors(turn.role)) => {
            checked(program, &report).await.map(drop)
        }
        _ => Ok(()),
    };
    match checked {
        Ok(()) => renew(turns, report).await,
        Err(why) => report.close(Err(why)),
    }
    drop(jobs.send(Job::Over).await);
}

async fn checked(program: &std::path::Path, report: &Report) -> Result<Fit, String> {
    report.say(format_args!("checking {}", program.display()));
    reexec::probe(program).await
}

async fn renew(turns: Turns, mut report: Report) {
    let Turns { each, program, retire_within } = turns;
    let names: Vec<&str> = each.iter().map(|turn| turn.role.as_str()).collect();
    let names = names.join(", ");
    let mut renewed = Vec::new();
    for Turn { role, keeper, doors } in each {
        let (done, outcome) = oneshot::channel();
        let renewal = Renewal { program: program.clone(), doors, retire_within, report, done };
        if keeper.send(Command::Renew(renewal)).await.is_err() {
            return;
        }
        // The supervisor ends: there is nobody left to tell.
        let Ok((back, outcome)) = outcome.await else { return };
        report = back;
        if let Err(why) = outcome {
            let before = if renewed.is_empty() {
                String::new()
            } else {
                format!(" (renewed before: {})", renewed.join(", "))
            };
            report.close(Err(format!("{why}{before}")));
            return;
        }
        renewed.push(role.as_str());
    }
    report.close(Ok(format!("{names}: renewed")));
}

/// The turns of some of the running roles, in start order.
pub(crate) fn turns_of(
    keepers: &BTreeMap<Role, mpsc::Sender<Command>>,
    wanted: impl Fn(Role) -> bool,
    doors: impl Fn(Role) -> Option<Vec<(&'static str, SocketAddr)>>,
) -> Vec<Turn> {
    Role::ALL
        .into_iter()
        .filter(|role| wanted(*role))
        .filter_map(|role| {
            let keeper = keepers.get(&role)?.clone();
            Some(Turn { role, keeper, doors: doors(role) })
        })
        .collect()
}
