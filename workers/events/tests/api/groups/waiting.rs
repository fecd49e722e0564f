//! Leases that wait for their first message.

use super::*;

#[tokio::test]
async fn a_waiting_lease_is_woken_by_an_event() {
    let world = World::new();
    put(&world, "desk", json!({"filter": {"symbol": "ETH"}})).await;
    let begun = Instant::now();
    let (found, id) = tokio::join!(lease(&world, "desk", "a", 5, 60_000), async {
        until(&world, "desk", "the consumer waits", |report| report["consumers"] == 1).await;
        signal(&world, "BTC", 1).await;
        signal(&world, "ETH", 2).await
    });
    assert_eq!(ids(&found), [id]);
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_waiting_lease_is_woken_by_an_ack_and_by_an_expiry() {
    let world = World::new();
    put(&world, "desk", json!({"start": "earliest", "order_key": "symbol"})).await;
    put(&world, "other", json!({"start": "earliest", "ack_wait": "200ms", "backoff": []})).await;
    let first = signal(&world, "BTC", 1).await;
    let second = signal(&world, "BTC", 2).await;
    assert_eq!(ids(&lease(&world, "desk", "a", 5, 0).await), std::slice::from_ref(&first));
    let (found, _) = tokio::join!(lease(&world, "desk", "b", 5, 60_000), async {
        until(&world, "desk", "b waits", |report| report["consumers"] == 2).await;
        settle(&world, "desk", "ack", "a", std::slice::from_ref(&first)).await
    });
    assert_eq!(ids(&found), [second]);
    assert_eq!(ids(&lease(&world, "other", "a", 5, 0).await).len(), 2);
    let found = lease(&world, "other", "b", 5, 60_000).await;
    assert_eq!((ids(&found)[0].as_str(), &found["messages"][0]["delivery"]), (first.as_str(), &json!(2)));
}

#[tokio::test]
async fn a_lease_in_vain_ends_in_time() {
    let world = World::new();
    put(&world, "desk", json!({})).await;
    let begun = Instant::now();
    let found = lease(&world, "desk", "a", 5, 300).await;
    assert_eq!(found, json!({"messages": [], "lease_until": null, "gap": null}));
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn who_leaves_takes_nothing() {
    let world = World::new();
    put(&world, "desk", json!({})).await;
    let admin = world.admin();
    let body = json!({"consumer": "gone", "wait_ms": 60_000}).to_string();
    // The connection is cut while the worker waits.
    let asked = admin.send("POST", "/groups/desk/lease", JSON, body.as_bytes());
    tokio::select! {
        answer = asked => panic!("{answer:?}"),
        _ = until(&world, "desk", "the consumer waits", |report| report["consumers"] == 1) => {}
    }
    let id = signal(&world, "BTC", 1).await;
    let found = lease(&world, "desk", "here", 1, 20_000).await;
    assert_eq!((ids(&found), &found["messages"][0]["delivery"]), (vec![id], &json!(1)));
}

#[tokio::test]
async fn nobody_waits_at_drain() {
    let world = World::new();
    put(&world, "desk", json!({})).await;
    let (found, ()) = tokio::join!(lease(&world, "desk", "a", 5, 60_000), async {
        until(&world, "desk", "the consumer waits", |report| report["consumers"] == 1).await;
        world.drain();
    });
    assert_eq!(found["messages"], json!([]));
    world.stop().await;
}

#[tokio::test]
async fn many_consumers_share_a_group() {
    let world = World::new();
    put(&world, "desk", json!({"start": "earliest"})).await;
    let work = |name: String| {
        let world = &world;
        async move {
            let mut mine = Vec::new();
            loop {
                let found = ids(&lease(world, "desk", &name, 7, 300).await);
                if found.is_empty() {
                    return mine;
                }
                assert_eq!(settle(world, "desk", "ack", &name, &found).await["acked"], found.len());
                mine.extend(found);
            }
        }
    };
    let publishing = async {
        let mut all = Vec::new();
        for n in 0..100 {
            all.push(signal(&world, "BTC", n).await);
        }
        all
    };
    let (all, done) =
        tokio::join!(publishing, futures_util::future::join_all((0..8).map(|n| work(format!("c{n}")))));
    let mut done: Vec<String> = done.into_iter().flatten().collect();
    done.extend(ids(&lease(&world, "desk", "last", 100, 0).await));
    done.sort();
    let mut all = all;
    all.sort();
    assert_eq!(done, all, "each message once");
}
