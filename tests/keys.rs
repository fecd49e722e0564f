//! Keys of the whole instance: each is set to a value of its own, and the instance shows it.

use std::collections::BTreeSet;
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::http::{get, post, request};
use crate::harness::{Instance, Up, shared, until};

/// Every key this file is about, none at its default.
const CONFIGURED: &str = r#"
[edge]
listen = "127.0.0.1:2701"
threads = 3

[edge.tls]
listen = "127.0.0.1:2702"

[control]
listen = "127.0.0.1:2703"

[log]
level = "error"
access = "off"

[auth.roles]
desk_bot = ["trade"]

[events]
listen = "127.0.0.1:2704"
stream = "second"
dedup_window = "0s"

[vault]
listen = "127.0.0.1:2705"
issuer = "https://vault.example"
audience = ["desk"]
token_ttl = "30m"
leaf_ttl = "2h"
trust_domain = "desk.internal"

[calc]
listen = "127.0.0.1:2706"
body_bytes = "4KiB"
rows = 50
threads = 2
series_bytes = "64KiB"

[demo]
speed = 0.01
data_listen = "127.0.0.1:2707"
backtesting_listen = "127.0.0.1:2708"
trading_bot_listen = "127.0.0.1:2709"
"#;

/// The port of a URL such as `http://127.0.0.1:2701`.
fn port(url: &Value) -> u16 {
    url.as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap()
}

/// The threads of a role by name.
fn threads(sluice: &Instance, words: &str, name: &str) -> BTreeSet<String> {
    let pid = until("the role runs", || sluice.role_pid(words));
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.map(|found| found.trim().to_owned()).filter(|found| found.starts_with(name)).collect()
}

/// Bars of one symbol that an instance has played.
fn bars(sluice: &Instance, symbol: &str) -> usize {
    let list = get(sluice.edge(), "/events?event_type=market_data_update&limit=1000").token(sluice.admin());
    let list = list.send().expect(200).json();
    let events = list["events"].as_array().unwrap();
    events.iter().filter(|event| event["data"]["symbol"] == symbol).count()
}

#[test]
fn every_key_of_an_instance_shows() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("sluice.toml");
    std::fs::write(&conf, CONFIGURED).unwrap();
    let sluice = Up::new(&dir.path().join("data")).conf(&conf).start();
    listeners_are_where_they_should_be(&sluice);
    roles_have_their_threads(&sluice);
    the_vault_speaks_for_its_domain(&sluice);
    calculations_are_bounded(&sluice);
    the_stream_has_its_name_and_forgets_at_once(&sluice);
    the_tape_is_slow(&sluice);
    nothing_but_errors_is_logged(&sluice, &dir.path().join("data.log"));
    sluice.stop();
}

/// The offset that was picked moves all of them alike.
fn listeners_are_where_they_should_be(sluice: &Instance) {
    let banner = &sluice.banner;
    let offset = port(&banner["edge"]) - 2701; // edge.listen
    for (url, configured) in [
        (&banner["control"], 2703),             // control.listen
        (&banner["events"], 2704),              // events.listen
        (&banner["vault"], 2705),               // vault.listen
        (&banner["calc"], 2706),                // calc.listen
        (&banner["demo"]["data"], 2707),        // demo.data_listen
        (&banner["demo"]["backtesting"], 2708), // demo.backtesting_listen
        (&banner["demo"]["trading_bot"], 2709), // demo.trading_bot_listen
    ] {
        assert_eq!(port(url), configured + offset, "{banner}");
    }
    TcpStream::connect(("127.0.0.1", 2702 + offset)).expect("edge.tls.listen");
}

fn roles_have_their_threads(sluice: &Instance) {
    let named = |name: &str, count: usize| (0..count).map(|n| format!("{name}-{n}")).collect::<BTreeSet<_>>();
    assert_eq!(threads(sluice, "proxy", "edge-"), named("edge", 3)); // edge.threads
    assert_eq!(threads(sluice, "worker calc", "calc-"), named("calc", 2)); // calc.threads
}

fn the_vault_speaks_for_its_domain(sluice: &Instance) {
    let body = json!({"service_name": "quotes"});
    let issued = post(sluice.edge(), "/security/credentials/issue").token(sluice.admin()).json(&body).send();
    let issued = issued.expect(200).json();
    assert_eq!(issued["spiffe_id"], "spiffe://desk.internal/service/quotes"); // vault.trust_domain
    let life = |from: &Value, to: &Value| {
        let at = |text: &Value| text.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        at(to).as_second() - at(from).as_second()
    };
    assert_eq!(life(&issued["issued_at"], &issued["expires_at"]), 2 * 3_600, "vault.leaf_ttl: {issued}");

    let token = sluice.token("quotes", &["read"]);
    let claims = claims(&token);
    assert_eq!(claims["iss"], "https://vault.example"); // vault.issuer
    assert_eq!(claims["aud"], json!(["desk"])); // vault.audience
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert_eq!(life, 30 * 60, "vault.token_ttl");
    let body = json!({"service_name": "desk_bot"});
    let minted = post(sluice.edge(), "/security/tokens/generate").token(sluice.admin()).json(&body).send();
    let minted = minted.expect(200).json();
    assert_eq!(self::claims(minted["token"].as_str().unwrap())["scope"], "trade", "auth.roles");
}

/// What a token says, unverified.
fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).unwrap();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

fn calculations_are_bounded(sluice: &Instance) {
    let ask = |rows: usize, padding: usize| {
        let body = json!({"data": {"close": vec![1.5; rows]}, "indicators": ["rsi"]}).to_string();
        let body = body + &" ".repeat(padding);
        let ask = post(sluice.calc(), "/calculations/indicators").token(sluice.admin());
        ask.text("application/json", body).send().status
    };
    assert_eq!(ask(50, 0), 200);
    assert_ne!(ask(51, 0), 200, "calc.rows");
    assert_eq!(ask(40, 5_000), 413, "calc.body_bytes");
    let put = |symbol: &str| {
        let put = request("PUT", sluice.calc(), &format!("/series/{symbol}/1m")).token(sluice.admin());
        put.json(&json!({"data": [[0, 1, 2, 0.5, 1.5, 3]]})).send().status
    };
    // One series fits; what the demo publishes may have begun one before.
    assert!([201, 507].contains(&put("A")));
    assert_eq!(put("B"), 507, "calc.series_bytes");
}

fn the_stream_has_its_name_and_forgets_at_once(sluice: &Instance) {
    assert!(sluice.data_dir.join("events/second.log").exists(), "events.stream");
    let event = json!({
        "event_type": "risk_alert", "event_id": "0192aaaa-0000-7000-8000-00000000b001", "source": "keys", "data": {},
    });
    for _ in 0..2 {
        let stored = post(sluice.edge(), "/events").token(sluice.admin()).json(&event).send();
        assert_eq!(stored.expect(200).json()["duplicate"], false, "events.dedup_window");
    }
}

/// While the tape of the other instance plays on at its default speed, this one plays next to nothing.
fn the_tape_is_slow(sluice: &Instance) {
    until("the first bar", || (bars(sluice, "AAPL") > 0).then_some(()));
    let before = bars(shared(), "AAPL");
    until("the other tape plays", || (bars(shared(), "AAPL") >= before + 6).then_some(()));
    assert!(bars(sluice, "AAPL") <= 2, "demo.speed");
}

fn nothing_but_errors_is_logged(sluice: &Instance, log: &std::path::Path) {
    let infos = |path: &std::path::Path| {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["level"] == "INFO" && line["component"] != "access").count()
    };
    get(sluice.edge(), "/nowhere").send().expect(404);
    assert_eq!(infos(log), 0, "log.level");
    assert!(infos(&shared().data_dir.with_extension("log")) > 0);
}
