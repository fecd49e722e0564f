//! `POST /calculations/risk`.

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use sluice_calc::risk::{Figure, Settings, Undefined, drawdown_of_equity, returns_of_prices, summary};

use crate::error::Refusal;
use crate::pool::Scratch;

/// Every figure by name.
const METRICS: [&str; 7] =
    ["sharpe", "sortino", "max_drawdown", "max_drawdown_duration", "var", "cvar", "volatility"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    returns: Option<Vec<f64>>,
    equity: Option<Vec<f64>>,
    prices: Option<Vec<f64>>,
    #[serde(default = "periods_per_year")]
    periods_per_year: f64,
    #[serde(default)]
    rf: f64,
    #[serde(default = "alpha")]
    alpha: f64,
    metrics: Option<Vec<String>>,
    trades: Option<serde::de::IgnoredAny>,
    benchmark: Option<serde::de::IgnoredAny>,
}

const fn periods_per_year() -> f64 {
    Settings::PERIODS_PER_YEAR
}

const fn alpha() -> f64 {
    Settings::ALPHA
}

/// Computes a body; returns the answer and the number of returns.
pub(crate) fn answer(
    body: &[u8],
    rows_max: usize,
    scratch: &mut Scratch,
) -> Result<(Vec<u8>, usize), Refusal> {
    let request: Request = sluice_wire::json::from_slice(body)?;
    if request.trades.is_some() {
        return Err(Refusal::NotAvailable("trades"));
    }
    if request.benchmark.is_some() {
        return Err(Refusal::NotAvailable("benchmark"));
    }
    let settings = Settings::new(request.periods_per_year, request.rf, request.alpha);
    let settings = settings.map_err(|error| Refusal::Parameter(error.to_string()))?;
    let wanted = wanted(request.metrics.as_deref())?;
    let (returns, equity) = returns(&request, rows_max)?;
    let mut buffer = scratch.take(returns.len());
    let found = summary(&returns, &settings, &mut buffer);
    scratch.give(buffer);
    let mut found = found.map_err(|error| Refusal::Series { row: None, text: error.to_string() })?;
    if let Some(equity) = equity {
        // The curve itself, not one rebuilt from its returns: no rounding in between.
        found.drawdown = drawdown_of_equity(equity);
    }
    let drawdown = found.drawdown;
    let figures: [(&str, Figure); 7] = [
        ("sharpe", found.sharpe),
        ("sortino", found.sortino),
        ("max_drawdown", drawdown.map(|drawdown| drawdown.depth)),
        ("max_drawdown_duration", drawdown.map(|drawdown| drawdown.duration as f64)),
        ("var", found.tail.map(|tail| tail.value_at_risk)),
        ("cvar", found.tail.map(|tail| tail.conditional)),
        ("volatility", found.volatility),
    ];
    Ok((render(&figures, &wanted, returns.len()), returns.len()))
}

fn wanted(metrics: Option<&[String]>) -> Result<Vec<&str>, Refusal> {
    let Some(metrics) = metrics else { return Ok(METRICS.to_vec()) };
    metrics
        .iter()
        .map(|name| {
            let known = METRICS.iter().find(|known| *known == name).copied();
            known.ok_or_else(|| Refusal::Parameter(format!("metrics are {}", METRICS.join(", "))))
        })
        .collect()
}

/// The returns, and the equity curve when that was given. Exactly one of the three is needed.
fn returns(request: &Request, rows_max: usize) -> Result<(Vec<f64>, Option<&[f64]>), Refusal> {
    let levels = match (&request.returns, &request.equity, &request.prices) {
        (Some(returns), None, None) => {
            bounded(returns.len(), rows_max)?;
            return Ok((returns.clone(), None));
        }
        (None, Some(equity), None) => (equity, Some(equity.as_slice())),
        (None, None, Some(prices)) => (prices, None),
        _ => return Err(Refusal::Shape("exactly one of `returns`, `equity`, `prices` is needed".to_owned())),
    };
    let (levels, equity) = levels;
    bounded(levels.len(), rows_max)?;
    if let Some(row) = levels.iter().position(|level| *level <= 0.0) {
        return Err(Refusal::Series { row: Some(row), text: format!("row {row}: it is not above zero") });
    }
    let mut returns = vec![0.0; levels.len().saturating_sub(1)];
    let computed = returns_of_prices(levels, &mut returns);
    match computed.map_err(|error| Refusal::Series { row: None, text: error.to_string() })? {
        // Too short for a return: every figure then says so for itself.
        Ok(()) | Err(Undefined::TooFewPeriods) => Ok((returns, equity)),
        Err(undefined) => Err(Refusal::Series { row: None, text: undefined.to_string() }),
    }
}

fn bounded(rows: usize, rows_max: usize) -> Result<(), Refusal> {
    if rows > rows_max {
        return Err(Refusal::TooMuch(format!("{rows} rows are more than the limit of {rows_max}")));
    }
    Ok(())
}

fn render(figures: &[(&str, Figure)], wanted: &[&str], periods: usize) -> Vec<u8> {
    let mut metrics = Map::new();
    let mut warnings = Vec::new();
    for (name, figure) in figures.iter().filter(|(name, _)| wanted.contains(name)) {
        metrics.insert((*name).to_owned(), figure.map_or(Json::Null, Json::from));
        if let Err(undefined) = figure {
            warnings
                .push(json!({"metric": name, "reason": undefined.code(), "detail": undefined.to_string()}));
        }
    }
    json!({"success": true, "periods": periods, "metrics": metrics, "warnings": warnings})
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(body: &Json) -> Result<Json, Refusal> {
        let (bytes, _) = answer(
            body.to_string().as_bytes(),
            100,
            &mut Scratch::new(sluice_calc::Cpu::proven().unwrap(), std::sync::Arc::default()),
        )?;
        Ok(serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn undefined_figures_are_null_with_a_reason() {
        let answer = ask(&json!({"returns": [0.01, 0.01, 0.01]})).unwrap();
        assert!(answer["metrics"]["sharpe"].is_null());
        let reasons: Vec<_> =
            answer["warnings"].as_array().unwrap().iter().map(|warning| &warning["reason"]).collect();
        assert!(reasons.contains(&&json!("no_variation")), "{answer}");
        assert_eq!(answer["metrics"]["max_drawdown"], 0.0);
    }

    #[test]
    fn prices_equity_and_returns_agree() {
        let levels = [100.0, 110.0, 99.0, 104.5, 120.0];
        let returns: Vec<f64> = levels.windows(2).map(|pair| pair[1] / pair[0] - 1.0).collect();
        let by_returns = ask(&json!({"returns": returns})).unwrap();
        let by_prices = ask(&json!({"prices": levels})).unwrap();
        let by_equity = ask(&json!({"equity": levels})).unwrap();
        assert_eq!(by_returns["metrics"]["sharpe"], by_prices["metrics"]["sharpe"]);
        assert!((by_equity["metrics"]["max_drawdown"].as_f64().unwrap() + 0.1).abs() < 1e-12);
        assert!(by_returns["metrics"]["var"].as_f64().unwrap() < 0.0, "losses are negative");
    }

    #[test]
    fn requests_that_cannot_be_are_refused() {
        assert!(matches!(ask(&json!({})), Err(Refusal::Shape(_))));
        assert!(matches!(ask(&json!({"returns": [1], "prices": [1]})), Err(Refusal::Shape(_))));
        assert!(matches!(ask(&json!({"prices": [1.0, 0.0]})), Err(Refusal::Series { row: Some(1), .. })));
        assert!(matches!(ask(&json!({"returns": [0.1], "alpha": 0.9})), Err(Refusal::Parameter(_))));
        assert!(matches!(ask(&json!({"returns": [0.1], "metrics": ["sharp"]})), Err(Refusal::Parameter(_))));
        assert!(matches!(ask(&json!({"trades": []})), Err(Refusal::NotAvailable("trades"))));
        assert!(matches!(ask(&json!({"returns": vec![0.1; 101]})), Err(Refusal::TooMuch(_))));
    }
}
