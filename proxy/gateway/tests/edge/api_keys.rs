//! Keys of external clients.

use serde_json::json;
use sluice_wire::feed::{Change, Delta, Message, RevokedSubject};

use crate::harness::{Edge, Reply, Setup, Upstream, eventually, ok, service};
use crate::streaming::{EVENTS, chunk};

const KEY: &str = "desk-key-CANARY";

fn digest(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The entry of a key in the file.
fn entry(name: &str, key: &str) -> String {
    format!("[[auth.api_key]]\nname = \"{name}\"\nsha256 = \"{}\"\npermissions = [\"read\"]\n", digest(key))
}

/// A service that asks for permissions, one that passes credentials on, and an open one.
fn setup(main: &str, upstream: &Upstream) -> Setup {
    let needs = "permissions = { GET = [\"read\"], POST = [\"write\"] }";
    let text = service("api", "/api", &[upstream.url()], needs)
        + &service("own", "/own", &[upstream.url()], &format!("{needs}\nforward_authorization = true"))
        + &service("open", "/open", &[upstream.url()], "auth_required = false");
    Setup::new(main).service("all", &text)
}

fn ask(edge: &Edge, line: &str, fields: &str) -> Reply {
    edge.send(&format!(
        "{line} HTTP/1.1\r\nHost: edge\r\n{fields}Content-Length: 0\r\nConnection: close\r\n\r\n"
    ))
}

fn shows(key: &str) -> String {
    format!("X-API-Key: {key}\r\n")
}

#[test]
fn a_key_is_a_caller_with_the_permissions_of_its_entry() {
    let upstream = Upstream::start(ok);
    let file = tempfile::NamedTempFile::new().unwrap();
    let log = format!("[log]\naccess = \"file:{}\"\n", file.path().display());
    let edge = setup(&format!("{log}{}", entry("desk", KEY)), &upstream).start();
    assert_eq!(ask(&edge, "GET /api/x", &shows(KEY)).status, 200);
    let seen = upstream.only();
    for (name, value) in [("x-user", "desk"), ("x-permissions", "read"), ("x-auth-method", "api_key")] {
        assert_eq!(seen.fields(name), [value], "{name}");
    }
    assert!(!seen.head.contains(KEY), "{}", seen.head);
    let refused = ask(&edge, "POST /api/x", &shows(KEY));
    assert_eq!((refused.status, refused.code().as_str()), (403, "insufficient_scope"));
    let bearer = format!("Authorization: Bearer {}\r\n", edge.issuer.token("read"));
    for fields in [
        shows("another"),
        shows(&digest(KEY)),
        format!("{}{}", shows(KEY), shows(KEY)),
        format!("{bearer}{}", shows(KEY)),
        String::new(),
    ] {
        let refused = ask(&edge, "GET /api/x", &fields);
        assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_token"), "{fields}");
        assert_eq!(refused.field("www-authenticate"), "Bearer error=\"invalid_token\"");
    }
    // Beside a token a key is the upstream's affair where credentials are.
    assert_eq!(ask(&edge, "GET /own/x", &format!("{bearer}{}", shows("theirs"))).status, 200);
    let seen = upstream.seen().pop().unwrap();
    assert_eq!((seen.fields("x-user"), seen.fields("x-api-key")), (vec!["alice"], vec!["theirs"]));
    assert_eq!(ask(&edge, "GET /own/x", &shows(KEY)).status, 200);
    assert_eq!(upstream.seen().pop().unwrap().fields("x-user"), ["desk"]);
    // An open service knows who calls too, and believes nobody who lies.
    assert_eq!(ask(&edge, "GET /open/x", &shows(KEY)).status, 200);
    assert_eq!(upstream.seen().pop().unwrap().fields("x-user"), ["desk"]);
    assert_eq!(ask(&edge, "GET /open/x", &shows("another")).status, 401);
    let metrics = edge.get("/metrics").text();
    assert!(metrics.contains("api_gateway_auth_failures_total{reason=\"api_key\"} 3"), "{metrics}");
    let written = eventually("the log is written", || {
        let text = std::fs::read_to_string(file.path()).unwrap();
        (text.lines().count() >= 12).then_some(text)
    });
    assert!(written.contains("\"desk\"") && !written.contains("CANARY"), "{written}");
}

#[test]
fn without_any_key_in_the_file_nobody_looks_at_them() {
    let upstream = Upstream::start(ok);
    let edge = setup("", &upstream).start();
    let bearer = format!("Authorization: Bearer {}\r\n", edge.issuer.token("read"));
    assert_eq!(ask(&edge, "GET /api/x", &format!("{bearer}{}", shows("k"))).status, 200);
    assert_eq!(ask(&edge, "GET /open/x", &shows("k")).status, 200);
    assert!(upstream.seen().iter().all(|seen| seen.fields("x-api-key").is_empty()));
    assert_eq!(ask(&edge, "GET /api/x", &shows("k")).status, 401);
}

#[test]
fn guesses_are_throttled_like_every_other_credential() {
    let upstream = Upstream::start(ok);
    let edge = setup(&entry("desk", KEY), &upstream).start();
    for guess in 0..60 {
        assert_eq!(ask(&edge, "GET /api/x", &shows(&format!("guess-{guess}"))).status, 401, "{guess}");
    }
    let reply = ask(&edge, "GET /api/x", &shows(KEY));
    assert_eq!((reply.status, reply.code().as_str()), (429, "too_many_auth_failures"));
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_key_is_an_account_that_can_be_stopped_and_revoked() {
    let upstream = Upstream::start(ok);
    let edge = setup(&(entry("desk", KEY) + &entry("risk", "other")), &upstream).start();
    let token = edge.issuer.token_of("operator", "control:write");
    let mut change = json!({"scope": "account", "target": "desk", "on": true, "reason": "runaway"});
    assert_eq!(edge.admin("POST", "/admin/kill-switch", Some(&token), Some(&change)).status, 200);
    assert_eq!(ask(&edge, "GET /api/x", &shows(KEY)).code(), "kill_switch");
    assert_eq!(ask(&edge, "GET /api/x", &shows("other")).status, 200);
    change["on"] = false.into();
    assert_eq!(edge.admin("POST", "/admin/kill-switch", Some(&token), Some(&change)).status, 200);
    assert_eq!(ask(&edge, "GET /api/x", &shows(KEY)).status, 200);
    let subject = RevokedSubject { sub: "desk".into(), issued_until: i64::MAX };
    let (epoch, change) = (edge.issuer.snapshot.epoch.clone(), Change::Sub(subject));
    edge.trust.apply(&Message::Delta(Delta { epoch, seq: 2, change }));
    assert_eq!(ask(&edge, "GET /api/x", &shows(KEY)).status, 401);
    assert_eq!(ask(&edge, "GET /api/x", &shows("other")).status, 200);
}

#[test]
fn a_key_that_leaves_the_file_ends_and_so_does_what_it_opened() {
    let upstream = Upstream::start(|_, wire| {
        if wire.write_all(format!("{EVENTS}{}", chunk("data: 1\n\n")).as_bytes()).is_ok() {
            let _until_the_edge_lets_it_go = wire.read(&mut [0; 16]);
        }
        false
    });
    let edge = setup(&(entry("desk", KEY) + &entry("risk", "other")), &upstream).start();
    let mut streams = [KEY, "other"].map(|key| {
        let mut client = edge.connect();
        client.send(&format!("GET /api/x HTTP/1.1\r\nHost: edge\r\n{}\r\n", shows(key)));
        assert!(client.read_until("data: 1").contains("200 OK"));
        client
    });
    let file = edge.conf.join("sluice.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace(&entry("desk", KEY), "");
    std::fs::write(edge.conf.join("new"), text).unwrap();
    std::fs::rename(edge.conf.join("new"), file).unwrap();
    let ended = streams[0].read_until("0\r\n\r\n");
    assert!(ended.ends_with("0\r\n\r\n"), "its stream ends as if the upstream had: {ended}");
    assert_eq!(ask(&edge, "GET /api/x", &shows(KEY)).status, 401);
    streams[1].socket.set_nonblocking(true).unwrap();
    let open = streams[1].socket.peek(&mut [0; 64]).is_err();
    assert!(open || !streams[1].read_until("0\r\n\r\n").ends_with("0\r\n\r\n"), "the other's goes on");
}
