//! The supervisor in place of itself: the same process, a new binary.
//!
//! Every role runs on meanwhile. What belongs together with it — its sockets, both its pipes, the binary it
//! runs — travels as descriptors through a socket pair, whose far end becomes the new program's standard
//! input; the rest is one JSON text in a sealed memory file among them. Environment and arguments are the
//! process's own and stay as they are, so nothing secret passes through either.
//!
//! A program that cannot do this is found out before anything is given away (`probe`): it must start, read
//! the configuration and name the same [`VERSION`]. `exec` that fails returns, and everything is taken back.
//! LIMIT: [`DESCRIPTORS_MAX`] descriptors, the kernel's bound for one message.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use sluice_schema::Mode;
use sluice_wire::role::Role;
use sluice_wire::start::{HANDOFF_VERSION, Handoff, Ready};
use tokio::time::Instant;

use super::backoff::Backoff;
use super::child::Frozen;
use super::dir::Lock;
use super::image::Image;
use super::plan::Plan;
use super::process::{Parts, Recipe};
use super::report::Report;
use super::sockets::{Bound, Socket};
use crate::args::Up;
use crate::load;

/// Format number of what one supervisor passes to the next.
pub(crate) const VERSION: u32 = 1;
/// Tells the new program that its standard input is not a terminal's.
const ADOPT: &str = "SLUICE_ADOPT";
/// LIMIT: descriptors of one message.
const DESCRIPTORS_MAX: usize = 253;
/// Longest time for a program to show that it can take over.
const PROBED_WITHIN: Duration = Duration::from_secs(10);

/// The text part.
#[derive(Serialize, Deserialize)]
struct State {
    version: u32,
    program: PathBuf,
    data_dir: PathBuf,
    offset: u16,
    announced: bool,
    ready: BTreeMap<Role, Ready>,
    has_client: bool,
    roles: Vec<RoleState>,
}

#[derive(Serialize, Deserialize)]
struct RoleState {
    image: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    handoff: Handoff,
    sockets: Vec<SocketState>,
    life: Option<LifeState>,
    backoff: Backoff,
    retirees: Vec<LifeState>,
}

#[derive(Serialize, Deserialize)]
struct SocketState {
    name: String,
    /// `None`: a Unix socket.
    address: Option<SocketAddr>,
}

#[derive(Serialize, Deserialize)]
struct LifeState {
    pid: u32,
    ready: bool,
    within_ms: u64,
    unread: Vec<u8>,
}

/// Whether this process began as another program, with roles that run.
pub(crate) fn is_adopting() -> bool {
    std::env::var_os(ADOPT).is_some()
        && rustix::net::sockopt::socket_domain(io::stdin())
            .is_ok_and(|family| family == rustix::net::AddressFamily::UNIX)
}

/// Asks a program whether it could take over, with this process's arguments; its answer. The error says why
/// not.
pub(crate) async fn probe(program: &Path) -> Result<Fit, String> {
    let mut command = tokio::process::Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .arg("--self-test")
        .env_remove(ADOPT)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let output = match tokio::time::timeout(PROBED_WITHIN, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(format!("{} cannot be started: {error}", program.display())),
        Err(_) => return Err(format!("{} did not answer within {PROBED_WITHIN:?}", program.display())),
    };
    let said = String::from_utf8_lossy(&output.stdout);
    match serde_json::from_str::<Fit>(said.trim()) {
        Ok(fit) if fit.fit == VERSION && output.status.success() => Ok(fit),
        Ok(Fit { fit, .. }) => {
            Err(format!("{} hands over by version {fit}, not {VERSION}", program.display()))
        }
        Err(_) => {
            let errors = String::from_utf8_lossy(&output.stderr);
            let last = errors.trim().lines().next_back().unwrap_or_default();
            let last: String = last.chars().take(300).collect();
            Err(format!("{} failed its self-test with {}: {last}", program.display(), output.status))
        }
    }
}

/// What a program says of itself.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fit {
    /// The [`VERSION`] that it takes.
    fit: u32,
    /// It lets signals through that were held for it.
    #[serde(default)]
    pub(crate) holds: bool,
}

/// The answer to a probe, once the configuration was read.
pub(crate) fn fit() -> String {
    serde_json::to_string(&Fit { fit: VERSION, holds: true }).unwrap_or_default()
}

/// Becomes the program at the plan's path. Returns only when that fails, with everything as it was.
pub(crate) fn become_successor(plan: &Plan, report: Report) -> (Report, anyhow::Error) {
    let packed = match pack(plan) {
        Ok(packed) => packed,
        Err(error) => return (report, error),
    };
    let client = report.into_client();
    let error = send(plan, packed, client.as_ref().map(OwnedFd::as_fd));
    let report = client.map(UnixStream::from).map(Report::to).and_then(Result::ok).unwrap_or_default();
    (report, error)
}

struct Packed {
    state: State,
    descriptors: Vec<OwnedFd>,
}

fn pack(plan: &Plan) -> anyhow::Result<Packed> {
    let mut descriptors =
        vec![rustix::io::dup(io::stdin().as_fd())?, plan.lock.duplicate()?, plan.door.try_clone()?.into()];
    let now = Instant::now();
    let life = |parts: &Parts, ready: bool, within: Duration| -> anyhow::Result<(LifeState, [OwnedFd; 2])> {
        let within_ms = u64::try_from(within.as_millis())?;
        let state = LifeState { pid: parts.pid, ready, within_ms, unread: parts.unread.clone() };
        Ok((state, [parts.input.try_clone()?, parts.output.try_clone()?]))
    };
    let mut roles = Vec::new();
    for frozen in &plan.roles {
        let recipe = &frozen.recipe;
        descriptors.push(recipe.image.duplicate()?);
        for socket in &recipe.sockets {
            descriptors.push(socket.listener.duplicate()?);
        }
        let mut keep = |(state, pipes): (LifeState, [OwnedFd; 2])| {
            descriptors.extend(pipes);
            state
        };
        let running = frozen.life.as_ref().map(|(parts, ready)| life(parts, *ready, Duration::ZERO));
        let running = running.transpose()?.map(&mut keep);
        let mut retirees = Vec::new();
        for (parts, by) in &frozen.retirees {
            retirees.push(keep(life(parts, false, by.saturating_duration_since(now))?));
        }
        let socket = |socket: &Socket| SocketState { name: socket.name.clone(), address: socket.address };
        roles.push(RoleState {
            image: recipe.image.path().to_owned(),
            arguments: recipe.arguments.clone(),
            environment: recipe.environment.clone(),
            handoff: recipe.handoff.clone(),
            sockets: recipe.sockets.iter().map(socket).collect(),
            life: running,
            backoff: frozen.backoff,
            retirees,
        });
    }
    let state = State {
        version: VERSION,
        program: plan.program.clone(),
        data_dir: plan.data_dir.clone(),
        offset: plan.offset,
        announced: plan.announced,
        ready: plan.ready.clone(),
        has_client: false,
        roles,
    };
    Ok(Packed { state, descriptors })
}

/// Sends everything to ourselves and becomes the other program; returns why not.
fn send(plan: &Plan, packed: Packed, client: Option<BorrowedFd<'_>>) -> anyhow::Error {
    let Packed { mut state, descriptors } = packed;
    state.has_client = client.is_some();
    let sent = (|| {
        let text = sealed(&serde_json::to_vec(&state)?)?;
        let mut all = vec![text.as_fd()];
        all.extend(client);
        all.extend(descriptors.iter().map(OwnedFd::as_fd));
        if all.len() > DESCRIPTORS_MAX {
            bail!("{} descriptors are more than one message takes", all.len());
        }
        let (near, far) = UnixStream::pair()?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&all)) {
            bail!("the descriptors do not fit into one message");
        }
        sendmsg(&near, &[IoSlice::new(b"s")], &mut ancillary, SendFlags::empty())?;
        Ok(far)
    })();
    let far = match sent {
        Ok(far) => far,
        Err(error) => return error,
    };
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(&plan.program);
    command.arg0(arguments.next().unwrap_or_else(|| "sluice".into()));
    let error = command.args(arguments).env(ADOPT, "1").stdin(Stdio::from(OwnedFd::from(far))).exec();
    // It set standard input before it failed.
    if let Some(stdin) = descriptors.first()
        && let Err(lost) = rustix::stdio::dup2_stdin(stdin)
    {
        tracing::warn!(component = "supervisor", error = %lost, "standard input is lost");
    }
    anyhow::Error::new(error).context(format!("cannot become {}", plan.program.display()))
}

/// A memory file that nobody changes any more.
fn sealed(text: &[u8]) -> anyhow::Result<OwnedFd> {
    let mut file = File::from(memfd_create("sluice", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(text)?;
    file.rewind()?;
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    Ok(file.into())
}

/// Takes over what the program before this one sent.
pub(crate) fn adopt(args: &Up) -> anyhow::Result<Plan> {
    let mut descriptors = receive()?.into_iter();
    let mut next = || descriptors.next().ok_or_else(|| anyhow!("a descriptor is missing"));
    let mut text = String::new();
    File::from(next()?).read_to_string(&mut text)?;
    let state: State = serde_json::from_str(&text).context("what was passed on cannot be read")?;
    if state.version != VERSION {
        bail!("version {} was passed on; this program takes {VERSION}", state.version);
    }
    let client = if state.has_client { Some(UnixStream::from(next()?)) } else { None };
    rustix::stdio::dup2_stdin(next()?)?;
    let (lock, door) = (Lock::held(next()?), UnixListener::from(next()?));
    let mut roles = Vec::new();
    for role in state.roles {
        roles.push(thaw(role, &mut next)?);
    }
    let mode = Mode { dev: args.common.dev, secrets_required: false, now_unix_s: None, ..Mode::default() };
    let config = load::read(&args.common.conf, &load::environment(), mode).ok().map(|loaded| loaded.config);
    let moved = config.map(|mut config| config.port_offset(state.offset).map(|()| config));
    Ok(Plan {
        roles,
        data_dir: state.data_dir,
        program: state.program,
        offset: state.offset,
        config: moved.and_then(Result::ok),
        lock,
        door,
        ready: state.ready,
        announced: state.announced,
        unfinished: Some(client.map(Report::to).and_then(Result::ok).unwrap_or_default()),
    })
}

fn thaw(state: RoleState, next: &mut impl FnMut() -> anyhow::Result<OwnedFd>) -> anyhow::Result<Frozen> {
    let role = state.handoff.role;
    let image = Image::held(&state.image, next()?);
    let mut sockets = Vec::new();
    for SocketState { name, address } in state.sockets {
        let listener = match address {
            Some(_) => Bound::Tcp(TcpListener::from(next()?)),
            None => Bound::Unix(UnixListener::from(next()?)),
        };
        sockets.push(Socket { name, address, listener });
    }
    let mut life = |state: LifeState| -> anyhow::Result<(Parts, bool, Instant)> {
        let by = Instant::now() + Duration::from_millis(state.within_ms);
        let parts = Parts { role, pid: state.pid, input: next()?, output: next()?, unread: state.unread };
        Ok((parts, state.ready, by))
    };
    let running = state.life.map(&mut life).transpose()?;
    let retirees: anyhow::Result<Vec<_>> = state.retirees.into_iter().map(&mut life).collect();
    Ok(Frozen {
        recipe: Recipe {
            role,
            image,
            arguments: state.arguments,
            environment: state.environment,
            sockets,
            // What this program starts is told in this program's words.
            handoff: Handoff { version: HANDOFF_VERSION, ..state.handoff },
        },
        life: running.map(|(parts, ready, _)| (parts, ready)),
        backoff: state.backoff,
        retirees: retirees?.into_iter().map(|(parts, _, by)| (parts, by)).collect(),
    })
}

fn receive() -> anyhow::Result<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0; 1];
    recvmsg(io::stdin(), &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        .context("nothing was passed on")?;
    let mut found = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            found.extend(descriptors);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_text_is_read_back_and_cannot_be_changed() {
        let mut file = File::from(sealed(b"text").unwrap());
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        assert!(file.write_all(b"more").is_err());
    }

    #[tokio::test]
    async fn programs_that_cannot_take_over_are_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            use std::os::unix::fs::PermissionsExt as _;
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let good = script("good", "#!/bin/sh\necho '{\"fit\":1}'\n");
        assert_eq!(probe(&good).await, Ok(Fit { fit: 1, holds: false }));
        for (name, text, says) in [
            ("dies", "#!/bin/sh\necho no such key >&2\nexit 2\n", "no such key"),
            ("other", "#!/bin/sh\necho '{\"fit\":7}'\n", "version 7"),
            ("mute", "#!/bin/sh\nexit 0\n", "self-test"),
        ] {
            let why = probe(&script(name, text)).await.unwrap_err();
            assert!(why.contains(says), "{why}");
        }
        assert!(probe(&dir.path().join("none")).await.unwrap_err().contains("cannot be started"));
    }
}
