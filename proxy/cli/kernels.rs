//! Which of two binaries computes: this one, or its twin for newer processors beside it.
//!
//! The vector crate chooses its instructions when it is compiled, so a release has `sluice` for every x86-64
//! and `sluice-v3` for those with AVX2. Results are the same in every bit; only `sluice worker calc` is faster
//! there, so it alone becomes the twin (`exec`: same process, same descriptors, nothing read yet). The twin is
//! asked first what it is: one of another version, or one that does not answer, leaves this binary in place.

use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sluice_calc_worker::kernels::{BUILD, Build};
use sluice_wire::start::HANDOFF_VERSION;

use crate::exit::{self, Code, Failure};

/// The twin's name.
const TWIN: &str = "sluice-v3";
/// Longest time for it to say what it is.
const ASKED_WITHIN: Duration = Duration::from_secs(2);
/// Pause between two looks at whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// LIMIT: bytes of its answer that are read.
const ANSWER_BYTES: u64 = 1_024;

/// What a binary says of itself to its twin.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kernels {
    version: String,
    handoff: u32,
    build: String,
}

impl Kernels {
    fn of(build: Build) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            handoff: HANDOFF_VERSION,
            build: build.name().to_owned(),
        }
    }
}

/// Answers a twin's question.
pub(crate) fn say() -> Result<Code, Failure> {
    let text = serde_json::to_string(&Kernels::of(BUILD)).context("cannot write what this is")?;
    crate::say::must(&(text + "\n"))?;
    Ok(exit::OK)
}

/// Becomes the twin where there is one, it fits and the processor does; else says why not.
pub(crate) fn choose(mut arguments: impl Iterator<Item = OsString>) -> String {
    match twin(BUILD, Build::best(), std::fs::read_link("/proc/self/exe").ok()) {
        Err(stays) => stays.to_owned(),
        Ok(program) => match ask(&program, ASKED_WITHIN) {
            Ok(()) => {
                // By the name this process has: whoever looks for it finds it.
                let name = arguments.next().unwrap_or_default();
                let error = Command::new(&program).arg0(name).args(arguments).exec();
                format!("{} cannot be started: {error}", program.display())
            }
            Err(why) => format!("{} {why}", program.display()),
        },
    }
}

/// The twin to ask, or why there is none to ask.
fn twin(build: Build, best: Build, own: Option<PathBuf>) -> Result<PathBuf, &'static str> {
    if build == Build::V3 {
        return Err("made for this processor");
    }
    if best == Build::Baseline {
        return Err("the processor has no AVX2 and companions");
    }
    // What was replaced on the disk lies beside what replaced it, which comes into force by an upgrade alone.
    let own = own.filter(|own| own.exists()).ok_or("this binary was replaced on the disk")?;
    let beside = own.with_file_name(TWIN);
    if beside.is_file() { Ok(beside) } else { Err("no sluice-v3 lies beside this binary") }
}

/// Whether it is this binary's twin.
fn ask(program: &Path, within: Duration) -> Result<(), String> {
    let asked = Command::new(program)
        .args(["worker", "calc", "--kernels"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = asked.map_err(|error| format!("cannot be started: {error}"))?;
    if !ended(&mut child, within) {
        drop(child.kill());
        drop(child.wait());
        return Err(format!("did not say within {within:?} what it is"));
    }
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        drop(output.take(ANSWER_BYTES).read_to_string(&mut said));
    }
    match serde_json::from_str::<Kernels>(said.trim()) {
        Ok(found) if found == Kernels::of(Build::V3) => Ok(()),
        Ok(found) => Err(format!("is {} {} of handover {}", found.version, found.build, found.handoff)),
        Err(_) => Err("does not say what it is".to_owned()),
    }
}

/// Waits for its end; false when it takes too long.
fn ended(child: &mut Child, within: Duration) -> bool {
    let by = Instant::now() + within;
    while Instant::now() < by {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Ok(Some(_)) | Err(_) => return true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_baseline_on_a_newer_processor_looks_for_its_twin() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("sluice");
        let look = |build, best| twin(build, best, Some(own.clone()));
        assert!(look(Build::Baseline, Build::V3).unwrap_err().contains("replaced"));
        std::fs::write(&own, "").unwrap();
        assert!(look(Build::Baseline, Build::V3).unwrap_err().contains("beside"));
        let beside = dir.path().join(TWIN);
        std::fs::write(&beside, "").unwrap();
        assert_eq!(look(Build::Baseline, Build::V3).unwrap(), beside);
        assert!(look(Build::Baseline, Build::Baseline).unwrap_err().contains("AVX2"));
        assert!(look(Build::V3, Build::V3).unwrap_err().contains("made for"));
        assert!(twin(Build::Baseline, Build::V3, None).is_err());
    }

    #[test]
    fn who_is_not_the_twin_is_named() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let stamp = |kernels: &Kernels| format!("echo '{}'", serde_json::to_string(kernels).unwrap());
        let twin = || Kernels::of(Build::V3);
        let cases = [
            ("other-version", stamp(&Kernels { version: "9.9.9".into(), ..twin() }), "is 9.9.9 v3"),
            ("other-handover", stamp(&Kernels { handoff: 0, ..twin() }), "handover 0"),
            ("baseline", stamp(&Kernels::of(Build::Baseline)), "baseline"),
            ("silent", "exit 1".to_owned(), "does not say"),
            ("endless", "exec sleep 60".to_owned(), "within 50ms"),
            ("twin", stamp(&twin()), ""),
        ];
        for (name, text, why) in cases {
            let program = dir.path().join(name);
            std::fs::write(&program, format!("#!/bin/sh\n{text}\n")).unwrap();
            let absent = ask(&program, ASKED_WITHIN).unwrap_err();
            assert!(absent.contains("cannot be started"), "{absent}");
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let within = if name == "endless" { Duration::from_millis(50) } else { ASKED_WITHIN };
            let said = ask(&program, within).err().unwrap_or_default();
            assert!(said.contains(why) && said.is_empty() == why.is_empty(), "{name}: {said}");
        }
    }
}
