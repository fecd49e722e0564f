//! What a reload would change, and how listeners move.

use expect_test::expect;
use sluice_schema::{Config, diff};
use sluice_wire::role::Role;

use crate::{check_in, check_text, service};

fn config(text: &str) -> Config {
    check_text(text).unwrap_or_else(|report| panic!("{report}")).config
}

#[test]
fn equal_configurations_do_not_differ() {
    let text = service("rate_limit = 5");
    assert!(diff(&config(&text), &config(&format!("\n\n{text}"))).is_empty());
}

#[test]
fn a_difference_names_services_keys_and_restarts() {
    let old = config(&format!(
        "{}\n[[service]]\nname = \"gone\"\nprefix = \"/gone\"\nenabled = false\n",
        service("")
    ));
    let new = config(&format!(
        "edge.threads = 2\nlog.level = \"debug\"\nregistry.max = 5\nevents.retention.age = \"30d\"\n{}\n\
         [[service]]\nname = \"new\"\nprefix = \"/new\"\nenabled = false\n",
        service("rate_limit = { requests = 5, per = \"1s\" }\ntimeouts.total = \"20s\"")
    ));
    let diff = diff(&old, &new);
    expect![[r#"
        + service new
        - service gone
        ~ service data rate_limit: 1000 -> unset
        ~ service data rate_limit.burst: unset -> 5
        ~ service data rate_limit.key: unset -> "client"
        ~ service data rate_limit.per: unset -> "1s"
        ~ service data rate_limit.requests: unset -> 5
        ~ service data timeouts.total: "15s" -> "20s"
        ~ edge.threads: 0 -> 2 (restarts edge)
        ~ events.retention.age: unset -> "720h" (restarts events)
        ~ log.level: "info" -> "debug" (restarts vault, events, calc, demo)
        ~ registry.max: 1000 -> 5
    "#]]
    .assert_eq(&diff.to_string());
    let restarts: Vec<Role> = diff.restarts().into_iter().collect();
    assert_eq!(restarts, [Role::Edge, Role::Events, Role::Vault, Role::Calc, Role::Demo]);
    assert!(serde_json::to_value(&diff).is_ok());
}

#[test]
fn the_edge_restarts_for_a_listener_and_takes_certificates_as_it_runs() {
    let old = config("[edge.tls]\nlisten = \"127.0.0.1:1\"");
    let new = config(
        "edge.proxy_protocol = true\n[edge.tls]\nlisten = \"127.0.0.1:2\"\nclient_auth = \"optional\"\nnames = [\"a\"]",
    );
    expect![[r#"
        ~ edge.proxy_protocol: false -> true (restarts edge)
        ~ edge.tls.client_auth: "off" -> "optional"
        ~ edge.tls.listen: "127.0.0.1:1" -> "127.0.0.1:2" (restarts edge)
        ~ edge.tls.names: [] -> ["a"]
    "#]]
    .assert_eq(&diff(&old, &new).to_string());
    let gone = diff(&old, &config(""));
    assert!(gone.restarts().contains(&Role::Edge), "{gone}");
}

#[test]
fn another_legacy_key_is_a_difference_that_shows_neither() {
    let with = |key: &str| {
        let key = key.repeat(32);
        check_in("", &[("JWT_SECRET_KEY", &key)], sluice_schema::Mode::default()).expect("right").config
    };
    let diff = diff(&with("a"), &with("b"));
    assert_eq!(diff.keys.len(), 1);
    assert_eq!(diff.keys[0].path, "auth.hs256_secret");
    assert!(!diff.to_string().contains("aaa"), "{diff}");
}

#[test]
fn credentials_in_header_fields_are_compared_and_not_shown() {
    let with = |token: &str| {
        config(&service(&format!(
            "request_headers.set = {{ authorization = \"Bearer {token}\", x-a = \"b\" }}"
        )))
    };
    let diff = diff(&with("hunter2"), &with("hunter3"));
    expect![[r#"
        ~ service data request_headers or response_headers: "***" -> "***"
    "#]]
    .assert_eq(&diff.to_string());
    let shown = sluice_schema::to_toml(&with("hunter2"), None);
    assert!(shown.contains(r#"request_headers.set = { authorization = "***", x-a = "b" }"#), "{shown}");
}

#[test]
fn an_offset_moves_every_own_listener_and_no_instance() {
    let mut moved = config(&format!("[edge.tls]\n{}", service("")));
    let before = moved.clone();
    moved.port_offset(10_000).expect("room above");
    for ((key, old), (_, new)) in before.listeners().iter().zip(moved.listeners()) {
        assert_eq!(new.port(), old.port() + 10_000, "{key}");
    }
    assert_eq!(moved.edge.tls.as_ref().expect("a listener").listen.port(), 18_443);
    assert_eq!(moved.services, before.services);
    let error = moved.port_offset(60_000).expect_err("no room");
    assert_eq!(error.key, "edge.listen");

    let mut any = config("edge.listen = \"127.0.0.1:0\"");
    any.port_offset(5).expect("room above");
    assert_eq!(any.edge.listen.port(), 0);
}

/// LIMIT of time kept loose: the test build is not optimised and the machine is shared.
#[test]
fn a_thousand_services_load_and_compare_quickly() {
    let one = |n: usize| {
        service("timeouts.total = \"20s\"")
            .replace("\"data\"", &format!("\"s{n}\""))
            .replace("/api/data", &format!("/s/{n}"))
    };
    let text: Vec<String> = (0..1000).map(one).collect();
    let started = std::time::Instant::now();
    let old = config(&text.concat());
    let loaded_in = started.elapsed();
    let new = config(&text[1..].concat());
    let difference = diff(&old, &new);
    assert_eq!(difference.removed, ["s0"]);
    assert!(difference.changed.is_empty());
    assert!(loaded_in.as_secs() < 5, "{loaded_in:?}");
    eprintln!("1,000 services: load {loaded_in:?}, both loads and the difference {:?}", started.elapsed());
}

#[test]
fn effective_values_are_compared_like_configurations() {
    use sluice_schema::Effective;

    let old = config("[edge]\nthreads = 1\n[[service]]\nname = \"a.health\"\nprefix = \"/a\"\n");
    let new = config(
        "[edge]\nthreads = 2\n[[service]]\nname = \"a.health\"\nprefix = \"/b\"\n[[service]]\nname = \"a\"\nprefix = \"/c\"\n",
    );
    let (from, to) = (Effective::of(&old), Effective::of(&new));
    let text = serde_json::to_string(&from).unwrap();
    let read: Effective = serde_json::from_str(&text).unwrap();
    assert_eq!(read, from, "it survives the wire");
    assert_eq!(read.diff(&to).to_string(), diff(&old, &new).to_string());
    assert!(read.diff(&from).is_empty());
    assert_eq!(read.diff(&to).restarts().len(), 1);
}
