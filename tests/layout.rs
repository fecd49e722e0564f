//! The allowed arrows between crates, read from `cargo metadata` and compared with this table.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// What each crate may depend on inside the workspace. Exact: a crate that is not here fails.
const INNER: &[(&str, &[&str])] = &[
    ("sluice-calc", &[]),
    ("sluice-wire", &[]),
    ("sluice-schema", &["wire"]),
    ("sluice-identity", &["wire"]),
    ("sluice-audit", &["wire"]),
    ("sluice-telemetry", &["schema"]),
    ("sluice-policy", &["schema", "identity", "wire"]),
    ("sluice-ledger", &["policy", "schema", "wire"]),
    (
        "sluice-gateway",
        &["policy", "ledger", "schema", "wire", "identity", "audit", "telemetry", "http", "client"],
    ),
    ("sluice-console", &[]),
    ("sluice-http", &["schema", "wire", "identity", "telemetry"]),
    ("sluice-client", &["wire"]),
    ("sluice-events", &["http", "client", "audit", "schema", "wire", "identity", "telemetry"]),
    ("sluice-vault", &["http", "client", "audit", "schema", "wire", "identity", "telemetry"]),
    ("sluice-calc-worker", &["http", "client", "audit", "schema", "wire", "identity", "telemetry", "calc"]),
    ("sluice-demo", &["http", "client", "audit", "schema", "wire", "identity", "telemetry"]),
    ("sluice-bench", &["client", "calc", "policy", "wire"]),
];

/// Outside crates and who alone may use them.
const OUTER: &[(&str, &[&str])] = &[
    ("pingora", &["sluice-gateway"]),
    (
        "axum",
        &[
            "sluice-http",
            "sluice-events",
            "sluice-vault",
            "sluice-calc-worker",
            "sluice-demo",
            "sluice-gateway",
        ],
    ),
    ("redb", &["sluice-ledger", "sluice-vault"]),
    ("redis", &["sluice-ledger", "sluice-events"]),
    ("rcgen", &["sluice-vault", "sluice-bench"]),
    ("anyhow", &["sluice", "sluice-bench"]),
];

/// Crates that decide or describe and never act: what they may use from outside.
const PURE: &[(&str, &[&str])] = &[
    ("sluice-calc", &["wide"]),
    ("sluice-policy", &["foldhash", "ipnet", "regex", "serde", "thiserror"]),
    ("sluice-wire", &["serde", "serde_json", "uuid", "jiff", "thiserror"]),
    ("sluice-identity", &["serde", "serde_json", "base64", "ring", "x509-parser", "thiserror"]),
];

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Each crate's dependencies by name: what it is built from, and what its tests use beside that.
fn dependencies() -> BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter();
    packages
        .map(|package| {
            let all = package["dependencies"].as_array().unwrap().iter();
            let (built, tested): (Vec<_>, Vec<_>) = all.partition(|found| found["kind"] != "dev");
            let names = |list: Vec<&Value>| {
                list.iter().map(|found| found["name"].as_str().unwrap().to_owned()).collect()
            };
            (package["name"].as_str().unwrap().to_owned(), (names(built), names(tested)))
        })
        .collect()
}

#[test]
fn every_arrow_inside_is_allowed() {
    let allowed: BTreeMap<_, _> = INNER.iter().copied().collect();
    for (name, (built, tested)) in dependencies() {
        if name == "sluice" {
            continue;
        }
        let allowed =
            allowed.get(name.as_str()).unwrap_or_else(|| panic!("crate `{name}` is not in the table"));
        for arrow in built.union(&tested).filter_map(|found| found.strip_prefix("sluice-")) {
            assert!(allowed.contains(&arrow), "{name} must not depend on sluice-{arrow}");
        }
    }
}

#[test]
fn outside_crates_stay_where_they_belong() {
    for (name, (found, _)) in dependencies() {
        for (outside, users) in OUTER {
            let is_used =
                found.iter().any(|used| used == outside || used.starts_with(&format!("{outside}-")));
            assert!(!is_used || users.contains(&name.as_str()), "{name} must not use {outside}");
        }
        if let Some((_, exact)) = PURE.iter().find(|(pure, _)| *pure == name) {
            let outside = found.iter().filter(|used| !used.starts_with("sluice-"));
            let strange: Vec<_> = outside.filter(|used| !exact.contains(&used.as_str())).collect();
            assert!(strange.is_empty(), "{name} must not use {strange:?}");
        }
    }
}

#[test]
fn every_crate_takes_the_workspace_lints() {
    let metadata = metadata();
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = std::fs::read_to_string(package["manifest_path"].as_str().unwrap()).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{}", package["manifest_path"]);
    }
}

#[test]
fn no_crypto_provider_but_ring() {
    let lock = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock")).unwrap();
    for banned in ["aws-lc-rs", "aws-lc-sys", "openssl", "boring"] {
        assert!(!lock.contains(&format!("name = \"{banned}\"\n")), "{banned} must not be linked");
    }
}
