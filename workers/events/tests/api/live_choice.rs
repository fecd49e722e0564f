//! What subscribers choose: the newest alone, a pace, a snapshot first, what happens to the slow.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::live::{event, number, publish_batch};
use crate::world::{Events, World, publish};

/// The next block that is an event of the stream.
async fn next(stream: &mut Events) -> (String, Value) {
    let block = stream.next().await.expect("a block");
    (block.event.clone(), block.json())
}

#[tokio::test]
async fn conflated_the_newest_of_each_symbol_stands_for_the_others() {
    let world = World::new();
    publish_batch(&world, 0..400, 0).await;
    publish(&world, &json!({"event_type": "risk_alert", "data": {"n": 1}})).await;
    publish(&world, &json!({"event_type": "risk_alert", "data": {"n": 2}})).await;
    let admin = world.admin();
    // Waits until all of it has reached the ring.
    admin.get("/state/BTC/USDT").await.ok();
    let mut stream = admin.stream("GET", "/events/stream?from=earliest&mode=conflate&max_rate=5", "").await;
    // Each symbol's last one, then every event without a symbol, in the order of the stream.
    for (n, stands_for) in [(398, 199), (399, 199), (1, 0), (2, 0)] {
        let (_, event) = next(&mut stream).await;
        assert_eq!((&event["data"]["n"], &event["conflated"]), (&json!(n), &json!(stands_for)), "{event}");
    }
    // From now on at most five a second of each.
    let (begun, mut last, mut seen, mut counted) = (Instant::now(), 0, 0_u32, 0);
    let mut n = 400;
    while last < 1_000 {
        if n <= 1_000 {
            publish_batch(&world, n..n + 50, 0).await;
            n += 50;
        }
        let (_, event) = next(&mut stream).await;
        last = event["data"]["n"].as_u64().unwrap();
        counted += 1 + event["conflated"].as_u64().unwrap();
        seen += 1;
        if seen > 100 {
            break;
        }
    }
    let allowed = (begun.elapsed().as_secs_f64() * 5.0 + 2.0) * 2.0;
    assert!(f64::from(seen) <= allowed, "{seen} of {allowed}");
    // What is still under way has not been counted yet.
    assert!(counted >= 450, "{counted}");
    let metrics = admin.get("/metrics").await.body;
    let conflated = metrics.lines().find_map(|line| line.strip_prefix("sluice_events_conflated_total "));
    assert!(conflated.unwrap().parse::<u64>().unwrap() >= 398, "{metrics}");
}

#[tokio::test]
async fn a_stream_of_everything_keeps_to_its_rate_and_loses_nothing() {
    let world = World::new();
    publish_batch(&world, 0..300, 0).await;
    let mut stream = world.admin().stream("GET", "/events/stream?from=earliest&max_rate=200", "").await;
    let begun = Instant::now();
    for n in 0..300 {
        assert_eq!(number(&mut stream).await, n);
    }
    // A tenth of a second's events go at once.
    assert!(begun.elapsed() >= Duration::from_millis(1_300), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_snapshot_comes_first_and_nothing_is_lost_or_doubled_behind_it() {
    let world = World::new();
    publish_batch(&world, 0..20, 0).await;
    let world = World::start(crate::world::Setup::default(), world.stop().await);
    let publishing = async {
        for round in 1..=20 {
            publish_batch(&world, round * 20..round * 20 + 20, 0).await;
        }
    };
    let following = async {
        let admin = world.admin();
        let mut resume = String::new();
        for _ in 0..5 {
            let mut stream = admin.stream("GET", "/events/stream?snapshot=true", "").await;
            let mut newest = BTreeMap::new();
            let (at, id) = loop {
                let block = stream.next().await.unwrap();
                let data = block.json();
                if block.event == "snapshot" {
                    assert_eq!((&data["symbols"], &data["complete"]), (&json!(2), &json!(true)), "{data}");
                    break (data["seq"].as_u64().unwrap(), block.id);
                }
                assert_eq!((block.id.as_str(), &data["snapshot"]), ("", &json!(true)));
                newest.insert(data["data"]["symbol"].to_string(), data["seq"].as_u64().unwrap());
            };
            // The two newest are the last two events up to there.
            assert_eq!(newest.values().copied().max(), Some(at));
            assert!(newest.values().all(|seq| *seq + 1 >= at), "{newest:?} {at}");
            if at < 400 {
                assert_eq!(stream.next().await.unwrap().json()["seq"], at + 1);
            }
            resume = id;
        }
        // Who comes back with the snapshot's id goes on behind it, without another one.
        let back = format!("last-event-id: {resume}\r\n");
        let mut stream = admin.stream("GET", "/events/stream?snapshot=true", &back).await;
        publish(&world, &event(1_000)).await;
        assert!(stream.next().await.unwrap().json()["snapshot"].is_null());
    };
    tokio::join!(publishing, following);
}

#[tokio::test]
async fn filters_can_be_repeated() {
    let world = World::new();
    let mut stream = world
        .admin()
        .stream("GET", "/events/stream?symbol=A&symbol=B&event_type=x&event_type=y&source=s&source=t", "")
        .await;
    for (kind, symbol, source, n) in
        [("x", "C", "s", 1), ("z", "A", "s", 2), ("x", "A", "u", 3), ("x", "A", "s", 4), ("y", "B", "t", 5)]
    {
        let event = json!({"event_type": kind, "source": source, "data": {"symbol": symbol, "n": n}});
        publish(&world, &event).await;
    }
    assert_eq!(next(&mut stream).await.1["data"]["n"], 4);
    assert_eq!(next(&mut stream).await.1["data"]["n"], 5);
}

/// Publishes more than the ring holds and the sockets take, while nobody reads.
async fn overrun(world: &World) -> u64 {
    let rounds = 14;
    for round in 0..rounds {
        publish_batch(world, round * 50..round * 50 + 50, 60_000).await;
    }
    rounds * 50
}

#[tokio::test(flavor = "multi_thread")]
async fn the_slow_get_what_they_chose() {
    let world = World::new();
    let admin = world.admin();
    let mut dropping = admin.stream("GET", "/events/stream?on_slow=drop", "").await;
    let mut ending = admin.stream("GET", "/events/stream?on_slow=disconnect", "").await;
    let mut conflating = admin.stream("GET", "/events/stream?on_slow=conflate", "").await;
    let last = overrun(&world).await - 1;

    let mut expected = 0;
    let gap = loop {
        let (kind, data) = next(&mut dropping).await;
        if kind == "gap" {
            break data;
        }
        assert_eq!(data["data"]["n"], expected);
        expected += 1;
    };
    assert_eq!((&gap["reason"], &gap["expected"]), (&json!("overrun"), &json!(expected + 1)));
    publish(&world, &event(last + 1)).await;
    // Perhaps the gap was told before everything was published.
    let mut following = gap["got"].as_u64().unwrap() - 1;
    while following <= last + 1 {
        assert_eq!(number(&mut dropping).await, following);
        following += 1;
    }

    loop {
        let (kind, data) = next(&mut ending).await;
        if kind == "disconnect" {
            assert_eq!(data["reason"], "too_slow");
            break;
        }
    }
    assert!(ending.next().await.is_none());

    // Everything is there or stood for, and in the end it gets everything again.
    let (mut counted, mut ended) = (0, false);
    while !ended {
        let (kind, data) = next(&mut conflating).await;
        match kind.as_str() {
            "slow" => assert_eq!(data["policy"], "conflate"),
            "caught_up" => ended = true,
            _ => counted += 1 + data["conflated"].as_u64().unwrap_or(0),
        }
    }
    assert_eq!(counted, last + 2);
    publish(&world, &event(last + 2)).await;
    let (_, data) = next(&mut conflating).await;
    assert!(data["data"]["n"] == last + 2 && data["conflated"].is_null(), "{data}");
    let metrics = admin.get("/metrics").await.body;
    assert!(metrics.contains("sluice_events_dropped_total{reason=\"too_slow\"} 1"), "{metrics}");
    assert!(metrics.contains("sluice_events_dropped_total{reason=\"gap\"}"), "{metrics}");
}
