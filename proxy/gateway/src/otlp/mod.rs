//! Spans on their way to a collector: OTLP over HTTP, in the JSON encoding of its specification.
//!
//! One task takes what waits every [`PAUSE`], [`BATCH_MAX`] spans a call. A call that fails is made
//! [`TRIES_MAX`] times in all, then its spans are given up and counted; meanwhile the queue fills up and drops.
//! A collector that is down costs nothing else. The endpoint is read with every batch, so a reload takes
//! effect at once.

mod collector;
mod encode;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::spans::Span;
use crate::state::Shared;
use collector::Collector;

/// Between two looks at what waits.
const PAUSE: Duration = Duration::from_millis(500);
/// LIMIT: spans of one call.
const BATCH_MAX: usize = 512;
/// Calls made for one batch.
const TRIES_MAX: u32 = 3;
/// Pause before the second call; twice as long before the third.
const BACKOFF: Duration = Duration::from_secs(1);
/// Time that the last spans have when the edge ends.
const LAST_WITHIN: Duration = Duration::from_secs(2);

/// Exports for ever.
pub(crate) async fn run(shared: Arc<Shared>) -> Infallible {
    let mut collector = None;
    loop {
        tokio::time::sleep(PAUSE).await;
        export(&shared, &mut collector, TRIES_MAX).await;
    }
}

/// Exports what is left, once, before the edge ends.
pub(crate) async fn finish(shared: &Shared) {
    drop(tokio::time::timeout(LAST_WITHIN, export(shared, &mut None, 1)).await);
}

async fn export(shared: &Shared, collector: &mut Option<Collector>, tries: u32) {
    loop {
        let spans = shared.spans.take(BATCH_MAX);
        if spans.is_empty() {
            return;
        }
        let count = spans.len() as u64;
        let Some(endpoint) = shared.generation().config.otlp.endpoint.clone() else {
            // Switched off meanwhile: nobody wants them.
            shared.meters.spans_dropped.inc_by(count);
            continue;
        };
        if collector.as_ref().is_none_or(|known| known.endpoint() != endpoint) {
            *collector = Collector::new(&endpoint);
        }
        let refused = match collector {
            Some(collector) => send(collector, &spans, tries).await,
            None => None,
        };
        let refused = refused.unwrap_or(count).min(count);
        shared.meters.spans_failed.inc_by(refused);
        shared.meters.spans_exported.inc_by(count - refused);
        if refused == count && tries == 1 {
            return;
        }
    }
}

/// Sends one batch; the number of spans that the collector did not take, `None` where it took none.
async fn send(collector: &mut Collector, spans: &[Span], tries: u32) -> Option<u64> {
    let body = Bytes::from(encode::request(spans));
    let mut pause = BACKOFF;
    for tried in 1..=tries {
        match collector.post(body.clone()).await {
            Ok(refused) => return Some(refused),
            Err(error) => {
                tracing::debug!(
                    component = "otlp",
                    error = &error as &dyn std::error::Error,
                    "spans were not taken"
                );
                if tried == tries || !error.is_worth_another() {
                    break;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    None
}
