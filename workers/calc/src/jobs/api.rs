//! `/calculations/search`: searches are taken, watched, listed and ended here.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value as Wire, json};
use sluice_http::{Authenticated, Reject, Stop, StrictQuery, require, sse};
use sluice_identity::caller::Caller;
use sluice_wire::code::Code;
use sluice_wire::id::RequestId;
use sluice_wire::problem::Problem;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::record::{Record, Status, now_ms};
use super::{Job, Leader, NotTaken, Progress, Work};
use crate::api::{incoming, settle};
use crate::bounds::{
    ID_BYTES_MAX, JOBS_PAGE_MAX, JOBS_WAITING_EACH_MAX, JOBS_WATCHERS_MAX, SMALL_BODY_BYTES_MAX,
};
use crate::context::Context;
use crate::pool::{Lane, Scratch};
use crate::search::{self, Plan};
use crate::series::source::Means;

/// Pause between two events of progress: at most four a second.
const PAUSE: Duration = Duration::from_millis(250);
/// When to come back where all places are taken, seconds.
const COME_BACK_S: u64 = 5;

pub(crate) async fn post_search(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    request: Request,
) -> Result<Response, Reject> {
    let (incoming, room) = incoming(&context, "read", request).await?;
    let lane = if incoming.bytes.len() <= SMALL_BODY_BYTES_MAX { Lane::Small } else { Lane::Large };
    let (rows_max, stored) = (context.settings.rows_max, Arc::clone(&context.series));
    let parse = move |_: &mut Scratch| {
        let plan = search::plan(incoming, Means { rows_max, series: Some(&stored) });
        drop(room);
        plan
    };
    let plan = settle(&context, "search", context.pool.run(lane, parse).await)?;
    let record = of_plan(&plan, caller.subject);
    let bytes = plan.bytes();
    taken(&context, record, bytes, Box::new(plan)).await
}

fn of_plan(plan: &Plan, owner: String) -> Record {
    let combinations = match plan.method {
        sluice_calc::search::Method::Grid => plan.space.size(),
        sluice_calc::search::Method::Genetic(how) => search::tried(&how),
    };
    Record {
        kind: "search".to_owned(),
        strategy: plan.space.rule().name.to_owned(),
        rows: plan.series.close.len(),
        combinations,
        total: plan.total,
        seed: plan.seed,
        ..new_record(owner)
    }
}

/// A job of somebody that is taken now.
pub(crate) fn new_record(owner: String) -> Record {
    Record {
        job: RequestId::mint().as_str().to_owned(),
        kind: String::new(),
        status: Status::Queued,
        owner,
        strategy: String::new(),
        rows: 0,
        combinations: 0,
        total: 0,
        done: 0,
        combinations_per_s: 0.0,
        seed: 0,
        created: now_ms(),
        finished: None,
        error: None,
        request: None,
        outbox: None,
    }
}

/// Takes a job and says where it is.
pub(crate) async fn taken(
    context: &Context,
    record: Record,
    bytes: usize,
    work: Box<dyn Work>,
) -> Result<Response, Reject> {
    let (jobs, of_job) = (Arc::clone(&context.jobs), record.clone());
    let taken = blocking(move || jobs.take(of_job, bytes, work)).await?;
    let full = |text: String| {
        context.rejected.with_label_values(&["queue_full"]).inc();
        Problem::new(Code::QueueFull).detail(text).retry_after_s(COME_BACK_S)
    };
    taken.map_err(|not| match not {
        NotTaken::Full => full("as many jobs wait as may".to_owned()),
        NotTaken::Share => {
            full(format!("{JOBS_WAITING_EACH_MAX} of your jobs wait, which is the limit of one owner"))
        }
        NotTaken::Store => Problem::new(Code::Internal).detail("the job could not be written"),
    })?;
    let url = format!("/calculations/search/{}", record.job);
    let answer = json!({
        "success": true, "job": record.job, "status": Status::Queued.word(), "combinations": record.combinations,
        "total": record.total, "seed": record.seed, "url": url,
    });
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, url)], Json(answer)).into_response())
}

/// What touches the disk runs apart from the async threads.
pub(crate) async fn blocking<T: Send + 'static>(
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Reject> {
    tokio::task::spawn_blocking(run).await.map_err(|_| Problem::new(Code::Internal).into())
}

/// What is told of a job: its record, how far it is, its result.
#[derive(Serialize)]
struct Told {
    #[serde(flatten)]
    record: Record,
    progress: Wire,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Box<RawValue>>,
}

fn progress(record: &Record, progress: &Progress) -> Wire {
    let has_ended = record.status.has_ended();
    let (done, per_s) =
        if has_ended { (record.done, record.combinations_per_s) } else { (progress.done, progress.per_s) };
    let Progress { best, .. } = progress;
    let best: &Option<Leader> = best;
    json!({
        "percent": record.percent(done), "done": done, "total": record.total,
        "combinations_per_s": per_s.round(), "best": best,
    })
}

impl Told {
    fn of(job: &Job) -> Self {
        let (record, now) = (job.record(), job.progress());
        let progress = progress(&record, &now.borrow());
        Self { record, progress, result: None }
    }

    /// With its result, which is read from its file.
    async fn whole(context: &Context, job: &Job) -> Result<Self, Reject> {
        let mut told = Self::of(job);
        if told.record.status == Status::Done {
            let (jobs, id) = (Arc::clone(&context.jobs), told.record.job.clone());
            let result = blocking(move || jobs.result(&id)).await?.ok();
            let result = result.and_then(|result| RawValue::from_string(result).ok());
            told.result = Some(result.ok_or_else(gone)?);
        }
        Ok(told)
    }
}

fn gone() -> Reject {
    Problem::new(Code::NotFound).detail("there is no such job").into()
}

/// The job of that id, when it is the caller's or the caller may see all.
pub(crate) fn find(context: &Context, caller: &Caller, id: &str) -> Result<Arc<Job>, Reject> {
    require(caller, "read")?;
    // Somebody else's job is told as one that is not there.
    let job = context.jobs.find(id).filter(|job| is_open_to(caller, &job.record()));
    job.ok_or_else(gone)
}

fn is_open_to(caller: &Caller, record: &Record) -> bool {
    record.owner == caller.subject || caller.grants.covers("admin")
}

pub(crate) async fn get_one(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Reject> {
    let job = find(&context, &caller, &id)?;
    if wants_events(&headers) {
        let place = watcher(&context)?;
        return Ok(sse::response(events(context, job, place)));
    }
    Ok(Json(Told::whole(&context, &job).await?).into_response())
}

/// A place among those who watch jobs.
fn watcher(context: &Context) -> Result<OwnedSemaphorePermit, Reject> {
    Arc::clone(&context.watchers).try_acquire_owned().map_err(|_| {
        context.rejected.with_label_values(&["queue_full"]).inc();
        let text = format!("{JOBS_WATCHERS_MAX} clients watch jobs, which is the limit");
        Problem::new(Code::QueueFull).detail(text).retry_after_s(COME_BACK_S).into()
    })
}

fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|range| range.trim().starts_with("text/event-stream"))
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    limit: Option<usize>,
    cursor: Option<String>,
    status: Option<Status>,
}

pub(crate) async fn get_list(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Result<Json<Wire>, Reject> {
    require(&caller, "read")?;
    let limit = query.limit.unwrap_or(JOBS_PAGE_MAX);
    let is_long = query.cursor.as_ref().is_some_and(|cursor| cursor.len() > ID_BYTES_MAX);
    if !(1..=JOBS_PAGE_MAX).contains(&limit) || is_long {
        return Err(Reject::new(Code::BadQuery, format!("limit is 1 to {JOBS_PAGE_MAX}, cursor a job's id")));
    }
    let wanted = |record: &Record| {
        is_open_to(&caller, record) && query.status.is_none_or(|status| record.status == status)
    };
    let (jobs, is_more) = context.jobs.page(query.cursor.as_deref(), limit, wanted);
    let next_cursor = if is_more { jobs.last().map(|job| job.record().job) } else { None };
    let jobs: Vec<Told> = jobs.iter().map(|job| Told::of(job)).collect();
    Ok(Json(json!({"success": true, "count": jobs.len(), "jobs": jobs, "next_cursor": next_cursor})))
}

pub(crate) async fn delete_one(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    Path(id): Path<String>,
) -> Result<Json<Wire>, Reject> {
    let job = find(&context, &caller, &id)?;
    let (jobs, before) = (Arc::clone(&context.jobs), Arc::clone(&job));
    let ended = blocking(move || jobs.end(&before)).await?;
    let (status, is_removed) = ended.map_err(|error| {
        tracing::error!(component = "jobs", error = %error, "a job could not be removed");
        Problem::new(Code::Internal)
    })?;
    Ok(Json(json!({"success": true, "job": id, "status": status.word(), "removed": is_removed})))
}

/// What is told to who watches a job, and the number of the next event.
struct Watched {
    context: Arc<Context>,
    job: Arc<Job>,
    progress: watch::Receiver<Progress>,
    stop: Stop,
    number: u64,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

/// Progress, at most four times a second, then what became of it.
fn events(
    context: Arc<Context>,
    job: Arc<Job>,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Bytes> + Send + 'static {
    let (progress, stop) = (job.progress(), context.stop.clone());
    let watched = Watched { context, job, progress, stop, number: 0, is_over: false, _place: place };
    unfold(watched, async |mut watched| {
        if watched.is_over {
            return None;
        }
        let frame = watched.next().await?;
        Some((frame, watched))
    })
}

impl Watched {
    async fn next(&mut self) -> Option<Bytes> {
        if self.number > 0 {
            self.changed().await?;
        }
        self.number += 1;
        let record = self.job.record();
        let (event, data) = if record.status.has_ended() {
            self.is_over = true;
            let event = if record.status == Status::Done { "result" } else { "failed" };
            (event, self.last().await?)
        } else {
            let now = self.progress.borrow_and_update().clone();
            let mut data = progress(&record, &now);
            data["job"] = json!(record.job);
            data["status"] = json!(record.status.word());
            ("progress", data.to_string())
        };
        Some(sse::frame(Some(&self.number.to_string()), event, &data))
    }

    async fn last(&self) -> Option<String> {
        let told = Told::whole(&self.context, &self.job).await.ok()?;
        serde_json::to_string(&told).ok()
    }

    /// Waits for news, but not less than the pause while the job goes on; `None` when the worker ends.
    async fn changed(&mut self) -> Option<()> {
        let ended = async {
            let mut own = self.progress.clone();
            let _job_is_gone = own.wait_for(|progress| progress.status.has_ended()).await;
        };
        tokio::select! {
            () = self.stop.wait() => return None,
            () = ended => return Some(()),
            () = tokio::time::sleep(PAUSE) => {}
        }
        tokio::select! {
            () = self.stop.wait() => None,
            _ = self.progress.changed() => Some(()),
        }
    }
}
