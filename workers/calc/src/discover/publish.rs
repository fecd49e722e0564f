//! Discovered strategies, told to the event worker.
//!
//! The file of a job is the outbox: what it found is there until it says `published`, over restarts too, so nothing is
//! lost while the event worker is away, and no more waits than jobs are kept. Events have ids made of the strategy's, so
//! that what is sent again (the worker ended between sending and noting it) is one event for who reads.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use sluice_client::{Client, ClientError};
use sluice_wire::code::Code;
use sluice_wire::event::NewEvent;
use tokio::task::JoinHandle;

use crate::jobs::{Jobs, Outbox, Record};
use crate::search::fnv;

/// Events of one call.
const BATCH_MAX: usize = 500;
/// Pause after the event worker could not be told; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Publishes until the worker ends.
pub(crate) struct Publisher(JoinHandle<()>);

/// Why a job is not published.
enum Halt {
    /// The event worker cannot be told now.
    Away(ClientError),
    /// It has no place now.
    Busy(String),
    /// The file of the job cannot be read or written.
    Store(std::io::Error),
}

impl Publisher {
    pub(crate) fn start(client: Client, jobs: Arc<Jobs>) -> Self {
        Self(tokio::spawn(async move { publish(&client, &jobs).await }))
    }

    /// Returns when nothing is sent any more. What was sent and is not noted is sent again at the next start.
    pub(crate) async fn end(self) {
        self.0.abort();
        let _aborted = self.0.await;
    }
}

async fn publish(client: &Client, jobs: &Arc<Jobs>) {
    let mut pause = PAUSE_MIN;
    loop {
        let Some(record) = jobs.unpublished() else {
            jobs.to_publish().await;
            continue;
        };
        match of_job(client, jobs, &record).await {
            Ok(()) => pause = PAUSE_MIN,
            Err(halt) => {
                if pause == PAUSE_MIN {
                    halt.tell(&record.job);
                }
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(PAUSE_MAX);
            }
        }
    }
}

impl Halt {
    fn tell(&self, job: &str) {
        let why = match self {
            Self::Away(error) => error.to_string(),
            Self::Busy(code) => code.clone(),
            Self::Store(error) => error.to_string(),
        };
        tracing::warn!(component = "discover", job, why, "discovered strategies wait to be published");
    }
}

/// Publishes all that a job found, and notes it.
async fn of_job(client: &Client, jobs: &Arc<Jobs>, record: &Record) -> Result<(), Halt> {
    let (own, of_job) = (Arc::clone(jobs), record.clone());
    let events = blocking(move || Ok(events(&of_job, &own.result(&of_job.job)?))).await?;
    let mut outbox = Outbox::Published;
    for batch in events.chunks(BATCH_MAX) {
        let answer = client.publish_batch(batch).await.map_err(Halt::Away)?;
        if let Some(refused) = refused(&answer)? {
            tracing::error!(
                component = "discover",
                job = record.job,
                refused,
                "discovered strategies are refused"
            );
            outbox = Outbox::Refused;
        }
    }
    let (own, id) = (Arc::clone(jobs), record.job.clone());
    blocking(move || own.settle(&id, outbox)).await
}

async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Halt> {
    let done = tokio::task::spawn_blocking(run).await;
    done.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(Halt::Store)
}

/// The first event that was refused, when there is one; a refusal that may pass is a reason to try all again.
fn refused(answer: &Json) -> Result<Option<String>, Halt> {
    let results = answer["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let failed: Vec<&Json> = results.iter().filter(|result| result["status"] == "failed").collect();
    let may_pass = |result: &&&Json| {
        let code = Code::ALL.iter().find(|code| result["code"] == code.word());
        code.is_some_and(|code| matches!(code.status(), 429 | 500..))
    };
    if let Some(busy) = failed.iter().find(may_pass) {
        return Err(Halt::Busy(busy.to_string()));
    }
    Ok(failed.first().map(ToString::to_string))
}

/// The events of a job's result, the same however often.
fn events(record: &Record, result: &str) -> Vec<NewEvent> {
    let mut result: Json = serde_json::from_str(result).unwrap_or_default();
    let results = result["results"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let found = results.into_iter().flat_map(|mut result| {
        result["topStrategies"].as_array_mut().map(std::mem::take).unwrap_or_default()
    });
    found.filter_map(|strategy| event(record, strategy)).collect()
}

fn event(record: &Record, mut strategy: Json) -> Option<NewEvent> {
    let object = strategy.as_object_mut()?;
    let id = object.remove("id")?;
    // What the platform's message has, and no more: its reader may be a strict one.
    object.remove("metrics");
    let mut event = json!({
        "event_type": "strategy_discovered",
        "event_id": event_id(id.as_str()?),
        "timestamp": record.finished,
        "data": strategy,
        "metadata": {"topic": "discovered-strategies", "id": id, "job": record.job},
    });
    if let Some(request) = &record.request {
        event["metadata"]["request"] = json!(request);
    }
    serde_json::from_value(event).ok()
}

/// A UUID (version 8: of one's own making) of a strategy's id.
fn event_id(id: &str) -> String {
    let high = fnv(id.bytes());
    let low = fnv(id.bytes().rev().chain(*b"strategy"));
    format!(
        "{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        0x8000 | (low >> 48 & 0x3fff),
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_has_one_event_id_of_its_own() {
        let one = event_id("disc-a-0-0");
        assert_eq!(one, event_id("disc-a-0-0"));
        assert_ne!(one, event_id("disc-a-0-1"));
        let parts: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!((parts, &one[14..15]), (vec![8, 4, 4, 4, 12], "8"));
        assert!("89ab".contains(&one[19..20]));
    }

    #[test]
    fn refusals_that_may_pass_are_tried_again() {
        let answer =
            |code: &str| json!({"results": [{"status": "published"}, {"status": "failed", "code": code}]});
        assert!(refused(&answer("schema_violation")).is_ok_and(|refused| refused.is_some()));
        assert!(refused(&answer("store_full")).is_err());
        assert!(refused(&answer("rate_limited")).is_err());
        assert!(
            refused(&json!({"results": [{"status": "published"}]})).is_ok_and(|refused| refused.is_none())
        );
    }
}
