//! The operator's commands.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::harness::{repository, shared, sluice};

#[test]
fn shipped_configuration_is_valid() {
    let (code, out, errors) = sluice(&["check", "--strict", "--dev", "conf/sluice.toml"]);
    assert_eq!(code, 0, "{out}{errors}");
    for example in std::fs::read_dir(repository().join("conf/examples")).unwrap().flatten() {
        let path = example.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let (code, out, errors) = sluice(&["check", "--dev", path.to_str().unwrap()]);
            assert_eq!(code, 0, "{}: {out}{errors}", path.display());
        }
    }
}

#[test]
fn every_command_has_an_example() {
    let (_, help, _) = sluice(&["--help"]);
    let commands = [
        "up", "proxy", "worker", "demo", "check", "fmt", "config", "diff", "explain", "reload", "rollback",
        "tap", "upstream", "audit", "health",
    ];
    for command in commands {
        assert!(
            help.lines().any(|line| line.trim_start().starts_with(command) && line.starts_with(' ')),
            "{command}"
        );
        let (code, text, _) = sluice(&[command, "--help"]);
        assert_eq!(code, 0);
        assert!(text.contains("Example:\n  sluice "), "{command}: {text}");
    }
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [&["nonsense"][..], &["up", "--port-offset", "x"], &["check", "--format", "yaml"]] {
        assert_eq!(sluice(arguments).0, 2, "{arguments:?}");
    }
}

#[test]
fn files_are_laid_out_and_keep_their_mode() {
    assert_eq!(sluice(&["fmt", "--check"]).0, 0, "the shipped files are in their canonical layout");
    let dir = tempfile::tempdir().unwrap();
    let (main, data) = (dir.path().join("sluice.toml"), dir.path().join("services.d/data.toml"));
    std::fs::create_dir(dir.path().join("services.d")).unwrap();
    std::fs::write(&main, "[edge]\nthreads=2 # two\n").unwrap();
    std::fs::write(&data, "[[service]]\nname = \"data\"\n").unwrap();
    std::fs::set_permissions(&main, std::fs::Permissions::from_mode(0o640)).unwrap();
    let folder = dir.path().to_str().unwrap();
    let (code, out, _) = sluice(&["fmt", "--check", folder]);
    assert_eq!((code, out), (3, format!("would change {}\n", main.display())));
    assert_eq!(std::fs::read_to_string(&main).unwrap(), "[edge]\nthreads=2 # two\n");
    let (code, out, _) = sluice(&["fmt", folder]);
    assert_eq!((code, out), (0, format!("changed {}\n", main.display())));
    assert_eq!(std::fs::read_to_string(&main).unwrap(), "[edge]\nthreads = 2  # two\n");
    assert_eq!(std::fs::metadata(&main).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(sluice(&["fmt", "--check", folder]).0, 0);
    std::fs::write(&data, "[[service]\n").unwrap();
    let (code, _, errors) = sluice(&["fmt", folder]);
    assert_eq!(code, 2);
    assert!(errors.contains("error[E0003]") && errors.contains("data.toml:1"), "{errors}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left behind");
}

#[test]
fn schema_and_effective_values_are_printed() {
    let (code, schema, _) = sluice(&["config", "schema"]);
    assert_eq!(code, 0);
    assert!(
        serde_json::from_str::<Value>(&schema).unwrap()["properties"]["edge"].is_object(),
        "{schema:.300}"
    );
    let (code, shown, _) = sluice(&["config", "show", "--origin", "--dev"]);
    assert_eq!(code, 0);
    assert!(shown.contains("data_service") && shown.contains("default"), "{shown:.300}");
}

#[test]
fn health_tells_ready_from_unreachable() {
    let running = shared();
    assert_eq!(sluice(&["health", "--url", &format!("{}/readyz", running.edge())]).0, 0);
    assert_eq!(sluice(&["health", "--url", &format!("{}/nowhere", running.edge())]).0, 3);
    assert_eq!(sluice(&["health", "--url", "http://127.0.0.1:1/readyz"]).0, 4);
}
