//! `POST /calculations/risk` and `/performance`.

use serde_json::{Value, json};

use crate::world::World;

const RISK: &str = "/calculations/risk";

/// Every figure that risk answers.
const FIGURES: [&str; 42] = [
    "total_return",
    "cagr",
    "volatility",
    "sharpe",
    "sortino",
    "calmar",
    "omega",
    "max_drawdown",
    "max_drawdown_duration",
    "longest_drawdown",
    "ulcer",
    "pain",
    "recovery",
    "var",
    "cvar",
    "var_loss",
    "var_parametric",
    "cvar_parametric",
    "var_cornish_fisher",
    "tail_ratio",
    "skew",
    "kurtosis",
    "stability",
    "win_rate",
    "profit_factor",
    "expectancy",
    "payoff",
    "kelly",
    "kelly_continuous",
    "sharpe_per_period",
    "psr",
    "beta",
    "alpha",
    "alpha_arithmetic",
    "information_ratio",
    "treynor",
    "volatility_parkinson",
    "volatility_garman_klass",
    "volatility_rogers_satchell",
    "volatility_yang_zhang",
    "dsr",
    "var_money",
];

/// Bars that go up and down, high and low a little beyond the body.
fn bars(len: usize) -> Vec<[f64; 6]> {
    let price = |at: usize| 100.0 + 5.0 * (at as f64 * 0.7).sin() + at as f64 * 0.1;
    let bar = |at: usize| {
        let (open, close) = (price(at), price(at + 1));
        [at as f64 * 60_000.0, open, open.max(close) + 0.5, open.min(close) - 0.5, close, 10.0]
    };
    (0..len).map(bar).collect()
}

#[tokio::test]
async fn every_figure_is_a_number_or_null_with_a_reason() {
    let world = World::new();
    let market: Vec<f64> = (0..40).map(|at| 50.0 + (f64::from(at) * 0.3).cos()).collect();
    let body = json!({"data": bars(40), "benchmark": market, "trials": 10, "trials_sharpe_variance": 0.01,
        "value": 1e6, "timeframe": "1h"});
    let answer = world.reader().post(RISK, &body).await.ok();
    let metrics = answer["metrics"].as_object().unwrap();
    let mut names: Vec<&str> = metrics.keys().map(String::as_str).collect();
    let mut expected = FIGURES;
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
    for name in FIGURES {
        assert!(metrics[name].is_number(), "{name}: {answer}");
        let alone = json!({"data": bars(40), "benchmark": vec![1.0; 40], "trials": 10, "value": 1,
            "trials_sharpe_variance": 0.01, "metrics": [name], "timeframe": "1h"});
        let alone = world.reader().post(RISK, &alone).await.ok();
        assert_eq!(alone["metrics"].as_object().unwrap().len(), 1, "{name}");
    }
    // One bar has no return: what needs one is null and says why.
    let few = json!({"data": bars(1), "benchmark": [1.0], "trials": 10, "trials_sharpe_variance": 0.01, "value": 1});
    let few = world.reader().post(RISK, &few).await.ok();
    let told: Vec<&str> = few["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| warning["metric"].as_str().unwrap())
        .collect();
    for (name, figure) in few["metrics"].as_object().unwrap() {
        assert_eq!(figure == &Value::Null, told.contains(&name.as_str()), "{name}: {few}");
    }
    assert!(few["metrics"]["volatility_parkinson"].is_number() && few["metrics"]["sharpe"].is_null());
}

#[tokio::test]
async fn an_account_is_told() {
    let world = World::new();
    let body = json!({"equity": [100.0, 120.0, 90.0, 150.0], "times": [0, 1, 2, 3], "periods_per_year": 365});
    let answer = world.reader().post("/calculations/performance", &body).await.ok();
    assert_eq!(answer["metrics"]["max_drawdown"], -0.25);
    assert_eq!(answer["drawdowns"][0]["recovery"], 3);
    assert_eq!(answer["monthly"], json!([{"month": "1970-01", "return": 0.5, "trades": null, "pnl": null}]));
    let refused = world.reader().post("/calculations/performance", &json!({"equity": [1.0, 0.0]})).await;
    let problem = refused.problem(422);
    assert_eq!((problem["code"].as_str(), problem["index"].as_u64()), (Some("bad_series"), Some(1)));
    let unknown = world.reader().post("/calculations/performance", &json!({"equty": [1.0]})).await;
    assert_eq!(unknown.code(422), "unprocessable");
}
