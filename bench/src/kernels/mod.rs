//! `sluice-bench run calc`: the kernels of the calculations beside other libraries, in one process and with the same
//! buffers; the builds of Sluice in turns, each as a child.

mod goals;
mod page;
mod report;
mod rivals;
mod table;
mod timing;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use sluice_calc::dispatch::Build;
use tokio::process::Command;

use crate::RunArgs;
use crate::machine::{Machine, Neighbours};
use crate::process::{allowed_cores, pin_thread};
use crate::program::Programs;
use crate::progress::Progress;
use crate::run::{Ended, Signals};
use goals::{CalcScenario, Timing};
use report::{Older, Report, Section};
pub(crate) use table::{KERNELS, walk};
use timing::{CRATE, Round, TALIB, TULIP};

/// Name of the scenario.
pub(crate) const NAME: &str = "calc";
/// Name of this program compiled for x86-64-v3.
const V3: &str = "sluice-bench-v3";
/// LIMIT: more bars take minutes a round.
const BARS_MAX: u64 = 10_000_000;

/// One round in one build.
#[derive(Debug, Args)]
pub(crate) struct RoundArgs {
    #[arg(long, value_parser = clap::value_parser!(u64).range(1_000..=BARS_MAX))]
    bars: u64,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Shared library of TA-Lib
    #[arg(long)]
    talib: Option<PathBuf>,
    /// Shared library of Tulip Indicators
    #[arg(long)]
    tulip: Option<PathBuf>,
}

/// Measures once and prints what was found.
pub(crate) fn round(args: &RoundArgs) -> anyhow::Result<Ended> {
    // One core for the whole round, as for every subject of the other scenarios.
    if let Some(core) = allowed_cores()?.last() {
        pin_thread(None, *core)?;
    }
    let found = timing::round(args.bars as usize, args.runs, args.talib.as_deref(), args.tulip.as_deref())?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&found)?)?;
    Ok(Ended::Passed)
}

/// Measures, judges and writes the report.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<Ended> {
    let goals = CalcScenario::shipped()?;
    let timing = goals.timing(args.quick, args.repeats);
    let older = args.compare.as_ref().map(|path| Older::load(path, args.quick).map(|older| (path, older)));
    let older = older.transpose()?;
    let (talib, tulip) = libraries(args)?;
    let own = std::env::current_exe()?;
    let v3 = own.with_file_name(V3);
    let mut rivals = BTreeMap::from([(CRATE.to_owned(), "crate ta-lib 0.8.3, in Rust".to_owned())]);
    for (who, found) in [(TALIB, &talib), (TULIP, &tulip)] {
        rivals.insert(who.to_owned(), found.as_ref().map_or_else(Clone::clone, |path| source(path)));
    }
    let mut builds = vec![own.clone()];
    if Build::best() == Build::V3 && is_of_now(&own, &v3) {
        builds.push(v3);
    } else {
        rivals.insert(
            "x86-64-v3".to_owned(),
            format!("not measured: no {V3} as new as this program beside it, or another processor"),
        );
    }
    let neighbours = Neighbours::watch();
    // Lengths of series, then builds, then rounds.
    let mut found = vec![vec![Vec::new(); builds.len()]; timing.bars.len()];
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let interrupted = runtime.block_on(async {
        let mut signals = Signals::watch()?;
        tokio::select! {
            done = rounds(&timing, &builds, &talib, &tulip, &mut found) => done.map(|()| false),
            () = signals.came() => Ok(true),
        }
    })?;
    let lengths = timing.bars.iter().zip(&found);
    let sections: Vec<_> = lengths
        .flat_map(|(bars, builds)| builds.iter().map(|rounds| Section::of(*bars, rounds)))
        .filter(|section| !section.kernels.is_empty())
        .collect();
    // The fastest build at the longest series; a quick run judges nothing.
    let checks = match sections.get(builds.len() - 1) {
        Some(section) if !args.quick && !interrupted => section.judged(&goals),
        _ => Vec::new(),
    };
    let comparison = older.map(|(path, older)| older.compare(path, &sections));
    let worse = comparison.as_ref().is_some_and(|comparison| !comparison.passed());
    let missed = worse || checks.iter().any(|check| !check.met);
    let report = Report {
        schema: report::SCHEMA,
        scenario: goals.name.clone(),
        quick: args.quick,
        interrupted,
        machine: Machine::describe(allowed_cores()?.len()),
        others_used: neighbours.and_then(|neighbours| neighbours.cores_used()),
        rounds: timing.rounds,
        rivals,
        sections,
        checks,
        comparison,
    };
    std::fs::create_dir_all(&args.out)?;
    let text = report.render(&goals)?;
    std::fs::write(args.out.join("calc.json"), serde_json::to_vec_pretty(&report)?)?;
    std::fs::write(args.out.join("calc.md"), &text)?;
    std::fs::write(args.out.join("calc.html"), page::render(&report))?;
    write!(std::io::stdout(), "{text}")?;
    Ok(match (interrupted, missed) {
        (true, _) => Ended::Interrupted,
        (false, true) => Ended::Missed,
        (false, false) => Ended::Passed,
    })
}

/// Whether the other build was made after this one: one that is older has other kernels.
fn is_of_now(own: &Path, other: &Path) -> bool {
    let made = |path: &Path| std::fs::metadata(path).and_then(|about| about.modified()).ok();
    made(other).is_some_and(|other| Some(other) >= made(own))
}

/// Measures every length in rounds that take turns of the builds; what is there when it is dropped is whole.
async fn rounds(
    timing: &Timing,
    builds: &[PathBuf],
    talib: &Result<PathBuf, String>,
    tulip: &Result<PathBuf, String>,
    found: &mut [Vec<Vec<Round>>],
) -> anyhow::Result<()> {
    let (talib, tulip) = (talib.as_deref().ok(), tulip.as_deref().ok());
    let mut progress = Progress::new(found.len() * timing.rounds as usize * builds.len(), Duration::ZERO);
    for (bars, found) in timing.bars.iter().zip(found) {
        for round in 1..=timing.rounds {
            for (build, rounds) in builds.iter().zip(&mut *found) {
                let name = build.file_name().unwrap_or_default();
                progress.step(&format!("round {round}: {}, {bars} bars", name.display()));
                let began = Instant::now();
                rounds.push(child(build, *bars, timing.runs, talib, tulip).await?);
                progress.takes(began.elapsed());
            }
        }
    }
    Ok(())
}

/// Package and file of a library.
fn source(library: &Path) -> String {
    let release = library
        .ancestors()
        .filter_map(|folder| folder.file_name()?.to_str())
        .find(|name| name.contains("=="));
    let file = library.file_name().unwrap_or_default();
    format!("{} of {}", file.display(), release.unwrap_or("this machine"))
}

/// The libraries of the rivals in C, or why there are none.
fn libraries(args: &RunArgs) -> anyhow::Result<(Result<PathBuf, String>, Result<PathBuf, String>)> {
    let programs = Programs::new(&args.cache, args.fetch)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async { (programs.talib().await, programs.tulip().await) }))
}

async fn child(
    build: &Path,
    bars: usize,
    runs: u32,
    talib: Option<&Path>,
    tulip: Option<&Path>,
) -> anyhow::Result<Round> {
    let mut command = Command::new(build);
    command.args(["kernels", "--bars", &bars.to_string(), "--runs", &runs.to_string()]);
    for (name, path) in [("--talib", talib), ("--tulip", tulip)] {
        if let Some(path) = path {
            command.arg(name).arg(path);
        }
    }
    // In a group of its own: ctrl-C reaches the bench, which ends it.
    command.stdin(Stdio::null()).stderr(Stdio::inherit()).process_group(0).kill_on_drop(true);
    let output = command.output().await.with_context(|| format!("start {}", build.display()))?;
    ensure!(output.status.success(), "{} ended with {}", build.display(), output.status);
    serde_json::from_slice(&output.stdout).context("what a round prints")
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn an_older_build_is_not_measured() {
        let dir = tempfile::tempdir().unwrap();
        let (own, other) = (dir.path().join("own"), dir.path().join("other"));
        let now = SystemTime::now();
        File::create(&own).unwrap().set_modified(now).unwrap();
        assert!(!is_of_now(&own, &other), "there is none");
        let file = File::create(&other).unwrap();
        for (made, is) in
            [(now - Duration::from_secs(1), false), (now, true), (now + Duration::from_secs(1), true)]
        {
            file.set_modified(made).unwrap();
            assert_eq!(is_of_now(&own, &other), is);
        }
    }
}
