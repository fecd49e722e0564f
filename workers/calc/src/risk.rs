//! `POST /calculations/risk`.

use serde::Deserialize;
use serde_json::json;
use sluice_calc::risk::{
    FIGURES, Figure, RangeVolatility, Relative, Settings, Summary, Undefined, drawdown_of_equity,
    range_volatility, relative, summary,
};
use sluice_calc::{Bars, Column};
use sluice_wire::symbol::Timeframe;

use crate::body::{self, Incoming, WithData};
use crate::bounds::{HORIZON_MAX, METRICS_MAX};
use crate::data::{NanRule, Series};
use crate::error::Refusal;
use crate::figures::{Report, Terms, Trade, bounded, returns_of, shares, with_trades};
use crate::indicators::Answer;
use crate::negotiate::Format;
use crate::pool::Scratch;
use crate::series::query::When;
use crate::series::source::{Means, Named, Source};

/// Figures that compare with a benchmark.
const BESIDE: [&str; 5] = ["beta", "alpha", "alpha_arithmetic", "information_ratio", "treynor"];
/// Figures of whole bars.
const RANGES: [&str; 4] = [
    "volatility_parkinson",
    "volatility_garman_klass",
    "volatility_rogers_satchell",
    "volatility_yang_zhang",
];
/// Figures that trades have without returns.
const OF_TRADES: [&str; 5] = ["win_rate", "profit_factor", "expectancy", "payoff", "kelly"];
/// Figures that grow with the root of the horizon.
const OVER_HORIZON: [&str; 7] =
    ["var", "cvar", "var_loss", "var_parametric", "cvar_parametric", "var_cornish_fisher", "var_money"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    returns: Option<Vec<f64>>,
    equity: Option<Vec<f64>>,
    prices: Option<Vec<f64>>,
    data: Option<Series>,
    /// Whichever of the two it is, once it was found.
    #[serde(skip)]
    bars: Option<Source>,
    /// A stored series in its place, and which of its rows.
    #[serde(rename = "series")]
    stored: Option<String>,
    from: Option<When>,
    to: Option<When>,
    last: Option<usize>,
    trades: Option<Vec<Trade>>,
    /// Of the same kind as the series: returns beside returns, else levels.
    benchmark: Option<Vec<f64>>,
    periods_per_year: Option<f64>,
    timeframe: Option<Timeframe>,
    rf: Option<f64>,
    alpha: Option<f64>,
    required_return: Option<f64>,
    /// How many strategies were tried, and how much their Sharpe ratios a period varied.
    trials: Option<u64>,
    trials_sharpe_variance: Option<f64>,
    /// What is at risk, in money.
    value: Option<f64>,
    horizon: Option<f64>,
    metrics: Option<Vec<String>>,
}

impl WithData for Request {
    fn data(&mut self) -> &mut Option<Series> {
        &mut self.data
    }
}

/// Computes a body.
pub(crate) fn answer(incoming: Incoming, means: Means<'_>, scratch: &mut Scratch) -> Result<Answer, Refusal> {
    let rows_max = means.rows_max;
    let mut request: Request = body::read(incoming, rows_max)?;
    let named =
        Named { series: request.stored.take(), from: request.from, to: request.to, last: request.last };
    let found = named.or(request.data.take(), means)?;
    if let Some((bars, key)) = found {
        request.bars = Some(bars);
        request.timeframe = request.timeframe.or(key.map(|key| key.timeframe));
    }
    let settings = request.terms().settings()?;
    let horizon = in_range("horizon", request.horizon.unwrap_or(1.0), 1.0, HORIZON_MAX)?;
    let wanted = wanted(&request)?;
    let returns = request.series(rows_max)?;
    let benchmark = request.benchmark(&returns, rows_max)?;
    let mut buffer = scratch.take(returns.len());
    let found = figures(&request, &returns, benchmark.as_deref(), &settings, &mut buffer);
    scratch.give(buffer);
    let mut report = Report::default();
    for name in wanted {
        let figure = found.by_name(&request, name)?;
        let scale = if OVER_HORIZON.contains(&name) { horizon.sqrt() } else { 1.0 };
        report.add(name, figure.and_then(|figure| finite(figure * scale)));
        if scale != 1.0 && figure.is_ok() {
            report.warn(name, "assumes_iid", "the root of the horizon scales independent returns");
        }
        if name == "var_cornish_fisher" && found.own.parametric.is_ok_and(|fit| !fit.monotone) {
            let reason = Undefined::NotMonotone;
            report.warn(name, reason.code(), &format!("{reason}: the normal distribution's value stands in"));
        }
    }
    let Report { metrics, warnings } = report;
    let answer = json!({"success": true, "periods": returns.len(), "metrics": metrics, "warnings": warnings});
    let bytes = answer.to_string().into_bytes();
    Ok(Answer { bytes, format: Format::Json, rows: returns.len(), room: None })
}

fn finite(figure: f64) -> Figure {
    if figure.is_finite() { Ok(figure) } else { Err(Undefined::NotFinite) }
}

/// A number of the request within its bounds.
pub(crate) fn in_range(name: &str, given: f64, min: f64, max: f64) -> Result<f64, Refusal> {
    if (min..=max).contains(&given) {
        return Ok(given);
    }
    Err(Refusal::Parameter(format!("{name} must be between {min} and {max}, not {given}")))
}

impl Request {
    fn terms(&self) -> Terms {
        Terms {
            periods_per_year: self.periods_per_year,
            timeframe: self.timeframe.clone(),
            rf: self.rf,
            alpha: self.alpha,
            required_return: self.required_return,
        }
    }

    /// The returns. Exactly one series is needed; trades may stand beside it or for themselves.
    fn series(&mut self, rows_max: usize) -> Result<Vec<f64>, Refusal> {
        bounded(self.trades.as_ref().map_or(0, Vec::len), rows_max)?;
        match (&mut self.returns, &self.equity, &self.prices, &mut self.bars, &self.trades) {
            (Some(returns), None, None, None, _) => {
                bounded(returns.len(), rows_max)?;
                Ok(std::mem::take(returns))
            }
            (None, Some(levels), None, None, _) | (None, None, Some(levels), None, _) => {
                returns_of(levels, rows_max)
            }
            (None, None, None, Some(bars), _) => {
                bars.check(rows_max, NanRule::Reject)?;
                returns_of(bars.bars(0)?.close(), rows_max)
            }
            (None, None, None, None, Some(trades)) => Ok(shares(trades).unwrap_or_default()),
            _ => Err(Refusal::Shape(
                "exactly one of `returns`, `equity`, `prices`, `data` is needed, or `trades`".to_owned(),
            )),
        }
    }

    fn benchmark(&self, returns: &[f64], rows_max: usize) -> Result<Option<Vec<f64>>, Refusal> {
        let Some(given) = &self.benchmark else { return Ok(None) };
        bounded(given.len(), rows_max)?;
        let levels = self.equity.is_some() || self.prices.is_some() || self.bars.is_some();
        let benchmark = if levels { returns_of(given, rows_max)? } else { given.clone() };
        if benchmark.len() != returns.len() {
            let text =
                format!("benchmark has {} returns where {} are needed", benchmark.len(), returns.len());
            return Err(Refusal::Series { row: None, text });
        }
        Ok(Some(benchmark))
    }

    /// Whether trades are all there is.
    fn trades_alone(&self) -> bool {
        let series = self.returns.is_some() || self.equity.is_some() || self.prices.is_some();
        let trades = self.trades.as_ref().is_some_and(|trades| shares(trades).is_none());
        trades && !series && self.bars.is_none()
    }
}

/// The names asked for; all that the request has the inputs for when it names none.
fn wanted(request: &Request) -> Result<Vec<&'static str>, Refusal> {
    let all = || {
        let own = FIGURES.iter().map(|(name, _)| *name);
        own.chain(BESIDE).chain(RANGES).chain(["dsr", "var_money"])
    };
    if let Some(metrics) = &request.metrics {
        if metrics.len() > METRICS_MAX {
            return Err(Refusal::TooMuch(format!("more than {METRICS_MAX} metrics")));
        }
        let known = |name: &String| {
            let known = all().find(|known| known == name);
            known.ok_or_else(|| {
                Refusal::Parameter(format!("metrics are {}", all().collect::<Vec<_>>().join(", ")))
            })
        };
        return metrics.iter().map(known).collect();
    }
    let has = |name: &&str| match *name {
        name if request.trades_alone() => OF_TRADES.contains(&name),
        name if BESIDE.contains(&name) => request.benchmark.is_some(),
        name if RANGES.contains(&name) => request.bars.as_ref().is_some_and(|source| {
            let needed = [Column::Open, Column::High, Column::Low];
            let has = |bars: Bars<'_>| needed.iter().all(|column| bars.column(*column).is_some());
            name == "volatility_parkinson" || source.bars(0).is_ok_and(has)
        }),
        "dsr" => request.trials.is_some(),
        "var_money" => request.value.is_some(),
        _ => true,
    };
    Ok(all().filter(has).collect())
}

/// Everything that could be computed.
struct Found {
    own: Summary,
    beside: Option<Relative>,
    ranges: Option<RangeVolatility>,
}

fn figures(
    request: &Request,
    returns: &[f64],
    benchmark: Option<&[f64]>,
    settings: &Settings,
    scratch: &mut [f64],
) -> Found {
    // The lengths were compared when the request was read.
    let mut own = summary(returns, settings, scratch).unwrap_or(Summary::without(Undefined::TooFewPeriods));
    if let Some(trades) = &request.trades {
        with_trades(&mut own, trades);
    }
    if let Some(equity) = &request.equity {
        // The curve itself, not one rebuilt from its returns: no rounding in between.
        own.drawdown = drawdown_of_equity(equity);
    }
    let beside =
        benchmark.and_then(|benchmark| relative(returns, benchmark, own.cagr, settings, scratch).ok());
    let bars = request.bars.as_ref().and_then(|bars| bars.bars(0).ok());
    Found { own, beside, ranges: bars.map(|bars| range_volatility(&bars, settings)) }
}

impl Found {
    fn by_name(&self, request: &Request, name: &str) -> Result<Figure, Refusal> {
        if let Some((_, read)) = FIGURES.iter().find(|(known, _)| *known == name) {
            return Ok(read(&self.own));
        }
        if let Some(at) = BESIDE.iter().position(|known| *known == name) {
            let Some(found) = self.beside else { return Ok(Err(Undefined::NoBenchmark)) };
            let Relative { beta, alpha, alpha_arithmetic, information_ratio, treynor } = found;
            return Ok([beta, alpha, alpha_arithmetic, information_ratio, treynor][at]);
        }
        if let Some(at) = RANGES.iter().position(|known| *known == name) {
            let missing = || Refusal::Shape(format!("{name} needs `data` with open, high, low and close"));
            let found = self.ranges.ok_or_else(missing)?;
            let RangeVolatility { parkinson, garman_klass, rogers_satchell, yang_zhang } = found;
            return Ok([parkinson, garman_klass, rogers_satchell, yang_zhang][at]);
        }
        if name == "var_money" {
            let value = request.value.ok_or_else(|| Refusal::Shape("var_money needs `value`".to_owned()))?;
            return Ok(self.own.tail.and_then(|tail| finite(0.0 - tail.value_at_risk * value)));
        }
        let trials = request.trials.filter(|trials| *trials > 0);
        let (Some(trials), Some(variance)) = (trials, request.trials_sharpe_variance) else {
            let text = "dsr needs `trials`, above zero, and `trials_sharpe_variance`".to_owned();
            return Err(Refusal::Shape(text));
        };
        let variance = in_range("trials_sharpe_variance", variance, 0.0, f64::MAX)?;
        Ok(self.own.sample.and_then(|sample| sample.deflated(trials, variance)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value as Json;

    fn ask(body: &Json) -> Result<Json, Refusal> {
        let answer = answer(
            Incoming::of_json(body),
            Means { rows_max: 100, series: None },
            &mut Scratch::new(sluice_calc::Cpu::proven().unwrap(), std::sync::Arc::default()),
        )?;
        Ok(serde_json::from_slice(&answer.bytes).unwrap())
    }

    fn reasons(answer: &Json, metric: &str) -> Vec<String> {
        let warnings = answer["warnings"].as_array().unwrap().iter();
        let of_it = warnings.filter(|warning| warning["metric"] == metric);
        of_it.map(|warning| warning["reason"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn undefined_figures_are_null_with_a_reason() {
        let answer = ask(&json!({"returns": [0.01, 0.01, 0.01]})).unwrap();
        assert!(answer["metrics"]["sharpe"].is_null());
        assert_eq!(reasons(&answer, "sharpe"), ["no_variation"]);
        assert_eq!(reasons(&answer, "sortino"), ["no_downside"]);
        assert_eq!(reasons(&answer, "calmar"), ["no_drawdown"]);
        assert_eq!(reasons(&answer, "profit_factor"), ["no_losses"]);
        assert_eq!(answer["metrics"]["max_drawdown"], 0.0);
        let lost = ask(&json!({"returns": [0.01, -1.5, 0.01], "metrics": ["cagr", "beta"]})).unwrap();
        assert_eq!(reasons(&lost, "cagr"), ["total_loss"]);
        assert_eq!(reasons(&lost, "beta"), ["no_benchmark"]);
        let few = ask(&json!({"returns": []})).unwrap();
        assert_eq!(few["metrics"].as_object().unwrap().len(), FIGURES.len());
        assert!(few["metrics"].as_object().unwrap().values().all(Json::is_null));
    }

    #[test]
    fn prices_equity_and_returns_agree() {
        let levels = [100.0, 110.0, 99.0, 104.5, 120.0];
        let returns: Vec<f64> = levels.windows(2).map(|pair| pair[1] / pair[0] - 1.0).collect();
        let by_returns = ask(&json!({"returns": returns})).unwrap();
        let by_prices = ask(&json!({"prices": levels})).unwrap();
        let by_equity = ask(&json!({"equity": levels})).unwrap();
        let by_data = ask(&json!({"data": {"close": levels}})).unwrap();
        assert_eq!(by_returns["metrics"]["sharpe"], by_prices["metrics"]["sharpe"]);
        assert_eq!(by_data["metrics"]["sharpe"], by_prices["metrics"]["sharpe"]);
        assert!((by_equity["metrics"]["max_drawdown"].as_f64().unwrap() + 0.1).abs() < 1e-12);
        assert!(by_returns["metrics"]["var"].as_f64().unwrap() < 0.0, "losses are negative");
    }

    #[test]
    fn a_benchmark_bars_and_trials_bring_their_figures() {
        let own = [100.0, 102.0, 101.0, 103.0];
        let answer = ask(&json!({"prices": own, "benchmark": own, "trials": 20,
            "trials_sharpe_variance": 0.1, "value": 1_000_000, "horizon": 4}))
        .unwrap();
        let metrics = &answer["metrics"];
        assert!((metrics["beta"].as_f64().unwrap() - 1.0).abs() < 1e-12);
        assert!(metrics["dsr"].as_f64().unwrap() < metrics["psr"].as_f64().unwrap());
        let one = ask(&json!({"prices": own, "metrics": ["var"]})).unwrap();
        let [var, four] = [&one["metrics"]["var"], &metrics["var"]].map(|var| var.as_f64().unwrap());
        assert!((four - 2.0 * var).abs() < 1e-15);
        assert!((metrics["var_money"].as_f64().unwrap() + four * 1e6).abs() < 1e-6);
        assert_eq!(reasons(&answer, "var_money"), ["assumes_iid"]);
        let rows: Vec<Json> = (0..5).map(|at| json!([at, 10.0, 12.0, 8.0, 11.0, 1.0])).collect();
        let bars = ask(&json!({"data": rows, "timeframe": "1d"})).unwrap();
        let range = (12.0_f64 / 8.0).ln() * (365.0 / (4.0 * std::f64::consts::LN_2)).sqrt();
        assert!((bars["metrics"]["volatility_parkinson"].as_f64().unwrap() - range).abs() < 1e-12);
        assert!(bars["metrics"]["volatility_yang_zhang"].is_number());
    }

    #[test]
    fn trades_have_figures_of_their_own() {
        let trades = json!([{"pnl": 3.0}, {"pnl": -1.0}, {"pnl": 1.0, "symbol": "X", "side": "buy"}]);
        let answer = ask(&json!({"trades": trades})).unwrap();
        assert_eq!(answer["metrics"]["profit_factor"], 4.0);
        assert_eq!(answer["metrics"]["expectancy"], 1.0);
        assert_eq!(answer["metrics"].as_object().unwrap().len(), OF_TRADES.len());
        let shares = json!([{"pnl": 3.0, "return": 0.03}, {"pnl": -1.0, "return": -0.01}]);
        let answer = ask(&json!({"trades": shares})).unwrap();
        assert_eq!((answer["periods"].as_u64(), answer["metrics"]["payoff"].as_f64()), (Some(2), Some(3.0)));
        assert!(answer["metrics"]["sharpe"].is_number());
        assert_eq!(reasons(&ask(&json!({"trades": []})).unwrap(), "kelly"), ["no_trades"]);
    }

    #[test]
    fn an_expansion_that_turns_back_is_told() {
        let mut returns = vec![0.001; 60];
        returns[7] = -0.6;
        let answer = ask(&json!({"returns": returns})).unwrap();
        assert_eq!(reasons(&answer, "var_cornish_fisher"), ["not_monotone"]);
        assert_eq!(answer["metrics"]["var_cornish_fisher"], answer["metrics"]["var_parametric"]);
    }

    #[test]
    fn requests_that_cannot_be_are_refused() {
        assert!(matches!(ask(&json!({})), Err(Refusal::Shape(_))));
        assert!(matches!(ask(&json!({"returns": [1], "prices": [1]})), Err(Refusal::Shape(_))));
        assert!(matches!(ask(&json!({"prices": [1.0, 0.0]})), Err(Refusal::Series { row: Some(1), .. })));
        let of_returns = |more: Json| {
            let mut body = json!({"returns": [0.1, 0.2]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            ask(&body).unwrap_err()
        };
        assert!(matches!(of_returns(json!({"alpha": 0.9})), Refusal::Parameter(_)));
        assert!(matches!(of_returns(json!({"metrics": ["sharp"]})), Refusal::Parameter(_)));
        assert!(matches!(of_returns(json!({"metrics": vec!["sharpe"; 65]})), Refusal::TooMuch(_)));
        assert!(matches!(of_returns(json!({"metrics": ["dsr"]})), Refusal::Shape(_)));
        assert!(matches!(of_returns(json!({"metrics": ["var_money"]})), Refusal::Shape(_)));
        assert!(matches!(of_returns(json!({"metrics": ["volatility_parkinson"]})), Refusal::Shape(_)));
        assert!(matches!(of_returns(json!({"benchmark": [0.1]})), Refusal::Series { .. }));
        assert!(matches!(of_returns(json!({"horizon": 0.5})), Refusal::Parameter(_)));
        assert!(matches!(of_returns(json!({"required_return": -2})), Refusal::Parameter(_)));
        assert!(matches!(of_returns(json!({"benchmrk": []})), Refusal::Shape(_)));
        assert!(matches!(ask(&json!({"trades": [{"pnl": 1, "mood": 2}]})), Err(Refusal::Shape(_))));
        assert!(matches!(ask(&json!({"returns": vec![0.1; 101]})), Err(Refusal::TooMuch(_))));
        assert!(matches!(ask(&json!({"trades": vec![json!({"pnl": 1}); 101]})), Err(Refusal::TooMuch(_))));
    }
}
