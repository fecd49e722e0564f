//! The operator's commands.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::{binary, repository, shared, sluice};

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
        "tap", "upstream", "events", "series", "vault", "audit", "health",
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

/// Runs it with a standard error that nobody reads any more.
fn exit_code_unread(arguments: &[&str]) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(binary());
    command.args(arguments).stdout(writer.try_clone().unwrap()).stderr(writer);
    command.status().unwrap().code()
}

#[test]
fn a_closed_output_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let bad = dir.path().join("bad.toml");
    std::fs::write(&bad, "[edge]\nnonsense = 1\n").unwrap();
    let bad = bad.to_str().unwrap();
    assert_eq!(exit_code_unread(&["check", bad]), Some(2));
    assert_eq!(exit_code_unread(&["explain", "GET", "/a", "--conf", bad]), Some(2));
    assert_eq!(exit_code_unread(&["health", "--url", "http://127.0.0.1:1/readyz"]), Some(4));
    assert_eq!(exit_code_unread(&["config", "schema"]), Some(0));
}

#[test]
fn every_result_has_a_form_for_programs_and_can_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sluice.toml");
    std::fs::write(&file, "[edge]\nthreads=2\n").unwrap();
    let path = file.to_str().unwrap();
    let none = "http://127.0.0.1:1/readyz";
    let shown = |arguments: &[&str], code: i32| {
        let (ended, out, errors) = sluice(&[arguments, &["--format", "json"]].concat());
        assert_eq!(ended, code, "{arguments:?}: {out}{errors}");
        let (ended, out_quiet, _) = sluice(&[arguments, &["--quiet"]].concat());
        assert_eq!((ended, out_quiet.as_str()), (code, ""), "{arguments:?}");
        serde_json::from_str::<Value>(&out).unwrap()
    };
    assert_eq!(shown(&["check", "--dev", path], 0), json!([]));
    assert_eq!(shown(&["fmt", "--check", path], 3), json!({"would_change": [path], "findings": []}));
    assert_eq!(shown(&["diff", "--dev", path, path], 0)["equal"], true);
    assert_eq!(shown(&["explain", "GET", "/nowhere", "--dev", "--conf", path], 3)["code"], "no_route");
    assert_eq!(shown(&["health", "--url", none], 4), json!({"url": none, "status": null, "ready": false}));
    let keys = shown(&["config", "show", "--origin", "--dev", "--conf", path], 0);
    let threads = keys.as_array().unwrap().iter().find(|key| key["path"] == "edge.threads").unwrap();
    assert_eq!((&threads["value"], &threads["origin"]["line"]), (&json!(2), &json!(2)));
    std::fs::write(&file, "[edge\n").unwrap();
    assert_eq!(shown(&["fmt", path], 2)["findings"][0]["code"], "E0003");
}

#[test]
fn health_tells_ready_from_unreachable() {
    let running = shared();
    assert_eq!(sluice(&["health", "--url", &format!("{}/readyz", running.edge())]).0, 0);
    assert_eq!(sluice(&["health", "--url", &format!("{}/nowhere", running.edge())]).0, 3);
    assert_eq!(sluice(&["health", "--url", "http://127.0.0.1:1/readyz"]).0, 4);
}
