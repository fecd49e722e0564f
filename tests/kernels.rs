//! The calculation worker becomes the binary for newer processors that lies beside it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::harness::http::get;
use crate::harness::site::Site;
use crate::harness::{Instance, binary, signal, sluice, until};

/// Puts a program beside the site's: it says this of itself, notes that it was started and is then the real one.
fn put_twin(site: &Site, stamp: &str) {
    let (twin, note) = (site.path("sluice-v3"), site.path("ran"));
    let text = format!(
        "#!/bin/bash\ncase \"$*\" in *--kernels*) echo '{stamp}'; exit;; esac\necho \"$$ $*\" >> '{}'\nexec -a sluice '{}' \"$@\"\n",
        note.display(),
        binary().display(),
    );
    let beside = site.path("twin.new");
    fs::write(&beside, text).unwrap();
    fs::set_permissions(&beside, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(beside, twin).unwrap();
}

/// Process numbers of the times the twin was started.
fn ran(note: &Path) -> Vec<u32> {
    let text = fs::read_to_string(note).unwrap_or_default();
    text.lines().map(|line| line.split_once(' ').unwrap().0.parse().unwrap()).collect()
}

fn restarted(running: &Instance) -> u32 {
    let before = running.role_pid("worker calc").unwrap();
    signal(before, "KILL");
    let now = until("calc is back", || running.role_pid("worker calc").filter(|pid| *pid != before));
    until("calc answers", || get(running.calc(), "/livez").try_send().filter(|answer| answer.status == 200));
    now
}

#[test]
fn calc_becomes_its_twin_and_nothing_else_does() {
    let (code, out, errors) = sluice(&["worker", "calc", "--kernels"]);
    assert_eq!(code, 0, "{errors}");
    let own: Value = serde_json::from_str(&out).unwrap();
    if own["build"] == "v3" || !std::arch::is_x86_feature_detected!("avx2") {
        println!("nothing to choose here: {own}, or a processor without AVX2");
        return;
    }
    let mut stamp = own;
    stamp["build"] = "v3".into();
    let site = Site::new();
    put_twin(&site, &stamp.to_string());
    let running = site.up();
    let note = site.path("ran");
    // The same process, with the sockets and the handoff that the supervisor gave it.
    assert_eq!(ran(&note), [running.role_pid("worker calc").unwrap()]);
    get(running.calc(), "/calculations/catalog").token(running.admin()).send().expect(200);
    let health = get(running.calc(), "/health").token(running.admin()).send().expect(200).json();
    assert_eq!(health["components"]["kernels"]["detail"], "baseline", "what runs says what it is: {health}");
    let again = restarted(&running);
    assert_eq!(ran(&note).last(), Some(&again));
    // One of another version is left alone, and said.
    stamp["version"] = "9.9.9".into();
    put_twin(&site, &stamp.to_string());
    let here = restarted(&running);
    assert!(!ran(&note).contains(&here));
    let log = fs::read_to_string(site.data().with_extension("log")).unwrap();
    assert!(log.contains("is 9.9.9 v3 of handover"), "{log}");
    running.stop();
}
