//! The kill switch: what it stops and what it leaves, and what it takes to switch it.

mod between;
mod hub;
mod long;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_wire::role::Role;

use crate::harness::{Edge, Names, Reply, Setup, Upstream, eventually, ok, service};

const OPEN: &str = "auth_required = false";

/// Asks for a change as an operator.
fn throw(edge: &Edge, change: &Value) -> Reply {
    let token = edge.issuer.token_of("operator", "control:write");
    edge.admin("POST", "/admin/kill-switch", Some(&token), Some(change))
}

fn on(edge: &Edge, scope: &str, target: Option<&str>) -> Value {
    let mut change = json!({"scope": scope, "on": true, "reason": "flash crash"});
    if let Some(target) = target {
        change["target"] = target.into();
    }
    let reply = throw(edge, &change);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn off(edge: &Edge, scope: &str, target: Option<&str>) -> Reply {
    let mut change = json!({"scope": scope, "on": false, "reason": "over"});
    if let Some(target) = target {
        change["target"] = target.into();
    }
    throw(edge, &change)
}

fn listed(edge: &Edge) -> Value {
    edge.admin("GET", "/admin/kill-switch", None, None).json()
}

fn post(edge: &Edge, path: &str, fields: &str) -> Reply {
    edge.send(&format!(
        "POST {path} HTTP/1.1\r\nHost: edge\r\n{fields}Content-Length: 2\r\nConnection: close\r\n\r\nhi"
    ))
}

/// An edge with services in three lanes at one upstream.
fn lanes(main: &str, upstream: &Upstream) -> Edge {
    let mut setup = Setup::new(main);
    for lane in ["order", "cancel", "query"] {
        let text =
            service(lane, &format!("/{lane}"), &[upstream.url()], &format!("{OPEN}\nlane = \"{lane}\""));
        setup = setup.service(lane, &text);
    }
    setup.start()
}

#[test]
fn everything_stops_but_cancels_and_the_edges_own() {
    let upstream = Upstream::start(ok);
    let edge = lanes("", &upstream);
    let done = on(&edge, "all", None);
    assert_eq!(
        (&done["on"], &done["persisted"], &done["audited"], &done["broadcast"], &done["changed"]),
        (&json!(true), &json!(true), &json!(true), &json!("none"), &json!(true))
    );
    let order = post(&edge, "/order", "");
    assert_eq!((order.status, order.code().as_str()), (503, "kill_switch"));
    assert_eq!(order.json()["outcome"], "not_sent");
    assert!(order.fields("retry-after").is_empty(), "nobody knows when");
    let query = edge.get("/query");
    assert_eq!((query.status, query.code().as_str()), (503, "kill_switch"));
    assert!(query.json().get("outcome").is_none());
    assert!(upstream.seen().is_empty());
    assert_eq!(post(&edge, "/cancel", "").status, 200);
    for path in ["/health", "/livez", "/readyz", "/services", "/metrics"] {
        assert_eq!(edge.get(path).status, 200, "{path}");
    }
    assert_eq!(edge.get("/events/types").status, 401, "workers' paths stay");
    let closed = json!({"scope": "all", "on": true, "reason": "really all", "cancel_lane_open": false});
    assert_eq!(throw(&edge, &closed).json()["cancel_lane_open"], false);
    assert_eq!(post(&edge, "/cancel", "").code(), "kill_switch");
    let health = edge.get("/health").json();
    let detail = health["components"]["edge"]["detail"].as_str().unwrap();
    assert!(detail.starts_with("kill switch: everything is stopped"), "{detail}");
    assert!(edge.get("/metrics").text().contains("sluice_kill_switches{scope=\"all\"} 1"));
    assert_eq!(off(&edge, "all", None).json()["changed"], true);
    assert_eq!(post(&edge, "/order", "").status, 200);
    assert!(edge.get("/metrics").text().contains("sluice_kill_switches{scope=\"all\"} 0"));
}

#[test]
fn one_service_stops_and_the_others_go_on() {
    let upstream = Upstream::start(ok);
    let edge = lanes("", &upstream);
    assert!(on(&edge, "service", Some("order")).get("warning").is_none());
    assert_eq!(post(&edge, "/order", "").code(), "kill_switch");
    assert_eq!(edge.get("/query").status, 200);
    let typo = on(&edge, "service", Some("ordr"));
    assert!(typo["warning"].as_str().unwrap().contains("no service of this name"), "{typo}");
    let alerts = edge.admin("GET", "/alerts", None, None).json();
    let alert = &alerts["alerts"].as_array().unwrap()[0];
    assert_eq!(
        (&alert["level"], alert["message"].as_str().unwrap().contains("flash crash")),
        (&json!("critical"), true)
    );
    // What is stopped comes before who asks: no credential, no rate, nothing of the caller is looked at.
    let text = service("closed", "/closed", &[upstream.url()], "permissions = { GET = [\"read\"] }");
    let edge = Setup::new("").service("closed", &text).start();
    on(&edge, "service", Some("closed"));
    assert_eq!(edge.get("/closed").status, 503);
}

#[test]
fn an_account_stops_by_its_claim_else_by_its_subject() {
    let upstream = Upstream::start(ok);
    let text = service("api", "/api", &[upstream.url()], "permissions = { GET = [\"read\"] }");
    let cancels = service(
        "cancel",
        "/cancel",
        &[upstream.url()],
        "permissions = { GET = [\"read\"] }\nlane = \"cancel\"",
    );
    let edge = Setup::new("").service("api", &text).service("cancel", &cancels).start();
    let now = jiff::Timestamp::now().as_second();
    let of = |sub: &str, account: Option<&str>| {
        let mut claims = json!({
            "iss": "https://sluice.internal", "sub": sub, "aud": ["sluice"], "jti": sub, "iat": now - 1,
            "exp": now + 600, "scope": "read",
        });
        if let Some(account) = account {
            claims["account"] = account.into();
        }
        edge.issuer.sign(&claims)
    };
    on(&edge, "account", Some("fund-7"));
    on(&edge, "account", Some("alice"));
    let stopped = [of("bot", Some("fund-7")), of("alice", None)];
    for token in &stopped {
        let reply = edge.get_as("/api", token);
        assert_eq!((reply.status, reply.code().as_str()), (503, "kill_switch"));
        assert_eq!(edge.get_as("/cancel", token).status, 200);
    }
    for token in [of("bot", None), of("alice", Some("fund-8")), of("fund-7", Some("other"))] {
        assert_eq!(edge.get_as("/api", &token).status, 200);
    }
    assert_eq!(edge.get("/api").status, 401, "who is nobody learns nothing");
}

#[test]
fn a_symbol_is_read_from_the_configured_header() {
    let upstream = Upstream::start(ok);
    let edge = lanes("[kill_switch]\nsymbol_header = \"x-instrument\"\n", &upstream);
    assert_eq!(post(&edge, "/order", "").status, 200, "nothing is asked while nothing is stopped");
    on(&edge, "symbol", Some("btc/usdt"));
    for named in ["BTC/USDT", "btc/usdt", "ETH/USDT, Btc/Usdt"] {
        let reply = post(&edge, "/order", &format!("X-Instrument: {named}\r\n"));
        assert_eq!((reply.status, reply.code().as_str()), (503, "kill_switch"), "{named}");
    }
    let twice = post(&edge, "/order", "X-Instrument: ETH/USDT\r\nX-Instrument: BTC/USDT\r\n");
    assert_eq!(twice.code(), "kill_switch");
    assert_eq!(post(&edge, "/order", "X-Instrument: ETH/USDT\r\n").status, 200);
    for unnamed in ["", "X-Symbol: ETH/USDT\r\n", "X-Instrument:\r\n", "X-Instrument: ,\r\n"] {
        let reply = post(&edge, "/order", unnamed);
        assert_eq!((reply.status, reply.code().as_str()), (400, "symbol_required"), "{unnamed:?}");
    }
    assert_eq!(edge.get("/query").status, 200);
    assert_eq!(post(&edge, "/cancel", "X-Instrument: BTC/USDT\r\n").status, 200);
    let preflight = "OPTIONS /order HTTP/1.1\r\nHost: edge\r\nOrigin: https://a.example\r\n\
                     Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n";
    assert_eq!(edge.send(preflight).status, 200, "it orders nothing");
    assert_eq!(listed(&edge)["symbol_header"], "x-instrument");
}

#[test]
fn a_change_takes_the_scope_a_reason_and_sense() {
    let upstream = Upstream::start(ok);
    let edge = lanes("", &upstream);
    let change = json!({"scope": "all", "on": true, "reason": "r"});
    let ask =
        |token: Option<&str>, change: &Value| edge.admin("POST", "/admin/kill-switch", token, Some(change));
    assert_eq!(ask(None, &change).status, 401);
    assert_eq!(ask(Some(&edge.issuer.token("control:read")), &change).status, 403);
    assert_eq!(edge.get("/query").status, 200, "nothing was switched");
    for (odd, why) in [
        (json!({"scope": "all", "on": true, "reason": " "}), "`reason`"),
        (json!({"scope": "all", "on": true, "reason": "x".repeat(513)}), "`reason`"),
        (json!({"scope": "all", "target": "x", "on": true, "reason": "r"}), "no `target`"),
        (json!({"scope": "service", "on": true, "reason": "r"}), "`target` names"),
        (json!({"scope": "some", "on": true, "reason": "r"}), "`scope` is one of"),
        (json!({"scope": "symbol", "target": "A,B", "on": true, "reason": "r"}), "no comma"),
        (json!({"scope": "all", "on": false, "reason": "r", "cancel_lane_open": true}), "`cancel_lane_open`"),
    ] {
        let reply = throw(&edge, &odd);
        assert_eq!(reply.status, 422, "{odd}");
        assert!(reply.json()["detail"].as_str().unwrap().contains(why), "{}", reply.text());
    }
    assert!(
        (400..423)
            .contains(&throw(&edge, &json!({"scope": "all", "on": true, "reason": "r", "x": 1})).status)
    );
    // The same again changes nothing, and says so; since stays.
    let first = on(&edge, "symbol", Some("X"));
    let again = on(&edge, "symbol", Some("x"));
    assert_eq!((&again["changed"], &again["since"]), (&json!(false), &first["since"]));
    assert_eq!(off(&edge, "symbol", Some("y")).json()["changed"], false);
    on(&edge, "account", Some("alice"));
    on(&edge, "all", None);
    let page = edge.admin("GET", "/admin/kill-switch?limit=2", None, None).json();
    let scopes = |page: &Value| -> Vec<String> {
        page["switches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["scope"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!((scopes(&page), &page["count"]), (vec!["all".to_owned(), "account".to_owned()], &json!(3)));
    let cursor = page["next_cursor"].as_str().unwrap();
    let rest = edge.admin("GET", &format!("/admin/kill-switch?cursor={cursor}"), None, None).json();
    assert_eq!((scopes(&rest), &rest["next_cursor"]), (vec!["symbol".to_owned()], &json!(null)));
    let one = &rest["switches"][0];
    assert_eq!(
        (&one["target"], &one["by"], &one["reason"]),
        (&json!("X"), &json!("operator"), &json!("flash crash"))
    );
    for bad in ["limit=0", "limit=1001", "cursor=some", "x=1"] {
        assert_eq!(edge.admin("GET", &format!("/admin/kill-switch?{bad}"), None, None).status, 400, "{bad}");
    }
    let log = std::fs::read_to_string(edge.data.join("audit/edge.jsonl")).unwrap();
    let told: Vec<(String, String)> = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|one| {
            (
                format!("{} {}", one["actor"].as_str().unwrap(), one["decision"].as_str().unwrap()),
                one["path"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    assert_eq!(told[0].0, "anonymous deny");
    assert_eq!(told[1].0, "alice deny");
    assert_eq!(told[2], ("operator allow".to_owned(), "symbol:X: flash crash".to_owned()));
    assert_eq!(told.len(), 7, "{told:?}");
}

#[test]
fn switches_survive_a_restart_and_hold_for_the_first_request() {
    let upstream = Upstream::start(ok);
    let edge = lanes("", &upstream);
    on(&edge, "service", Some("order"));
    let closed =
        json!({"scope": "symbol", "target": "X", "on": true, "reason": "r", "cancel_lane_open": false});
    assert_eq!(throw(&edge, &closed).json()["persisted"], true);
    let before = listed(&edge);
    let edge = edge.restart();
    assert_eq!(listed(&edge)["switches"], before["switches"]);
    assert_eq!(post(&edge, "/order", "").code(), "kill_switch");
    assert_eq!(post(&edge, "/cancel", "X-Symbol: X\r\n").code(), "kill_switch");
    assert_eq!(off(&edge, "service", Some("order")).status, 200);
    assert_eq!(off(&edge, "symbol", Some("X")).status, 200);
    let edge = edge.restart();
    assert_eq!(listed(&edge)["count"], 0);
    assert_eq!(post(&edge, "/order", "").status, 200);
}

#[test]
fn without_the_audit_log_on_works_and_off_does_not() {
    let upstream = Upstream::start(ok);
    let edge = lanes("", &upstream);
    on(&edge, "service", Some("query"));
    // A log that is no longer ours is not written any more.
    std::fs::remove_file(edge.data.join("audit/edge.jsonl")).unwrap();
    let done = on(&edge, "service", Some("order"));
    assert_eq!(
        (&done["on"], &done["persisted"], &done["audited"]),
        (&json!(true), &json!(false), &json!(false))
    );
    assert_eq!(post(&edge, "/order", "").code(), "kill_switch");
    for name in ["order", "query"] {
        let refused = off(&edge, "service", Some(name));
        assert_eq!((refused.status, refused.code().as_str()), (503, "audit_unavailable"));
    }
    assert_eq!(post(&edge, "/order", "").code(), "kill_switch");
    assert_eq!(edge.get("/query").code(), "kill_switch");
}

#[test]
fn a_request_that_waits_is_not_sent_after_the_switch() {
    let upstream = Upstream::start(ok);
    let port = upstream.address.unwrap().port();
    let names = Names::default();
    names.set("backend", &["127.0.0.1"]);
    names.hold(true);
    let more = format!("{OPEN}\ntimeouts = {{ connect = \"8s\", first_byte = \"9s\", total = \"10s\" }}");
    let text = service("api", "/api", &[format!("http://backend:{port}")], &more);
    let mut setup = Setup::new("").service("api", &text);
    setup.names = Some(names.clone());
    let edge = setup.start();
    let mut client = edge.connect();
    client.send("POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\n\r\nhi");
    let in_flight = || {
        let services = edge.get("/metrics").text();
        services.contains("api_gateway_active_connections 2").then_some(())
    };
    eventually("it waits for the name", || (names.asked() > 0).then(in_flight));
    on(&edge, "all", None);
    names.hold(false);
    let reply = client.reply();
    assert_eq!((reply.status, reply.code().as_str()), (503, "kill_switch"));
    assert_eq!(reply.json()["outcome"], "not_sent");
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_switch_over_a_split_service_or_its_arm_stops_what_goes_there() {
    let upstream = Upstream::start(ok);
    let split = format!("{OPEN}\nsplit = [{{ service = \"arm\", weight = 100 }}]");
    let asked = service("asked", "/asked", &[upstream.url()], &split);
    let arm = service("arm", "", &[upstream.url()], OPEN);
    let edge = Setup::new("").service("asked", &asked).service("arm", &arm).start();
    assert_eq!(edge.get("/asked").status, 200);
    for name in ["asked", "arm"] {
        on(&edge, "service", Some(name));
        assert_eq!(edge.get("/asked").code(), "kill_switch", "{name}");
        assert_eq!(off(&edge, "service", Some(name)).status, 200);
    }
    assert_eq!(edge.get("/asked").status, 200);
}

#[test]
fn it_holds_before_anything_is_written() {
    let upstream = Upstream::start(ok);
    let edge = lanes("", &upstream);
    let token = edge.issuer.token_of("operator", "control:write");
    let mut took = Vec::new();
    for _ in 0..5 {
        let mut client = edge.connect();
        let body = json!({"scope": "service", "target": "order", "on": true, "reason": "now"}).to_string();
        let mut control = crate::harness::Client::to(edge.control);
        let asked = Instant::now();
        control.send(&format!(
            "POST /admin/kill-switch HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        let refused = loop {
            let reply = client.exchange("POST /order HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\n\r\nhi");
            if reply.status == 503 {
                break asked.elapsed();
            }
            assert!(asked.elapsed() < Duration::from_secs(5));
        };
        took.push(refused);
        assert_eq!(control.reply().status, 200);
        assert_eq!(off(&edge, "service", Some("order")).status, 200);
    }
    took.sort();
    eprintln!("from asking to the first refusal: {took:?}");
    assert!(took[0] < Duration::from_millis(10), "{took:?}");
}

#[test]
fn a_worker_that_is_away_costs_nothing_but_the_telling() {
    let upstream = Upstream::start(ok);
    let text = service("order", "/order", &[upstream.url()], OPEN);
    let mut setup = Setup::new("").service("order", &text);
    // Nobody listens there.
    drop(setup.door(Role::Events));
    let edge = setup.start();
    let begun = Instant::now();
    let done = on(&edge, "all", None);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!((&done["persisted"], &done["broadcast"]), (&json!(true), &json!("pending")));
    assert_eq!(post(&edge, "/order", "").code(), "kill_switch");
    let refused = off(&edge, "all", None);
    assert_eq!((refused.status, refused.code().as_str()), (503, "worker_unavailable"));
    assert_eq!(post(&edge, "/order", "").code(), "kill_switch");
    assert_eq!(listed(&edge)["following"], false);
}
