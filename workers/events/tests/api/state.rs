//! The state of symbols, now and as of a time.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::world::{DEADLINE, Setup, World};

/// Prices of two symbols, a second apart; the third one of BTC came late.
async fn filled() -> World {
    let world = World::with(|setup| setup.dev = true);
    let price = |symbol: &str, at_ms: u64, price: f64| json!({"event_type": "market_data_update", "timestamp": at_ms, "data": {"symbol": symbol, "price": price}});
    let events = [
        price("BTC/USDT", 1_000, 1.0),
        price("ETH/USDT", 2_000, 10.0),
        price("BTC/USDT", 3_000, 2.0),
        price("BTC/USDT", 2_500, 1.5),
        json!({"event_type": "trading_signal", "timestamp": 2_900, "data": {"symbol": "BTC/USDT"}}),
    ];
    world.admin().post("/events/batch", &json!({ "events": events }).to_string()).await.ok();
    world
}

fn prices(page: &Value) -> Vec<Value> {
    let states = page["states"].as_array().unwrap();
    states.iter().map(|one| json!([one["symbol"], one["seq"], one["market_data"]["price"]])).collect()
}

#[tokio::test]
async fn a_state_is_told_as_of_a_time() {
    let world = filled().await;
    let admin = world.admin();
    for (at, seq) in [("1000", 1), ("1970-01-01T00:00:02.4Z", 1), ("2500", 4), ("2999", 4), ("9000", 4)] {
        let state = admin.get(&format!("/state/BTC/USDT?at={at}")).await.ok();
        assert_eq!((&state["seq"], &state["valid_at_seq"]), (&json!(seq), &json!(5)), "{at}");
        assert_eq!(admin.get(&format!("/state?symbol=BTC/USDT&at={at}")).await.ok(), state);
    }
    // The same as without a time, once the time is past everything.
    assert_eq!(admin.get("/state/BTC/USDT").await.ok()["seq"], 4);
    assert_eq!(admin.get("/state/BTC/USDT?at=999").await.code(404), "not_found");
    for bad in ["/state/BTC?at=noon", "/state/BTC?symbol=BTC", "/state?symbol=BTC&limit=1", "/state?limit=0"]
    {
        assert_eq!(admin.get(bad).await.code(400), "bad_query", "{bad}");
    }
}

#[tokio::test]
async fn all_symbols_come_in_pages_also_after_a_restart() {
    let world = filled().await;
    let whole = world.admin().get("/state").await.ok();
    assert_eq!(prices(&whole), [json!(["BTC/USDT", 4, 1.5]), json!(["ETH/USDT", 2, 10.0])]);
    assert_eq!(
        (&whole["count"], &whole["next_cursor"], &whole["valid_at_seq"]),
        (&json!(2), &Value::Null, &json!(5))
    );
    let past = world.admin().get("/state?at=1500").await.ok();
    assert_eq!((prices(&past), &past["complete"]), (vec![json!(["BTC/USDT", 1, 1.0])], &json!(true)));
    let world = World::start(Setup::default(), world.stop().await);
    let begun = Instant::now();
    while world.admin().get("/state").await.ok()["complete"] != true {
        assert!(begun.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let first = world.admin().get("/state?limit=1").await.ok();
    assert_eq!((prices(&first).len(), &first["next_cursor"]), (1, &json!("BTC/USDT")));
    let second = world.admin().get("/state?limit=1&cursor=BTC/USDT").await.ok();
    assert_eq!((prices(&second), &second["next_cursor"]), (vec![json!(["ETH/USDT", 2, 10.0])], &Value::Null));
    let narrow = world.user("alice", "events:read:trading_*");
    assert_eq!(narrow.get("/state").await.code(403), "insufficient_scope");
}
