//! The market tape: the shipped bars as `market_data_update` events, one a symbol and tick.
//!
//! After the last bar of a symbol it begins again. A publish that fails is repeated with the same
//! event ids, so a restart of the event worker neither loses nor doubles a bar.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sluice_http::Stop;
use sluice_wire::event::{EventType, NewEvent};
use tokio::time::{MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use crate::context::Context;
use crate::history::Bar;

/// Pause before a failed publish is repeated.
const REPEAT_AFTER: Duration = Duration::from_millis(250);

/// Runs the tape until the process is to end.
pub async fn run(context: Arc<Context>, stop: Stop) {
    let mut ticks = interval(context.settings.bar_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for turn in 0_usize.. {
        tokio::select! {
            () = stop.wait() => return,
            _ = ticks.tick() => {}
        }
        let bars = context.series.iter().filter_map(|series| {
            let bar = series.bars.get(turn % series.bars.len())?;
            Some(event(series.symbol, bar))
        });
        let events: Vec<NewEvent> = bars.collect();
        publish(&context, &events, &stop).await;
    }
}

async fn publish(context: &Context, events: &[NewEvent], stop: &Stop) {
    while !stop.is_stopping() {
        let published = context.events.publish_batch(events).await;
        // Bars stored by an earlier try come back as duplicates: nothing is lost and nothing doubled.
        match published {
            Ok(answer) if answer.get("failed").and_then(Value::as_u64) == Some(0) => {
                context.published.with_label_values(&["market_data_update"]).inc_by(events.len() as u64);
                return;
            }
            Ok(_) => sleep(REPEAT_AFTER).await,
            Err(error) => {
                tracing::debug!(component = "tape", error = &error as &dyn std::error::Error, "tape waits");
                sleep(REPEAT_AFTER).await;
            }
        }
    }
}

fn event(symbol: &str, bar: &Bar) -> NewEvent {
    let data: Map<String, Value> = [
        ("symbol", json!(symbol)),
        ("timeframe", json!("1d")),
        ("timestamp", json!(bar.time_ms)),
        ("open", json!(bar.open)),
        ("high", json!(bar.high)),
        ("low", json!(bar.low)),
        ("close", json!(bar.close)),
        ("volume", json!(bar.volume)),
        ("price", json!(bar.close)),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    NewEvent {
        event_type: EventType::parse("market_data_update").expect("a catalogued type"),
        event_id: Some(Uuid::now_v7()),
        timestamp: None,
        source: "demo_tape".into(),
        data,
        metadata: Map::new(),
    }
}
