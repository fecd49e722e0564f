//! Consumer groups of the event worker: taking messages, and saying what became of them.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_wire::event::StoredEvent;

use crate::call::{CALL_TIMEOUT, Client, ClientError};

/// Messages that are this consumer's for a while.
#[derive(Debug, Clone, Deserialize)]
pub struct Lease {
    /// In the order of the stream.
    pub messages: Vec<Leased>,
    /// Until when, ISO 8601; `None` without messages.
    pub lease_until: Option<String>,
    /// What retention took before the group saw it.
    pub gap: Option<Value>,
}

/// One of them.
#[derive(Debug, Clone, Deserialize)]
pub struct Leased {
    /// The name under which it is settled.
    pub message_id: String,
    /// How often it was handed out, this time included.
    pub delivery: u32,
    /// The event.
    pub event: StoredEvent,
}

/// What became of messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// How many it was done to.
    pub known: u64,
    /// Those that are not this consumer's any more.
    pub unknown: Vec<String>,
}

/// How far a group is.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Progress {
    /// Events of the stream that it has not come to.
    pub lag: u64,
    /// Age of the oldest event that it has not come to, or that is not settled, seconds.
    pub lag_seconds: f64,
    /// Messages that are handed out and not settled.
    pub pending: u64,
}

impl Client {
    /// Makes a group, or changes how it is set up: the body of `PUT /groups/{group}`.
    pub async fn make_group(&self, group: &str, body: &Value) -> Result<(), ClientError> {
        let path = format!("/groups/{group}");
        self.json::<Value>(Method::PUT, &path, body).await.map(drop)
    }

    /// How far a group is.
    pub async fn progress(&self, group: &str) -> Result<Progress, ClientError> {
        self.json(Method::GET, &format!("/groups/{group}"), &Value::Null).await
    }

    /// Takes up to `max` messages of a group, at most 1000, and waits for the first one, at most a minute.
    pub async fn lease(
        &self,
        group: &str,
        consumer: &str,
        max: usize,
        wait: Duration,
    ) -> Result<Lease, ClientError> {
        let body = json!({ "consumer": consumer, "max": max, "wait_ms": wait.as_millis() as u64 });
        let path = format!("/groups/{group}/lease");
        self.json_within(CALL_TIMEOUT + wait, Method::POST, &path, &body).await
    }

    /// Says that messages are done.
    pub async fn ack(&self, group: &str, consumer: &str, ids: &[String]) -> Result<Settled, ClientError> {
        self.settle(group, "ack", "acked", json!({ "consumer": consumer, "ids": ids })).await
    }

    /// Says that messages take longer: they stay this consumer's for the group's `ack_wait` from now on.
    pub async fn extend(&self, group: &str, consumer: &str, ids: &[String]) -> Result<Settled, ClientError> {
        self.settle(group, "extend", "extended", json!({ "consumer": consumer, "ids": ids })).await
    }

    /// Gives messages back, to be handed out again after `delay`.
    pub async fn nack(
        &self,
        group: &str,
        consumer: &str,
        ids: &[String],
        delay: Duration,
    ) -> Result<Settled, ClientError> {
        let body = json!({ "consumer": consumer, "ids": ids, "delay_ms": delay.as_millis() as u64 });
        self.settle(group, "nack", "nacked", body).await
    }

    async fn settle(&self, group: &str, call: &str, done: &str, body: Value) -> Result<Settled, ClientError> {
        let path = format!("/groups/{group}/{call}");
        let answer: Value = self.json(Method::POST, &path, &body).await?;
        let unknown = answer.get("unknown").cloned().unwrap_or_default();
        let unknown = serde_json::from_value(unknown).map_err(ClientError::Shape)?;
        Ok(Settled { known: answer.get(done).and_then(Value::as_u64).unwrap_or_default(), unknown })
    }
}
