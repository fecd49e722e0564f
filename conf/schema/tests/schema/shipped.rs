//! The files that are shipped are right, and say the truth about the defaults.

use std::fs;

use sluice_schema::{Config, EdgeTls, Mode, check, load};

use crate::{Environment, check_text, conf};

#[test]
fn an_empty_file_is_valid_and_so_is_none() {
    let loaded = check_text("").expect("an empty file");
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.warnings.is_empty());
    let no_files = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
    let loaded = check(&[], &Environment::new(), Mode::default(), &no_files).expect("no file");
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn the_shipped_configuration_has_neither_errors_nor_warnings() {
    for path in [conf(), conf().join("sluice.toml")] {
        let loaded =
            load(&path, &Environment::new(), Mode::default()).unwrap_or_else(|report| panic!("{report}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        let routed: Vec<_> = loaded
            .config
            .enabled_services()
            .map(|service| (service.name.as_str(), service.prefix.as_str(), service.instances[0].url.port))
            .collect();
        assert_eq!(
            routed,
            [
                ("backtesting_service", "/api/backtesting", 8002),
                ("data_service", "/api/data", 8001),
                ("trading_bot_service", "/api/trading", 8003),
            ]
        );
        assert_eq!(loaded.config.services.len(), 9);
    }
}

#[test]
fn the_commented_keys_are_all_keys_with_their_defaults() {
    let text = fs::read_to_string(conf().join("sluice.toml")).expect("the shipped file");
    let is_key = |line: &&str| line.starts_with(|c: char| c.is_ascii_lowercase());
    let written: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix('#')).filter(is_key).collect();
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(is_key).unwrap_or(line).to_owned() + "\n")
        .collect();
    let loaded = check_text(&uncommented).unwrap_or_else(|report| panic!("{report}"));
    assert_eq!(loaded.config, Config::default());
    // Every key is there: a table of bounds stands for its keys, and the legacy key has no default.
    let mut shown: Vec<String> = sluice_schema::settings(&Config::default())
        .into_iter()
        .map(|setting| setting.path.rsplit('.').next().unwrap_or_default().to_owned())
        .chain(["hs256_secret".to_owned(), "retention".to_owned()])
        .collect();
    let mut keys: Vec<String> =
        written.iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(uncomment_tls(&text).edge.tls, Some(EdgeTls::at(([0, 0, 0, 0], 8443).into())));
    shown.sort();
    keys.sort();
    assert_eq!(keys, shown);
}

/// The file with its table of the TLS listener, which is absent by default and so is written as prose.
fn uncomment_tls(text: &str) -> Config {
    let (_, block) = text.split_once("# [edge.tls]\n").expect("the block");
    let (block, _) = block.split_once("\n\n").expect("its end");
    let keys = ["listen", "certificate", "names", "client_auth", "client_ca"];
    let is_key = |line: &&str| keys.contains(&line.split(" = ").next().unwrap_or_default());
    let lines: Vec<&str> = block.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_key).collect();
    assert_eq!(lines.len(), keys.len());
    let text = format!("[edge.tls]\n{}", lines.join("\n"));
    check_text(&text).unwrap_or_else(|report| panic!("{report}")).config
}

#[test]
fn every_example_is_right() {
    for entry in fs::read_dir(conf().join("examples")).expect("conf/examples") {
        let path = entry.expect("a readable entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let loaded = load(&path, &Environment::new(), Mode::default());
            let loaded = loaded.unwrap_or_else(|report| panic!("{report}"));
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        }
    }
}

#[test]
fn the_environment_names_of_the_design_page_are_all_of_them() {
    let page = fs::read_to_string(conf().join("DESIGN.md")).expect("conf/DESIGN.md");
    for line in page.lines().filter(|line| line.starts_with("| `") && line.contains('_')) {
        for name in line.split('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2) {
            let example = name.replace("SECTION__KEY", "EDGE__LISTEN");
            assert!(sluice_schema::environment::is_recognised(&example), "{name}");
        }
    }
}
