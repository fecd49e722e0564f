//! Candles: made of trades, once each, also over a restart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_wire::role::Role;
use sluice_wire::symbol::Timeframe;

use crate::world::{DEADLINE, Place, Setup, World};

/// Midnight of a day long ago.
const DAY_MS: i64 = 1_767_225_600_000;
const SYMBOLS: [&str; 3] = ["BTC/USDT", "ETH/USDT", "AAPL"];

/// Minutes and five minutes, and a grace that a test can wait for, which a restart stays below.
fn short(setup: &mut Setup) {
    let timeframes = ["1m", "5m"].map(|text| Timeframe::parse(text).unwrap());
    setup.config.events.candles.timeframes = timeframes.to_vec();
    setup.config.events.candles.lateness = Duration::from_secs(3);
}

/// A trade every 7 seconds, its symbols in turn.
fn trade(n: i64) -> Value {
    json!({"event_type": "market_data_update", "data": {
        "symbol": SYMBOLS[n as usize % 3], "price": 100 + (n * 37) % 11, "volume": "0.5",
        "timestamp": DAY_MS + n * 7_000, "trade_id": n,
    }})
}

async fn publish(world: &World, numbers: std::ops::Range<i64>) {
    let events: Vec<Value> = numbers.map(trade).collect();
    let body = json!({ "events": events });
    let answer: Value =
        world.role(Role::Demo).json(http::Method::POST, "/events/batch", &body).await.unwrap();
    assert_eq!(answer["failed"], 0);
}

type Key = (String, String, i64);

/// High, low, close, volume, trades of each candle.
fn expected(upto: i64) -> BTreeMap<Key, [f64; 5]> {
    let mut all = BTreeMap::new();
    for n in 0..upto {
        let data = &trade(n)["data"];
        let price = data["price"].as_f64().unwrap();
        for (frame, ms) in [("1m", 60_000), ("5m", 300_000)] {
            let start = data["timestamp"].as_i64().unwrap() / ms * ms;
            let key = (data["symbol"].as_str().unwrap().to_owned(), frame.to_owned(), start);
            let candle: &mut [f64; 5] = all.entry(key).or_insert([f64::MIN, f64::MAX, 0.0, 0.0, 0.0]);
            let [high, low, _, volume, trades] = *candle;
            *candle = [high.max(price), low.min(price), price, volume + 0.5, trades + 1.0];
        }
    }
    all
}

/// Every candle that is stored, as soon as there are so many.
async fn candles(world: &World, count: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let page = world.admin().get("/events?event_type=candle_closed&limit=10000").await.ok();
        let events = page["events"].as_array().unwrap().clone();
        if events.len() >= count {
            return events;
        }
        assert!(begun.elapsed() < DEADLINE, "{} of {count} candles", events.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn check(candles: &[Value], expected: &BTreeMap<Key, [f64; 5]>) {
    let mut found = BTreeMap::new();
    for event in candles {
        let data = &event["data"];
        let start = data["timestamp"].as_i64().unwrap();
        let key = (
            data["symbol"].as_str().unwrap().to_owned(),
            data["timeframe"].as_str().unwrap().to_owned(),
            start,
        );
        let of = |name: &str| data[name].as_f64().unwrap();
        let before = found.insert(key, ["high", "low", "close", "volume", "trades"].map(of));
        assert_eq!(before, None, "twice: {event}");
        assert_eq!((&event["source"], &event["metadata"]["role"]), (&json!("events"), &json!("events")));
    }
    assert_eq!(&found, expected);
}

#[tokio::test]
async fn trades_become_candles_of_every_length() {
    let world = World::with(short);
    publish(&world, 0..200).await;
    // Repeated, late by hours, no trade at all: none changes a candle.
    publish(&world, 190..195).await;
    let others = json!({"events": [
        {"event_type": "market_data_update", "data": {"symbol": "AAPL", "open": 1, "close": 2, "price": 3}},
        {"event_type": "market_data_update", "data": {"symbol": "AAPL", "price": "much"}},
        {"event_type": "trading_signal", "data": {"symbol": "AAPL", "price": 3}},
    ]});
    let _: Value = world.role(Role::Demo).json(http::Method::POST, "/events/batch", &others).await.unwrap();
    let expected = expected(200);
    check(&candles(&world, expected.len()).await, &expected);
    let metrics = world.admin().get("/metrics").await.body;
    for line in [r#"{result="counted"} 200"#, r#"{result="repeated"} 5"#, r#"{result="no_trade"} 2"#] {
        assert!(metrics.contains(&format!("sluice_events_candle_trades_total{line}")), "{metrics}");
    }
    assert!(
        metrics.contains(&format!(r#"published_total{{event_type="candle_closed"}} {}"#, expected.len()))
    );
}

#[tokio::test]
async fn a_restart_leaves_no_candle_out_and_makes_none_twice() {
    let mut dir = Arc::new(Place::new());
    let mut done = 0;
    for upto in [90, 97, 200, 400] {
        let mut setup = Setup::default();
        short(&mut setup);
        let world = World::start(setup, dir);
        publish(&world, done..upto).await;
        done = upto;
        if upto == 400 {
            let expected = expected(400);
            check(&candles(&world, expected.len()).await, &expected);
            return;
        }
        // Ended wherever it is: what is open is in nobody's memory but the log's.
        if upto == 97 {
            candles(&world, 1).await;
        }
        dir = world.stop().await;
    }
}

/// The dedup window is over for all candles: they are known by what is stored alone.
#[tokio::test]
async fn a_trade_that_comes_late_after_a_restart_makes_no_second_candle() {
    let setup = || {
        let mut setup = Setup::default();
        short(&mut setup);
        setup.config.events.dedup_window = Duration::ZERO;
        setup
    };
    let world = World::start(setup(), Arc::new(Place::new()));
    publish(&world, 0..90).await;
    let before = expected(90);
    check(&candles(&world, before.len()).await, &before);
    let world = World::start(setup(), world.stop().await);
    // Of each symbol a trade in a span that was closed before the restart, then later ones, which close it again.
    let late: Vec<Value> = (0..3)
        .map(|n| {
            let mut late = trade(n + 9);
            late["data"]["trade_id"] = json!(1_000 + n);
            late
        })
        .collect();
    let body = json!({ "events": late });
    let _: Value = world.role(Role::Demo).json(http::Method::POST, "/events/batch", &body).await.unwrap();
    // They begin with a span of both lengths.
    let (begin, end) = (300, 360);
    let later: Vec<Value> = (begin..end).map(trade).collect();
    let body = json!({ "events": later });
    let _: Value = world.role(Role::Demo).json(http::Method::POST, "/events/batch", &body).await.unwrap();
    let mut all = expected(end);
    all.retain(|key, _| key.2 >= DAY_MS + begin * 7_000);
    all.extend(before);
    check(&candles(&world, all.len()).await, &all);
}
