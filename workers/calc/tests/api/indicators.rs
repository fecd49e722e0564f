//! `POST /calculations/indicators`.

use serde_json::json;

use crate::world::World;

const PATH: &str = "/calculations/indicators";

#[tokio::test]
async fn an_answer_has_named_arrays_as_long_as_the_data() {
    let world = World::new();
    let body = json!({"symbol": "BTC/USDT", "timeframe": "1m", "data": {"close": [1.0, 2.0, 4.0, 8.0]},
        "indicators": [{"name": "sma", "period": 2, "id": "fast"}]});
    let answer = world.reader().post(PATH, &body).await.ok();
    assert_eq!(
        answer,
        json!({"success": true, "symbol": "BTC/USDT", "timeframe": "1m", "count": 4,
            "indicators": {"fast": {"value": [null, 1.5, 3.0, 6.0]}}, "lookback": {"fast": 1}, "begin": {"fast": 1}})
    );
    world.until("sluice_calc_rows_total", |rows| rows == 4.0).await;
}

#[tokio::test]
async fn a_bad_row_is_named_and_counted() {
    let world = World::new();
    let rows = json!([[1, 1.0, 1.0, 1.0, 1.0, 1.0], [1, 1.0, 1.0, 1.0, 1.0, 1.0]]);
    let answer = world.reader().post(PATH, &json!({"data": rows, "indicators": ["sma"]})).await;
    let problem = answer.problem(422);
    assert_eq!((problem["code"].as_str(), problem["index"].as_u64()), (Some("bad_series"), Some(1)));
    assert_eq!(world.metric("sluice_calc_rejected_total{reason=\"series\"}").await, 1.0);
}

#[tokio::test]
async fn limits_of_body_and_rows_are_told() {
    let world = World::with(|config| {
        config.calc.body_bytes = 4_096;
        config.calc.rows = 10;
    });
    let rows = |rows: usize| json!({"data": {"close": vec![1.0; rows]}, "indicators": ["sma"]});
    world.reader().post(PATH, &rows(10)).await.ok();
    let answer = world.reader().post(PATH, &rows(11)).await.problem(422);
    assert_eq!(answer["code"], "unprocessable");
    assert!(answer["detail"].as_str().unwrap().contains("limit of 10"), "{answer}");
    assert_eq!(world.reader().post(PATH, &rows(2_000)).await.code(413), "body_too_large");
}
