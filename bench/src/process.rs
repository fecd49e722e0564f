//! Child processes: pinned, with a clean environment, ended with the bench whatever ends it.
//!
//! A child is started through our own `exec` sub-command, which pins itself, asks the kernel to be ended
//! with its parent and then becomes the command. So a bench that is killed leaves nothing behind,
//! and no unsafe pre-exec hook is needed.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use rustix::thread::CpuSet;

use crate::run::Ended;

const POLL: Duration = Duration::from_millis(10);
/// Longest time a child may take to end after SIGTERM; longer than Sluice's own ten seconds.
const STOP_GRACE: Duration = Duration::from_secs(12);
const LOG_TAIL_BYTES: usize = 2000;

/// What to start and where its output goes (`DIR/stdout`, `DIR/stderr`).
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    pub program: &'a Path,
    pub arguments: Vec<OsString>,
    pub core: Option<usize>,
    pub dir: &'a Path,
    /// Its whole environment but PATH.
    pub environment: Vec<(OsString, OsString)>,
}

/// A running child; dropping it sends SIGTERM, waits, then kills. What it started and left is killed too.
#[derive(Debug)]
pub(crate) struct Guarded {
    child: Child,
    ended: Option<ExitStatus>,
    dir: PathBuf,
    // Held open: the origin ends when it closes.
    _stdin: Option<ChildStdin>,
}

impl Launch<'_> {
    /// Starts the child behind the `exec` guard.
    pub(crate) fn start(self) -> anyhow::Result<Guarded> {
        let mut command = Command::new(std::env::current_exe().context("path of this binary")?);
        command.args(["exec", "--parent"]).arg(std::process::id().to_string());
        if let Some(core) = self.core {
            command.arg("--core").arg(core.to_string());
        }
        command.arg("--").arg(self.program).args(&self.arguments);
        // The caller's REDIS_URL or SLUICE__* must not change what is measured.
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path))).envs(self.environment);
        command
            .stdin(Stdio::piped())
            .stdout(create(self.dir, "stdout")?)
            .stderr(create(self.dir, "stderr")?)
            // Its own group: ctrl-C reaches the bench, which then stops its children in order.
            .process_group(0);
        let mut child = command.spawn().with_context(|| format!("start {}", self.program.display()))?;
        let stdin = child.stdin.take();
        Ok(Guarded { child, ended: None, dir: self.dir.to_owned(), _stdin: stdin })
    }
}

fn create(dir: &Path, name: &str) -> anyhow::Result<File> {
    let path = dir.join(name);
    File::create(&path).with_context(|| format!("create {}", path.display()))
}

impl Guarded {
    /// Process id, the root of the child's process tree.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The first whole line on the child's standard output; an error when it ends or `limit` passes first.
    pub(crate) async fn first_line(&mut self, limit: Duration) -> anyhow::Result<String> {
        let path = self.dir.join("stdout");
        self.until("its ready line", limit, || {
            let text = std::fs::read_to_string(&path).ok()?;
            text.split_once('\n').map(|(line, _)| line.to_owned())
        })
        .await
    }

    /// Polls `probe` until it answers; an error with the child's last words when it ends or `limit` passes.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = probe() {
                return Ok(found);
            }
            if let Some(status) = self.reap()? {
                bail!("ended with {status} before {what}: {}", self.last_words());
            }
            if Instant::now() >= deadline {
                bail!("no {what} within {} s: {}", limit.as_secs(), self.last_words());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the child has ended well; an error with its last words otherwise.
    pub(crate) async fn finished(&mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            match self.reap()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("ended with {status}: {}", self.last_words()),
                None if Instant::now() >= deadline => bail!("did not end within {} s", limit.as_secs()),
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    /// An error with the child's last words when it has ended.
    pub(crate) fn assert_alive(&mut self) -> anyhow::Result<()> {
        match self.reap()? {
            Some(status) => bail!("ended early with {status}: {}", self.last_words()),
            None => Ok(()),
        }
    }

    /// Sends SIGTERM and returns at once, so that several children end side by side.
    pub(crate) fn ask_to_stop(&self) {
        // The process may be gone already; the wait in drop finds out.
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap_or_default();
    }

    /// Kills it as a crash would, with all of its process group, and waits until it is gone.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("kill")?;
        let deadline = Instant::now() + STOP_GRACE;
        while self.reap()?.is_none() {
            anyhow::ensure!(Instant::now() < deadline, "it outlives kill -9");
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// The exit status once the child has ended; leftovers of its process group are killed first, while
    /// its id still cannot belong to anybody else.
    fn reap(&mut self) -> std::io::Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            let pid = Pid::from_child(&self.child);
            let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
            if rustix::process::waitid(WaitId::Pid(pid), look)?.is_some() {
                // The group always holds the child itself, which has ended: an error changes nothing.
                rustix::process::kill_process_group(pid, Signal::KILL).unwrap_or_default();
                self.ended = Some(self.child.wait()?);
            }
        }
        Ok(self.ended)
    }

    fn last_words(&self) -> String {
        let text = std::fs::read(self.dir.join("stderr")).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(LOG_TAIL_BYTES)..];
        String::from_utf8_lossy(tail).trim().to_owned()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.ask_to_stop();
        let deadline = Instant::now() + STOP_GRACE;
        while matches!(self.reap(), Ok(None)) {
            if Instant::now() >= deadline {
                // Nothing is left to do when even this fails.
                drop(self.child.kill());
            }
            std::thread::sleep(POLL);
        }
    }
}

/// The `exec` sub-command: pins, ties this process to `parent`, becomes `command`. Returns only on error.
pub(crate) fn become_command(
    core: Option<usize>,
    parent: i32,
    command: &[OsString],
) -> anyhow::Result<Ended> {
    rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).context("tie to the parent")?;
    // The parent may have died before the line above.
    if rustix::process::getppid().map(Pid::as_raw_nonzero).map(i32::from) != Some(parent) {
        bail!("parent {parent} is gone");
    }
    if let Some(core) = core {
        pin_thread(None, core)?;
    }
    let (program, arguments) = command.split_first().context("no command")?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("run {}", program.display()))
}

/// Pins one thread (`None`: the calling one, and what it starts from now on) to `core`.
pub(crate) fn pin_thread(thread: Option<Pid>, core: usize) -> anyhow::Result<()> {
    pin_thread_to(thread, &[core])
}

/// The same to some cores.
pub(crate) fn pin_thread_to(thread: Option<Pid>, cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    rustix::thread::sched_setaffinity(thread, &set).with_context(|| format!("pin to cores {cores:?}"))
}

/// Cores this process was given, in order: what it pinned since, for a scenario before this one, does not count.
pub(crate) fn allowed_cores() -> anyhow::Result<Vec<usize>> {
    static GIVEN: OnceLock<Vec<usize>> = OnceLock::new();
    if let Some(given) = GIVEN.get() {
        return Ok(given.clone());
    }
    let set = rustix::thread::sched_getaffinity(None).context("read allowed cores")?;
    let cores = (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect();
    Ok(GIVEN.get_or_init(|| cores).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_refuses_to_run_without_its_parent() {
        // In a thread of its own, so that the death signal set here ends with it.
        let refused = std::thread::spawn(|| become_command(None, 1, &["true".into()]).is_err());
        let own_parent_is_init = rustix::process::getppid() == Pid::from_raw(1);
        assert!(own_parent_is_init || refused.join().unwrap());
    }

    #[test]
    fn the_cores_that_were_given_stay_known_after_pinning() {
        std::thread::spawn(|| {
            let given = allowed_cores().unwrap();
            pin_thread(None, given[0]).unwrap();
            assert_eq!(allowed_cores().unwrap(), given);
        })
        .join()
        .unwrap();
    }
}
