//! The process of a role: started or adopted, spoken to, awaited, ended.
//!
//! Waiting is done with SIGCHLD and `waitpid`, not with a handle that only the starter can have: after
//! the supervisor has replaced itself, its children are still its children.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};
use sluice_wire::role::Role;
use sluice_wire::start::{Handoff, Order, Said};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, timeout, timeout_at};

use super::image::Image;
use super::sockets::Socket;

/// First descriptor of the handed-down sockets.
const FIRST_FD: i32 = 3;
/// Longest time for a process to take a line.
const LINE_WITHIN: Duration = Duration::from_secs(5);
/// LIMIT: bytes of one line of a role.
const LINE_BYTES: usize = 64 << 10;

/// How a role is started.
pub(crate) struct Recipe {
    pub(crate) role: Role,
    pub(crate) image: Image,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) handoff: Handoff,
}

/// A process that plays a role. Dropped before its end, it is killed.
pub(crate) struct Life {
    role: Role,
    pid: Pid,
    ended: Option<String>,
    children: tokio::signal::unix::Signal,
    /// Open for the role's whole life: its end tells the role that the supervisor is gone.
    input: Option<Sender>,
    output: Option<Receiver>,
    unread: Vec<u8>,
}

/// What is left of a process when its keeper goes and another one comes.
pub(crate) struct Parts {
    pub(crate) role: Role,
    pub(crate) pid: u32,
    pub(crate) input: OwnedFd,
    pub(crate) output: OwnedFd,
    pub(crate) unread: Vec<u8>,
}

impl Life {
    /// Starts a program as a role. `successor`: while another process plays it.
    pub(crate) async fn begin(recipe: &Recipe, program: &Path, successor: bool) -> anyhow::Result<Self> {
        let role = recipe.role;
        let children = signal(SignalKind::child())?;
        let mut child = command(recipe, program)?
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a process has an id")?;
        // From here on dropping it ends the process.
        let mut life =
            Self { role, pid, ended: None, children, input: None, output: None, unread: Vec::new() };
        let (input, output) = (child.stdin.take(), child.stdout.take());
        life.input = Some(Sender::from_owned_fd(input.context("standard input was piped")?.into())?);
        life.output = Some(Receiver::from_owned_fd(output.context("standard output was piped")?.into())?);
        let handoff = Handoff { successor, ..recipe.handoff.clone() };
        if let Err(error) = life.write(&serde_json::to_vec(&handoff)?).await {
            match timeout(LINE_WITHIN, life.ended()).await {
                Ok(status) => bail!("{role} ended with {status} before it took its handoff"),
                Err(_) => return Err(error.context(format!("{role} did not take its handoff"))),
            }
        }
        Ok(life)
    }

    /// Takes over a process that another keeper had.
    pub(crate) fn adopt(parts: Parts) -> anyhow::Result<Self> {
        let Parts { role, pid, input, output, unread } = parts;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process has this id")?;
        Ok(Self {
            role,
            pid,
            ended: None,
            children: signal(SignalKind::child())?,
            input: Some(Sender::from_owned_fd(input)?),
            output: Some(Receiver::from_owned_fd(output)?),
            unread,
        })
    }

    /// Gives it away, running as it is. `None` when a pipe to it is closed: it is about to end.
    pub(crate) fn part(mut self) -> Option<Parts> {
        let (input, output) = (self.input.take()?, self.output.take()?);
        let parts = Parts {
            role: self.role,
            pid: self.pid(),
            input: input.into_nonblocking_fd().ok()?,
            output: output.into_nonblocking_fd().ok()?,
            unread: std::mem::take(&mut self.unread),
        };
        // Not ours to kill any more.
        self.ended = Some("given away".to_owned());
        Some(parts)
    }

    /// Its id.
    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Tells it what to do; false where it does not listen any more.
    pub(crate) async fn tell(&mut self, order: Order) -> bool {
        match serde_json::to_vec(&order) {
            Ok(line) => self.write(&line).await.is_ok(),
            Err(_) => false,
        }
    }

    async fn write(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let Some(input) = &mut self.input else { bail!("its pipe is closed") };
        timeout(LINE_WITHIN, input.write_all(&[line, b"\n"].concat())).await??;
        Ok(())
    }

    /// What it says next, or how it ended. All that it said comes before its end.
    pub(crate) async fn next(&mut self) -> Result<Said, String> {
        loop {
            if let Some(said) = self.line() {
                return Ok(said);
            }
            if let Some(status) = self.status() {
                return self.last_words().ok_or(status);
            }
            tokio::select! {
                biased;
                open = read(&mut self.output, &mut self.unread) => if !open {
                    self.output = None;
                },
                _ = self.children.recv() => {}
            }
        }
    }

    /// Waits for its end; says how it ended.
    pub(crate) async fn ended(&mut self) -> String {
        loop {
            if let Some(status) = self.status() {
                return status;
            }
            self.children.recv().await;
        }
    }

    /// The next line among what was read that means something.
    fn line(&mut self) -> Option<Said> {
        loop {
            let end = self.unread.iter().position(|byte| *byte == b'\n')?;
            let line: Vec<u8> = self.unread.drain(..=end).collect();
            let said = serde_json::from_slice::<Said>(&line).ok().filter(|said| said.role() == self.role);
            if said.is_some() {
                return said;
            }
        }
    }

    /// What a process that has ended had written and nobody read.
    fn last_words(&mut self) -> Option<Said> {
        if let Some(output) = self.output.take() {
            while matches!(output.try_read_buf(&mut self.unread), Ok(1..)) && self.unread.len() <= LINE_BYTES
            {
            }
        }
        self.line()
    }

    /// How it ended; `None` while it runs.
    pub(crate) fn status(&mut self) -> Option<String> {
        if self.ended.is_none() {
            self.ended = match waitpid(Some(self.pid), WaitOptions::NOHANG) {
                Ok(Some((_, status))) => Some(text(status)),
                Ok(None) => None,
                Err(error) => Some(error.to_string()),
            };
        }
        self.ended.clone()
    }

    /// Returns when some child of this process changed.
    pub(crate) async fn a_child_changed(&mut self) {
        self.children.recv().await;
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        if self.ended.is_none() {
            let _already_gone = kill_process(self.pid, signal);
        }
    }

    /// Asks it to drain and end.
    pub(crate) fn ask_to_end(&mut self) {
        self.signal(Signal::TERM);
        drop(self.input.take());
    }

    /// Asks it to drain and end, and kills it at the deadline.
    pub(crate) async fn end(&mut self, by: Instant) {
        self.ask_to_end();
        if timeout_at(by, self.ended()).await.is_err() {
            self.kill().await;
        }
    }

    /// Kills it; it is gone when this returns.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Reads once; false when nothing more comes. Pends for ever where there is nothing to read from.
async fn read(output: &mut Option<Receiver>, unread: &mut Vec<u8>) -> bool {
    let Some(output) = output else { return std::future::pending().await };
    // Whoever prints a line without end says nothing that matters.
    matches!(output.read_buf(unread).await, Ok(1..)) && unread.len() <= LINE_BYTES
}

fn text(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

fn command(recipe: &Recipe, program: &Path) -> anyhow::Result<std::process::Command> {
    let mut command = std::process::Command::new(program);
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
    Ok(command)
}
