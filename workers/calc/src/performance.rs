//! `POST /calculations/performance`: what an account or a list of trades came to.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use sluice_calc::risk::{
    Drawdown, FIGURES, Month, Outcomes, Summary, Undefined, each_drawdown, streaks, summary,
};
use sluice_wire::symbol::Timeframe;

use crate::bounds::DRAWDOWNS_MAX;
use crate::error::Refusal;
use crate::figures::{Report, Terms, Trade, bounded, results, returns_of, shares, with_trades};
use crate::pool::Scratch;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    trades: Option<Vec<Trade>>,
    /// Equity before the first trade; with it the trades make a curve.
    initial_equity: Option<f64>,
    equity: Option<Vec<f64>>,
    /// Unix milliseconds of the equity's values.
    times: Option<Vec<i64>>,
    periods_per_year: Option<f64>,
    timeframe: Option<Timeframe>,
    rf: Option<f64>,
    alpha: Option<f64>,
    required_return: Option<f64>,
}

/// Computes a body; returns the answer and the number of returns or trades.
pub(crate) fn answer(
    body: &[u8],
    rows_max: usize,
    scratch: &mut Scratch,
) -> Result<(Vec<u8>, usize), Refusal> {
    let request: Request = sluice_wire::json::from_slice(body)?;
    let terms = Terms {
        periods_per_year: request.periods_per_year,
        timeframe: request.timeframe.clone(),
        rf: request.rf,
        alpha: request.alpha,
        required_return: request.required_return,
    };
    let settings = terms.settings()?;
    let account = Account::of(&request, rows_max)?;
    let mut buffer = scratch.take(account.returns.len());
    let found = summary(&account.returns, &settings, &mut buffer);
    scratch.give(buffer);
    let mut found = found.unwrap_or(Summary::without(Undefined::TooFewPeriods));
    let mut falls = Vec::new();
    if let Some(curve) = &account.curve {
        found.drawdown = each_drawdown(curve, |fall| keep_deepest(&mut falls, fall));
    }
    if let Some(trades) = &request.trades {
        with_trades(&mut found, trades);
    }
    let mut report = Report::default();
    for (name, read) in FIGURES {
        report.add(name, read(&found));
    }
    let Report { metrics, warnings } = report;
    let periods = account.returns.len();
    let answer = json!({
        "success": true, "periods": periods, "metrics": metrics,
        "trades": request.trades.as_deref().map(trades_told),
        "drawdowns": falls.iter().map(fall_told).collect::<Vec<_>>(),
        "monthly": monthly(&request, &account.returns), "warnings": warnings,
    });
    Ok((answer.to_string().into_bytes(), periods.max(request.trades.as_ref().map_or(0, Vec::len))))
}

/// The equity curve, where there is one, and its returns.
struct Account {
    curve: Option<Vec<f64>>,
    returns: Vec<f64>,
}

impl Account {
    fn of(request: &Request, rows_max: usize) -> Result<Self, Refusal> {
        match (&request.equity, &request.trades) {
            (Some(equity), None) => {
                request.check_times(equity.len())?;
                Ok(Self { curve: Some(equity.clone()), returns: returns_of(equity, rows_max)? })
            }
            (None, Some(trades)) => {
                bounded(trades.len(), rows_max)?;
                request.check_times(0)?;
                let backwards =
                    |trade: &Trade| trade.entry_time.zip(trade.exit_time).is_some_and(|(from, to)| to < from);
                if let Some(row) = trades.iter().position(backwards) {
                    let text = format!("row {row}: the trade ends before it begins");
                    return Err(Refusal::Series { row: Some(row), text });
                }
                Self::of_trades(trades, request.initial_equity, rows_max)
            }
            _ => Err(Refusal::Shape("exactly one of `trades` and `equity` is needed".to_owned())),
        }
    }

    fn of_trades(trades: &[Trade], initial: Option<f64>, rows_max: usize) -> Result<Self, Refusal> {
        let Some(initial) = initial else {
            let returns = shares(trades).unwrap_or_default();
            return Ok(Self { curve: None, returns });
        };
        let curve: Vec<f64> = std::iter::once(initial)
            .chain(trades.iter().scan(initial, |equity, trade| {
                *equity += trade.pnl;
                Some(*equity)
            }))
            .collect();
        let returns = returns_of(&curve, rows_max.saturating_add(1)).map_err(|refusal| match refusal {
            // Position 0 is the equity before the first trade.
            Refusal::Series { row: Some(at), .. } => {
                let row = at.saturating_sub(1);
                Refusal::Series { row: Some(row), text: format!("row {row}: no equity is left after it") }
            }
            other => other,
        })?;
        Ok(Self { curve: Some(curve), returns })
    }
}

impl Request {
    fn check_times(&self, wanted: usize) -> Result<(), Refusal> {
        let Some(times) = &self.times else { return Ok(()) };
        if times.len() != wanted {
            let text = format!("times has {} values where {wanted} are needed", times.len());
            return Err(Refusal::Series { row: None, text });
        }
        match times.windows(2).position(|pair| pair[0] >= pair[1]) {
            None => Ok(()),
            Some(before) => {
                let row = before + 1;
                let text = format!("row {row}: its time is not after the row before");
                Err(Refusal::Series { row: Some(row), text })
            }
        }
    }
}

/// Keeps the deepest falls, the deepest first.
fn keep_deepest(falls: &mut Vec<Drawdown>, fall: Drawdown) {
    let at = falls.partition_point(|kept| kept.depth <= fall.depth);
    if at < DRAWDOWNS_MAX {
        falls.insert(at, fall);
        falls.truncate(DRAWDOWNS_MAX);
    }
}

fn fall_told(fall: &Drawdown) -> Json {
    json!({"depth": fall.depth, "peak": fall.peak, "trough": fall.trough, "recovery": fall.recovery,
        "duration": fall.duration})
}

fn trades_told(trades: &[Trade]) -> Json {
    let pnl = results(trades);
    let [wins_in_a_row, losses_in_a_row] = streaks(&pnl);
    let lasted: Vec<i128> = trades
        .iter()
        .filter_map(|trade| Some(i128::from(trade.exit_time?) - i128::from(trade.entry_time?)))
        .collect();
    let outcomes = Outcomes::of(&pnl);
    let some = |figure: Result<f64, Undefined>| figure.ok();
    let largest = |side: fn(f64, f64) -> f64| Some(pnl.iter().copied().fold(0.0, side)).filter(|v| *v != 0.0);
    json!({
        "count": trades.len(),
        "wins": outcomes.map_or(0.0, |all| all.wins()) as u64,
        "losses": outcomes.map_or(0.0, |all| all.losses()) as u64,
        "average_win": some(outcomes.and_then(|all| all.average_win())),
        "average_loss": some(outcomes.and_then(|all| all.average_loss())),
        "largest_win": largest(f64::max), "largest_loss": largest(f64::min),
        "average_duration_ms": (!lasted.is_empty()).then(|| lasted.iter().sum::<i128>() as f64 / lasted.len() as f64),
        "streak_wins": wins_in_a_row, "streak_losses": losses_in_a_row,
    })
}

/// A month's compounded return, profit and trades.
#[derive(Default)]
struct Gathered {
    growth: Option<f64>,
    pnl: f64,
    trades: usize,
}

/// The months in their order; empty where nothing says when.
fn monthly(request: &Request, returns: &[f64]) -> Vec<Json> {
    let mut months: BTreeMap<Month, Gathered> = BTreeMap::new();
    let mut gather = |time: i64, share: Option<f64>, pnl: Option<f64>| {
        let month = months.entry(Month::of(time)).or_default();
        if let Some(share) = share {
            month.growth = Some(month.growth.unwrap_or(1.0) * (1.0 + share));
        }
        month.pnl += pnl.unwrap_or(0.0);
        month.trades += usize::from(pnl.is_some());
    };
    if let Some(times) = &request.times {
        // A return belongs to the time at which it had been made.
        times.iter().skip(1).zip(returns).for_each(|(time, share)| gather(*time, Some(*share), None));
    }
    for (at, trade) in request.trades.iter().flatten().enumerate() {
        if let Some(time) = trade.exit_time {
            gather(time, returns.get(at).copied(), Some(trade.pnl));
        }
    }
    let told = |(month, gathered): (Month, Gathered)| {
        let share = gathered.growth.map(|growth| growth - 1.0);
        let of_trades = request.trades.is_some();
        json!({"month": month.to_string(), "return": share, "trades": of_trades.then_some(gathered.trades),
            "pnl": of_trades.then_some(gathered.pnl)})
    };
    months.into_iter().map(told).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    fn ask(body: &Json) -> Result<Json, Refusal> {
        let (bytes, _) = answer(
            body.to_string().as_bytes(),
            100,
            &mut Scratch::new(sluice_calc::Cpu::proven().unwrap(), std::sync::Arc::default()),
        )?;
        Ok(serde_json::from_slice(&bytes).unwrap())
    }

    #[test]
    fn an_account_is_told_by_falls_and_months() {
        let equity = [100.0, 110.0, 99.0, 110.0, 121.0, 60.5];
        let times: Vec<i64> = [0, 10, 20, 31, 40, 60].map(|day| day * DAY).to_vec();
        let answer = ask(&json!({"equity": equity, "times": times})).unwrap();
        let falls = answer["drawdowns"].as_array().unwrap();
        assert_eq!(falls[0], json!({"depth": -0.5, "peak": 4, "trough": 5, "recovery": null, "duration": 1}));
        assert_eq!((falls.len(), &falls[1]["recovery"]), (2, &json!(3)));
        let monthly = answer["monthly"].as_array().unwrap();
        let months: Vec<&str> = monthly.iter().map(|month| month["month"].as_str().unwrap()).collect();
        assert_eq!(months, ["1970-01", "1970-02", "1970-03"]);
        let january = monthly[0]["return"].as_f64().unwrap();
        assert!((january + 0.01).abs() < 1e-12, "{january}");
        assert_eq!(answer["metrics"]["max_drawdown"], -0.5);
        assert!(answer["trades"].is_null());
    }

    #[test]
    fn trades_are_told_by_wins_and_losses() {
        let trade =
            |pnl: f64, day: i64| json!({"pnl": pnl, "entry_time": day * DAY, "exit_time": (day + 1) * DAY});
        let body =
            json!({"trades": [trade(10.0, 0), trade(20.0, 40), trade(-40.0, 41)], "initial_equity": 100});
        let answer = ask(&body).unwrap();
        let trades = &answer["trades"];
        assert_eq!((&trades["count"], &trades["wins"], &trades["losses"]), (&json!(3), &json!(2), &json!(1)));
        assert_eq!((&trades["average_win"], &trades["largest_loss"]), (&json!(15.0), &json!(-40.0)));
        assert_eq!(trades["average_duration_ms"], DAY as f64);
        assert_eq!((&trades["streak_wins"], &trades["streak_losses"]), (&json!(2), &json!(1)));
        let february = &answer["monthly"][1];
        assert_eq!((&february["month"], &february["trades"]), (&json!("1970-02"), &json!(2)));
        assert_eq!(february["pnl"], -20.0);
        assert!((february["return"].as_f64().unwrap() - (0.9 / 1.1 - 1.0)).abs() < 1e-12);
        assert_eq!(answer["metrics"]["profit_factor"], 0.75);
        assert!(answer["metrics"]["max_drawdown"].as_f64().unwrap() < -0.3);
        let alone = ask(&json!({"trades": [{"pnl": 1.0}]})).unwrap();
        assert!(alone["metrics"]["sharpe"].is_null() && alone["metrics"]["win_rate"] == 1.0);
        assert!(alone["trades"]["largest_loss"].is_null());
        assert_eq!(alone["monthly"], json!([]));
    }

    #[test]
    fn only_the_deepest_falls_are_kept() {
        let mut equity = vec![100.0];
        for fall in [3.0, 9.0, 1.0, 7.0, 5.0, 8.0, 2.0] {
            equity.extend([100.0 - fall, 100.0]);
        }
        let answer = ask(&json!({"equity": equity})).unwrap();
        let depths: Vec<f64> = answer["drawdowns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fall| fall["depth"].as_f64().unwrap())
            .collect();
        assert_eq!(depths.len(), DRAWDOWNS_MAX);
        assert!(
            depths
                .iter()
                .zip([9.0, 8.0, 7.0, 5.0, 3.0])
                .all(|(found, deep)| (found * 100.0 + deep).abs() < 1e-9)
        );
    }

    #[test]
    fn requests_that_cannot_be_are_refused() {
        let row = |body: Json| match ask(&body) {
            Err(Refusal::Series { row, .. }) => row,
            other => panic!("{other:?}"),
        };
        assert!(matches!(ask(&json!({})), Err(Refusal::Shape(_))));
        assert!(matches!(ask(&json!({"equity": [1, 2], "trades": []})), Err(Refusal::Shape(_))));
        assert_eq!(row(json!({"equity": [1, -2]})), Some(1));
        assert_eq!(row(json!({"equity": [1, 2, 3], "times": [1, 2, 2]})), Some(2));
        assert_eq!(row(json!({"equity": [1, 2, 3], "times": [1, 2]})), None);
        assert_eq!(row(json!({"trades": [{"pnl": 1}, {"pnl": -9}], "initial_equity": 5})), Some(1));
        assert_eq!(row(json!({"trades": [{"pnl": 1, "entry_time": 2, "exit_time": 1}]})), Some(0));
        assert!(matches!(ask(&json!({"equity": vec![1.0; 101]})), Err(Refusal::TooMuch(_))));
        assert!(matches!(ask(&json!({"trades": vec![json!({"pnl": 1}); 101]})), Err(Refusal::TooMuch(_))));
    }
}
