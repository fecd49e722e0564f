//! `sluice-bench count`: instructions instead of seconds. They are the same on a busy machine as on a quiet one, so a
//! loss of a few percent shows, and in which function.
//!
//! All of Sluice runs under callgrind, is asked one thing after the other over one connection, and is told to write
//! what it counted. What the kernel of the system does is not counted, nor how long memory takes.

mod history;
mod kernels;
mod product;
mod profile;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::task::LocalSet;

use crate::program::find_in_path;
use crate::run::Ended;
use crate::sluice;
use history::{Count, History, SCHEMA, compare};
use profile::Profile;

/// LIMIT: bytes of a history and of a file of callgrind's.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// What the instructions depend on beside the source.
const RUSTC: &str = env!("CARGO_PKG_RUST_VERSION");

/// Arguments of `count`.
#[derive(Debug, Args)]
pub(crate) struct CountArgs {
    /// The sluice binary; default: beside this binary, then PATH
    #[arg(long)]
    sluice: Option<PathBuf>,
    /// What was counted before; exit 3 when something takes over 3 % more
    #[arg(long, default_value = "bench/history/instructions.json")]
    history: PathBuf,
    /// Write the history instead of holding the counts against it
    #[arg(long)]
    write: bool,
}

/// Counts everything, and compares or keeps it.
pub(crate) fn run(args: &CountArgs) -> anyhow::Result<Ended> {
    let sluice = sluice::binary(args.sluice.as_deref()).context(sluice::ABSENT)?;
    let valgrind = find_in_path("valgrind").context("no `valgrind` in PATH")?;
    let home =
        tempfile::Builder::new().prefix("sluice-bench-").tempdir().context("make a working directory")?;
    let mut counts = of_kernels(&valgrind, home.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = LocalSet::new();
    let product = |name: &str| {
        let dir = home.path().join(name);
        std::fs::create_dir_all(&dir)?;
        runtime.block_on(tasks.run_until(product::count(&sluice, &valgrind, &dir)))
    };
    counts.extend(product("first")?);
    if args.write {
        let history = History { schema: SCHEMA.into(), rustc: RUSTC.into(), counts };
        let text = serde_json::to_string_pretty(&history)? + "\n";
        std::fs::write(&args.history, text).with_context(|| format!("write {}", args.history.display()))?;
        return Ok(Ended::Passed);
    }
    let before: History = serde_json::from_slice(&read_bounded(&args.history)?)
        .with_context(|| format!("{} is no history", args.history.display()))?;
    ensure!(before.schema == SCHEMA, "{}: schema `{}`", args.history.display(), before.schema);
    let (mut text, mut lost) = compare(&before, &counts);
    if lost > 0 {
        // What a role does by itself now and then only adds: of two counts the lesser is nearer.
        lesser(&mut counts, product("second")?);
        (text, lost) = compare(&before, &counts);
    }
    std::io::stdout().write_all(text.as_bytes()).context("write to standard output")?;
    Ok(if lost == 0 { Ended::Passed } else { Ended::Missed })
}

/// Of each operation the count with fewer instructions.
fn lesser(counts: &mut [Count], others: Vec<Count>) {
    for other in others {
        if let Some(count) = counts.iter_mut().find(|count| count.name == other.name)
            && other.instructions < count.instructions
        {
            *count = other;
        }
    }
}

/// The hidden command that [`of_kernels`] runs under callgrind.
pub(crate) fn run_kernels() -> anyhow::Result<Ended> {
    kernels::run().map(|()| Ended::Passed)
}

fn of_kernels(valgrind: &Path, dir: &Path) -> anyhow::Result<Vec<Count>> {
    let out = dir.join("kernels");
    let mut command = Command::new(valgrind);
    command
        .args(["--tool=callgrind", "--quiet", &format!("--dump-before={}", kernels::MARK)])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .arg("counted");
    let output = command.stdin(Stdio::null()).output().context("start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kernels under callgrind: {}: {said}", output.status);
    let count = |(number, name): (usize, &str)| {
        // The dump at the mark behind the runs; marks are numbered from one.
        let path = dir.join(format!("kernels.{}", 2 * number + 2));
        let profile = profile_of(&path).with_context(|| format!("no count of {name}"))?;
        Ok(Count::of(&format!("{name}, a bar"), &profile, kernels::operations()))
    };
    kernels::names().enumerate().map(count).collect()
}

fn profile_of(path: &Path) -> anyhow::Result<Profile> {
    Ok(profile::read(&String::from_utf8_lossy(&read_bounded(path)?)))
}

fn read_bounded(path: &Path) -> anyhow::Result<Vec<u8>> {
    let length = std::fs::metadata(path).with_context(|| format!("read {}", path.display()))?.len();
    ensure!(length <= FILE_BYTES_MAX, "{} has more than {FILE_BYTES_MAX} bytes", path.display());
    std::fs::read(path).with_context(|| format!("read {}", path.display()))
}
