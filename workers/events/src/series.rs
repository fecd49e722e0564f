//! The consumer group from which the calculation worker feeds its stored series.
//!
//! It is made here and not by its consumer, because making groups takes more than a role may do. It begins with the
//! oldest event: candles that were closed before the first start with stored series are in them too. Candles of one
//! symbol are handed out one after the other, since rows of a series are only ever added at its end.

use std::sync::Arc;
use std::time::Duration;

use sluice_wire::event::SERIES_GROUP;

use crate::context::Context;
use crate::group::{OrderKey, Selector, Settings, Start};

/// Time for a message. Storing one takes milliseconds, and so long nobody gets what a killed worker held.
const ACK_WAIT_MS: u64 = 5_000;
/// Deliveries of a message: each start of the worker may be one.
const MAX_DELIVER: u32 = 1_000;
/// Pause after the group could not be made.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Makes sure of the group.
pub(crate) async fn prepare(context: Arc<Context>) {
    let mut is_told = false;
    while let Err(error) = context.groups.put(SERIES_GROUP, settings(), Start::Earliest).await {
        if !std::mem::replace(&mut is_told, true) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(
                component = "series",
                error,
                "stored series are not fed: their group cannot be made"
            );
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

fn settings() -> Settings {
    Settings {
        ack_wait_ms: ACK_WAIT_MS,
        max_deliver: MAX_DELIVER,
        backoff_ms: vec![1_000],
        order_key: OrderKey::Symbol,
        filter: Selector { kinds: vec!["candle_closed".into()], ..Selector::default() },
    }
}
