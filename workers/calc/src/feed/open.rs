//! Bars among the market data: the newest of each series becomes its open candle.
//!
//! They come over a stream of what is published from now on. While some are being stored the newest of each series is
//! kept and the others are forgotten, so that the disk is never the measure of the market.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, join_all};
use serde::Deserialize;
use serde_json::{Map, Value};
use sluice_client::{Client, ClientError, SseStream};
use sluice_http::Stop;

use super::bar::bar;
use super::{PAUSE_MAX, PAUSE_MIN};
use crate::bounds::FEED_AT_ONCE;
use crate::context::Context;
use crate::series::{Append, Candle, SeriesKey, Store};

const PATH: &str = "/events/stream?event_type=market_data_update&from=now";

/// Follows the market data until the process is to end.
pub(super) async fn run(client: Client, context: Arc<Context>, stop: Stop) {
    let mut pause = PAUSE_MIN;
    loop {
        let followed = tokio::select! {
            () = stop.wait() => return,
            followed = follow(&client, &context, &mut pause) => followed,
        };
        if let Err(error) = followed {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(component = "feed", error, "no open candles for now");
        }
        tokio::select! {
            () = stop.wait() => return,
            () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
        }
    }
}

/// Reads a stream to its end.
async fn follow(client: &Client, context: &Arc<Context>, pause: &mut Duration) -> Result<(), ClientError> {
    let mut stream = client.stream(PATH, None).await?;
    *pause = PAUSE_MIN;
    let mut newest: BTreeMap<SeriesKey, Candle> = BTreeMap::new();
    let mut storing: Option<BoxFuture<'static, ()>> = None;
    loop {
        if storing.is_none() && !newest.is_empty() {
            storing = Some(store(Arc::clone(context), std::mem::take(&mut newest)).boxed());
        }
        tokio::select! {
            found = next(&mut stream) => match found? {
                None => break,
                // LIMIT: more series at a time than are stored at once wait for the next tick of their market.
                Some((key, candle)) if newest.len() < FEED_AT_ONCE || newest.contains_key(&key) => {
                    newest.insert(key, candle);
                }
                Some(_) => {}
            },
            () = async { if let Some(storing) = &mut storing { storing.await } }, if storing.is_some() => {
                storing = None;
            }
        }
    } // What came before the end counts.
    if let Some(storing) = storing {
        storing.await;
    }
    store(Arc::clone(context), newest).await;
    Ok(())
}

/// The next bar; most market data is none.
async fn next(stream: &mut SseStream) -> Result<Option<(SeriesKey, Candle)>, ClientError> {
    #[derive(Deserialize)]
    struct Event {
        data: Map<String, Value>,
    }
    while let Some(event) = stream.next().await? {
        if !event.data.contains("\"open\"") {
            continue;
        }
        if let Ok(event) = serde_json::from_str::<Event>(&event.data)
            && let Ok(found) = bar(&event.data)
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Stores open bars. What cannot be stored is told by the next one.
async fn store(context: Arc<Context>, bars: BTreeMap<SeriesKey, Candle>) {
    let appends = bars.into_iter().map(async |(key, candle)| {
        if is_past(&context.series, &key, &candle) {
            return;
        }
        let how = Append { last_is_open: true, closes_open: false };
        if let Err(fault) = context.series.append(&key, vec![candle], how).await {
            let error = &fault as &dyn std::error::Error;
            tracing::debug!(component = "feed", series = key.text(), error, "an open candle is not stored");
        }
    });
    join_all(appends).await;
}

/// The last tick of a bar often comes after its closed candle, and is no conflict.
fn is_past(store: &Store, key: &SeriesKey, candle: &Candle) -> bool {
    let newest = store.get(key).and_then(|view| view.times().last().copied());
    newest.is_some_and(|newest| candle.time_ms <= newest)
}
