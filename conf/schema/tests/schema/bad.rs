//! Every wrong file of `conf/bad` gives exactly the text beside it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use expect_test::expect_file;
use sluice_schema::{Code, Loaded, Mode, Report, load};

use crate::{Environment, check_in, check_text, conf, service};

/// Codes whose case is too large for a file: each has a test below.
const GENERATED: [Code; 4] = [Code::TooLarge, Code::TooMany, Code::MoreFindings, Code::SharedPrefix];

/// The day on which certificates are judged: 2026-06-01.
const AT: Mode = Mode { dev: false, secrets_required: true, now_unix_s: Some(1_780_272_000), origins: true };

struct Case {
    main: PathBuf,
    expected: PathBuf,
    environment: Environment,
}

fn cases() -> Vec<Case> {
    let folder = conf().join("bad");
    let mut cases: Vec<Case> = fs::read_dir(folder)
        .expect("conf/bad is there")
        .map(|entry| entry.expect("a readable entry").path())
        .filter_map(|path| {
            if path.join("sluice.toml").is_file() {
                let environment = Environment::new();
                return Some(Case {
                    main: path.join("sluice.toml"),
                    expected: path.join("expected.txt"),
                    environment,
                });
            }
            let toml = path.extension().is_some_and(|extension| extension == "toml");
            let environment = variables(&path.with_extension("env"));
            toml.then(|| Case { main: path.clone(), expected: path.with_extension("txt"), environment })
        })
        .collect();
    cases.sort_by(|one, other| one.main.cmp(&other.main));
    cases
}

fn variables(path: &Path) -> Environment {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .collect()
}

fn report(result: Result<Loaded, Report>) -> Report {
    match result {
        Ok(loaded) => loaded.warnings,
        Err(report) => report,
    }
}

#[test]
fn every_wrong_file_gives_the_text_beside_it() {
    let folder = format!("{}/", conf().display());
    for case in cases() {
        let report = report(load(&case.main, &case.environment, AT));
        assert!(!report.is_empty(), "{} is not wrong", case.main.display());
        let text = report.to_string().replace(&folder, "");
        assert!(!text.contains("hunter2"), "{} shows a secret", case.main.display());
        assert!(!serde_json::to_string(&report.findings()).expect("JSON").contains("hunter2"));
        expect_file![case.expected].assert_eq(&text);
    }
}

#[test]
fn the_same_findings_for_programs_are_exact_too() {
    let main = conf().join("bad/E0104-missing-key.toml");
    let report = report(load(&main, &Environment::new(), AT));
    let text = serde_json::to_string_pretty(&report.findings()).expect("JSON") + "\n";
    let text = text.replace(&format!("{}/", conf().display()), "");
    expect_file![conf().join("bad/E0104-missing-key.json")].assert_eq(&text);
}

#[test]
fn every_code_has_a_case_and_every_case_its_code() {
    let mut seen: BTreeSet<&str> = GENERATED.iter().map(|code| code.number()).collect();
    for case in cases() {
        let report = report(load(&case.main, &case.environment, AT));
        let codes: BTreeSet<&str> = report.findings().iter().map(|finding| finding.code).collect();
        let folder = case.main.parent().and_then(Path::file_name);
        let name = [case.main.file_name(), folder].into_iter().flatten().map(|name| name.to_string_lossy());
        let named = name
            .map(|name| name.chars().take(5).collect::<String>())
            .find(|name| Code::all().any(|row| row.1 == name));
        if let Some(code) = named {
            assert!(codes.contains(code.as_str()), "{} does not give {code}", case.main.display());
        }
        seen.extend(codes);
    }
    let missing: Vec<_> = Code::all().map(|row| row.1).filter(|number| !seen.contains(number)).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

#[test]
fn the_design_page_lists_every_code() {
    let page = fs::read_to_string(conf().join("DESIGN.md")).expect("conf/DESIGN.md is there");
    for (_, number, meaning) in Code::all() {
        assert!(page.contains(&format!("| {number} | {meaning} |")), "{number} | {meaning}");
    }
}

#[test]
fn a_finding_for_programs_has_file_line_and_columns() {
    let report = check_text("[edge]\n  lisen = 1\n").expect_err("a misspelt key");
    let findings = serde_json::to_value(report.findings()).expect("JSON");
    assert_eq!(
        findings,
        serde_json::json!([{
            "code": "E0101",
            "severity": "error",
            "message": "unknown key `lisen`",
            "file": "sluice.toml",
            "line": 2,
            "column": 3,
            "end_column": 8,
            "help": "did you mean `listen`?",
        }])
    );
}

#[test]
fn a_weak_key_is_a_warning_under_dev() {
    let weak = [("JWT_SECRET_KEY", "your-secret-key")];
    assert!(check_in("", &weak, Mode::default()).is_err());
    let dev = check_in("", &weak, Mode { dev: true, ..Mode::default() }).expect("a warning");
    assert_eq!(dev.warnings.warnings(), 1);
    assert!(dev.config.auth.hs256_secret.is_some());
}

#[test]
fn a_file_past_its_size_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let main = folder.path().join("sluice.toml");
    fs::write(&main, "#".repeat((1 << 20) + 1)).expect("written");
    let report = load(&main, &Environment::new(), Mode::default()).expect_err("too large");
    assert_eq!(report.findings()[0].code, "E0002");
}

#[test]
fn more_services_than_the_limit_are_refused_once() {
    let text = |count: usize| -> String {
        let one = |n: usize| format!("[[service]]\nname=\"s{n}\"\nprefix=\"/s{n}\"\nenabled=false\n");
        (0..count).map(one).collect()
    };
    assert!(check_text(&text(10_000)).is_ok());
    let report = check_text(&text(10_003)).expect_err("too many");
    let codes: Vec<_> = report.findings().iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["E0004"]);
}

#[test]
fn services_that_share_a_prefix_are_bounded() {
    let text = |count: usize| -> String {
        let one = |n: usize| {
            service(&format!("headers = {{ x-desk = \"{n}\" }}")).replace("\"data\"", &format!("\"s{n}\""))
        };
        (0..count).map(one).collect()
    };
    assert!(check_text(&text(64)).is_ok());
    let findings = check_text(&text(66)).expect_err("too many").findings();
    let found: Vec<_> = findings.iter().map(|finding| (finding.code, finding.line)).collect();
    assert_eq!(found, [("E0312", Some(64 * 6 + 3))]);
}

#[test]
fn findings_past_the_limit_are_counted() {
    let text: Vec<String> = (0..1500).map(|n| format!("key{n} = 1\n")).collect();
    let text = text.concat();
    let findings = check_text(&text).expect_err("unknown keys").findings();
    assert_eq!(findings.len(), 1001);
    let last = findings.last().expect("the count");
    assert_eq!((last.code, last.message.as_str()), ("E0005", "500 more findings are not shown"));
}

#[test]
fn a_missing_file_and_a_folder_in_place_of_one_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("sluice.toml");
    for path in [folder.path(), &missing] {
        let report = load(path, &Environment::new(), Mode::default()).expect_err("nothing there");
        assert_eq!(report.findings()[0].code, "E0001");
    }
    fs::create_dir_all(folder.path().join("services.d/x.toml")).expect("a folder");
    fs::write(&missing, "").expect("written");
    let report = load(&missing, &Environment::new(), Mode::default()).expect_err("a folder");
    assert!(report.to_string().contains("not a regular file"), "{report}");
}

#[test]
fn a_line_too_long_to_quote_is_still_located() {
    let text = service(&format!("x{} = 1", "y".repeat(500)));
    let text = check_text(&text).expect_err("an unknown key").to_string();
    assert!(text.contains("--> sluice.toml:4:1"), "{text}");
    assert!(!text.contains(&"y".repeat(100)), "{text}");
}
