//! What is refused, and who may do what.

use super::*;

#[tokio::test]
async fn what_is_out_of_bounds_is_refused() {
    let world = World::new();
    let long = "x".repeat(300);
    for (body, status, pointer) in [
        (json!({"ack_wait": "99ms"}), 422, "/ack_wait"),
        (json!({"ack_wait": "13h"}), 422, "/ack_wait"),
        (json!({"ack_wait": "soon"}), 400, "/ack_wait"),
        (json!({"max_deliver": 0}), 422, "/max_deliver"),
        (json!({"max_deliver": 1_001}), 422, "/max_deliver"),
        (json!({"backoff": vec!["1s"; 33]}), 422, "/backoff"),
        (json!({"backoff": ["25h"]}), 422, "/backoff"),
        (json!({"backoff": ["1"]}), 400, "/backoff"),
        (json!({"order_key": "source"}), 400, "/order_key"),
        (json!({"start": "yesterday"}), 400, "/start"),
        (json!({"filter": {"symbol": long}}), 422, "/filter/symbol"),
        (json!({"filter": {"symbol": vec!["x"; 65]}}), 422, "/filter/symbol"),
        (json!({"filter": {"event_type": "a b"}}), 400, "/filter/event_type"),
        (json!({"filter": {"start_time": "x"}}), 400, "/filter/start_time"),
        (json!({"filter": {"end_time": ["1", "2"]}}), 400, "/filter/end_time"),
    ] {
        let answer = call(&world, "PUT", "/groups/desk", &body).await;
        answer.code(status);
        assert_eq!(answer.json()["pointer"], pointer, "{body}");
    }
    for body in [
        json!({"colour": "red"}),
        json!({"filter": {"colour": "red"}}),
        json!([]),
        json!({"max_deliver": -1}),
    ] {
        assert_eq!(call(&world, "PUT", "/groups/desk", &body).await.status, 400, "{body}");
    }
    for name in ["a%20b", "a%2Fb", &"x".repeat(65)] {
        assert_eq!(
            call(&world, "PUT", &format!("/groups/{name}"), &json!({})).await.code(422),
            "unprocessable"
        );
    }
    assert_eq!(world.admin().get("/groups").await.ok()["count"], 0);
}

#[tokio::test]
async fn calls_about_messages_are_bounded() {
    let world = World::new();
    put(&world, "desk", json!({})).await;
    let many = vec!["1-1"; 5_001];
    let long = "x".repeat(257);
    for (call_name, body, status) in [
        ("lease", json!({"consumer": ""}), 422),
        ("lease", json!({"consumer": "a b"}), 422),
        ("lease", json!({"consumer": long}), 422),
        ("lease", json!({"consumer": "a", "max": 0}), 422),
        ("lease", json!({"consumer": "a", "max": 1_001}), 422),
        ("lease", json!({"consumer": "a", "wait_ms": 60_001}), 422),
        ("lease", json!({"max": 1}), 400),
        ("ack", json!({"consumer": "a", "ids": many}), 422),
        ("ack", json!({"consumer": "a", "ids": [], "delay_ms": 1}), 400),
        ("ack", json!({"consumer": "a"}), 400),
        ("nack", json!({"consumer": "a", "ids": [], "delay_ms": 86_400_001}), 422),
        ("nack", json!({"consumer": "a", "ids": [], "reason": long}), 422),
        ("extend", json!({"consumer": "a", "ids": [], "reason": "x"}), 400),
        ("dlq/redrive", json!({"max": 0}), 422),
        ("dlq/redrive", json!({"max": 10_001}), 422),
        ("dlq/redrive", json!({"rate": 0}), 422),
        ("dlq/redrive", json!({"rate": 1_000_000}), 422),
    ] {
        let answer = call(&world, "POST", &format!("/groups/desk/{call_name}"), &body).await;
        assert_eq!(answer.status, status, "{call_name} {answer:?}");
    }
    for query in ["?limit=0", "?limit=1001", "?cursor=x", "?colour=red"] {
        assert_eq!(world.admin().get(&format!("/groups/desk/dlq{query}")).await.code(400), "bad_query");
    }
    for query in ["?limit=0", "?limit=1001", "?colour=red"] {
        assert_eq!(world.admin().get(&format!("/groups{query}")).await.code(400), "bad_query");
    }
}

#[tokio::test]
async fn a_group_that_is_not_there_is_404() {
    let world = World::new();
    for (method, path, body) in [
        ("GET", "", json!({})),
        ("DELETE", "", json!({})),
        ("POST", "/lease", json!({"consumer": "a", "wait_ms": 60_000})),
        ("POST", "/ack", json!({"consumer": "a", "ids": []})),
        ("POST", "/nack", json!({"consumer": "a", "ids": []})),
        ("POST", "/extend", json!({"consumer": "a", "ids": []})),
        ("GET", "/dlq", json!({})),
        ("DELETE", "/dlq", json!({})),
        ("POST", "/dlq/redrive", json!({})),
    ] {
        let answer = call(&world, method, &format!("/groups/none{path}"), &body).await;
        assert_eq!(answer.code(404), "not_found", "{method} {path}");
    }
}

#[tokio::test]
async fn who_may_do_what() {
    let world = World::new();
    let order = json!({"start": "earliest", "max_deliver": 1, "filter": {"event_type": "order_executed"}});
    put(&world, "orders", order).await;
    put(&world, "all", json!({"start": "earliest"})).await;
    publish(&world, &json!({"event_type": "order_executed"})).await;
    let lease = json!({"consumer": "a"}).to_string();
    for grants in ["events:read", "read", "write events:publish"] {
        let user = world.user("alice", grants);
        for (method, path) in [
            ("PUT", "/groups/x"),
            ("DELETE", "/groups/all"),
            ("POST", "/groups/all/dlq/redrive"),
            ("DELETE", "/groups/all/dlq"),
        ] {
            assert_eq!(
                user.send(method, path, JSON, b"{}").await.code(403),
                "insufficient_scope",
                "{grants} {path}"
            );
        }
    }
    let narrow = world.user("alice", "events:read:order_*");
    assert_eq!(narrow.post("/groups/all/lease", &lease).await.code(403), "insufficient_scope");
    assert_eq!(
        narrow.post("/groups/all/ack", r#"{"consumer":"a","ids":[]}"#).await.code(403),
        "insufficient_scope"
    );
    assert_eq!(narrow.get("/groups/all").await.code(404), "not_found");
    assert_eq!(narrow.get("/groups").await.ok()["count"], 1);
    assert_eq!(narrow.get("/events/stats").await.ok()["consumer_groups"], 1);
    let found = narrow.post("/groups/orders/lease", &lease).await.ok();
    let body = json!({"consumer": "a", "ids": ids(&found)}).to_string();
    assert_eq!(narrow.post("/groups/orders/nack", &body).await.ok()["dead"], 1);
    until(&world, "orders", "it is dead", |report| report["dlq_depth"] == 1).await;
    assert_eq!(narrow.get("/groups/orders/dlq").await.ok()["count"], 1);
    assert_eq!(world.user("bob", "events:read:risk_*").get("/groups/orders/dlq").await.ok()["count"], 0);
    assert_eq!(world.user("bob", "write").get("/groups").await.code(403), "insufficient_scope");
    // Tokens of the shared secret have no business here.
    let legacy = world.user("bob", "read write admin");
    for (method, path) in [("GET", "/groups"), ("PUT", "/groups/x"), ("POST", "/groups/all/lease")] {
        let headers = format!("{JSON}x-auth-method: legacy_token\r\n");
        let answer = legacy.send(method, path, &headers, lease.as_bytes()).await;
        assert!(
            answer.status == 403 || (method == "PUT" && answer.status == 400),
            "{method} {path} {answer:?}"
        );
    }
    // After a change of the filter, what was taken up before goes only to those who may read it.
    put(&world, "orders", json!({"filter": {"event_type": "order_executed"}})).await;
    put(
        &world,
        "mixed",
        json!({"start": "earliest", "filter": {"event_type": ["order_executed", "risk_alert"]}}),
    )
    .await;
    publish(&world, &json!({"event_type": "risk_alert"})).await;
    let held = super::lease(&world, "mixed", "a", 10, 1_000).await;
    let mut all = ids(&held);
    all.extend(ids(&super::lease(&world, "mixed", "a", 10, 0).await));
    let body = json!({"consumer": "a", "ids": all, "delay_ms": 0});
    assert_eq!(call(&world, "POST", "/groups/mixed/nack", &body).await.ok()["nacked"], 2);
    put(&world, "mixed", json!({"filter": {"event_type": ["order_executed"]}})).await;
    let found = narrow.post("/groups/mixed/lease", r#"{"consumer":"n","wait_ms":5000}"#).await.ok();
    assert_eq!(found["messages"][0]["event"]["event_type"], "order_executed", "{found}");
    assert_eq!(found["messages"].as_array().unwrap().len(), 1);
}
