//! What a search answers.

use serde_json::{Map, Value as Json, json};
use sluice_calc::risk::Figure;
use sluice_calc::search::{Figures, Found, Space, Walked, Window};

use super::Plan;
use crate::figures::Report;

/// `top` has the best with their deflated Sharpe ratios.
pub(super) fn of(plan: &Plan, top: &[(Found, Figure)], walked: Option<&Walked>) -> Json {
    let top: Vec<Json> = top.iter().map(|(found, deflated)| told(plan, found, *deflated)).collect();
    let mut result = json!({"top": top, "rank": plan.rank.name(), "rows": plan.series.close.len()});
    if let Some(found) = walked {
        result["walk_forward"] = self::walked(&plan.space, plan.series.time_ms.as_deref(), found);
    }
    result
}

fn told(plan: &Plan, found: &Found, deflated: Figure) -> Json {
    let mut report = metrics(&found.figures);
    report.add("dsr", deflated);
    let Report { metrics, warnings } = report;
    json!({
        "parameters": parameters(&plan.space, found.number), "score": plan.rank.of(&found.figures),
        "metrics": metrics, "warnings": warnings,
    })
}

/// Names and values of a combination; whole numbers without a point.
pub(crate) fn parameters(space: &Space, number: u64) -> Json {
    let values = space.named(number).zip(space.rule().genes).map(|((name, value), gene)| {
        (name.to_owned(), if gene.whole { json!(value as i64) } else { json!(value) })
    });
    Json::Object(values.collect::<Map<_, _>>())
}

/// Every figure of a backtest by name.
pub(crate) fn metrics(figures: &Figures) -> Report {
    let mut report = Report::default();
    report.add("total_return", Ok(figures.total_return));
    report.add("annual_return", figures.annual_return);
    report.add("sharpe", figures.sharpe);
    report.add("max_drawdown", Ok(figures.max_drawdown));
    report.add("calmar", figures.calmar);
    report.metrics.insert("trades".to_owned(), json!(figures.trades));
    report.add("win_rate", figures.win_rate);
    report.add("profit_factor", figures.profit_factor);
    report.add("exposure", Ok(figures.exposure));
    report.add("strategy_score", Ok(figures.score()));
    report
}

/// All windows, and what follows of them. Bars are counted from 0, `to` is the bar behind the last; times are those of
/// the first bar and of the last.
fn walked(space: &Space, times: Option<&[f64]>, walked: &Walked) -> Json {
    let windows: Vec<Json> = walked.windows.iter().map(|window| of_window(space, times, window)).collect();
    let figure = |figure: Figure| figure.map_or(Json::Null, Json::from);
    json!({
        "status": walked.verdict.name(), "windows": windows,
        "sharpe_in_sample": figure(walked.sharpe_in), "sharpe_out_of_sample": figure(walked.sharpe_out),
        "oos_sharpe_std_dev": figure(walked.sharpe_out_deviation),
        "sharpe_degradation": figure(walked.sharpe_degradation),
        "return_degradation": figure(walked.return_degradation),
    })
}

fn of_window(space: &Space, times: Option<&[f64]>, window: &Window) -> Json {
    let range = |bars: &std::ops::Range<usize>| {
        let mut range = json!({"from": bars.start, "to": bars.end});
        if let Some(times) = times {
            range["from_ms"] = json!(times[bars.start] as i64);
            range["last_ms"] = json!(times[bars.end - 1] as i64);
        }
        range
    };
    json!({
        "train": range(&window.train), "test": range(&window.test),
        "parameters": parameters(space, window.chosen.number),
        "in_sample": metrics(&window.chosen.figures).metrics, "out_of_sample": metrics(&window.out).metrics,
    })
}
