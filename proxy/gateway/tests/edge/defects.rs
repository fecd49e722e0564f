//! What an earlier gateway and breaker of this kind got wrong, and where it is shown that this one does not.
//!
//! | defect | shown by |
//! |---|---|
//! | a catch-all route shadows `/health`, `/services`, `/metrics`, login | here |
//! | a service's prefix never matches a path with its leading slash | here |
//! | `/api/corex` reaches the service of `/api/core` | here; `sluice_policy::route`, `longest_prefix_wins_on_segment_borders` |
//! | round robin is the only balance that works | `sluice_policy::balance`, all six; `upstreams::weights_are_kept_smoothly`, `balance` |
//! | one log of requests for all services, keyed by address | here; `admission::callers_have_buckets_of_their_own` |
//! | that log has no bound | `sluice_policy::limit`, `full_table_forgets_the_idle_first` |
//! | a secret and an administrator that everybody knows | here; the vault's `tokens`, conf's checks of `hs256_secret` |
//! | credentials cut out by `split(" ")` | `admission::tokens_that_are_not_one_good_bearer_are_refused` |
//! | `*` with credentials in CORS | conf/bad `E0320`; `shape::any_origin_is_told_so_without_credentials` |
//! | whole bodies held in memory | `streaming::long_bodies_pass_in_little_memory`, `an_upload_passes_chunk_by_chunk` |
//! | a new session to the upstream for each request | `corpus` (what is pooled is used again); here |
//! | no streams, WebSockets, `X-Forwarded-For` | `streaming`, `tunnel`, `admission::trusted_proxies_name_the_client` |
//! | fields that belong to one connection are forwarded | here; `sluice_policy::headers` |
//! | promised fields about limits and security are never sent | `admission::a_limit_has_headers_and_two_thresholds`, `header_policies_apply_both_ways`, `tls` |
//! | labels of metrics made of paths and clients | here |
//! | one failed probe flips an instance | `sluice_policy::health`; the simulation |
//! | an open breaker lets requests through | `upstreams::the_breaker_opens_answers_by_itself_and_recovers`, `retries`; the simulation |
//! | failures of a lifetime add up, no success ends them | `sluice_policy::breaker`, `a_row_of_failures_opens_and_a_success_ends_the_row` |
//! | a reset keeps the count | `sluice_policy::breaker`, `a_reset_forgets_the_row` |
//! | half open lets everybody through | `sluice_policy::breaker`, the model; the simulation |
//! | the breaker's port lists nothing, its counters are in no metric | here; `upstreams::the_breaker_opens_…` |
//! | changing a breaker's settings does nothing | `control::settings_of_a_breaker_change_at_run_time` |

use serde_json::json;

use crate::harness::{Setup, Upstream, edge_for, hs256, ok, service};

#[test]
fn a_service_for_every_path_shadows_no_page() {
    let upstream = Upstream::start(ok);
    let text = service("web", "/", &[upstream.url()], "auth_required = false\n");
    let edge = Setup::new("").service("web", &text).start();
    for path in ["/health", "/livez", "/readyz", "/metrics", "/services", "/api/services"] {
        assert_eq!(edge.get(path).status, 200, "{path}");
    }
    edge.send("POST /auth/login HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
    assert!(upstream.seen().is_empty(), "{}", upstream.seen().len());
    assert_eq!(edge.get("/anything/else").status, 200);
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_prefix_matches_its_own_path_and_no_longer_word() {
    let upstream = Upstream::start(ok);
    let text = service("core", "/api/core", &[upstream.url()], "auth_required = false\n");
    let edge = Setup::new("").service("core", &text).start();
    for (path, status) in [("/api/core", 200), ("/api/core/", 200), ("/api/core/x/y", 200)] {
        assert_eq!(edge.get(path).status, status, "{path}");
    }
    for path in ["/api/corex", "/api/core-x", "/api/cor", "/api", "/api/core.x/y"] {
        assert_eq!(edge.get(path).status, 404, "{path}");
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn services_share_no_limit_and_their_labels_tell_nothing_of_callers() {
    let upstream = Upstream::start(ok);
    let limited = "rate_limit = { requests = 2, per = \"60s\" }\n";
    let one = service("one", "/one", &[upstream.url()], limited);
    let other = service("other", "/other", &[upstream.url()], limited);
    let edge = Setup::new("").service("one", &one).service("other", &other).start();
    let token = edge.issuer.token_of("zebra-trader", "read");
    let path = |service: &str, n: usize| format!("/{service}/needle-{n}?q={n}");
    let statuses: Vec<u16> = (0..3).map(|n| edge.get_as(&path("one", n), &token).status).collect();
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(edge.get_as(&path("other", 0), &token).status, 200, "another service, another bucket");
    assert_eq!(edge.get("/nobody/needle-404").status, 404);
    let metrics = edge.get("/metrics").text();
    assert!(metrics.contains("api_gateway_requests_total{"), "{metrics}");
    for told in ["needle", "zebra"] {
        assert!(!metrics.contains(told), "{told} in {metrics}");
    }
}

#[test]
fn no_secret_is_built_in() {
    let upstream = Upstream::start(ok);
    let text = service("api", "/api", &[upstream.url()], "");
    let edge = Setup::new("").service("api", &text).start();
    let claims = json!({"user_id": "admin", "roles": ["admin"], "exp": 4_102_444_800_u64});
    for known in ["your-secret-key", "your-secret-key-here", "secret", ""] {
        assert_eq!(edge.get_as("/api", &hs256(known, &claims)).status, 401, "{known}");
    }
    let login = json!({"username": "admin", "password": "admin"}).to_string();
    let ask = format!(
        "POST /auth/login HTTP/1.1\r\nHost: edge\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{login}",
        login.len()
    );
    assert!(edge.send(&ask).status >= 400);
    assert!(upstream.seen().is_empty());
}

#[test]
fn connections_are_used_again_and_their_own_fields_go_no_further() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let mut client = edge.connect();
    let fields = "Connection: private-note\r\nPrivate-Note: 1\r\nKeep-Alive: timeout=9\r\nTE: trailers\r\nProxy-Connection: a\r\n";
    for _ in 0..3 {
        let reply = client.exchange(&format!("GET /api HTTP/1.1\r\nHost: edge\r\n{fields}\r\n"));
        assert_eq!(reply.status, 200);
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 3);
    for request in &seen {
        for name in ["private-note", "keep-alive", "te", "proxy-connection"] {
            assert!(request.fields(name).is_empty(), "{name}");
        }
    }
}

#[test]
fn every_breaker_is_listed_from_the_start_and_counted_in_the_metrics() {
    let upstream = Upstream::start(ok);
    let edge = edge_for(&upstream, "");
    let shown = edge.admin("GET", "/circuit-breakers", None, None).json();
    assert_eq!((&shown["circuit_breakers"], &shown["count"]), (&json!(["api"]), &json!(1)));
    assert_eq!(edge.admin("GET", "/circuit-breakers/api", None, None).json()["state"], "closed");
    assert!(edge.get("/metrics").text().contains("circuit_breaker_state{service=\"api\"} 0"));
}
