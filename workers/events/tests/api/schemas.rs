//! Schemas of event types.

use serde_json::{Value, json};

use crate::world::{Answer, Setup, User, World};

async fn put(user: &User<'_>, path: &str, body: &Value) -> Answer {
    user.send("PUT", path, "content-type: application/json\r\n", body.to_string().as_bytes()).await
}

fn order() -> Value {
    json!({
        "type": "object",
        "required": ["symbol", "qty"],
        "properties": {"symbol": {"pattern": "^[A-Z]+/[A-Z]+$"}, "qty": {"exclusiveMinimum": 0}},
    })
}

fn event(qty: i32) -> String {
    json!({"event_type": "order_submitted", "data": {"symbol": "BTC/USDT", "qty": qty}}).to_string()
}

#[tokio::test]
async fn an_event_follows_its_schema_or_is_refused() {
    let world = World::new();
    let admin = world.admin();
    let told = put(&admin, "/schemas/ORDER_SUBMITTED", &json!({ "schema": order() })).await.ok();
    assert_eq!(
        (&told["event_type"], &told["version"], &told["mode"]),
        (&json!("order_submitted"), &json!(1), &json!("enforce"))
    );
    admin.post("/events", &event(1)).await.ok();
    let refused = admin.post("/events", &event(-1)).await;
    assert_eq!(refused.code(422), "schema_violation");
    assert_eq!(
        (&refused.json()["pointer"], &refused.json()["outcome"]),
        (&json!("/data/qty"), &json!("not_sent"))
    );
    // Another type is not asked.
    admin.post("/events", r#"{"event_type":"order_rejected","data":{"qty":-1}}"#).await.ok();
    let parse = |text: String| serde_json::from_str::<Value>(&text).unwrap();
    let batch = json!({"events": [parse(event(1)), parse(event(-2)), parse(event(3))]});
    let answer = admin.post("/events/batch", &batch.to_string()).await.ok();
    assert_eq!((&answer["published"], &answer["failed"]), (&json!(2), &json!(1)));
    let failed = &answer["results"][1];
    assert_eq!(
        (&failed["index"], &failed["code"], &failed["pointer"]),
        (&json!(1), &json!("schema_violation"), &json!("/data/qty"))
    );
    let atomic = json!({"events": batch["events"], "atomic": true});
    let refused = admin.post("/events/batch", &atomic.to_string()).await;
    assert_eq!((refused.code(422).as_str(), &refused.json()["index"]), ("schema_violation", &json!(1)));
    assert_eq!(admin.get("/schemas/order_submitted").await.ok()["violations"], 3);
    let metrics = admin.get("/metrics").await.body;
    assert!(metrics.contains("sluice_events_schema_violations_total{mode=\"enforce\"} 3"), "{metrics}");
}

#[tokio::test]
async fn a_schema_warns_or_is_off_and_is_there_after_a_restart() {
    let world = World::new();
    let path = "/schemas/order_submitted";
    put(&world.admin(), path, &json!({"schema": order(), "mode": "warn"})).await.ok();
    world.admin().post("/events", &event(-1)).await.ok();
    let told = world.admin().get(path).await.ok();
    assert_eq!((&told["violations"], &told["last_violation"]["pointer"]), (&json!(1), &json!("/data/qty")));
    put(&world.admin(), path, &json!({"mode": "enforce"})).await.ok();
    let world = World::start(Setup::default(), world.stop().await);
    assert_eq!(world.admin().post("/events", &event(-1)).await.code(422), "schema_violation");
    put(&world.admin(), path, &json!({"mode": "off"})).await.ok();
    world.admin().post("/events", &event(-1)).await.ok();
    assert_eq!(world.admin().send("DELETE", path, "", b"").await.status, 204);
    let world = World::start(Setup::default(), world.stop().await);
    assert_eq!(world.admin().get(path).await.code(404), "not_found");
}

#[tokio::test]
async fn versions_are_kept() {
    let world = World::new();
    let admin = world.admin();
    let path = "/schemas/order_submitted";
    for least in [0, 0, 1] {
        put(&admin, path, &json!({"schema": {"properties": {"qty": {"minimum": least}}}})).await.ok();
    }
    // The same schema again is no new version.
    let told = admin.get(path).await.ok();
    assert_eq!((&told["version"], told["versions"].as_array().unwrap().len()), (&json!(2), 2));
    assert_eq!(told["versions"][0]["by"], "root");
    let first = admin.get(&format!("{path}?version=1")).await.ok();
    assert_eq!(first["schema"]["properties"]["qty"]["minimum"], 0);
    assert_eq!(admin.get(&format!("{path}?version=3")).await.code(404), "not_found");
    let list = admin.get("/schemas").await.ok();
    assert_eq!((&list["count"], &list["schemas"][0]["event_type"]), (&json!(1), &json!("order_submitted")));
}

#[tokio::test]
async fn who_may_set_what() {
    let world = World::new();
    let (admin, reader) = (world.admin(), world.user("alice", "events:read:order_* events:publish"));
    let schema = json!({ "schema": order() });
    assert_eq!(put(&reader, "/schemas/order_submitted", &schema).await.code(403), "insufficient_scope");
    put(&world.user("op", "events:admin"), "/schemas/order_submitted", &schema).await.ok();
    put(&admin, "/schemas/risk_alert", &schema).await.ok();
    assert_eq!(reader.get("/schemas").await.ok()["count"], 1);
    assert_eq!(reader.get("/schemas/risk_alert").await.code(404), "not_found");
    assert_eq!(put(&admin, "/schemas/kill_switch", &schema).await.code(403), "reserved_type");
    for (body, status, code, pointer) in [
        (json!({"schema": {"type": "float"}}), 422, "unprocessable", json!("/schema/type")),
        (json!({"schema": {"$ref": "https://example.com/x"}}), 422, "unprocessable", json!("/schema/$ref")),
        (
            json!({"schema": {"properties": {"a": {"pattern": "("}}}}),
            422,
            "unprocessable",
            json!("/schema/properties/a/pattern"),
        ),
        (json!({"schema": {}, "mode": "loud"}), 400, "bad_request", Value::Null),
        (json!({"shcema": {}}), 400, "bad_request", Value::Null),
        (json!({"mode": "off"}), 404, "not_found", Value::Null),
    ] {
        let refused = put(&admin, "/schemas/order_rejected", &body).await;
        assert_eq!((refused.code(status).as_str(), &refused.json()["pointer"]), (code, &pointer), "{body}");
    }
    let deep = format!(r#"{{"schema":{}{{}}{}}}"#, r#"{"not":"#.repeat(64), "}".repeat(64));
    let json = "content-type: application/json\r\n";
    assert_eq!(admin.send("PUT", "/schemas/x", json, deep.as_bytes()).await.code(400), "invalid_json");
    let large = format!(r#"{{"schema":{{"description":"{}"}}}}"#, "x".repeat(64 * 1024));
    assert_eq!(admin.send("PUT", "/schemas/x", json, large.as_bytes()).await.code(413), "body_too_large");
    assert_eq!(put(&admin, "/schemas/a%20b", &schema).await.code(400), "bad_request");
}
