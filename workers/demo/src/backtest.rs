//! A backtest over the shipped history: long after BUY, flat after SELL, filled at the next open.
//!
//! Signals and figures come from the calculation worker; this is the position arithmetic between
//! them.

use serde_json::{Value, json};
use sluice_client::{Client, ClientError};

use crate::history::Bar;

/// Bars of one backtest at most; the newest count.
pub const BARS_MAX: usize = 750;

/// Daily returns of holding the positions that the actions ask for. `actions[i]` belongs to the
/// close of bar `i` and is filled at the open of bar `i + 1`. Also the number of round trips.
pub fn returns(bars: &[Bar], actions: &[&str]) -> (Vec<f64>, usize) {
    let mut returns = Vec::with_capacity(bars.len().saturating_sub(1));
    let mut long = false;
    let mut trips = 0;
    for (index, pair) in bars.windows(2).enumerate() {
        let [before, now] = pair else { continue };
        let wanted = match actions.get(index) {
            Some(&"BUY") => true,
            Some(&"SELL") => false,
            _ => long,
        };
        let overnight = if long { now.open / before.close } else { 1.0 };
        let intraday = if wanted { now.close / now.open } else { 1.0 };
        trips += usize::from(long && !wanted);
        long = wanted;
        returns.push(overnight * intraday - 1.0);
    }
    (returns, trips)
}

/// Runs a strategy over bars; the answer has `metrics`, `trades` and `bars`.
pub async fn run(calc: &Client, bars: &[Bar], strategy: &str) -> Result<Value, ClientError> {
    let rows: Vec<_> = bars.iter().map(Bar::row).collect();
    let request = json!({"data": rows, "output": "full", "strategy_config": {"name": strategy}});
    let answer = calc.signals(&request).await?;
    let found = answer.get("signals").and_then(Value::as_array).cloned().unwrap_or_default();
    let actions = aligned(bars, &found);
    let (returns, trades) = returns(bars, &actions);
    let risk = calc
        .json::<Value>(
            http::Method::POST,
            "/calculations/risk",
            &json!({"returns": returns, "periods_per_year": 252}),
        )
        .await?;
    let total = returns.iter().map(|value| (1.0 + value).ln()).sum::<f64>().exp() - 1.0;
    Ok(json!({"total_return": total, "trades": trades, "bars": bars.len(), "metrics": risk.get("metrics")}))
}

/// The action at each bar, from signals that carry the bar's time.
fn aligned<'a>(bars: &[Bar], signals: &'a [Value]) -> Vec<&'a str> {
    let mut actions = vec!["HOLD"; bars.len()];
    for signal in signals {
        let time = signal.get("timestamp").and_then(Value::as_f64);
        let action = signal.get("action").and_then(Value::as_str);
        if let (Some(time), Some(action)) = (time, action)
            && let Ok(at) = bars.binary_search_by(|bar| (bar.time_ms as f64).total_cmp(&time))
        {
            actions[at] = action;
        }
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(day: i64, open: f64, close: f64) -> Bar {
        Bar { time_ms: day, open, high: open.max(close), low: open.min(close), close, volume: 1.0 }
    }

    #[test]
    fn a_signal_is_filled_at_the_next_open() {
        let bars = [bar(0, 10.0, 10.0), bar(1, 20.0, 22.0), bar(2, 22.0, 33.0), bar(3, 44.0, 40.0)];
        let (returns, trips) = returns(&bars, &["BUY", "HOLD", "SELL", "HOLD"]);
        let expected = [0.1, 0.5, 44.0 / 33.0 - 1.0];
        assert!(returns.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-12), "{returns:?}");
        assert_eq!(trips, 1);
        assert_eq!(super::returns(&bars[..1], &["BUY"]), (vec![], 0));
    }
}
