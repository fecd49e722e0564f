//! Requests for discovery that come as events (`strategy_discovery_request`).
//!
//! All calculation workers of an event worker share one consumer group: each request is served by one of them. A message
//! is acknowledged when its job has ended, and its lease extended until then; so a request that a worker died over comes
//! again. The job's id is made of the event's, so what comes again finds its job: one that has ended is acknowledged, one
//! that a restart ended is done again. What cannot be served is acknowledged too, counted and told in the log.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value as Json, json};
use sluice_client::{Client, ClientError, Leased};
use sluice_http::Stop;
use sluice_wire::event::DISCOVERY_GROUP;

use super::{KIND, Plan};
use crate::body::Incoming;
use crate::context::Context;
use crate::error::Refusal;
use crate::jobs::api::{blocking, new_record};
use crate::jobs::{Job, RESTARTED, Record, Status};
use crate::negotiate::Format;
use crate::pool::{Lane, Scratch};
use crate::search::fnv;

/// How long a lease waits for a message.
const LEASE_WAIT: Duration = Duration::from_secs(30);
/// Time for a message; a job may take longer.
const ACK_WAIT: &str = "15s";
/// How often a lease is extended: some times within its time.
const EXTEND_EVERY: Duration = Duration::from_secs(4);
/// Deliveries of a message: each start of a worker may be one. One that ends its worker each time is then left alone.
const DELIVER_MAX: u32 = 20;
/// Pause before a message is handed out again.
const BACKOFF: &str = "1s";
/// Pause while there is no room for a job, or nobody to ask.
const PAUSE: Duration = Duration::from_secs(1);
/// Who asked for a job that came as an event.
const OWNER: &str = "events";

/// Serves requests for one worker.
pub(crate) struct Asked {
    client: Client,
    context: Arc<Context>,
    consumer: String,
    stop: Stop,
}

/// Why requests are not served for now.
enum Halt {
    /// The worker ends.
    Ends,
    /// The event worker cannot be asked.
    Away(ClientError),
}

impl From<ClientError> for Halt {
    fn from(error: ClientError) -> Self {
        Self::Away(error)
    }
}

/// What became of a request.
enum Taken {
    /// It is this job.
    Job(Arc<Job>),
    /// It has been served before.
    Served,
    /// It cannot be served.
    Refused(Refusal),
    /// There is no room for it now.
    Later,
}

impl Asked {
    pub(crate) const fn new(client: Client, context: Arc<Context>, consumer: String, stop: Stop) -> Self {
        Self { client, context, consumer, stop }
    }

    /// Serves until the process is to end.
    pub(crate) async fn run(self) {
        let mut is_down = false;
        while !self.stop.is_stopping() {
            match self.follow(&mut is_down).await {
                Halt::Ends => return,
                Halt::Away(error) => {
                    if !std::mem::replace(&mut is_down, true) {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(
                            component = "discover",
                            error,
                            "requests for discovery cannot be asked for"
                        );
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.stop.wait() => {}
            }
        }
    }

    async fn follow(&self, is_down: &mut bool) -> Halt {
        loop {
            let served = tokio::select! {
                () = self.stop.wait() => return Halt::Ends,
                leased = self.lease() => leased,
            };
            let message = match served {
                Ok(message) => message,
                Err(error) => return Halt::Away(error),
            };
            if std::mem::take(is_down) {
                tracing::info!(component = "discover", "requests for discovery are asked for again");
            }
            let Some(message) = message else { continue };
            if let Err(halt) = self.serve(&message).await {
                return halt;
            }
        }
    }

    /// The next message; makes the group where there is none.
    async fn lease(&self) -> Result<Option<Leased>, ClientError> {
        let asked = self.client.lease(DISCOVERY_GROUP, &self.consumer, 1, LEASE_WAIT).await;
        match asked {
            Err(ClientError::Status { status: http::StatusCode::NOT_FOUND, .. }) => {
                self.client.make_group(DISCOVERY_GROUP, &set_up()).await?;
                Ok(None)
            }
            asked => Ok(asked?.messages.pop()),
        }
    }

    /// Serves a message to its end and acknowledges it.
    async fn serve(&self, message: &Leased) -> Result<(), Halt> {
        let ids = [message.message_id.clone()];
        let id = job_id(&message.message_id, &message.event.event.event_id.to_string());
        let result = loop {
            match self.take(&id, message).await {
                Taken::Job(job) => {
                    self.ended(&job, &ids).await?;
                    break "served";
                }
                Taken::Served => break "served",
                Taken::Refused(refusal) => {
                    let why = refusal.problem().detail.unwrap_or_default();
                    let message_id = &*message.message_id;
                    tracing::warn!(
                        component = "discover",
                        message_id,
                        why,
                        "a request for discovery is refused"
                    );
                    break "refused";
                }
                Taken::Later => self.pause(PAUSE, &ids).await?,
            }
        };
        self.client.ack(DISCOVERY_GROUP, &self.consumer, &ids).await?;
        self.context.asked.with_label_values(&[result]).inc();
        Ok(())
    }

    /// Waits for the end of a job, keeping its message meanwhile.
    async fn ended(&self, job: &Job, ids: &[String]) -> Result<(), Halt> {
        let mut progress = job.progress();
        loop {
            tokio::select! {
                _ = progress.wait_for(|progress| progress.status.has_ended()) => return Ok(()),
                paused = self.pause(EXTEND_EVERY, ids) => paused?,
            }
        }
    }

    /// Waits, and keeps a message; gives it back when the worker ends.
    async fn pause(&self, pause: Duration, ids: &[String]) -> Result<(), Halt> {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.wait() => {
                // What is not given back comes again when its lease has ended.
                drop(self.client.nack(DISCOVERY_GROUP, &self.consumer, ids, Duration::ZERO).await);
                return Err(Halt::Ends);
            }
        }
        self.client.extend(DISCOVERY_GROUP, &self.consumer, ids).await?;
        Ok(())
    }

    /// The job of a message, which is begun where there is none.
    async fn take(&self, id: &str, message: &Leased) -> Taken {
        if let Some(job) = self.context.jobs.find(id) {
            let Record { status, error, .. } = job.record();
            let is_cut_off = error.is_some_and(|error| error.code == RESTARTED);
            match status {
                Status::Failed if is_cut_off => {}
                status if status.has_ended() => return Taken::Served,
                _ => return Taken::Job(job),
            }
        }
        let plan = match self.plan(id, message).await {
            Some(Ok(plan)) => plan,
            Some(Err(refusal)) => return Taken::Refused(refusal),
            None => return Taken::Later,
        };
        let record = Record {
            job: id.to_owned(),
            request: Some(message.event.event.event_id.to_string()),
            ..crate::strategies::of_plan(&plan, new_record(OWNER.to_owned()))
        };
        let (context, bytes) = (Arc::clone(&self.context), plan.bytes);
        let taken = blocking(move || context.jobs.take(record, bytes, Box::new(plan))).await;
        taken.ok().and_then(Result::ok).map_or(Taken::Later, Taken::Job)
    }

    /// What is asked for; `None` while the pool has no room.
    async fn plan(&self, id: &str, message: &Leased) -> Option<Result<Plan, Refusal>> {
        let bytes = Json::Object(message.event.event.data.clone()).to_string().into_bytes();
        let incoming = Incoming { format: Format::Json, bytes: bytes.into(), query: None };
        let (own, job) = (Arc::clone(&self.context), id.to_owned());
        let parse = move |_: &mut Scratch| {
            super::plan(incoming, own.settings.rows_max, job, &|key: &_| own.series.get(key))
        };
        let parsed = self.context.pool.run(Lane::Small, parse).await.ok()?;
        Some(parsed.unwrap_or_else(|| Err(Refusal::Shape(format!("a {KIND} request that cannot be read")))))
    }
}

/// How the group is set up. It begins with the oldest event kept: what was asked for before the first start is served.
fn set_up() -> Json {
    json!({
        "start": "earliest",
        "ack_wait": ACK_WAIT,
        "max_deliver": DELIVER_MAX,
        "backoff": [BACKOFF],
        "filter": {"event_type": "strategy_discovery_request"},
    })
}

/// The id of an event's job: as a UUID of version 7, so that it stands among others by its time; the same each time that
/// the message comes.
fn job_id(message_id: &str, event_id: &str) -> String {
    let ms: u64 = message_id.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(0);
    let hash = fnv(event_id.bytes());
    format!(
        "{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}",
        ms >> 16 & 0xffff_ffff,
        ms & 0xffff,
        hash >> 52,
        hash >> 40 & 0xfff,
        hash & 0xff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_one_job_which_stands_by_its_time() {
        let id = job_id("1763900000000-3", "one");
        assert_eq!(id, job_id("1763900000000-3", "one"));
        let lengths: Vec<usize> = id.split('-').map(str::len).collect();
        assert!(lengths == [8, 4, 4, 4, 12] && &id[14..15] == "7", "{id}");
        assert!(id != job_id("1763900000000-3", "other") && id < job_id("1763900000001-0", "one"));
        // Where jobs of calls stand that come at that time.
        assert!(id.starts_with("019ab0"), "{id}");
    }
}
