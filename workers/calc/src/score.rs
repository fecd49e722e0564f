//! `POST /calculations/strategies/score`, `/ensemble` and `/rotate`.

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use sluice_calc::risk::{Figure, Outcomes, Settings, Summary, Undefined, drawdown_of_equity, summary};
use sluice_calc::score::{
    Candidate, Change, Member, POWER_MAX, Parts, Policy, Weighting, confidence, effective, rotate, score,
    weights,
};
use sluice_wire::symbol::Timeframe;

use crate::bounds::{ID_BYTES_MAX, MEMBERS_MAX};
use crate::error::Refusal;
use crate::figures::{Terms, Trade, bounded, returns_of, shares, with_trades};
use crate::pool::Scratch;
use crate::risk::in_range;

/// How often a strategy has to be seen to count as known, when a request does not say.
const COUNT_MAX: f64 = 10.0;

/// Figures that somebody else has computed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    sharpe: Option<f64>,
    max_drawdown: Option<f64>,
    win_rate: Option<f64>,
    cagr: Option<f64>,
    profit_factor: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scored {
    id: String,
    metrics: Option<Given>,
    equity: Option<Vec<f64>>,
    trades: Option<Vec<Trade>>,
    count: Option<f64>,
    days: Option<f64>,
    performance: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Score {
    strategies: Vec<Scored>,
    max_count: Option<f64>,
    periods_per_year: Option<f64>,
    timeframe: Option<Timeframe>,
    rf: Option<f64>,
}

/// Scores strategies, best first.
pub(crate) fn scores(
    body: &[u8],
    rows_max: usize,
    scratch: &mut Scratch,
) -> Result<(Vec<u8>, usize), Refusal> {
    let request: Score = sluice_wire::json::from_slice(body)?;
    named(request.strategies.iter().map(|strategy| strategy.id.as_str()))?;
    let (periods_per_year, timeframe) = (request.periods_per_year, request.timeframe);
    let terms = Terms { periods_per_year, timeframe, rf: request.rf, ..Terms::default() };
    let settings = terms.settings()?;
    let count_max = in_range("max_count", request.max_count.unwrap_or(COUNT_MAX), 0.0, 1e15)?;
    let mut rows = 0;
    let mut told = Vec::with_capacity(request.strategies.len());
    for (at, strategy) in request.strategies.iter().enumerate() {
        let (parts, read) =
            parts(strategy, &settings, rows_max, scratch).map_err(|fault| within(at, fault))?;
        rows += read;
        bounded(rows, rows_max)?;
        let total = score(&parts);
        let performance = in_range("performance", strategy.performance.unwrap_or(total), 0.0, 1.0)?;
        let count = in_range("count", strategy.count.unwrap_or(0.0), 0.0, 1e15)?;
        let days = in_range("days", strategy.days.unwrap_or(0.0), 0.0, 1e6)?;
        let sure = confidence(performance, count, count_max, days);
        told.push((total, strategy.id.as_str(), told_of(strategy, &parts, total, sure)));
    }
    told.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(b.1)));
    let scores: Vec<Json> = told.into_iter().map(|(_, _, json)| json).collect();
    Ok((json!({"success": true, "scores": scores}).to_string().into_bytes(), rows))
}

fn told_of(strategy: &Scored, parts: &Parts, total: f64, sure: f64) -> Json {
    let terms = parts.terms();
    let of_parts: Map<String, Json> = terms
        .iter()
        .map(|(name, _, value)| ((*name).to_owned(), value.ok().map_or(Json::Null, Json::from)))
        .collect();
    let reasons: Vec<Json> = terms
        .iter()
        .filter_map(|(name, _, value)| Some(json!({"part": name, "reason": value.err()?.code()})))
        .collect();
    json!({"id": strategy.id, "score": total, "confidence": sure, "parts": of_parts, "reasons": reasons})
}

/// The figures a strategy is scored by: given ones, or those of its equity or trades.
fn parts(
    strategy: &Scored,
    settings: &Settings,
    rows_max: usize,
    scratch: &mut Scratch,
) -> Result<(Parts, usize), Refusal> {
    if let Some(given) = &strategy.metrics {
        if strategy.equity.is_some() || strategy.trades.is_some() {
            return Err(Refusal::Shape("a strategy has `metrics`, or `equity` and `trades`".to_owned()));
        }
        let figure = |value: Option<f64>| value.ok_or(Undefined::TooFewPeriods);
        let parts = Parts {
            sharpe: figure(given.sharpe),
            max_drawdown: figure(given.max_drawdown),
            win_rate: figure(given.win_rate),
            cagr: figure(given.cagr),
            profit_factor: figure(given.profit_factor),
        };
        return Ok((parts, 0));
    }
    let returns = match (&strategy.equity, &strategy.trades) {
        (Some(equity), _) => returns_of(equity, rows_max)?,
        (None, Some(trades)) => shares(trades).unwrap_or_default(),
        (None, None) => {
            return Err(Refusal::Shape("a strategy has `metrics`, `equity` or `trades`".to_owned()));
        }
    };
    let mut buffer = scratch.take(returns.len());
    let found = summary(&returns, settings, &mut buffer);
    scratch.give(buffer);
    let mut found = found.unwrap_or(Summary::without(Undefined::TooFewPeriods));
    if let Some(equity) = &strategy.equity {
        found.drawdown = drawdown_of_equity(equity);
    }
    if let Some(trades) = &strategy.trades {
        with_trades(&mut found, trades);
    }
    let of_outcomes = |read: fn(&Outcomes) -> Figure| found.outcomes.and_then(|all| read(&all));
    let parts = Parts {
        sharpe: found.sharpe,
        max_drawdown: found.drawdown.map(|fall| fall.depth),
        win_rate: of_outcomes(Outcomes::win_rate),
        cagr: found.cagr,
        profit_factor: of_outcomes(Outcomes::profit_factor),
    };
    Ok((parts, returns.len().max(strategy.trades.as_ref().map_or(0, Vec::len))))
}

/// A fault of one strategy, by its place in the list.
fn within(at: usize, refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Series { text, .. } => {
            Refusal::Series { row: Some(at), text: format!("strategy {at}: {text}") }
        }
        Refusal::Shape(text) => Refusal::Series { row: Some(at), text: format!("strategy {at}: {text}") },
        other => other,
    }
}

/// Ids are short, and none occurs twice.
fn named<'a>(ids: impl Iterator<Item = &'a str>) -> Result<(), Refusal> {
    let mut seen = std::collections::BTreeSet::new();
    for (at, id) in ids.enumerate() {
        if at >= MEMBERS_MAX {
            return Err(Refusal::TooMuch(format!("more than {MEMBERS_MAX} strategies")));
        }
        if id.is_empty() || id.len() > ID_BYTES_MAX || !seen.insert(id) {
            let text = format!("strategy {at}: its id is empty, longer than 64 bytes or there already");
            return Err(Refusal::Series { row: Some(at), text });
        }
    }
    Ok(())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Weighed {
    id: String,
    score: f64,
    #[serde(default)]
    returns: Vec<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ensemble {
    members: Vec<Weighed>,
    method: String,
    power: Option<f64>,
    max_weight: Option<f64>,
}

/// Weighs strategies.
pub(crate) fn ensemble(body: &[u8], rows_max: usize, _: &mut Scratch) -> Result<(Vec<u8>, usize), Refusal> {
    let request: Ensemble = sluice_wire::json::from_slice(body)?;
    named(request.members.iter().map(|member| member.id.as_str()))?;
    if request.members.is_empty() {
        return Err(Refusal::Shape("members are needed".to_owned()));
    }
    let rows: usize = request.members.iter().map(|member| member.returns.len()).sum();
    bounded(rows, rows_max)?;
    for (at, member) in request.members.iter().enumerate() {
        in_range("score", member.score, 0.0, 1.0).map_err(|fault| within(at, fault))?;
    }
    let rule = match request.method.as_str() {
        "score" => {
            Weighting::Score { power: in_range("power", request.power.unwrap_or(1.0), 0.0, POWER_MAX)? }
        }
        "correlation" => {
            let length = request.members[0].returns.len();
            let odd = request.members.iter().position(|member| member.returns.len() != length || length < 2);
            if let Some(at) = odd {
                let text =
                    format!("strategy {at}: correlations need two returns or more, as many of every member");
                return Err(Refusal::Series { row: Some(at), text });
            }
            Weighting::Correlation
        }
        _ => return Err(Refusal::Parameter("method is `score` or `correlation`".to_owned())),
    };
    let usual = 0.4_f64.max(1.0 / request.members.len() as f64);
    let max_weight = in_range("max_weight", request.max_weight.unwrap_or(usual), 0.0, 1.0)?;
    if max_weight * (request.members.len() as f64) < 1.0 - 1e-9 {
        let text = format!(
            "max_weight {max_weight} is less than an equal share of {} members",
            request.members.len()
        );
        return Err(Refusal::Parameter(text));
    }
    let members: Vec<Member<'_>> = request
        .members
        .iter()
        .map(|member| Member { score: member.score, returns: &member.returns })
        .collect();
    let mut found = vec![0.0; members.len()];
    weights(&members, rule, max_weight, &mut found);
    let told: Vec<Json> = request
        .members
        .iter()
        .zip(&found)
        .map(|(member, weight)| json!({"id": member.id, "weight": weight}))
        .collect();
    let answer =
        json!({"success": true, "weights": told, "method": request.method, "effective": effective(&found)});
    Ok((answer.to_string().into_bytes(), rows))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Runner {
    id: String,
    #[serde(default)]
    symbol: String,
    score: f64,
    /// Rounds that it has been running; not there for one that does not run.
    held: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    candidates: Vec<Runner>,
    slots: usize,
    floor: Option<f64>,
    margin: Option<f64>,
    min_hold: Option<u64>,
    max_changes: Option<usize>,
    per_symbol: Option<usize>,
}

/// Decides which strategies go on, begin and end.
pub(crate) fn rotation(body: &[u8], _: usize, _: &mut Scratch) -> Result<(Vec<u8>, usize), Refusal> {
    let request: Rotate = sluice_wire::json::from_slice(body)?;
    named(request.candidates.iter().map(|candidate| candidate.id.as_str()))?;
    for (at, candidate) in request.candidates.iter().enumerate() {
        in_range("score", candidate.score, 0.0, 1.0).map_err(|fault| within(at, fault))?;
    }
    let policy = Policy {
        slots: request.slots,
        floor: in_range("floor", request.floor.unwrap_or(0.6), 0.0, 1.0)?,
        margin: in_range("margin", request.margin.unwrap_or(0.05), 0.0, 1.0)?,
        min_hold: request.min_hold.unwrap_or(0),
        max_changes: request.max_changes.unwrap_or(usize::MAX),
        per_symbol: request.per_symbol.unwrap_or(usize::MAX),
    };
    let candidates: Vec<Candidate<'_>> = request
        .candidates
        .iter()
        .map(|one| Candidate { id: &one.id, symbol: &one.symbol, score: one.score, held: one.held })
        .collect();
    let round = rotate(&candidates, &policy);
    let id = |at: usize| candidates[at].id;
    let told = |changes: &[Change], other: &str| -> Vec<Json> {
        let told = changes.iter();
        told.map(
            |change| json!({"id": id(change.at), other: change.other.map(id), "reason": change.why.code()}),
        )
        .collect()
    };
    let keep: Vec<&str> = round.keep.iter().map(|at| id(*at)).collect();
    let answer = json!({"success": true, "keep": keep, "add": told(&round.add, "replaces"),
        "drop": told(&round.drop, "replaced_by")});
    Ok((answer.to_string().into_bytes(), candidates.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Call = fn(&[u8], usize, &mut Scratch) -> Result<(Vec<u8>, usize), Refusal>;

    fn ask(call: Call, body: &Json) -> Result<Json, Refusal> {
        let mut scratch = Scratch::new(sluice_calc::Cpu::proven().unwrap(), std::sync::Arc::default());
        Ok(serde_json::from_slice(&call(body.to_string().as_bytes(), 100, &mut scratch)?.0).unwrap())
    }

    #[test]
    fn strategies_are_scored_best_first() {
        let good =
            json!({"sharpe": 2, "max_drawdown": -0.1, "win_rate": 0.6, "cagr": 0.5, "profit_factor": 2});
        let body = json!({"strategies": [
            {"id": "flat", "equity": [1, 1, 1]},
            {"id": "good", "metrics": good, "count": 5, "days": 15},
            {"id": "rise", "equity": [100, 101, 100.5, 103], "trades": [{"pnl": 3}, {"pnl": -0.5}]},
        ]});
        let answer = ask(scores, &body).unwrap();
        let ids: Vec<&str> =
            answer["scores"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
        assert_eq!(
            (ids[2], answer["scores"][2]["reasons"][0]["reason"].as_str()),
            ("flat", Some("no_variation"))
        );
        let good = answer["scores"].as_array().unwrap().iter().find(|one| one["id"] == "good").unwrap();
        let expected = 0.25 + 0.2 * 0.9 + 0.2 * 0.6 + 0.2 * 0.5 + 0.15;
        assert!((good["score"].as_f64().unwrap() - expected).abs() < 1e-12);
        assert!((good["confidence"].as_f64().unwrap() - (0.6 * expected + 0.125 + 0.075)).abs() < 1e-12);
        assert_eq!(good["parts"]["sharpe"], 1.0);
    }

    #[test]
    fn members_are_weighed() {
        let body = json!({"members": [{"id": "a", "score": 0.9}, {"id": "b", "score": 0.1}, {"id": "c", "score": 0.1}],
            "method": "score"});
        let answer = ask(ensemble, &body).unwrap();
        assert_eq!(answer["weights"][0], json!({"id": "a", "weight": 0.4}));
        assert!((answer["effective"].as_f64().unwrap() - 1.0 / 0.34).abs() < 1e-12);
        let twins = json!({"members": [{"id": "a", "score": 0.5, "returns": [0.1, 0.2]},
            {"id": "b", "score": 0.5, "returns": [0.1, 0.2]}], "method": "correlation"});
        assert_eq!(ask(ensemble, &twins).unwrap()["weights"][1]["weight"], 0.5);
    }

    #[test]
    fn a_round_is_decided() {
        let body = json!({"slots": 1, "candidates": [{"id": "old", "score": 0.6, "held": 3}, {"id": "new", "score": 0.7}]});
        let answer = ask(rotation, &body).unwrap();
        assert_eq!(answer["add"], json!([{"id": "new", "replaces": "old", "reason": "better"}]));
        assert_eq!(answer["drop"], json!([{"id": "old", "replaced_by": "new", "reason": "replaced"}]));
    }

    #[test]
    fn requests_that_cannot_be_are_refused() {
        let row = |call: Call, body: Json| match ask(call, &body) {
            Err(Refusal::Series { row, .. }) => row,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            row(scores, json!({"strategies": [{"id": "a", "equity": [1]}, {"id": "a", "equity": [1]}]})),
            Some(1)
        );
        assert_eq!(row(scores, json!({"strategies": [{"id": "a"}]})), Some(0));
        assert_eq!(row(scores, json!({"strategies": [{"id": "a", "equity": [1, -1]}]})), Some(0));
        let many: Vec<Json> = (0..257).map(|at| json!({"id": at.to_string(), "score": 0.5})).collect();
        assert!(matches!(
            ask(ensemble, &json!({"members": many, "method": "score"})),
            Err(Refusal::TooMuch(_))
        ));
        assert!(matches!(ask(ensemble, &json!({"members": [], "method": "score"})), Err(Refusal::Shape(_))));
        let one = json!([{"id": "a", "score": 0.5}]);
        assert!(matches!(
            ask(ensemble, &json!({"members": one, "method": "luck"})),
            Err(Refusal::Parameter(_))
        ));
        assert_eq!(row(ensemble, json!({"members": one, "method": "correlation"})), Some(0));
        let tight = json!({"members": one, "method": "score", "max_weight": 0.9});
        assert!(matches!(ask(ensemble, &tight), Err(Refusal::Parameter(_))));
        let high = json!({"slots": 1, "candidates": [{"id": "a", "score": 1.5}]});
        assert!(matches!(ask(rotation, &high), Err(Refusal::Parameter(_))));
    }
}
