//! What is done to traffic beside forwarding it: web pages, paths, canaries.

use std::collections::BTreeSet;

use serde_json::json;

use crate::h2_client::{Proper, run};
use crate::harness::{Edge, Reply, Setup, Upstream, edge_for, eventually, ok, reply, service};

const DESK: &str = "Origin: https://desk.example.com\r\n";

fn ask(edge: &Edge, method: &str, path: &str, fields: &str) -> Reply {
    edge.send(&format!("{method} {path} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n{fields}\r\n"))
}

/// A service that pages of one origin may call, with credentials.
fn pages(upstream: &Upstream, more: &str) -> Edge {
    let keys = format!(
        "cors = {{ origins = [\"https://desk.example.com\", \"http://localhost:3000\"], credentials = true }}\n{more}"
    );
    Setup::new("").service("orders", &service("orders", "/api/orders", &[upstream.url()], &keys)).start()
}

#[test]
fn preflights_are_answered_before_anything_is_asked() {
    let upstream = Upstream::start(ok);
    let edge = pages(&upstream, "methods = [\"GET\", \"POST\"]");
    let asks =
        "Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type, x-symbol\r\n";
    let answer = ask(&edge, "OPTIONS", "/api/orders/1", &format!("{DESK}{asks}"));
    assert_eq!((answer.status, answer.body.len()), (204, 0));
    for (name, value) in [
        ("access-control-allow-origin", "https://desk.example.com"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "GET, HEAD, POST"),
        ("access-control-allow-headers", "content-type, x-symbol"),
        ("access-control-max-age", "600"),
    ] {
        assert_eq!(answer.fields(name), [value], "{}", answer.head);
    }
    let vary = answer.fields("vary").join(", ");
    for name in ["origin", "access-control-request-method", "access-control-request-headers"] {
        assert!(vary.contains(name), "{vary}");
    }
    // To another page nothing is said; fields that are no list are not given back.
    let evil = ask(&edge, "OPTIONS", "/api/orders/1", &format!("Origin: https://evil.example\r\n{asks}"));
    assert_eq!(evil.status, 204);
    assert!(!evil.head.contains("access-control-allow"), "{}", evil.head);
    let odd = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: a b\r\n";
    let odd = ask(&edge, "OPTIONS", "/api/orders/1", &format!("{DESK}{odd}"));
    assert!(odd.fields("access-control-allow-headers").is_empty() && odd.status == 204, "{}", odd.head);
    // A method that the route has not, and OPTIONS that is no preflight, are what they were.
    let delete =
        ask(&edge, "OPTIONS", "/api/orders/1", &format!("{DESK}Access-Control-Request-Method: DELETE\r\n"));
    assert_eq!(delete.status, 405);
    assert_eq!(ask(&edge, "OPTIONS", "/api/orders/1", DESK).status, 405);
    assert!(upstream.seen().is_empty());
}

#[test]
fn without_rules_the_upstream_answers_preflights() {
    let upstream = Upstream::start(|_, wire| {
        let head = "HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: https://theirs.example\r\n\r\n";
        wire.write_all(head.as_bytes()).is_ok()
    });
    let edge = edge_for(&upstream, "");
    let answer = ask(&edge, "OPTIONS", "/api/x", &format!("{DESK}Access-Control-Request-Method: POST\r\n"));
    assert_eq!(answer.fields("access-control-allow-origin"), ["https://theirs.example"]);
    assert_eq!(upstream.only().line(), "OPTIONS /x HTTP/1.1");
}

#[test]
fn answers_and_refusals_tell_pages_the_same() {
    let upstream = Upstream::start(|_, wire| {
        let head = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Methods: PUT\r\nVary: Accept\r\n";
        wire.write_all(format!("{head}Content-Length: 2\r\n\r\nok").as_bytes()).is_ok()
    });
    let keys = "permissions = { GET = [\"read\"], POST = [\"trade\"] }\nrate_limit = { requests = 2, per = \"60s\" }";
    let edge = pages(&upstream, keys);
    let token = edge.issuer.token("read");
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let told = |answer: &Reply, status: u16| {
        assert_eq!(answer.status, status, "{}", answer.head);
        assert_eq!(
            answer.fields("access-control-allow-origin"),
            ["https://desk.example.com"],
            "{}",
            answer.head
        );
        assert_eq!(answer.fields("access-control-allow-credentials"), ["true"]);
        assert!(answer.field("access-control-expose-headers").contains("x-request-id"));
        assert!(answer.fields("vary").join(",").to_lowercase().contains("origin"), "{}", answer.head);
    };
    let answer = ask(&edge, "GET", "/api/orders/1", &format!("{DESK}{bearer}"));
    told(&answer, 200);
    assert!(answer.fields("access-control-allow-methods").is_empty(), "{}", answer.head);
    assert!(answer.fields("vary").contains(&"Accept"), "{}", answer.head);
    told(&ask(&edge, "GET", "/api/orders/1", DESK), 401);
    told(&ask(&edge, "POST", "/api/orders", &format!("{DESK}{bearer}Content-Length: 0\r\n")), 403);
    told(&ask(&edge, "GET", "/api/orders/1", &format!("{DESK}{bearer}")), 200);
    told(&ask(&edge, "GET", "/api/orders/1", &format!("{DESK}{bearer}")), 429);
    // Without an origin, or with another, the answer still says that it depends on it.
    for fields in ["", "Origin: https://desk.example.com.evil\r\n", &format!("{DESK}{DESK}")] {
        let other = ask(&edge, "GET", "/api/orders/1", fields);
        assert!(!other.head.to_lowercase().contains("access-control-allow"), "{}", other.head);
        assert!(other.fields("vary").join(",").contains("origin"), "{}", other.head);
    }
    run(async {
        let mut client = Proper::to(&edge).await;
        let request = client.request("GET", "/api/orders/1").header("origin", "http://localhost:3000");
        let answer = client.fetch(request.body(()).unwrap(), None).await.unwrap();
        assert_eq!(
            (answer.status, answer.field("access-control-allow-origin")),
            (401, "http://localhost:3000")
        );
    });
}

#[test]
fn any_origin_is_told_so_without_credentials() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "cors = { origins = [\"*\"] }");
    let answer = ask(&edge, "GET", "/api/x", "Origin: null\r\n");
    assert_eq!(answer.fields("access-control-allow-origin"), ["*"]);
    assert!(answer.fields("access-control-allow-credentials").is_empty() && answer.fields("vary").is_empty());
}

#[test]
fn paths_are_rewritten_after_they_were_judged() {
    let upstream = Upstream::start(ok);
    let keys = "permissions = { GET = [\"read\"] }\n\
                rewrite = { match = \"^/v1/(?P<kind>[a-z]+)/(.*)$\", replace = \"/${kind}/old/$2\" }";
    let beside = Upstream::start(ok);
    let edge = Setup::new("")
        .service("data", &service("data", "/api/data", &[upstream.url()], keys))
        .service(
            "whole",
            &service(
                "whole",
                "/api/whole",
                &[beside.url()],
                "auth_required = false\nstrip_prefix = false\nrewrite = { match = \"^/api/whole(.*)\", replace = \"/..$1\" }",
            ),
        )
        .start();
    let token = edge.issuer.token("read");
    assert_eq!(edge.get("/api/data/v1/bars/btc").status, 401);
    assert_eq!(edge.get_as("/api/data//v1/bars/./btc%2Dusd?from=/v1/bars/x", &token).status, 200);
    assert_eq!(edge.get_as("/api/data/v2/bars", &token).status, 200);
    let lines: Vec<String> = upstream.seen().iter().map(|seen| seen.line().to_owned()).collect();
    assert_eq!(lines, ["GET /bars/old/btc-usd?from=/v1/bars/x HTTP/1.1", "GET /v2/bars HTTP/1.1"]);
    // What would climb above the root reaches nobody.
    let refused = edge.get("/api/whole/x");
    assert_eq!((refused.status, refused.code().as_str()), (400, "bad_path"));
    assert!(beside.seen().is_empty());
    run(async {
        let mut client = Proper::to(&edge).await;
        let request =
            client.request("GET", "/api/data/v1/ticks/1").header("authorization", format!("Bearer {token}"));
        assert_eq!(client.fetch(request.body(()).unwrap(), None).await.unwrap().status, 200);
    });
    assert_eq!(upstream.seen()[2].line(), "GET /ticks/old/1 HTTP/1.1");
}

/// A service of which a share goes to a canary.
fn split(stable: &Upstream, canary: &Upstream, weight: u32) -> Edge {
    let keys = format!(
        "split = [{{ service = \"data_v2\", weight = {weight} }}]\npermissions = {{ GET = [\"read\"] }}\n\
         response_headers = {{ set = {{ x-desk = \"fx\" }} }}\nrequest_headers = {{ set = {{ x-arm = \"stable\" }} }}"
    );
    let arm = "request_headers = { set = { x-arm = \"canary\" } }\nallow = [\"10.9.9.9\"]\nstrip_prefix = false\n\
               retry = { attempts = 1 }\nbreaker = { failure_threshold = 1, recovery_timeout = \"60s\" }";
    Setup::new("")
        .service("data", &service("data", "/api/data", &[stable.url()], &keys))
        .service("data_v2", &service("data_v2", "", &[canary.url()], arm))
        .start()
}

#[test]
fn a_share_of_the_callers_meets_the_canary_and_stays_there() {
    let (stable, canary) = (Upstream::start(ok), Upstream::start(ok));
    let edge = split(&stable, &canary, 30);
    let callers: Vec<String> = (0..60).map(|n| format!("trader-{n}")).collect();
    let ask_all = || {
        for caller in &callers {
            let answer = edge.get_as("/api/data/x", &edge.issuer.token_of(caller, "read"));
            assert_eq!((answer.status, answer.field("x-desk")), (200, "fx"), "{}", answer.head);
        }
    };
    let users = |upstream: &Upstream| -> BTreeSet<String> {
        upstream.seen().iter().map(|seen| seen.fields("x-user")[0].to_owned()).collect()
    };
    ask_all();
    let (first, others) = (users(&canary), users(&stable));
    assert!((8..=32).contains(&first.len()) && first.len() + others.len() == 60, "{first:?}");
    ask_all();
    assert_eq!((users(&canary), users(&stable)), (first.clone(), others));
    // The arm calls its upstream its own way; the path and who may call are the asked service's.
    let seen = canary.seen();
    assert!(seen.iter().all(|seen| seen.line() == "GET /x HTTP/1.1" && seen.fields("x-arm") == ["canary"]));
    assert_eq!(edge.get("/api/data/x").status, 401);
    // Metrics count by who answered, and the page tells of the split.
    let metrics = edge.get("/metrics").text();
    let counted = format!(
        "api_gateway_requests_total{{method=\"GET\",service=\"data_v2\",status=\"200\"}} {}",
        seen.len()
    );
    assert!(metrics.contains(&counted), "{counted}");
    let services = edge.get("/services").json();
    let named = |name: &str| {
        let services = services["services"].as_array().unwrap();
        services.iter().find(|service| service["name"] == name).unwrap().clone()
    };
    assert_eq!(named("data")["split"], json!([{ "service": "data_v2", "weight": 30 }]));
    assert_eq!(named("data_v2")["path_prefix"], "");
}

#[test]
fn a_canary_that_fails_opens_its_own_breaker_alone() {
    let stable = Upstream::start(ok);
    let broken = Upstream::start(|_, wire| wire.write_all(reply("503 Away", "no").as_bytes()).is_ok());
    let edge = split(&stable, &broken, 100);
    let token = edge.issuer.token("read");
    assert_eq!(edge.get_as("/api/data/x", &token).status, 503);
    let open = edge.get_as("/api/data/x", &token);
    assert_eq!((open.status, open.code().as_str()), (503, "breaker_open"));
    assert_eq!(broken.seen().len(), 1);
    let state = |name: &str| {
        edge.admin("GET", &format!("/circuit-breakers/{name}"), None, None).json()["state"].clone()
    };
    assert_eq!((state("data_v2"), state("data")), (json!("open"), json!("closed")));
    assert!(stable.seen().is_empty());
}

#[test]
fn callers_without_a_name_are_placed_by_address_and_the_log_tells() {
    let (stable, canary) = (Upstream::start(ok), Upstream::start(ok));
    let log = tempfile::NamedTempFile::new().unwrap();
    let keys = "auth_required = false\nsplit = [{ service = \"data_v2\", weight = 50 }]";
    let edge = Setup::new(&format!(
        "trusted_proxies = [\"127.0.0.1\"]\n[log]\naccess = \"file:{}\"\n",
        log.path().display()
    ))
    .service("data", &service("data", "/api/data", &[stable.url()], keys))
    .service("data_v2", &service("data_v2", "", &[canary.url()], ""))
    .start();
    for round in 0..2 {
        for n in 0..20 {
            let fields = format!("X-Forwarded-For: 198.51.100.{n}\r\n");
            assert_eq!(ask(&edge, "GET", &format!("/api/data/{round}"), &fields).status, 200);
        }
    }
    let clients = |round: &str| -> BTreeSet<String> {
        let line = format!("GET /{round} HTTP/1.1");
        let seen = canary.seen();
        seen.iter()
            .filter(|seen| seen.line() == line)
            .map(|seen| seen.fields("x-forwarded-for")[0].to_owned())
            .collect()
    };
    assert!((3..=17).contains(&clients("0").len()), "{:?}", clients("0"));
    assert_eq!(clients("0"), clients("1"));
    let count = canary.seen().len();
    eventually("the log names the arms", || {
        let text = std::fs::read_to_string(log.path()).unwrap();
        let arms = text
            .lines()
            .filter(|line| line.contains("\"route\":\"data_v2\"") && line.contains("\"split_of\":\"data\""));
        (arms.count() == count).then_some(())
    });
}
