//! Worker routes: over the internal door, with the edge's proof and the caller's identity.

use std::time::Duration;

use serde_json::json;
use sluice_wire::role::Role;

use crate::harness::{Setup, Upstream, ok};

#[test]
fn workers_get_the_edges_key_and_the_verified_caller() {
    let mut setup = Setup::new("");
    let events = Upstream::start_unix(&setup.door(Role::Events), ok);
    let edge = setup.start();
    assert_eq!(edge.get("/events/types").status, 401);
    let token = edge.issuer.token_of("alice", "events:read");
    let reply = edge.send(&format!(
        "GET /events/types?x=1 HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {token}\r\nx-user: root\r\n\
         x-internal-key: guess\r\nx-internal-self: 1\r\nx-internal-proof: 0 1 guess\r\nConnection: close\r\n\r\n"
    ));
    assert_eq!(reply.status, 200);
    let seen = events.only();
    assert_eq!(seen.line(), "GET /events/types?x=1 HTTP/1.1");
    assert_eq!(seen.fields("x-internal-key"), [edge.internal_key.as_str()]);
    assert!(seen.fields("x-internal-self").is_empty());
    assert_eq!(seen.fields("x-user"), ["alice"]);
    assert_eq!(seen.fields("x-permissions"), ["events:read"]);
    let proof = seen.fields("x-internal-proof").concat();
    let proof: Vec<&str> = proof.split(' ').collect();
    let [issued, ends, "jti-alice"] = proof[..] else { panic!("which token it was: {proof:?}") };
    assert_eq!(ends.parse::<i64>().unwrap() - issued.parse::<i64>().unwrap(), 601);
    assert!(seen.fields("authorization").is_empty());
    // The same token without the right scope still passes: the worker decides.
    assert_eq!(edge.get_as("/events/types", &edge.issuer.token("read")).status, 200);
}

#[test]
fn the_vault_decides_about_its_own_credentials() {
    let mut setup = Setup::new("");
    let vault = Upstream::start_unix(&setup.door(Role::Vault), ok);
    let edge = setup.start();
    let token = edge.issuer.token_of("alice", "read");
    assert_eq!(edge.get("/secrets/a").status, 200, "without a bearer the vault decides");
    assert_eq!(edge.get_as("/secrets/a", &token).status, 200);
    assert_eq!(
        edge.get_as("/tokens/validate", "forged.to.ken").status,
        200,
        "the vault is asked about bad tokens"
    );
    let raw = edge.send(
        "GET /v1/secret/data/a HTTP/1.1\r\nHost: edge\r\nX-Vault-Token: s.abc\r\nX-User: root\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(raw.status, 200);
    let seen = vault.seen();
    assert_eq!(seen.len(), 4);
    assert!(seen[0].fields("x-user").is_empty());
    assert_eq!(seen[1].fields("x-user"), ["alice"]);
    assert_eq!(seen[2].fields("authorization"), ["Bearer forged.to.ken"]);
    assert!(seen[2].fields("x-user").is_empty(), "nobody is vouched for");
    assert!(seen[2].fields("x-internal-proof").is_empty() && !seen[1].fields("x-internal-proof").is_empty());
    assert_eq!(seen[3].fields("x-vault-token"), ["s.abc"]);
    assert!(seen[3].fields("x-user").is_empty());
    for hidden in [
        "/v1/sys/unseal",
        "/v1/sys/init",
        "/v1/sys/rekey/init",
        "/v1/sys/rotate/keyring",
        "/v1/sys/generate-root-token/attempt",
        "/falco/alerts",
    ] {
        assert_eq!(edge.get(hidden).status, 404, "{hidden}");
    }
    let list = edge.send("LIST /v1/secret/metadata/ HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n");
    assert_eq!(list.status, 200);
    assert_eq!(vault.seen().len(), 5);
}

#[test]
fn what_is_withheld_has_no_other_spelling() {
    let mut setup = Setup::new("");
    let vault = Upstream::start_unix(&setup.door(Role::Vault), ok);
    let edge = setup.start();
    let ask = |method: &str, target: &str| {
        edge.send(&format!("{method} {target} HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")).status
    };
    for hidden in
        ["sys/init", "sys/seal", "sys/unseal", "sys/rekey", "sys/rekey/init", "sys/generate-root/attempt"]
    {
        let tail = hidden.trim_start_matches("sys/");
        let encoded: String = tail.bytes().map(|byte| format!("%{byte:02x}")).collect();
        for target in [
            format!("/v1/{hidden}"),
            format!("/v1/{hidden}/"),
            format!("/v1/{hidden}?a=b"),
            format!("//v1///{hidden}"),
            format!("/v1/./sys/x/../{tail}"),
            format!("/v1/sys/{encoded}"),
            format!("/v1/%73ys/{tail}"),
            format!("/%76%31/{hidden}"),
            format!("/v1/sys%2f{tail}"),
            format!("/v1/sys%5c{tail}"),
            format!("/v1/sys;x/{tail}"),
            format!("/v1/sys/%252e%252e/sys/{tail}"),
            format!("/secrets/../v1/{hidden}"),
            format!("/v1/sys/mounts/..%2f{tail}"),
            format!("http://edge/v1/{hidden}"),
        ] {
            for method in ["PUT", "POST"] {
                ask(method, &target);
            }
        }
    }
    // What the edge does not refuse itself arrives as something the vault has no such route for.
    for seen in vault.seen() {
        let line = seen.line();
        let target = line.split(' ').nth(1).unwrap().to_ascii_lowercase();
        let once = percent_decoded(&target);
        assert!(!once.split('/').any(|part| part == ".."), "{line}");
        let decoded = percent_decoded(&once);
        let path = decoded.split('?').next().unwrap();
        let segments: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        let named = ["init", "seal", "unseal", "rekey", "generate-root"].map(|word| ["v1", "sys", word]);
        assert!(!named.iter().any(|hidden| segments.starts_with(hidden)), "{line}");
    }
    assert_eq!(ask("GET", "/v1/sys/health"), 200, "and what is not withheld arrives");
}

/// Escapes undone once.
fn percent_decoded(text: &str) -> String {
    let mut decoded = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let escaped = rest.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(escaped.map_or('%', char::from));
        rest = &rest[at + if escaped.is_some() { 3 } else { 1 }..];
    }
    decoded + rest
}

#[test]
fn secrets_travel_in_clear_only_on_this_machine() {
    let mut setup = Setup::new("");
    let vault = Upstream::start_unix(&setup.door(Role::Vault), ok);
    let edge = setup.start();
    for path in [
        "/audit",
        "/secrets/a",
        "/credentials",
        "/security/tokens/validate",
        "/tokens",
        "/v1/x",
        "/auth/login",
    ] {
        let reply = edge.send(&format!(
            "GET {path} HTTP/1.1\r\nHost: edge\r\nX-Forwarded-For: 203.0.113.9\r\nConnection: close\r\n\r\n"
        ));
        assert_eq!((reply.status, reply.code().as_str()), (403, "tls_required"), "{path}");
    }
    assert!(vault.seen().is_empty());
    assert_eq!(edge.get("/ca/certificate").status, 200);
}

#[test]
fn the_vaults_own_kind_of_token_is_for_the_vault_to_judge() {
    let mut setup = Setup::new("");
    let vault = Upstream::start_unix(&setup.door(Role::Vault), ok);
    let edge = setup.start();
    let mut client = edge.connect();
    for field in ["X-Vault-Token: hvs.abc", "Authorization: Bearer hvs.abc"] {
        let request = format!("GET /secrets/a HTTP/1.1\r\nHost: edge\r\n{field}\r\n\r\n");
        assert!((0..40).all(|_| client.exchange(&request).status == 200), "none counts as a failure");
    }
    assert!(vault.seen().iter().all(|seen| seen.fields("x-user").is_empty()), "nobody is vouched for");
    assert_eq!(edge.get_as("/events/types", "hvs.abc").status, 401, "elsewhere it is no credential");
}

#[test]
fn logins_are_slow_by_address() {
    let mut setup = Setup::new("");
    let vault = Upstream::start_unix(&setup.door(Role::Vault), ok);
    let edge = setup.start();
    let mut client = edge.connect();
    let statuses: Vec<u16> =
        (0..61).map(|_| client.exchange("GET /auth/verify HTTP/1.1\r\nHost: edge\r\n\r\n").status).collect();
    assert!(statuses[..60].iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(statuses[60], 429);
    assert_eq!(vault.seen().len(), 60);
}

#[test]
fn a_worker_that_is_away_is_503_and_others_work() {
    let mut setup = Setup::new("");
    let calc = Upstream::start_unix(&setup.door(Role::Calc), ok);
    setup.door(Role::Events);
    let edge = setup.start();
    let token = edge.issuer.token("admin");
    let reply = edge.call("POST", "/events", &token, &json!({}));
    assert_eq!((reply.status, reply.code().as_str()), (503, "worker_unavailable"));
    assert_eq!((reply.json()["outcome"].as_str(), reply.field("retry-after")), (Some("not_sent"), "1"));
    let reply = edge.call("POST", "/tokens/generate", &token, &json!({}));
    assert_eq!(
        (reply.status, reply.code().as_str()),
        (503, "worker_unavailable"),
        "no vault was given at all"
    );
    assert_eq!(edge.call("POST", "/calculations/indicators", &token, &json!({"rows": 1})).status, 200);
    assert_eq!(calc.only().body, br#"{"rows":1}"#);
    let health = edge.get("/health").json();
    assert_eq!(health["status"], "degraded");
    assert_eq!(health["components"]["edge"]["status"], "degraded", "the feed was never heard");
}

#[test]
fn a_workers_event_stream_passes_through() {
    let mut setup = Setup::new("");
    let _events = Upstream::start_unix(&setup.door(Role::Events), |seen, wire| {
        assert_eq!(seen.fields("last-event-id"), ["7"]);
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
        drop(wire.write_all(head.as_bytes()));
        for _ in 0..3 {
            drop(wire.write_all(b"9\r\ndata: x\n\n\r\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(wire.write_all(b"0\r\n\r\n"));
        false
    });
    let edge = setup.start();
    let token = edge.issuer.token("events:read");
    let mut client = edge.connect();
    let reply = client.exchange(&format!(
        "GET /events/stream HTTP/1.1\r\nHost: edge\r\nLast-Event-ID: 7\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    assert_eq!(reply.text(), "data: x\n\ndata: x\n\ndata: x\n\n");
}

/// What the vault tells the edge of a credential that is none.
const TELLS: &str = "X-Internal-Refused: credential\r\n";

/// An answer with a field line of its own.
fn answer(wire: &mut dyn crate::harness::Wire, status: &str, line: &str) -> bool {
    let text = format!("HTTP/1.1 {status}\r\n{line}Content-Length: 2\r\n\r\n{{}}");
    wire.write_all(text.as_bytes()).is_ok()
}

#[test]
fn what_the_vault_finds_to_be_no_credential_counts_and_what_it_forbids_does_not() {
    let mut setup = Setup::new("");
    let vault = Upstream::start_unix(&setup.door(Role::Vault), |seen, wire| match seen.line() {
        line if line.contains("/pki/") => answer(wire, "200 OK", ""),
        _ if seen.fields("x-vault-token") == ["hvs.good"] => answer(wire, "403 Forbidden", ""),
        _ => answer(wire, "403 Forbidden", TELLS),
    });
    let edge = setup.start();
    let mut client = edge.connect();
    let mut ask = |line: &str, more: &str| {
        client.exchange(&format!("{line} HTTP/1.1\r\nHost: edge\r\nContent-Length: 0\r\n{more}\r\n"))
    };
    let (read, good) = ("GET /v1/secret/data/a", "X-Vault-Token: hvs.good\r\n");
    for _ in 0..100 {
        assert_eq!(ask(read, good).status, 403);
    }
    for guess in 0..60 {
        let reply = match guess % 2 {
            0 => ask(read, &format!("X-Vault-Token: hvs.{guess}\r\n")),
            _ => ask("POST /v1/auth/approle/login", ""),
        };
        assert_eq!(reply.status, 403, "{guess}");
        assert!(reply.fields("x-internal-refused").is_empty(), "{}", reply.head);
    }
    let before = vault.seen().len();
    for (line, more) in [
        (read, good),
        ("POST /v1/auth/approle/login", ""),
        ("GET /secrets/a", good),
        ("PUT /v1/sys/wrapping/unwrap", ""),
    ] {
        let reply = ask(line, more);
        assert_eq!((reply.status, reply.code().as_str()), (429, "too_many_auth_failures"), "{line}");
        assert!(reply.field("retry-after").parse::<u64>().unwrap() >= 1);
    }
    assert_eq!(vault.seen().len(), before, "none of them is looked at");
    assert_eq!(ask("GET /v1/pki/ca/pem", "").status, 200, "what is open stays open");
}

#[test]
fn a_token_that_the_vault_refuses_at_secrets_counts() {
    let mut setup = Setup::new("");
    let vault =
        Upstream::start_unix(&setup.door(Role::Vault), |_, wire| answer(wire, "401 Unauthorized", ""));
    let edge = setup.start();
    for guess in 0..60 {
        assert_eq!(edge.get_as("/secrets/a", &format!("hvs.{guess}")).status, 401, "{guess}");
    }
    assert_eq!(edge.get_as("/secrets/a", "hvs.x").code(), "too_many_auth_failures");
    assert_eq!(edge.get("/secrets/a").status, 401, "who shows nothing guesses nothing");
    assert_eq!(vault.seen().len(), 61);
}

#[test]
fn a_service_cannot_have_its_callers_locked_out() {
    let upstream = Upstream::start(|_, wire| answer(wire, "401 Unauthorized", TELLS));
    let edge = crate::harness::edge_for(&upstream, "");
    for _ in 0..70 {
        let reply = edge.get("/api");
        assert_eq!((reply.status, reply.fields("x-internal-refused").len()), (401, 0));
    }
    assert_eq!(edge.get_as("/api", &edge.issuer.token("read")).status, 401, "the service's own answer");
    assert_eq!(upstream.seen().len(), 71);
}
