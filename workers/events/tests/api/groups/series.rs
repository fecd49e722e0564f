//! The groups that feed stored series, and the calls by which it is used.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use sluice_client::Client;
use sluice_wire::event::{SERIES_GROUP, series_group};
use sluice_wire::role::Role;

use crate::world::{DEADLINE, Setup, World};

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

/// As a calculation worker makes it.
fn set_up() -> Value {
    json!({"start": "earliest", "ack_wait": "5s", "max_deliver": 1_000, "backoff": ["1s"], "order_key": "symbol",
        "filter": {"event_type": "candle_closed"}})
}

#[tokio::test]
async fn series_are_fed_candle_by_candle_from_the_oldest_on() {
    let world = World::new();
    candles(&world.role(Role::Events), 0..2).await;
    let (calc, wait) = (world.role(Role::Calc), Duration::from_secs(20));
    let group = series_group("00ff");
    calc.make_group(&group, &set_up()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let lease = calc.lease(&group, "calc", 1_000, wait).await.unwrap();
        assert!(lease.lease_until.is_some() && lease.gap.is_none(), "{lease:?}");
        let ids: Vec<String> = lease.messages.iter().map(|message| message.message_id.clone()).collect();
        for message in &lease.messages {
            let data = &message.event.event.data;
            seen.push((data["symbol"].as_str().unwrap().to_owned(), data["timestamp"].as_i64().unwrap()));
        }
        let extended = calc.extend(&group, "calc", &ids).await.unwrap();
        assert_eq!((extended.known, extended.unknown.len()), (ids.len() as u64, 0));
        let again = calc.nack(&group, "calc", &ids[..1], Duration::ZERO).await.unwrap();
        assert_eq!(again.known, 1);
        let lease = calc.lease(&group, "calc", 1, wait).await.unwrap();
        assert_eq!((&lease.messages[0].message_id, lease.messages[0].delivery), (&ids[0], 2));
        assert_eq!(calc.ack(&group, "calc", &ids).await.unwrap().known, ids.len() as u64);
        let late = calc.ack(&group, "calc", &ids).await.unwrap();
        assert_eq!((late.known, late.unknown), (0, ids));
    }
    for symbol in ["A", "B"] {
        let times = seen.iter().filter(|(of, _)| of == symbol).map(|(_, time)| *time);
        assert_eq!(times.collect::<Vec<_>>(), [0, 60_000]);
    }
    let nothing = calc.lease(&group, "calc", 10, Duration::ZERO).await.unwrap();
    assert!(nothing.messages.is_empty() && nothing.lease_until.is_none());
    let progress = calc.progress(&group).await.unwrap();
    assert_eq!((progress.lag, progress.lag_seconds, progress.pending), (0, 0.0, 0));
}

#[tokio::test]
async fn two_stores_are_both_fed_every_candle() {
    let world = World::new();
    candles(&world.role(Role::Events), 0..3).await;
    let calc = world.role(Role::Calc);
    for store in ["00ff", "11ee"] {
        let group = series_group(store);
        calc.make_group(&group, &set_up()).await.unwrap();
        let mut times = Vec::new();
        while times.len() < 6 {
            let lease = calc.lease(&group, store, 10, Duration::from_secs(20)).await.unwrap();
            let ids: Vec<String> = lease.messages.iter().map(|one| one.message_id.clone()).collect();
            times
                .extend(lease.messages.iter().map(|one| one.event.event.data["timestamp"].as_i64().unwrap()));
            calc.ack(&group, store, &ids).await.unwrap();
        }
        assert_eq!(times, [0, 0, 60_000, 60_000, 120_000, 120_000], "{store}");
    }
}

/// What a worker held and gave back is another one's at once.
#[tokio::test]
async fn what_is_given_back_waits_for_nobodys_lease_to_end() {
    let world = World::new();
    candles(&world.role(Role::Events), 0..1).await;
    let (calc, group) = (world.role(Role::Calc), series_group("00ff"));
    calc.make_group(&group, &json!({"start": "earliest", "ack_wait": "1h", "backoff": ["1h"]}))
        .await
        .unwrap();
    let held = calc.lease(&group, "first", 10, Duration::from_secs(20)).await.unwrap().messages;
    let ids: Vec<String> = held.iter().map(|one| one.message_id.clone()).collect();
    assert_eq!(calc.nack(&group, "first", &ids, Duration::ZERO).await.unwrap().known, 2);
    let given = calc.lease(&group, "second", 10, Duration::from_secs(20)).await.unwrap().messages;
    assert_eq!(
        given.iter().map(|one| (&one.message_id, one.delivery)).collect::<Vec<_>>(),
        [(&ids[0], 2), (&ids[1], 2)]
    );
}

#[tokio::test]
async fn the_group_that_all_stores_shared_is_removed() {
    let world = World::new();
    let settings = set_up().to_string();
    world
        .admin()
        .send(
            "PUT",
            &format!("/groups/{SERIES_GROUP}"),
            "content-type: application/json\r\n",
            settings.as_bytes(),
        )
        .await
        .ok();
    let dir = world.stop().await;
    let world = World::start(Setup { calc: true, ..Setup::default() }, dir);
    let begun = Instant::now();
    while world.admin().get(&format!("/groups/{SERIES_GROUP}")).await.status != 404 {
        assert!(begun.elapsed() < DEADLINE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn who_is_granted_a_name_makes_groups_of_that_name_alone() {
    let world = World::new();
    let user = world.user("calc-far", "events:read:candle_closed events:group:calc-series-*");
    let body = set_up().to_string();
    let put = async |group: &str| {
        user.send("PUT", &format!("/groups/{group}"), "content-type: application/json\r\n", body.as_bytes())
            .await
    };
    assert_eq!(put("calc-series-00ff").await.ok()["filter"], json!({"event_type": ["candle_closed"]}));
    assert_eq!(put("desk").await.code(403), "insufficient_scope");
    let asked = json!({"consumer": "a", "max": 1}).to_string();
    world.role(Role::Calc).make_group("calc-series-11ee", &set_up()).await.unwrap();
    assert!(world.role(Role::Calc).make_group("desk", &set_up()).await.is_err());
    user.post("/groups/calc-series-00ff/lease", &asked).await.ok();
}
