//! Sizes of positions, scores, weights and rotation of strategies.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn a_position_is_sized_and_its_caps_are_told() {
    let world = World::new();
    let reader = world.reader();
    let mut body = json!({"equity": 100_000, "price": 50, "side": "buy", "symbol": "BTC/USDT", "stop": 48,
        "method": "fixed_fractional", "risk": 0.05, "lot_size": 3});
    let sized = reader.post("/calculations/position-size", &body).await.ok();
    // 2 % at the stop are 1,000 pieces, a fifth of the equity 400, whole lots 399.
    assert_eq!((&sized["quantity"], &sized["bound"]), (&json!(399.0), &json!("lot")));
    let after: Vec<f64> =
        sized["caps"].as_array().unwrap().iter().map(|cut| cut["after"].as_f64().unwrap()).collect();
    assert_eq!(after, [1_000.0, 400.0, 400.0, 400.0, 399.0]);
    body["stop"] = json!(null);
    let refused = reader.post("/calculations/position-size", &body).await;
    assert_eq!(refused.code(422), "bad_parameter");
    body["luck"] = json!(1);
    assert_eq!(reader.post("/calculations/position-size", &body).await.code(422), "unprocessable");
}

#[tokio::test]
async fn a_portfolio_is_sized_together() {
    let world = World::new();
    let wanted = |symbol: &str, side: &str| {
        json!({"symbol": symbol, "side": side, "price": 10, "stop": if side == "buy" { 9 } else { 11 },
            "method": "fixed_fractional"})
    };
    let body = json!({"equity": 1_000, "positions_wanted": [wanted("A", "buy"), wanted("B", "sell"), wanted("C", "buy")],
        "caps": {"gross_leverage": 0.15, "net_leverage": 0.04}});
    let answer = world.reader().post("/calculations/portfolio/size", &body).await.ok();
    // Each wants 10 pieces of 10: gross 0.3 halves them, net 0.05 takes a fifth more.
    for size in answer["sizes"].as_array().unwrap() {
        assert!((size["quantity"].as_f64().unwrap() - 4.0).abs() < 1e-6, "{answer}");
        assert_eq!(size["bound"], "net_leverage");
    }
    let mut odd = body.clone();
    odd["positions_wanted"][1]["price"] = json!(0);
    let refused = world.reader().post("/calculations/portfolio/size", &odd).await;
    assert_eq!(refused.code(422), "bad_parameter");
    let many: Vec<_> = (0..1_001).map(|_| wanted("A", "buy")).collect();
    let many = json!({"equity": 1_000, "positions_wanted": many});
    assert_eq!(world.reader().post("/calculations/portfolio/size", &many).await.code(422), "unprocessable");
}

#[tokio::test]
async fn strategies_are_scored_weighed_and_rotated_under_both_names() {
    let world = World::new();
    let reader = world.reader();
    let body = json!({"strategies": [{"id": "a", "equity": [100, 90, 95]}, {"id": "b", "equity": [100, 101, 103]}],
        "timeframe": "1d"});
    let scored = reader.post("/calculations/strategies/score", &body).await.ok();
    assert_eq!((&scored["scores"][0]["id"], &scored["scores"][1]["id"]), (&json!("b"), &json!("a")));
    let members = json!({"members": [{"id": "a", "score": 0.9}, {"id": "b", "score": 0.3}], "method": "score",
        "max_weight": 0.6});
    let round =
        json!({"slots": 1, "candidates": [{"id": "a", "score": 0.9}, {"id": "b", "score": 0.7, "held": 2}]});
    for below in ["/calculations/strategies", "/calculations"] {
        let weighed = reader.post(&format!("{below}/ensemble"), &members).await.ok();
        assert_eq!(weighed["weights"], json!([{"id": "a", "weight": 0.6}, {"id": "b", "weight": 0.4}]));
        let rotated = reader.post(&format!("{below}/rotate"), &round).await.ok();
        assert_eq!(rotated["add"], json!([{"id": "a", "replaces": "b", "reason": "better"}]));
    }
    let twice = json!({"members": [{"id": "a", "score": 0.9}, {"id": "a", "score": 0.3}], "method": "score"});
    let problem = reader.post("/calculations/ensemble", &twice).await;
    assert_eq!(problem.problem(422)["index"], 1);
    let one = reader.get("/calculations/strategies/macd_cross").await.ok();
    assert_eq!((&one["name"], one["parameters"].is_array()), (&json!("macd_cross"), true));
    assert_eq!(reader.get("/calculations/strategies/none").await.code(404), "not_found");
}
