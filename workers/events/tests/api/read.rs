//! Pages, lookups, stats, types, state.

use serde_json::{Value, json};

use crate::world::{Setup, World, durability, on_redis};

/// Twelve events: types and symbols alternate, one second apart from 1970-01-01T00:00:10 on.
async fn filled() -> World {
    let world = World::with(|setup| setup.dev = true);
    let events: Vec<Value> = (0..12)
        .map(|n| {
            let event_type = ["market_data_update", "trading_signal", "risk_alert"][n % 3];
            let (source, symbol) = (["feed", "ml"][n % 2], ["BTC/USDT", "ETH/USDT"][n / 6]);
            json!({
                "event_type": event_type,
                "timestamp": 10_000 + n * 1_000,
                "source": source,
                "data": {"symbol": symbol, "n": n},
            })
        })
        .collect();
    let batch = json!({ "events": events });
    assert_eq!(world.admin().post("/events/batch", &batch.to_string()).await.ok()["published"], 12);
    world
}

async fn numbers(world: &World, query: &str) -> Vec<u64> {
    let page = world.admin().get(&format!("/events?{query}")).await.ok();
    let events = page["events"].as_array().unwrap();
    assert_eq!(page["count"], events.len());
    events.iter().map(|event| event["data"]["n"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn filters_come_before_the_limit() {
    let world = filled().await;
    assert_eq!(numbers(&world, "").await, (0..12).collect::<Vec<_>>());
    assert_eq!(numbers(&world, "event_type=risk_alert&limit=2").await, [2, 5]);
    assert_eq!(numbers(&world, "event_type=RISK_ALERT&event_type=trading_signal&limit=3").await, [1, 2, 4]);
    assert_eq!(numbers(&world, "symbol=ETH/USDT&source=ml").await, [7, 9, 11]);
    assert_eq!(numbers(&world, "symbol=ETH%2FUSDT&event_type=market_data_update").await, [6, 9]);
    assert_eq!(numbers(&world, "start_time=1970-01-01T00:00:13Z&end_time=15000").await, [3, 4, 5]);
    assert_eq!(numbers(&world, "start_time=1970-01-01T00:00:21").await, [11]);
    assert_eq!(numbers(&world, "order=desc&limit=3").await, [11, 10, 9]);
    assert_eq!(numbers(&world, "order=desc&event_type=trading_signal").await, [10, 7, 4, 1]);
    assert_eq!(numbers(&world, "event_type=never_seen").await, [] as [u64; 0]);
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_overlap() {
    let world = filled().await;
    for (query, all) in [
        ("limit=5", (0..12).collect::<Vec<_>>()),
        ("limit=4", (0..12).collect()),
        ("order=desc&limit=5", (0..12).rev().collect()),
        ("order=desc&limit=1&event_type=risk_alert", vec![11, 8, 5, 2]),
        ("limit=2&symbol=ETH/USDT", (6..12).collect()),
    ] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = world.admin().get(&format!("/events?{query}{cursor}")).await.ok();
            found.extend(
                page["events"].as_array().unwrap().iter().map(|event| event["data"]["n"].as_u64().unwrap()),
            );
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(found, all, "{query}");
    }
}

#[tokio::test]
async fn ids_bound_a_page() {
    let world = filled().await;
    let all = world.admin().get("/events").await.ok();
    let id = |n: usize| all["events"][n]["message_id"].as_str().unwrap().to_owned();
    assert_eq!(numbers(&world, &format!("after={}", id(8))).await, [9, 10, 11]);
    assert_eq!(numbers(&world, &format!("before={}", id(2))).await, [0, 1]);
    assert_eq!(numbers(&world, &format!("after={}&before={}&order=desc", id(2), id(6))).await, [5, 4, 3]);
    assert_eq!(numbers(&world, "after=0-0&limit=1").await, [0]);
    assert_eq!(numbers(&world, "before=99999999999999-0&limit=1&order=desc").await, [11]);
}

#[tokio::test]
async fn lines_are_given_to_who_asks() {
    let world = filled().await;
    let answer = world.admin().send("GET", "/events?limit=3", "accept: application/x-ndjson\r\n", b"").await;
    assert!(answer.head.contains("application/x-ndjson"), "{}", answer.head);
    assert!(answer.head.contains("x-next-cursor: a4"), "{}", answer.head);
    let lines: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn bad_queries_are_refused_by_name() {
    let world = World::new();
    for query in [
        "limit=0",
        "limit=10001",
        "limit=x",
        "order=up",
        "after=7",
        "cursor=d7",
        "cursor=a",
        "order=desc&cursor=a7",
        "start_time=noon",
        "event_type=a%20b",
        "symbol=a&symbol=b",
        "colour=red",
    ] {
        let answer = world.admin().get(&format!("/events?{query}")).await;
        assert_eq!(answer.code(400), "bad_query", "{query}");
    }
}

#[tokio::test]
async fn stats_and_types_tell_what_there_is() {
    let world = filled().await;
    let stats = world.admin().get("/events/stats").await.ok();
    assert_eq!((&stats["stream_length"], &stats["consumer_groups"]), (&json!(12), &json!(0)));
    assert_eq!(stats["types"], json!({"market_data_update": 4, "trading_signal": 4, "risk_alert": 4}));
    assert_eq!(
        (&stats["groups"], &stats["store"]),
        (&json!([]), &json!(if on_redis() { "redis" } else { "embedded" }))
    );
    assert_eq!(stats["stream"], "tradpal_events");
    assert!(stats["first_entry"].as_str().unwrap().contains('-'));
    assert!(stats["bytes"].as_u64().unwrap() > 1_000);
    assert!(stats["oldest_age_seconds"].as_f64().unwrap() < 60.0);
    let types = world.admin().get("/events/types").await.ok();
    let types = types["event_types"].as_array().unwrap();
    assert!(types.len() >= 40 && types.contains(&json!("backtest_completed")));
    let empty = World::new();
    let stats = empty.admin().get("/events/stats").await.ok();
    assert_eq!((&stats["first_entry"], &stats["last_entry"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn state_is_the_latest_market_data_also_after_a_restart() {
    let world = filled().await;
    let check = async |world: &World| {
        let admin = world.admin();
        let state = admin.get("/state?symbol=ETH/USDT").await.ok();
        assert_eq!(
            (&state["market_data"]["n"], &state["seq"], &state["valid_at_seq"]),
            (&json!(9), &json!(10), &json!(12))
        );
        assert_eq!(state["timestamp"], "1970-01-01T00:00:19Z");
        assert_eq!(admin.get("/state/BTC/USDT").await.ok()["market_data"]["n"], 3);
        assert_eq!(admin.get("/state/DOGE/USDT").await.code(404), "not_found");
        assert_eq!(admin.get("/state").await.ok()["count"], 2);
        assert_eq!(admin.get("/state/a/b/c").await.code(400), "bad_query");
        assert_eq!(admin.get("/state/BTC/USDT?at=1000").await.code(404), "not_found");
    };
    check(&world).await;
    let dir = world.stop().await;
    check(&World::start(Setup::default(), dir)).await;
}

#[tokio::test]
async fn every_metric_is_there() {
    let world = filled().await;
    let metrics = world.admin().get("/metrics").await.body;
    for name in [
        "event_service_events_published_total{event_type=\"risk_alert\"} 4",
        "event_service_events_consumed_total{event_type=\"other\"} 0",
        "event_service_active_subscribers 0",
        "event_service_stream_length",
        &format!("sluice_events_publish_seconds_count{{durability=\"{}\"}} 1", durability()),
        "sluice_events_publish_seconds_count{durability=\"memory\"} 0",
        "sluice_events_batch_size_sum 12",
        if on_redis() {
            "sluice_events_fsync_seconds_count 0"
        } else {
            "sluice_events_fsync_seconds_count 1"
        },
        "sluice_events_dedup_hits_total 0",
        "sluice_events_ring_overruns_total 0",
        "sluice_events_gaps_total 0",
        "sluice_events_conflated_total 0",
        "sluice_events_store_bytes",
        "sluice_events_oldest_age_seconds",
    ] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
}

#[tokio::test]
async fn health_tells_of_store_and_fanout() {
    let world = World::new();
    let health = world.admin().get("/health").await.ok();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["components"]["store"]["status"], "healthy");
    assert_eq!(health["components"]["fanout"]["status"], "healthy");
    assert_eq!(world.admin().get("/readyz").await.status, 200);
}
