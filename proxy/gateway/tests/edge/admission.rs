//! Who may pass: credentials, permissions, rates, addresses, header fields.

use serde_json::json;
use sluice_wire::feed::{Change, Delta, Message};

use crate::harness::{Setup, Upstream, edge_for, eventually, ok, service};

fn guarded(upstream: &Upstream, more: &str) -> Setup {
    let text = service("orders", "/api/orders", &[upstream.url()], more);
    Setup::new("").service("orders", &text)
}

#[test]
fn a_token_is_needed_and_its_grants_decide() {
    let upstream = Upstream::start(ok);
    let edge =
        guarded(&upstream, "permissions = { GET = [\"read\"], POST = [\"write\", \"trade\"] }").start();
    let missing = edge.get("/api/orders/1");
    assert_eq!((missing.status, missing.code().as_str()), (401, "invalid_token"));
    assert_eq!(missing.field("www-authenticate"), "Bearer error=\"invalid_token\"");
    let forged = edge.get_as("/api/orders/1", "eyJhbGciOiJub25lIn0.e30.");
    assert_eq!((forged.status, forged.code().as_str()), (401, "invalid_token"));
    assert!(upstream.seen().is_empty());

    let reader = edge.issuer.token("read");
    assert_eq!(edge.get_as("/api/orders/1", &reader).status, 200);
    let refused = edge.call("POST", "/api/orders", &reader, &json!({}));
    assert_eq!((refused.status, refused.code().as_str()), (403, "insufficient_scope"));
    assert!(refused.field("www-authenticate").contains("scope=\"trade\""), "{}", refused.head);
    assert_eq!(edge.call("POST", "/api/orders", &edge.issuer.token("write trade"), &json!({})).status, 200);
    // A method without an entry needs every permission of the map.
    assert_eq!(
        edge.call("DELETE", "/api/orders/1", &edge.issuer.token("write trade"), &json!({})).status,
        403
    );
    assert_eq!(edge.call("DELETE", "/api/orders/1", &edge.issuer.token("admin"), &json!({})).status, 200);
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn upstreams_learn_the_caller_from_the_edge_alone() {
    let upstream = Upstream::start(ok);
    let edge = guarded(&upstream, "").start();
    let token = edge.issuer.token_of("alice", "read trade");
    let reply = edge.send(&format!(
        "GET /api/orders/1 HTTP/1.1\r\nHost: shop.example\r\nAuthorization: Bearer {token}\r\nX-API-Key: k\r\n\
         X-Vault: v\r\nx-user: root\r\nX-User-Id: 0\r\nx-roles: admin\r\nX-Permissions: admin\r\n\
         x-client-cert: c\r\nX-Internal-Key: k\r\nx_user: root\r\nX-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\
         X-Forwarded-Proto: https\r\nX-HTTP-Method-Override: DELETE\r\nConnection: close, x-user, x-request-id\r\n\
         X-Request-Id: my-request-1\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\n"
    ));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.field("x-request-id"), "my-request-1");
    let seen = upstream.only();
    assert_eq!(seen.line(), "GET /1 HTTP/1.1");
    for (name, value) in [
        ("x-user", "alice"),
        ("x-permissions", "read trade"),
        ("x-auth-method", "token"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "shop.example"),
        ("x-request-id", "my-request-1"),
        ("x-vault", "v"),
    ] {
        assert_eq!(seen.fields(name), [value], "{name}");
    }
    assert_eq!(seen.fields("host"), [upstream.address.unwrap().to_string()]);
    for name in [
        "authorization",
        "x-api-key",
        "x-user-id",
        "x-roles",
        "x-client-cert",
        "x-internal-key",
        "x_user",
        "forwarded",
        "x-http-method-override",
        "connection",
    ] {
        assert!(seen.fields(name).is_empty(), "{name}: {}", seen.head);
    }
    let trace = seen.fields("traceparent")[0];
    assert!(trace.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-") && !trace.contains("00f067aa0ba902b7"));
}

#[test]
fn credentials_reach_the_upstream_only_when_asked_for() {
    let upstream = Upstream::start(ok);
    let edge = guarded(&upstream, "forward_authorization = true").start();
    let token = edge.issuer.token("read");
    assert_eq!(edge.get_as("/api/orders/1", &token).status, 200);
    assert_eq!(upstream.only().fields("authorization"), [format!("Bearer {token}")]);
}

#[test]
fn tokens_that_are_not_one_good_bearer_are_refused() {
    let upstream = Upstream::start(ok);
    let edge = guarded(&upstream, "").start();
    let token = edge.issuer.token("read");
    let now = jiff::Timestamp::now().as_second();
    let claims = |key: &str, value: serde_json::Value| {
        let mut claims = json!({"iss": "https://sluice.internal", "sub": "a", "aud": ["sluice"],
            "iat": now - 100, "exp": now + 100, "scope": "read"});
        claims[key] = value;
        edge.issuer.sign(&claims)
    };
    let get = |more: &str| {
        edge.send(&format!("GET /api/orders/1 HTTP/1.1\r\nHost: edge\r\n{more}Connection: close\r\n\r\n"))
            .status
    };
    assert_eq!(get(&format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n")), 401);
    assert_eq!(get(&format!("Authorization: Basic {token}\r\n")), 401);
    assert_eq!(get(&format!("Authorization: Bearer {}\r\n", claims("exp", json!(now - 60)))), 401);
    assert_eq!(get(&format!("Authorization: Bearer {}\r\n", claims("nbf", json!(now + 60)))), 401);
    assert_eq!(get(&format!("Authorization: Bearer {}\r\n", claims("aud", json!(["other"])))), 401);
    assert_eq!(get(&format!("Authorization: Bearer {}\r\n", claims("iss", json!("https://other")))), 401);
    let in_query = edge.get(&format!("/api/orders/1?access_token={token}"));
    assert_eq!(in_query.status, 401, "a token in the query is no credential");
    assert!(upstream.seen().is_empty());
    assert_eq!(get(&format!("X-Vault-Token: {token}\r\n")), 200);
}

#[test]
fn a_revoked_token_stops_working_although_it_was_cached() {
    let upstream = Upstream::start(ok);
    let edge = guarded(&upstream, "").start();
    let token = edge.issuer.token_of("mallory", "read");
    assert_eq!(edge.get_as("/api/orders/1", &token).status, 200);
    assert_eq!(edge.get_as("/api/orders/1", &token).status, 200);
    let change = Change::Jti { jti: "jti-mallory".into() };
    edge.trust.apply(&Message::Delta(Delta { epoch: "e".into(), seq: 2, change }));
    assert_eq!(edge.get_as("/api/orders/1", &token).status, 401);
    assert_eq!(edge.get_as("/api/orders/1", &edge.issuer.token_of("bob", "read")).status, 200);
    let metrics = edge.get("/metrics").text();
    assert!(metrics.contains("sluice_edge_token_cache_total{result=\"hit\"} 1"), "{metrics}");
    assert!(metrics.contains("api_gateway_auth_failures_total{reason=\"revoked\"} 1"), "{metrics}");
}

#[test]
fn without_keys_protected_routes_answer_503_and_open_ones_work() {
    let upstream = Upstream::start(ok);
    let open = service("open", "/open", &[upstream.url()], "auth_required = false");
    let mut setup = guarded(&upstream, "").service("open", &open);
    setup.keys = false;
    let edge = setup.start();
    let issued = edge.issuer.token("read");
    let reply = edge.get_as("/api/orders/1", &issued);
    assert_eq!((reply.status, reply.code().as_str()), (503, "auth_unavailable"));
    assert_eq!(reply.field("retry-after"), "1");
    assert_eq!(edge.get("/readyz").status, 503);
    assert_eq!(edge.get("/livez").status, 200);
    assert_eq!(edge.get("/open/x").status, 200);
}

#[test]
fn guessing_is_cut_off_before_verification() {
    let upstream = Upstream::start(ok);
    let edge = guarded(&upstream, "").start();
    let mut client = edge.connect();
    let mut statuses = Vec::new();
    for _ in 0..62 {
        let reply = client
            .exchange("GET /api/orders/1 HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer x.y.z\r\n\r\n");
        statuses.push(reply.status);
    }
    assert!(statuses[..60].iter().all(|status| *status == 401), "{statuses:?}");
    assert_eq!(statuses[61], 429);
    let reply = edge.get_as("/api/orders/1", &edge.issuer.token("read"));
    assert_eq!((reply.status, reply.code().as_str()), (429, "too_many_auth_failures"));
    assert!(reply.field("retry-after").parse::<u64>().unwrap() >= 1);
    // Without a credential there is nothing to throttle.
    assert_eq!(edge.get("/api/orders/1").status, 401);
}

#[test]
fn a_limit_has_headers_and_two_thresholds() {
    let upstream = Upstream::start(ok);
    let limit = "rate_limit = { requests = 3, per = \"1h\", burst = 3, hard = 6 }";
    let edge = edge_for(&upstream, limit);
    let mut client = edge.connect();
    for left in [2, 1, 0] {
        let reply = client.exchange("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
        assert_eq!(reply.status, 200);
        assert_eq!(reply.field("x-ratelimit-limit"), "3");
        assert_eq!(reply.field("x-ratelimit-remaining"), left.to_string());
        assert!(
            reply.field("x-ratelimit-reset").parse::<i64>().unwrap() > jiff::Timestamp::now().as_second()
        );
        assert!(reply.field("ratelimit").starts_with(&format!("\"api\";r={left};t=")), "{}", reply.head);
        assert_eq!(reply.field("ratelimit-policy"), "\"api\";q=3;w=3600");
    }
    for _ in 0..3 {
        let reply = client.exchange("POST /api HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\n\r\nab");
        assert_eq!((reply.status, reply.code().as_str()), (429, "rate_limited"));
        assert!(reply.field("retry-after").parse::<u64>().unwrap() > 1000);
        assert_eq!(
            reply.field("connection"),
            "keep-alive",
            "a limited client with a small body keeps its connection"
        );
    }
    let reply = client.exchange("GET /api HTTP/1.1\r\nHost: edge\r\n\r\n");
    assert_eq!((reply.status, reply.field("connection")), (429, "close"));
    assert!(client.is_closed());
    assert_eq!(upstream.seen().len(), 3);
    assert!(edge.get("/metrics").text().contains("api_gateway_rate_limit_exceeded_total{service=\"api\"} 4"));
}

#[test]
fn callers_have_buckets_of_their_own() {
    let upstream = Upstream::start(ok);
    let edge = guarded(&upstream, "rate_limit = { requests = 1, per = \"1h\" }").start();
    for sub in ["alice", "bob"] {
        let token = edge.issuer.token_of(sub, "read");
        assert_eq!(edge.get_as("/api/orders/1", &token).status, 200, "{sub}");
        assert_eq!(edge.get_as("/api/orders/1", &token).status, 429, "{sub}");
    }
}

#[test]
fn addresses_are_listed_and_deny_wins() {
    let upstream = Upstream::start(ok);
    let open = "auth_required = false\n";
    let a = service("a", "/a", &[upstream.url()], &format!("{open}allow = [\"10.0.0.0/8\"]"));
    let b = service(
        "b",
        "/b",
        &[upstream.url()],
        &format!("{open}allow = [\"127.0.0.0/8\"]\ndeny = [\"127.0.0.1/32\"]"),
    );
    let edge = Setup::new("").service("a", &a).service("b", &b).start();
    for path in ["/a", "/b"] {
        let reply = edge.get(path);
        assert_eq!((reply.status, reply.code().as_str()), (403, "address_denied"), "{path}");
    }
}

#[test]
fn trusted_proxies_name_the_client() {
    let upstream = Upstream::start(ok);
    let text =
        service("api", "/api", &[upstream.url()], "auth_required = false\ndeny = [\"203.0.113.9/32\"]");
    let conf = "[edge]\nthreads = 1\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let edge = Setup::new(conf).service("api", &text).start();
    let via = |address: &str| {
        edge.send(&format!(
            "GET /api HTTP/1.1\r\nHost: edge\r\nX-Forwarded-For: {address}\r\nX-Forwarded-Proto: https\r\nConnection: close\r\n\r\n"
        ))
    };
    assert_eq!(via("203.0.113.9").code(), "address_denied");
    assert_eq!(via("203.0.113.8").status, 200);
    let seen = upstream.only();
    assert_eq!(seen.fields("x-forwarded-for"), ["203.0.113.8, 127.0.0.1"]);
    assert_eq!(seen.fields("x-forwarded-proto"), ["https"]);
}

#[test]
fn wrong_methods_name_the_right_ones() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "methods = [\"GET\", \"PUT\"]");
    let reply = edge.send("DELETE /api HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n");
    assert_eq!((reply.status, reply.code().as_str()), (405, "method_not_allowed"));
    assert_eq!(reply.field("allow"), "GET, HEAD, PUT");
}

#[test]
fn answers_to_head_have_no_body() {
    let upstream = Upstream::start(ok);
    let edge = guarded(&upstream, "").start();
    let mut client = edge.connect();
    client.send("HEAD /api/orders/1 HTTP/1.1\r\nHost: edge\r\n\r\n");
    let head = client.read_until("\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    assert_eq!(client.exchange("GET /livez HTTP/1.1\r\nHost: edge\r\n\r\n").text(), "ok\n");
}

#[test]
fn header_policies_apply_both_ways() {
    let upstream = Upstream::start(|_, wire| {
        let head = "HTTP/1.1 200 OK\r\nServer: Apache\r\nX-Powered-By: PHP\r\nX-Internal-Node: 7\r\nX-Drop: 1\r\nContent-Length: 2\r\n\r\nok";
        wire.write_all(head.as_bytes()).is_ok()
    });
    let edge = edge_for(
        &upstream,
        "request_headers = { set = { x-env = \"test\" }, add = {}, remove = [\"x-secret\"] }\n\
         response_headers = { set = { x-edge = \"sluice\" }, add = {}, remove = [\"x-drop\"] }",
    );
    let reply = edge.send("GET /api HTTP/1.1\r\nHost: edge\r\nX-Secret: s\r\nConnection: close\r\n\r\n");
    for name in ["server", "x-powered-by", "x-internal-node", "x-drop"] {
        assert!(reply.fields(name).is_empty(), "{name}");
    }
    assert_eq!(reply.field("x-edge"), "sluice");
    assert_eq!(reply.field("x-content-type-options"), "nosniff");
    let seen = upstream.only();
    assert_eq!(seen.fields("x-env"), ["test"]);
    assert!(seen.fields("x-secret").is_empty());
}

#[test]
fn with_tokens_switched_off_services_are_open_and_workers_are_not() {
    let upstream = Upstream::start(ok);
    let text = service("orders", "/api/orders", &[upstream.url()], "permissions = { GET = [\"read\"] }");
    let edge = Setup::new("[auth]\nenabled = false\n").service("orders", &text).start();
    let reply =
        edge.send("GET /api/orders/1 HTTP/1.1\r\nHost: edge\r\nx-user: root\r\nConnection: close\r\n\r\n");
    assert_eq!(reply.status, 200);
    assert!(upstream.only().fields("x-user").is_empty());
    assert_eq!(edge.get("/events").status, 401);
    assert_eq!(edge.call("POST", "/api/register", "forged", &json!({})).status, 401);
}

#[test]
fn the_access_log_has_one_line_a_request_and_no_secret() {
    let upstream = Upstream::start(ok);
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("access.log");
    let text = service("orders", "/api/orders", &[upstream.url()], "");
    let conf = format!("[log]\naccess = \"file:{}\"\n", log.display());
    let edge = Setup::new(&conf).service("orders", &text).start();
    let token = edge.issuer.token_of("alice", "read");
    assert_eq!(edge.get_as("/api/orders/1?key=hidden", &token).status, 200);
    assert_eq!(edge.get("/api/orders/2").status, 401);
    edge.send("BREW / HTTP/1.1\r\nHost: edge\r\n\r\n");
    let lines = eventually("three lines", || {
        let text = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let lines: Vec<_> = lines.into_iter().filter(|line| line["path"] != "/livez").collect();
        (lines.len() == 3).then_some((text, lines))
    });
    let (text, lines) = lines;
    assert!(!text.contains("hidden") && !text.contains(token.rsplit_once('.').unwrap().1), "{text}");
    let with = |status: u16| lines.iter().find(|line| line["status"] == status).unwrap();
    let (passed, refused, malformed) = (with(200), with(401), with(501));
    for (name, value) in [
        ("method", "GET"),
        ("path", "/api/orders/1"),
        ("route", "orders"),
        ("user", "alice"),
        ("decision", "forwarded"),
        ("client", "127.0.0.1"),
        ("level", "INFO"),
        ("component", "access"),
    ] {
        assert_eq!(passed[name], value, "{name}");
    }
    assert_eq!(
        (&passed["status"], &passed["bytes_out"], &passed["attempts"]),
        (&json!(200), &json!(2), &json!(1))
    );
    assert!(passed["duration_us"].as_u64() >= passed["upstream_us"].as_u64());
    assert_eq!(passed["upstream"], upstream.url());
    assert_eq!(
        (refused["decision"].as_str(), refused["path"].as_str()),
        (Some("unauthenticated"), Some("/api/orders/2"))
    );
    assert_eq!(malformed["decision"], "method_unknown");
    let metrics = edge.get("/metrics").text();
    assert!(
        metrics.contains(r#"api_gateway_requests_total{method="GET",service="orders",status="200"} 1"#),
        "{metrics}"
    );
    assert!(metrics.contains(r#"sluice_edge_framing_refused_total{reason="method_unknown"} 1"#), "{metrics}");
}

#[test]
fn tokens_of_the_older_platforms_open_services_only() {
    let upstream = Upstream::start(ok);
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    let key = "an older platform's shared secret of 40 bytes";
    std::fs::write(&secret, key).unwrap();
    let text = service("orders", "/api/orders", &[upstream.url()], "permissions = { GET = [\"read\"] }");
    let conf = format!("[auth]\nhs256_secret = \"file:{}\"\n", secret.display());
    let edge = Setup::new(&conf).service("orders", &text).start();
    let now = jiff::Timestamp::now().as_second();
    let legacy = |permissions: serde_json::Value| {
        crate::harness::hs256(
            key,
            &json!({"service": "bot", "permissions": permissions, "iat": now, "exp": now + 600}),
        )
    };
    let plain = legacy(json!(["read"]));
    assert_eq!(edge.get_as("/api/orders/1", &plain).status, 200);
    let seen = upstream.only();
    assert_eq!((seen.fields("x-user"), seen.fields("x-auth-method")), (vec!["bot"], vec!["legacy_token"]));
    assert_eq!(edge.get_as("/api/orders/1", &legacy(json!(["admin"]))).status, 401);
    assert_eq!(edge.get_as("/api/orders/1", &legacy(json!(["control:read"]))).status, 401);
    assert_eq!(edge.admin("GET", "/admin/config", Some(&plain), None).status, 401);
    assert_eq!(edge.call("POST", "/api/register", &plain, &json!({})).status, 403);
}
