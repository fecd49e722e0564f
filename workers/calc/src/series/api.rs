//! The calls below `/series`.

use std::sync::Arc;

use axum::extract::{FromRequestParts as _, Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use http::request::Parts;
use serde_json::{Value, json};
use sluice_http::{Authenticated, Reject, StrictQuery, require};
use sluice_wire::code::Code;
use sluice_wire::symbol::split_path;
use tokio::sync::OwnedSemaphorePermit;

use super::gaps::{Step, gaps};
use super::incoming::{self, Candles};
use super::query::{GapsQuery, ListQuery, RowsQuery};
use super::rows::{self, Page};
use super::{Append, Applied, SeriesKey, View, live, stream};
use crate::api::{pooled, sent};
use crate::bounds::{SERIES_TOLD_MAX, SMALL_BODY_BYTES_MAX, SMALL_ROWS_MAX};
use crate::context::Context;
use crate::indicators::Answer;
use crate::negotiate::{self, Format};
use crate::pool::Lane;

/// The routes.
pub(crate) fn routes() -> Router<Arc<Context>> {
    let one = get(read).put(replace).post(extend).delete(delete);
    Router::new().route("/series", get(list)).route("/series/{*path}", one)
}

/// Which series a path names, and what of it.
fn target(path: &str) -> Result<(SeriesKey, &str), Reject> {
    let (symbol, timeframe, rest) =
        split_path(path).map_err(|error| Reject::new(Code::BadPath, error.to_string()))?;
    Ok((SeriesKey::new(symbol, timeframe), rest))
}

pub(super) fn found(context: &Context, key: &SeriesKey) -> Result<Arc<View>, Reject> {
    context.series.get(key).ok_or_else(|| unknown(key))
}

pub(super) fn unknown(key: &SeriesKey) -> Reject {
    Reject::new(Code::NotFound, format!("there is no stored series {}", key.text()))
}

fn no_call(rest: &str) -> Reject {
    let rest: String = rest.chars().take(32).collect();
    Reject::new(Code::NotFound, format!("a series has no `{}` by this method", rest.escape_default()))
}

fn bad_query(text: String) -> Reject {
    Reject::new(Code::BadQuery, text)
}

async fn list(
    State(context): State<Arc<Context>>,
    Authenticated(caller): Authenticated,
    StrictQuery(query): StrictQuery<ListQuery>,
) -> Result<Json<Value>, Reject> {
    require(&caller, "read")?;
    let (after, limit) = query.page().map_err(bad_query)?;
    let mut page = context.series.page(after.as_ref(), limit + 1);
    let is_more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| is_more).map(|(key, _)| key.text());
    let series: Vec<Value> = page.iter().map(|(key, view)| listed(key, view)).collect();
    Ok(Json(json!({"series": series, "next_cursor": next})))
}

fn listed(key: &SeriesKey, view: &View) -> Value {
    json!({
        "symbol": key.symbol,
        "timeframe": key.timeframe,
        "rows": view.rows(),
        "first": view.times().first(),
        "last": view.times().last(),
        "open": view.open().map(|open| open.time_ms),
        "bytes": view.bytes(),
    })
}

async fn read(
    State(context): State<Arc<Context>>,
    Path(path): Path<String>,
    request: Request,
) -> Result<Response, Reject> {
    let (mut parts, _) = request.into_parts();
    let Authenticated(caller) = Authenticated::from_request_parts(&mut parts, &()).await?;
    require(&caller, "read")?;
    let (key, rest) = target(&path)?;
    match rest {
        "" => candles(&context, key, &mut parts).await,
        "gaps" => missing(&context, &key, &mut parts).await,
        "indicators" => live::answer(&context, key, &mut parts).await,
        "indicators/stream" => stream::answer(&context, &key, &mut parts).await,
        _ => Err(no_call(rest)),
    }
}

async fn candles(context: &Context, key: SeriesKey, parts: &mut Parts) -> Result<Response, Reject> {
    let StrictQuery(query) = StrictQuery::<RowsQuery>::from_request_parts(parts, &()).await?;
    let format = negotiate::of_answer(&parts.headers)?.unwrap_or(Format::Json);
    let view = found(context, &key)?;
    let (rows, next) = query.page(&view).map_err(bad_query)?;
    let lane = if rows.len() <= SMALL_ROWS_MAX { Lane::Small } else { Lane::Large };
    let written = pooled(context, "series", lane, move |scratch| {
        let page = Page { key: &key, view: &view, rows, next };
        let (out, room) = scratch.answers().take(page.bytes_about())?;
        let bytes = page.write(format, out)?;
        Ok(Answer { bytes, format, rows: 0, room: Some(room) })
    });
    Ok(sent(context, written.await?))
}

async fn missing(context: &Context, key: &SeriesKey, parts: &mut Parts) -> Result<Response, Reject> {
    let StrictQuery(query) = StrictQuery::<GapsQuery>::from_request_parts(parts, &()).await?;
    let view = found(context, key)?;
    let (row, limit) = query.page(&view).map_err(bad_query)?;
    let step = Step::of(&key.timeframe);
    let (own, count) = (Arc::clone(&view), view.rows());
    // A pass over all times may take milliseconds.
    let searched = pooled(context, "series", Lane::Large, move |_| Ok(gaps(own.times(), step, row, limit)));
    let (gaps, next) = searched.await?;
    let next = next.map(|row| view.times()[row].to_string());
    let body = json!({
        "symbol": key.symbol, "timeframe": key.timeframe, "rows": count, "gaps": gaps, "next_cursor": next,
    });
    Ok(Json(body).into_response())
}

/// Reads candles from a body; also the room that they take, until they are stored.
async fn taken(
    context: &Context,
    key: &SeriesKey,
    request: Request,
) -> Result<(Candles, OwnedSemaphorePermit), Reject> {
    let (incoming, room) = crate::api::incoming(context, "write", request).await?;
    let lane = if incoming.bytes.len() <= SMALL_BODY_BYTES_MAX { Lane::Small } else { Lane::Large };
    let (key, rows_max) = (key.clone(), context.settings.rows_max);
    let read = pooled(context, "series", lane, move |_| incoming::read(incoming, &key, rows_max)).await?;
    Ok((read, room))
}

async fn replace(
    State(context): State<Arc<Context>>,
    Path(path): Path<String>,
    request: Request,
) -> Result<Response, Reject> {
    let (key, rest) = target(&path)?;
    if !rest.is_empty() {
        return Err(no_call(rest));
    }
    let (Candles { mut candles, last_is_open }, room) = taken(&context, &key, request).await?;
    let open = if last_is_open { candles.pop() } else { None };
    let was_there = context.series.replace(&key, candles, open).await?;
    drop(room);
    let view = found(&context, &key)?;
    let (gaps, next) = gaps(view.times(), Step::of(&key.timeframe), 0, SERIES_TOLD_MAX);
    let body = json!({
        "symbol": key.symbol,
        "timeframe": key.timeframe,
        "rows": view.rows(),
        "first": view.times().first(),
        "last": view.times().last(),
        "open": rows::open(&view),
        "gaps": gaps,
        "more_gaps": next.is_some(),
        "durability": "fsync",
    });
    let status = if was_there { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(body)).into_response())
}

async fn extend(
    State(context): State<Arc<Context>>,
    Path(path): Path<String>,
    request: Request,
) -> Result<Json<Value>, Reject> {
    let (key, rest) = target(&path)?;
    if rest != "candles" {
        return Err(no_call(rest));
    }
    let (Candles { candles, last_is_open }, room) = taken(&context, &key, request).await?;
    let how = if last_is_open { Append::LAST_OPEN } else { Append::CLOSED };
    let applied = context.series.append(&key, candles, how).await?;
    drop(room);
    Ok(Json(told(&key, &applied)))
}

/// What became of candles, with the first of each list.
fn told(key: &SeriesKey, applied: &Applied) -> Value {
    let begins = |times: &[i64]| -> Vec<Value> {
        times.iter().take(SERIES_TOLD_MAX).map(|time| json!({"timestamp": time})).collect()
    };
    json!({
        "symbol": key.symbol,
        "timeframe": key.timeframe,
        "applied": applied.added,
        "repeated": applied.repeated,
        "updated_open": applied.updated_open,
        "conflicts": begins(&applied.conflicts),
        "conflict_count": applied.conflicts.len(),
        "late": begins(&applied.late),
        "late_count": applied.late.len(),
        "gaps": applied.gaps.iter().take(SERIES_TOLD_MAX).collect::<Vec<_>>(),
        "gap_count": applied.gaps.len(),
        "rows": applied.rows,
        "durability": "fsync",
    })
}

async fn delete(
    State(context): State<Arc<Context>>,
    Path(path): Path<String>,
    Authenticated(caller): Authenticated,
) -> Result<Json<Value>, Reject> {
    require(&caller, "write")?;
    let (key, rest) = target(&path)?;
    if !rest.is_empty() {
        return Err(no_call(rest));
    }
    match context.series.delete(&key).await? {
        Some(rows) => {
            context.live.forget(&key);
            Ok(Json(json!({"deleted": true, "rows": rows})))
        }
        None => Err(unknown(&key)),
    }
}
