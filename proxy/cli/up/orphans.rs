//! Roles of a supervisor that was killed.
//!
//! They notice by their pipe and end by themselves, the edge after it has drained. Until then they have the
//! ports and the stores: whoever starts anew in that moment waits for them instead of failing.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// Most processes looked at.
const PROCESSES_MAX: usize = 4_096;

/// Waits until no role of an earlier supervisor works on a data directory, at most so long. The caller holds
/// the directory's lock, so there is no supervisor to whom they belong.
pub(crate) fn wait(data_dir: &Path, at_most: Duration) {
    let began = Instant::now();
    let mut told = false;
    loop {
        let left = of(data_dir);
        if left.is_empty() || began.elapsed() >= at_most {
            return;
        }
        if !std::mem::replace(&mut told, true) {
            let pids = left.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            tracing::warn!(
                component = "supervisor",
                pids,
                "waiting for the roles of a killed supervisor to end"
            );
        }
        std::thread::sleep(LOOK);
    }
}

/// The processes that a supervisor started for a data directory.
fn of(data_dir: &Path) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_role = |pid: &u32| {
        // One that has ended and is not reaped yet has no words any more.
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        is_role_of(&words, &data_dir.to_string_lossy())
    };
    pids.take(PROCESSES_MAX).filter(is_role).collect()
}

fn is_role_of(command_line: &[u8], data_dir: &str) -> bool {
    let words: Vec<&[u8]> =
        command_line.strip_suffix(b"\0").unwrap_or(command_line).split(|b| *b == 0).collect();
    let wanted: [&[u8]; 3] = [b"--data-dir", data_dir.as_bytes(), b"--port-offset"];
    words.first() == Some(&b"sluice".as_slice())
        && words.last() == Some(&b"--supervised".as_slice())
        && words.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_roles_of_this_directory_count() {
        let line = |text: &str| text.replace(' ', "\0").into_bytes();
        let role = "sluice proxy --conf c --data-dir /d --port-offset 0 --dev --supervised ";
        assert!(is_role_of(&line(role), "/d"));
        assert!(!is_role_of(&line(role), "/d2"));
        assert!(!is_role_of(&line("sluice up --data-dir /d --port-offset 0 "), "/d"));
        assert!(!is_role_of(b"", "/d"));
    }
}
