//! From market data to signals: follows the event stream, keeps the last bars of each symbol, asks
//! the calculation worker for signals and publishes those that say to act.
//!
//! A break of the stream resumes after the last event seen; a signal's event id is derived from
//! the bar's event, so a bar that is seen twice gives one signal.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sluice_client::{ClientError, SseEvent};
use sluice_http::Stop;
use sluice_wire::event::{EventType, NewEvent, StoredEvent};
use tokio::time::sleep;
use uuid::Uuid;

use crate::context::Context;

/// Bars kept of each symbol: enough for every indicator the strategies use.
const BARS_MAX: usize = 120;
/// Symbols followed at most.
const SYMBOLS_MAX: usize = 64;
/// Pause before the stream is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(500);
/// Bars between two questions about one symbol: a demo need not ask at every bar.
const ASK_EVERY: u64 = 4;
/// Bars before the first question.
const WARM_UP: usize = 40;
const STRATEGIES: [&str; 3] = ["ema_crossover", "rsi", "bb_reversal"];

type Row = [f64; 6];

/// The last bars of each symbol.
#[derive(Debug, Default)]
struct Windows(BTreeMap<String, (VecDeque<Row>, u64)>);

/// Runs the pipeline until the process is to end.
pub async fn run(context: Arc<Context>, stop: Stop) {
    let mut windows = Windows::default();
    let mut last_id = None;
    while !stop.is_stopping() {
        if let Err(error) = follow(&context, &mut windows, &mut last_id).await {
            tracing::debug!(
                component = "pipeline",
                error = &error as &dyn std::error::Error,
                "pipeline waits"
            );
        }
        sleep(REOPEN_AFTER).await;
    }
}

async fn follow(
    context: &Context,
    windows: &mut Windows,
    last_id: &mut Option<String>,
) -> Result<(), ClientError> {
    let path = "/events/stream?event_type=market_data_update&source=demo_tape";
    let mut stream = context.events.stream(path, last_id.as_deref()).await?;
    while let Some(event) = stream.next().await? {
        if let Some((symbol, id)) = windows.take(&event) {
            signals(context, windows, &symbol, id).await?;
        }
        // Only now: a bar whose signals could not be computed is seen again.
        if event.id.is_some() {
            last_id.clone_from(&event.id);
        }
    }
    Ok(())
}

impl Windows {
    /// Takes a bar in; returns the symbol when it is time to ask about it.
    fn take(&mut self, event: &SseEvent) -> Option<(String, Uuid)> {
        let stored: StoredEvent = serde_json::from_str(&event.data).ok()?;
        let data = &stored.event.data;
        let number = |name: &str| data.get(name)?.as_f64();
        let row = [
            number("timestamp")?,
            number("open")?,
            number("high")?,
            number("low")?,
            number("close")?,
            number("volume")?,
        ];
        let symbol = data.get("symbol")?.as_str()?.to_owned();
        if self.0.len() >= SYMBOLS_MAX && !self.0.contains_key(&symbol) {
            return None;
        }
        let (rows, seen) = self.0.entry(symbol.clone()).or_default();
        match rows.back().map(|last| last[0]) {
            // Seen again after a break: ask again, if it was a bar to ask about.
            Some(last) if row[0] == last => {
                let asks = rows.len() >= WARM_UP && seen.is_multiple_of(ASK_EVERY);
                return asks.then_some((symbol, stored.event.event_id));
            }
            // The tape began again.
            Some(last) if row[0] < last => rows.clear(),
            _ => {}
        }
        if rows.len() == BARS_MAX {
            rows.pop_front();
        }
        rows.push_back(row);
        *seen += 1;
        (rows.len() >= WARM_UP && seen.is_multiple_of(ASK_EVERY)).then_some((symbol, stored.event.event_id))
    }
}

async fn signals(context: &Context, windows: &Windows, symbol: &str, bar: Uuid) -> Result<(), ClientError> {
    let Some((rows, _)) = windows.0.get(symbol) else { return Ok(()) };
    for (index, strategy) in STRATEGIES.iter().enumerate() {
        let request = json!({
            "symbol": symbol, "timeframe": "1d", "data": rows, "strategy_config": {"name": strategy},
        });
        let answer = context.calc.signals(&request).await?;
        let found = answer.get("signals").and_then(Value::as_array).and_then(|signals| signals.last());
        let Some(Value::Object(signal)) = found else { continue };
        if signal.get("action").and_then(Value::as_str).is_none_or(|action| action == "HOLD") {
            continue;
        }
        context.events.publish(&event(signal.clone(), strategy, bar, index)).await?;
        context.published.with_label_values(&["trading_signal"]).inc();
    }
    Ok(())
}

fn event(mut signal: Map<String, Value>, strategy: &str, bar: Uuid, index: usize) -> NewEvent {
    signal.insert("strategy".to_owned(), json!(strategy));
    // The same bar and strategy give the same id.
    let event_id = Uuid::from_u128(bar.as_u128() ^ ((index as u128 + 1) << 32));
    NewEvent {
        event_type: EventType::parse("trading_signal").expect("a catalogued type"),
        event_id: Some(event_id),
        timestamp: None,
        source: "demo_pipeline".into(),
        data: signal,
        metadata: Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(day: i64, id: u128) -> SseEvent {
        let stored = json!({
            "event_type":"market_data_update","event_id":Uuid::from_u128(id),"timestamp":"2026-01-01T00:00:00Z",
            "source":"demo_tape","metadata":{},"message_id":"1-0","seq":1,"partition":0,
            "data":{"symbol":"X","timestamp":day,"open":1.0,"high":1.0,"low":1.0,"close":1.0,"volume":1.0},
        });
        SseEvent { id: Some("1-0".into()), event: "market_data_update".into(), data: stored.to_string() }
    }

    #[test]
    fn window_is_bounded_sorted_and_asks_now_and_then() {
        let mut windows = Windows::default();
        let asked = (0..400).filter(|day| windows.take(&bar(*day, 1)).is_some()).count();
        assert_eq!(windows.0["X"].0.len(), BARS_MAX);
        assert_eq!(asked, 91);
        assert_eq!(
            windows.take(&bar(399, 1)).map(|(symbol, _)| symbol),
            Some("X".to_owned()),
            "a bar seen again"
        );
        assert_eq!(windows.0["X"].0.len(), BARS_MAX);
        windows.take(&bar(0, 1));
        assert_eq!(windows.0["X"].0.len(), 1, "the tape began again");
        let junk = SseEvent { data: "{}".into(), ..bar(1, 1) };
        assert_eq!(windows.take(&junk), None);
    }

    #[test]
    fn one_bar_and_strategy_give_one_signal_id() {
        let bar = Uuid::now_v7();
        let of = |index| event(Map::new(), "rsi", bar, index).event_id;
        assert_eq!(of(0), of(0));
        assert_ne!(of(0), of(1));
    }
}
