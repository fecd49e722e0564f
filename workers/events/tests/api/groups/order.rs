//! Order by symbol, failing messages, and consumers that die.

use super::*;

const QUICK: &str = "150ms";

#[tokio::test]
async fn a_poisoned_message_holds_up_its_symbol_alone() {
    let world = World::new();
    let settings = json!({
        "start": "earliest", "order_key": "symbol", "max_deliver": 3, "backoff": ["1ms"], "ack_wait": "30s",
        "filter": {"event_type": "trading_signal"},
    });
    put(&world, "desk", settings).await;
    let symbols: Vec<String> = (0..20).map(|n| format!("S{n:02}/USDT")).collect();
    for n in 0..5 {
        for symbol in &symbols {
            signal(&world, symbol, n).await;
        }
    }
    let mut next = vec![0; symbols.len()];
    let mut failures = 0;
    let begun = Instant::now();
    while next.iter().sum::<u64>() < 99 {
        assert!(begun.elapsed() < DEADLINE, "{next:?}");
        let found = lease(&world, "desk", "a", 50, 1_000).await;
        let mut seen = std::collections::BTreeSet::new();
        for message in found["messages"].as_array().unwrap() {
            let symbol = message["event"]["data"]["symbol"].as_str().unwrap();
            let (at, n) = (
                symbols.iter().position(|one| one == symbol).unwrap(),
                message["event"]["data"]["n"].as_u64().unwrap(),
            );
            assert!(seen.insert(symbol.to_owned()), "{symbol} comes once at a time");
            assert_eq!(n, next[at] + u64::from(at == 7 && failures == 3), "{symbol} is in order");
            let id = [message["message_id"].as_str().unwrap().to_owned()];
            if (at, n) == (7, 0) {
                failures += 1;
                assert_eq!(message["delivery"], failures);
                // All others go on meanwhile, and their next ones are there at once.
                assert_eq!(settle(&world, "desk", "nack", "a", &id).await["nacked"], 1);
            } else {
                assert_eq!(settle(&world, "desk", "ack", "a", &id).await["acked"], 1);
                next[at] += 1;
            }
        }
    }
    assert_eq!(failures, 3, "the poisoned one has its three deliveries");
    let now = until(&world, "desk", "all is settled", |report| report["pending"] == 0).await;
    assert_eq!((&now["dlq_depth"], &now["acked"], &now["waiting"]), (&json!(1), &json!(99), &json!(0)));
}

#[tokio::test]
async fn a_symbol_in_use_gives_nothing_more() {
    let world = World::new();
    put(&world, "desk", json!({"start": "earliest", "order_key": "symbol"})).await;
    for n in 0..3 {
        signal(&world, "BTC", n).await;
    }
    publish(&world, &json!({"event_type": "risk_alert"})).await;
    publish(&world, &json!({"event_type": "risk_alert"})).await;
    let first = lease(&world, "desk", "a", 10, 0).await;
    // What has no symbol is not kept in order.
    assert_eq!(ids(&first).len(), 3);
    assert_eq!(ids(&lease(&world, "desk", "b", 10, 0).await).len(), 0);
    assert_eq!(report(&world, "desk").await["waiting"], 2);
    settle(&world, "desk", "ack", "a", &ids(&first)[..1]).await;
    let second = lease(&world, "desk", "b", 10, 0).await;
    assert_eq!((ids(&second).len(), &second["messages"][0]["event"]["data"]["n"]), (1, &json!(1)));
}

#[tokio::test]
async fn the_messages_of_a_dead_consumer_go_to_another() {
    let world = World::new();
    put(&world, "desk", json!({"start": "earliest", "ack_wait": QUICK, "backoff": []})).await;
    for n in 0..5 {
        signal(&world, "BTC", n).await;
    }
    let dead = lease(&world, "desk", "dead", 5, 0).await;
    assert_eq!(ids(&dead).len(), 5);
    let mut taken = Vec::new();
    let begun = Instant::now();
    while taken.len() < 5 {
        assert!(begun.elapsed() < DEADLINE, "{taken:?}");
        let found = lease(&world, "desk", "alive", 5, 5_000).await;
        assert!(
            found["messages"]
                .as_array()
                .unwrap()
                .iter()
                .all(|message| message["delivery"].as_u64() > Some(1))
        );
        let acked = settle(&world, "desk", "ack", "alive", &ids(&found)).await;
        assert_eq!(acked["unknown"], json!([]));
        taken.extend(ids(&found));
    }
    assert_eq!(taken, ids(&dead));
    // Too late: they are somebody else's, and done.
    assert_eq!(settle(&world, "desk", "ack", "dead", &taken).await["acked"], 0);
    let now = report(&world, "desk").await;
    assert_eq!((&now["acked"], &now["pending"]), (&json!(5), &json!(0)));
    assert!(now["redeliveries"].as_u64() >= Some(5), "{now}");
}

#[tokio::test]
async fn a_lease_that_is_extended_goes_on() {
    let world = World::new();
    put(&world, "desk", json!({"start": "earliest", "ack_wait": "400ms", "backoff": []})).await;
    signal(&world, "BTC", 1).await;
    let held = ids(&lease(&world, "desk", "a", 1, 0).await);
    let begun = Instant::now();
    let mut longest = Duration::ZERO;
    while begun.elapsed() < Duration::from_millis(1_500) {
        let since = Instant::now();
        let extended = settle(&world, "desk", "extend", "a", &held).await;
        assert!(extended["lease_until"].is_string(), "{extended}");
        let nobody = lease(&world, "desk", "b", 1, 50).await;
        longest = longest.max(since.elapsed());
        if longest > Duration::from_millis(300) {
            // The machine stood still for longer than the lease: nothing to be learned.
            return;
        }
        assert_eq!((&extended["extended"], ids(&nobody).len()), (&json!(1), 0));
    }
    assert_eq!(settle(&world, "desk", "extend", "b", &held).await["extended"], 0);
    assert_eq!(settle(&world, "desk", "ack", "a", &held).await["acked"], 1);
}

#[tokio::test]
async fn what_is_given_back_comes_after_its_pause() {
    let world = World::new();
    put(&world, "desk", json!({"start": "earliest", "backoff": ["1h"]})).await;
    signal(&world, "BTC", 1).await;
    let held = ids(&lease(&world, "desk", "a", 1, 0).await);
    let body = json!({"consumer": "a", "ids": held, "delay_ms": 300, "reason": "not now"});
    let begun = Instant::now();
    assert_eq!(
        call(&world, "POST", "/groups/desk/nack", &body).await.ok(),
        json!({"nacked": 1, "dead": 0, "unknown": []})
    );
    let again = lease(&world, "desk", "b", 1, 20_000).await;
    assert!(begun.elapsed() >= Duration::from_millis(290), "{:?}", begun.elapsed());
    assert_eq!((ids(&again), &again["messages"][0]["delivery"]), (held.clone(), &json!(2)));
    // Without a delay the group's own pause counts.
    settle(&world, "desk", "nack", "b", &held).await;
    assert_eq!(ids(&lease(&world, "desk", "b", 1, 100).await).len(), 0);
}
