//! Calls of the event and calculation workers.

use http::Method;
use serde_json::{Value, json};
use sluice_wire::event::{NewEvent, Published};

use crate::call::{Client, ClientError};

impl Client {
    /// Publishes one event. Give it an `event_id` when the call may be repeated.
    pub async fn publish(&self, event: &NewEvent) -> Result<Published, ClientError> {
        let body = serde_json::to_value(event).map_err(ClientError::Shape)?;
        self.json(Method::POST, "/events", &body).await
    }

    /// Publishes up to 1000 events; the answer has `published`, `duplicates`, `failed`, `results`.
    pub async fn publish_batch(&self, events: &[NewEvent]) -> Result<Value, ClientError> {
        self.json(Method::POST, "/events/batch", &json!({ "events": events })).await
    }

    /// Computes indicators: the body of `POST /calculations/indicators`.
    pub async fn indicators(&self, request: &Value) -> Result<Value, ClientError> {
        self.json(Method::POST, "/calculations/indicators", request).await
    }

    /// Computes signals: the body of `POST /calculations/signals`.
    pub async fn signals(&self, request: &Value) -> Result<Value, ClientError> {
        self.json(Method::POST, "/calculations/signals", request).await
    }
}
