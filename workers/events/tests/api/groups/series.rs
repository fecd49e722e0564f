//! The group that feeds stored series, and the calls by which it is used.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use sluice_client::Client;
use sluice_wire::event::SERIES_GROUP;
use sluice_wire::role::Role;

use crate::world::{DEADLINE, World};

/// A candle of each minute and symbol.
async fn candles(events: &Client, minutes: std::ops::Range<i64>) {
    let of = |minute: i64, symbol: &str| {
        json!({"event_type": "candle_closed", "source": "events", "data": {"symbol": symbol, "timeframe": "1m",
            "timestamp": minute * 60_000, "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 3.0}})
    };
    let all: Vec<Value> = minutes.flat_map(|minute| ["A", "B"].map(|symbol| of(minute, symbol))).collect();
    let answer: Value = events.json(Method::POST, "/events/batch", &json!({ "events": all })).await.unwrap();
    assert_eq!(answer["failed"], 0, "{answer}");
}

/// The group, as soon as the worker has made it.
async fn made(world: &World) -> Value {
    let begun = Instant::now();
    loop {
        let answer = world.admin().get(&format!("/groups/{SERIES_GROUP}")).await;
        if answer.status == 200 {
            return answer.json();
        }
        assert!(answer.status == 404 && begun.elapsed() < DEADLINE, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn series_are_fed_candle_by_candle_from_the_oldest_on() {
    let world = World::with(|setup| setup.calc = true);
    candles(&world.role(Role::Events), 0..2).await;
    assert_eq!(made(&world).await["order_key"], "symbol");
    let (calc, wait) = (world.role(Role::Calc), Duration::from_secs(20));
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let lease = calc.lease(SERIES_GROUP, "calc", 1_000, wait).await.unwrap();
        assert!(lease.lease_until.is_some() && lease.gap.is_none(), "{lease:?}");
        let ids: Vec<String> = lease.messages.iter().map(|message| message.message_id.clone()).collect();
        for message in &lease.messages {
            let data = &message.event.event.data;
            seen.push((data["symbol"].as_str().unwrap().to_owned(), data["timestamp"].as_i64().unwrap()));
        }
        let extended = calc.extend(SERIES_GROUP, "calc", &ids).await.unwrap();
        assert_eq!((extended.known, extended.unknown.len()), (ids.len() as u64, 0));
        let again = calc.nack(SERIES_GROUP, "calc", &ids[..1], Duration::ZERO).await.unwrap();
        assert_eq!(again.known, 1);
        let lease = calc.lease(SERIES_GROUP, "calc", 1, wait).await.unwrap();
        assert_eq!((&lease.messages[0].message_id, lease.messages[0].delivery), (&ids[0], 2));
        assert_eq!(calc.ack(SERIES_GROUP, "calc", &ids).await.unwrap().known, ids.len() as u64);
        let late = calc.ack(SERIES_GROUP, "calc", &ids).await.unwrap();
        assert_eq!((late.known, late.unknown), (0, ids));
    }
    for symbol in ["A", "B"] {
        let times = seen.iter().filter(|(of, _)| of == symbol).map(|(_, time)| *time);
        assert_eq!(times.collect::<Vec<_>>(), [0, 60_000]);
    }
    let nothing = calc.lease(SERIES_GROUP, "calc", 10, Duration::ZERO).await.unwrap();
    assert!(nothing.messages.is_empty() && nothing.lease_until.is_none());
}

#[tokio::test]
async fn without_a_calculation_worker_there_is_no_such_group() {
    let world = World::new();
    let answer = world.admin().get(&format!("/groups/{SERIES_GROUP}")).await;
    assert_eq!(answer.code(404), "not_found");
}
