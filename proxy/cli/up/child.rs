//! One role as a child process: started, watched, started again, ended.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use sluice_wire::role::Role;
use sluice_wire::start::{HANDOFF_VERSION, Handoff, Ready};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::sockets::Socket;

/// First descriptor of the handed-down sockets.
const FIRST_FD: i32 = 3;

/// How a role is started.
pub(crate) struct Recipe {
    pub(crate) role: Role,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) handoff: Handoff,
}

/// What happens to a role.
#[derive(Debug)]
pub(crate) enum Happening {
    Ready(Ready),
    Died { role: Role, was_ready: bool, again_in: Duration, failures: u32, status: String },
    Ended,
}

/// What a role is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Run,
    Reload(u32),
    End { by: Instant },
}

/// Keeps one role running until it is told to end.
pub(crate) async fn keep(recipe: Recipe, mut wish: watch::Receiver<Wish>, said: mpsc::Sender<Happening>) {
    let role = recipe.role;
    let mut backoff = Backoff::default();
    while let Some((was_ready, status)) = live(&recipe, &mut wish, &said, &mut backoff).await {
        let again_in = backoff.died(was_ready, super::chance());
        let failures = backoff.failures();
        let _main_ended = said.send(Happening::Died { role, was_ready, again_in, failures, status }).await;
        if ends_within(&mut wish, again_in).await {
            break;
        }
    }
    let _main_ended = said.send(Happening::Ended).await;
}

/// One life. `None`: it was told to end. Otherwise whether it had been ready, and how it died.
async fn live(
    recipe: &Recipe,
    wish: &mut watch::Receiver<Wish>,
    said: &mpsc::Sender<Happening>,
    backoff: &mut Backoff,
) -> Option<(bool, String)> {
    if matches!(*wish.borrow_and_update(), Wish::End { .. }) {
        return None;
    }
    let mut life = match Life::begin(recipe).await {
        Ok(life) => life,
        Err(error) => return Some((false, format!("{error:#}"))),
    };
    let mut ready = false;
    loop {
        tokio::select! {
            // A role that dies right after its ready line has been ready.
            biased;
            line = life.output.next() => if let Some(found) = line {
                ready = true;
                backoff.ready();
                let _main_ended = said.send(Happening::Ready(found)).await;
            },
            status = life.child.wait() => {
                return Some((ready, status.map_or_else(|error| error.to_string(), |status| status.to_string())));
            }
            changed = wish.changed() => {
                let now = *wish.borrow_and_update();
                match now {
                    Wish::End { by } => { life.end(by).await; return None; }
                    Wish::Reload(_) => life.signal(Signal::HUP),
                    Wish::Run if changed.is_err() => { life.end(Instant::now()).await; return None; }
                    Wish::Run => {}
                }
            }
        }
    }
}

async fn ends_within(wish: &mut watch::Receiver<Wish>, pause: Duration) -> bool {
    let told = async {
        loop {
            if wish.changed().await.is_err() || matches!(*wish.borrow_and_update(), Wish::End { .. }) {
                return;
            }
        }
    };
    timeout(pause, told).await.is_ok()
}

struct Life {
    child: Child,
    output: Output,
    /// Open for the role's whole life: its end tells the role that the supervisor is gone.
    pipe: Option<ChildStdin>,
}

impl Life {
    async fn begin(recipe: &Recipe) -> anyhow::Result<Self> {
        let mut child = command(recipe)?.spawn().with_context(|| format!("cannot start {}", recipe.role))?;
        let mut pipe = child.stdin.take().context("standard input was piped")?;
        let mut line = serde_json::to_vec(&recipe.handoff)?;
        line.push(b'\n');
        pipe.write_all(&line).await.with_context(|| format!("{} did not take its handoff", recipe.role))?;
        pipe.flush().await?;
        let out = child.stdout.take().context("standard output was piped")?;
        let output = Output { role: recipe.role, lines: Some(BufReader::new(out).lines()) };
        Ok(Self { child, output, pipe: Some(pipe) })
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.id().and_then(|pid| Pid::from_raw(pid as i32)) {
            let _already_gone = kill_process(pid, signal);
        }
    }

    /// Asks the process to drain, and kills it at the deadline.
    async fn end(&mut self, by: Instant) {
        self.signal(Signal::TERM);
        drop(self.pipe.take());
        if tokio::time::timeout_at(by, self.child.wait()).await.is_err() {
            self.signal(Signal::KILL);
            let _reaped = self.child.wait().await;
        }
    }
}

fn command(recipe: &Recipe) -> anyhow::Result<Command> {
    let mut command = std::process::Command::new(&recipe.program);
    let mappings: io::Result<Vec<FdMapping>> = recipe
        .sockets
        .iter()
        .zip(FIRST_FD..)
        .map(|(socket, child_fd)| Ok(FdMapping { parent_fd: socket.listener.duplicate()?, child_fd }))
        .collect();
    command
        .arg0("sluice")
        .args(&recipe.arguments)
        .env_clear()
        .envs(&recipe.environment)
        .env("LISTEN_FDS", recipe.sockets.len().to_string())
        // Its own group: ctrl-C reaches the supervisor alone, which ends the roles in order.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .fd_mappings(mappings?)?;
    Ok(Command::from(command))
}

/// The lines a role prints; only its ready line means something.
struct Output {
    role: Role,
    lines: Option<Lines<BufReader<ChildStdout>>>,
}

impl Output {
    /// The ready line. Pends for ever once the output is closed, so that it can stand in a select.
    async fn next(&mut self) -> Option<Ready> {
        let Some(lines) = &mut self.lines else { return std::future::pending().await };
        if let Ok(Some(line)) = lines.next_line().await {
            return serde_json::from_str::<Ready>(&line).ok().filter(|ready| ready.role == self.role);
        }
        self.lines = None;
        None
    }
}

/// Waits a moment.
pub(crate) async fn pause(duration: Duration) {
    sleep(duration).await;
}

/// What a role is told when it starts.
pub(crate) fn handoff(
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
        peers: peers.map(|(peer, key)| (*peer, sluice_http::InternalKeys::digest(key))).collect(),
        sockets: internal.iter().map(|(role, path)| (*role, path.to_string_lossy().into_owned())).collect(),
        listeners: sockets.iter().map(|socket| socket.name.to_owned()).collect(),
        end_within_ms: u64::try_from(end_within.as_millis()).unwrap_or(u64::MAX),
        secrets,
    }
}
