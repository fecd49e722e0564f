//! Routes: read the body, hand it to the pool, answer.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequest as _, FromRequestParts as _, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use serde_json::Value;
use sluice_http::{Authenticated, BodyBytes, BodyLimit, Reject, StrictQuery, require};
use sluice_wire::code::Code;
use sluice_wire::problem::Problem;
use tokio::sync::OwnedSemaphorePermit;

use crate::body::Incoming;
use crate::bounds::{BODY_UNIT, BODY_UNITS_MAX, QUERY_BYTES_MAX, SMALL_BODY_BYTES_MAX};
use crate::context::Context;
use crate::error::Refusal;
use crate::indicators::Answer;
use crate::jobs::api as jobs;
use crate::negotiate::Format;
use crate::pool::{Full, Lane, Scratch};
use crate::series::source::Means;
use crate::{
    catalog, indicators, negotiate, openapi, performance, risk, score, series, signals, size, strategies,
    universe,
};

/// The routes of the worker.
pub fn routes(context: Arc<Context>) -> Router {
    let limit = BodyLimit(context.settings.body_bytes);
    Router::new()
        .route("/calculations/indicators", post(post_indicators))
        .route("/calculations/signals", post(post_signals))
        .route("/calculations/signals/generate", post(post_signals))
        .route("/calculations/risk", post(post_risk))
        .route("/calculations/performance", computed("performance", performance::answer))
        .route("/calculations/search", post(jobs::post_search).get(jobs::get_list))
        .route("/calculations/search/{job}", get(jobs::get_one).delete(jobs::delete_one))
        .route("/calculations/position-size", computed("position_size", size::one))
        .route("/calculations/portfolio/size", computed("portfolio_size", size::many))
        .route("/calculations/strategies/score", computed("score", score::scores))
        .route("/calculations/strategies/ensemble", computed("ensemble", score::ensemble))
        .route("/calculations/ensemble", computed("ensemble", score::ensemble))
        .route("/calculations/strategies/rotate", computed("rotate", score::rotation))
        .route("/calculations/rotate", computed("rotate", score::rotation))
        .route("/calculations/catalog", get(get_catalog))
        .route("/calculations/universe", universe::route())
        .route("/calculations/strategies", get(get_strategies))
        .route("/calculations/strategies/discover", post(strategies::post_discover))
        .route("/calculations/strategies/{id}", get(strategies::get_one))
        .route("/openapi.json", get(openapi::served))
        .merge(series::routes())
        .layer(Extension(limit))
        .with_state(context)
}

#[derive(Debug, serde::Deserialize)]
struct IndicatorsQuery {
    /// The fields of the request, for a body that has no place for them.
    request: Option<String>,
}

async fn post_indicators(State(context): State<Arc<Context>>, request: Request) -> Result<Response, Reject> {
    let accepted = negotiate::of_answer(request.headers())?;
    let (incoming, room) = incoming(&context, "read", request).await?;
    if incoming.bytes.len() <= SMALL_BODY_BYTES_MAX {
        let done = context.inbox.run(&context.pool, incoming, accepted, room).await;
        return conclude(&context, "indicators", done);
    }
    let (rows_max, series) = (context.settings.rows_max, Arc::clone(&context.series));
    let compute = move |scratch: &mut Scratch| {
        let _until_computed = room;
        let means = Means { rows_max, series: Some(&series) };
        indicators::answer(incoming, accepted, means, scratch)
    };
    Ok(sent(&context, pooled(&context, "indicators", Lane::Large, compute).await?))
}

/// A body of any form, and the room that it takes.
pub(crate) async fn incoming(
    context: &Context,
    right: &str,
    request: Request,
) -> Result<(Incoming, OwnedSemaphorePermit), Reject> {
    let (mut parts, body) = request.into_parts();
    let format = negotiate::of_body(&parts.headers)?;
    let StrictQuery(IndicatorsQuery { request: query }) =
        StrictQuery::from_request_parts(&mut parts, &()).await?;
    if query.as_ref().is_some_and(|query| format != Format::Csv || query.len() > QUERY_BYTES_MAX) {
        let text = format!("`request` goes with a body of text/csv and has at most {QUERY_BYTES_MAX} bytes");
        return Err(Reject::new(Code::BadQuery, text));
    }
    let (bytes, room) = admit(context, right, format, Request::from_parts(parts, body)).await?;
    Ok((Incoming { format, bytes, query }, room))
}

async fn post_signals(State(context): State<Arc<Context>>, request: Request) -> Result<Response, Reject> {
    let accepted = negotiate::of_answer(request.headers())?;
    over_bars(&context, "signals", request, move |incoming, means, _| {
        signals::answer(incoming, accepted, means)
    })
    .await
}

async fn post_risk(State(context): State<Arc<Context>>, request: Request) -> Result<Response, Reject> {
    if negotiate::of_answer(request.headers())?.is_some_and(|format| format != Format::Json) {
        return Err(Reject::new(Code::NotAcceptable, "figures and what they lack are application/json"));
    }
    over_bars(&context, "risk", request, risk::answer).await
}

/// Computes over bars, which come in any form or are stored.
async fn over_bars(
    context: &Context,
    call: &'static str,
    request: Request,
    compute: impl FnOnce(Incoming, Means<'_>, &mut Scratch) -> Result<Answer, Refusal> + Send + 'static,
) -> Result<Response, Reject> {
    let (incoming, room) = incoming(context, "read", request).await?;
    let lane = if incoming.bytes.len() <= SMALL_BODY_BYTES_MAX { Lane::Small } else { Lane::Large };
    let (rows_max, series) = (context.settings.rows_max, Arc::clone(&context.series));
    let compute = move |scratch: &mut Scratch| {
        let _until_computed = room;
        compute(incoming, Means { rows_max, series: Some(&series) }, scratch)
    };
    Ok(sent(context, pooled(context, call, lane, compute).await?))
}

/// What computes a body: with the most rows of a series, giving the answer and the rows computed.
type Computing = fn(&[u8], usize, &mut Scratch) -> Result<(Vec<u8>, usize), Refusal>;

/// A call that only computes.
fn computed(call: &'static str, answer: Computing) -> MethodRouter<Arc<Context>> {
    post(async move |State(context): State<Arc<Context>>, request: Request| {
        let rows_max = context.settings.rows_max;
        let compute = move |body: &[u8], scratch: &mut Scratch| answer(body, rows_max, scratch);
        compute_in_pool(&context, call, request, compute).await
    })
}

/// As [`pooled`], for calls that take and answer JSON alone.
async fn compute_in_pool(
    context: &Context,
    call: &'static str,
    request: Request,
    compute: impl FnOnce(&[u8], &mut Scratch) -> Result<(Vec<u8>, usize), Refusal> + Send + 'static,
) -> Result<Response, Reject> {
    if negotiate::of_body(request.headers()).ok() != Some(Format::Json) {
        return Err(Reject::new(Code::UnsupportedMediaType, "the body must be application/json"));
    }
    let (body, room) = admit(context, "read", Format::Json, request).await?;
    let lane = if body.len() <= SMALL_BODY_BYTES_MAX { Lane::Small } else { Lane::Large };
    let compute = move |scratch: &mut Scratch| {
        let _until_computed = room;
        let (bytes, rows) = compute(&body, scratch)?;
        Ok(Answer { bytes, format: Format::Json, rows, room: None })
    };
    Ok(sent(context, pooled(context, call, lane, compute).await?))
}

/// Checks who asks before a byte of the body is read, and takes room for the body.
async fn admit(
    context: &Context,
    right: &str,
    format: Format,
    request: Request,
) -> Result<(Bytes, OwnedSemaphorePermit), Reject> {
    let (mut parts, body) = request.into_parts();
    let Authenticated(caller) = Authenticated::from_request_parts(&mut parts, &()).await?;
    require(&caller, right)?;
    let room = room(context, &parts.headers)?;
    let BodyBytes(body) = BodyBytes::from_request(Request::from_parts(parts, body), &()).await?;
    context.transported(format, "in", body.len());
    Ok((body, room))
}

/// Parses and computes on a thread of the pool: both take time that the async threads must not spend.
pub(crate) async fn pooled<T: Send + 'static>(
    context: &Context,
    call: &'static str,
    lane: Lane,
    compute: impl FnOnce(&mut Scratch) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Reject> {
    let seconds = context.seconds.with_label_values(&[call]);
    let done = context.pool.run(lane, move |scratch| {
        let began = Instant::now();
        let outcome = compute(scratch);
        seconds.observe(began.elapsed().as_secs_f64());
        outcome
    });
    settle(context, call, done.await)
}

/// The answer to what became of a calculation.
fn conclude(
    context: &Context,
    call: &'static str,
    done: Result<Option<Result<Answer, Refusal>>, Full>,
) -> Result<Response, Reject> {
    Ok(sent(context, settle(context, call, done)?))
}

/// What became of a computation, counted.
pub(crate) fn settle<T>(
    context: &Context,
    call: &'static str,
    done: Result<Option<Result<T, Refusal>>, Full>,
) -> Result<T, Reject> {
    let done = done.map_err(|Full| busy(context))?;
    let result = match &done {
        Some(Ok(_)) => "ok",
        Some(Err(_)) => "refused",
        None => "panic",
    };
    context.requests.with_label_values(&[call, result]).inc();
    match done {
        Some(Ok(done)) => Ok(done),
        Some(Err(refusal)) => {
            context.rejected.with_label_values(&[refusal.reason()]).inc();
            Err(refusal.into())
        }
        None => Err(Problem::new(Code::Internal).into()),
    }
}

/// An answer on its way.
pub(crate) fn sent(context: &Context, answer: Answer) -> Response {
    context.rows.inc_by(answer.rows as u64);
    context.transported(answer.format, "out", answer.bytes.len());
    let media = HeaderValue::from_static(answer.format.media());
    let bytes = context.answers.lend(answer.bytes, answer.room);
    ([(header::CONTENT_TYPE, media)], bytes).into_response()
}

/// Room for a body of the announced length; a length that is not announced counts as the limit.
fn room(context: &Context, headers: &HeaderMap) -> Result<OwnedSemaphorePermit, Reject> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let bytes = announced.unwrap_or(context.settings.body_bytes).min(context.settings.body_bytes);
    let units = bytes.div_ceil(BODY_UNIT).clamp(1, BODY_UNITS_MAX);
    let units = u32::try_from(units).unwrap_or(u32::MAX);
    Arc::clone(&context.room).try_acquire_many_owned(units).map_err(|_| busy(context))
}

fn busy(context: &Context) -> Reject {
    context.rejected.with_label_values(&["queue_full"]).inc();
    Problem::new(Code::QueueFull).detail("every computing thread is busy").retry_after_s(1).into()
}

async fn get_catalog(Authenticated(caller): Authenticated) -> Result<Json<Value>, Reject> {
    require(&caller, "read")?;
    Ok(Json(catalog::answer()))
}

async fn get_strategies(Authenticated(caller): Authenticated) -> Result<Json<Value>, Reject> {
    require(&caller, "read")?;
    Ok(Json(signals::strategies()))
}
