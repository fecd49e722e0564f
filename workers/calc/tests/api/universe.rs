//! `GET|PUT /calculations/universe`.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::world::{Answer, User, World};

const PATH: &str = "/calculations/universe";

async fn put(user: User<'_>, body: &Value) -> Answer {
    user.send("PUT", PATH, "content-type: application/json\r\n", body.to_string().as_bytes()).await
}

#[tokio::test]
async fn symbols_keep_their_rank_and_outlive_the_worker() {
    let world = World::new();
    let first = world.reader().get(PATH).await.ok();
    assert_eq!(first, json!({"symbols": [], "updated": null, "source": null, "version": 0}));
    let body = json!({"symbols": ["ETH/USDT", "BTC/USDT", "AAPL"], "source": "desk"});
    let told = put(world.admin(), &body).await.ok();
    assert_eq!(
        (&told["symbols"], &told["source"], &told["version"]),
        (&body["symbols"], &json!("desk"), &json!(1))
    );
    assert!(told["updated"].as_str().unwrap().ends_with('Z'), "{told}");
    let world = World::start(|_| (), world.stop().await);
    assert_eq!(world.reader().get(PATH).await.ok(), told);
    assert_eq!(put(world.reader(), &body).await.code(403), "insufficient_scope");
}

/// TradeStream's updater: the twenty coins of the largest market value, each time whole.
#[tokio::test]
async fn a_ranking_is_written_again_and_again_in_the_spelling_of_its_source() {
    let world = World::new();
    let coins = "BTC ETH USDT XRP BNB SOL USDC DOGE ADA TRX LINK AVAX XLM SUI TON HBAR SHIB DOT LTC BCH";
    for (version, spell) in [(1, "/USD"), (2, "-USD"), (3, "usd")] {
        let mut symbols: Vec<String> = coins.split(' ').map(|coin| format!("{coin}{spell}")).collect();
        symbols.rotate_left(version);
        let body = json!({"symbols": symbols, "source": "coinmarketcap"});
        let told = put(world.user("top_crypto_updater", "write"), &body).await.ok();
        assert_eq!((&told["symbols"], &told["version"]), (&json!(symbols), &json!(version)));
        assert_eq!(world.reader().get(PATH).await.ok(), told);
    }
    assert!(!world.dir.path().join("calc/universe.json.new").exists());
}

#[tokio::test]
async fn of_updaters_at_one_time_one_is_right() {
    let world = World::new();
    let bodies: Vec<Value> = (0..8).map(|n| json!({"symbols": [format!("S{n}")], "version": 0})).collect();
    let answers = futures_util::future::join_all(bodies.iter().map(|body| put(world.admin(), body))).await;
    let right: Vec<Value> = answers.iter().filter(|answer| answer.status == 200).map(Answer::json).collect();
    assert_eq!(right.len(), 1, "{answers:?}");
    assert!(answers.iter().all(|answer| [200, 409].contains(&answer.status)), "{answers:?}");
    assert_eq!(world.reader().get(PATH).await.ok(), right[0]);
}

#[tokio::test]
async fn who_has_seen_another_version_changes_nothing() {
    let world = World::new();
    put(world.admin(), &json!({"symbols": ["A"], "version": 0})).await.ok();
    let refused = put(world.admin(), &json!({"symbols": ["B"], "version": 0})).await;
    assert_eq!(refused.code(409), "version_conflict");
    assert_eq!(world.reader().get(PATH).await.ok()["symbols"], json!(["A"]));
    put(world.admin(), &json!({"symbols": ["B"], "version": 1})).await.ok();
    // Without a version the last one who writes is right.
    assert_eq!(put(world.admin(), &json!({"symbols": []})).await.ok()["version"], 3);
}

#[tokio::test]
async fn what_is_no_universe_is_refused_with_its_place() {
    let world = World::new();
    let many: Vec<String> = (0..1_001).map(|n| format!("S{n}")).collect();
    let cases = [
        (json!({"symbols": ["A", "1m"]}), Some(1)),
        (json!({"symbols": ["A", "B", "A"]}), Some(2)),
        (json!({"symbols": ["A/B/C"]}), Some(0)),
        (json!({"symbols": many}), None),
        (json!({"symbols": [], "source": "x".repeat(129)}), None),
    ];
    for (body, index) in cases {
        let problem = put(world.admin(), &body).await.problem(422);
        assert_eq!(
            (problem["code"].as_str(), problem["index"].as_u64()),
            (Some("unprocessable"), index),
            "{problem}"
        );
    }
    assert_eq!(put(world.admin(), &json!({"symbols": [], "sorce": "x"})).await.code(400), "invalid_json");
    let large = json!({"symbols": [], "source": "x".repeat(300_000)});
    assert_eq!(put(world.admin(), &large).await.code(413), "body_too_large");
    assert_eq!(world.reader().get(PATH).await.ok()["version"], 0);
}

#[tokio::test]
async fn an_operator_may_write_the_file_and_a_wrong_one_stops_the_start() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let file = dir.path().join("calc/universe.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, r#"{"symbols": ["BTC/USDT"]}"#).unwrap();
    let world = World::start(|_| (), dir);
    assert_eq!(world.reader().get(PATH).await.ok()["symbols"], json!(["BTC/USDT"]));
    let dir = world.stop().await;
    for (wrong, said) in [(r#"{"symbols": ["A", "A"]}"#, "symbol 1 is there already, at 0"), ("{", "line 1")]
    {
        std::fs::write(&file, wrong).unwrap();
        let error = World::start(|_| (), Arc::clone(&dir)).ended().await.unwrap_err().to_string();
        assert!(error.contains("universe.json") && error.contains(said), "{error}");
    }
}
